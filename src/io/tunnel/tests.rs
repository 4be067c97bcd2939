//! Trains over the loopback.

use std::time::Duration;

use super::*;
use crate::base::ids::PortId;
use crate::packet::{FrameBatch, Offload};
use crate::stage::tunnel::{Link, TunnelOutput, Wrap};

fn received(inbox: &mut TunnelInbox, sockets: &TunnelSockets, v4: bool) -> Vec<Vec<u8>> {
    let side = sockets.sides.iter().position(|side| side.v4 == v4).unwrap();
    for _ in 0..500 {
        inbox.receive(sockets, side);
        if !inbox.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let of = |at| {
        let (_, bytes, segment) = inbox.get(at).unwrap();
        bytes.chunks(segment).map(<[u8]>::to_vec).collect::<Vec<_>>()
    };
    (0..inbox.len()).flat_map(of).collect()
}

#[test]
fn datagrams_arrive_with_their_borders_in_both_families() {
    let (one, two) = (
        TunnelSockets::bind(&[], 0, false).unwrap(),
        TunnelSockets::bind(&["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()], 0, true)
            .unwrap(),
    );
    for (to, side) in [(Addr::LOOPBACK_V4, 0), (Addr::LOOPBACK_V6, 1)] {
        let fd = two.receiving().nth(side).unwrap();
        let port = calls::local_name(fd).unwrap().get().unwrap().1;
        let link = Link { port: PortId(3), to: (to, port), wrap: Wrap::Vxlan { vni: 1 } };
        let (mut batch, mut out) = (FrameBatch::new(), TunnelOutput::default());
        for (at, len) in [60, 60, 60, 40].into_iter().enumerate() {
            assert!(batch.push(&vec![at as u8; len], Offload::NONE));
            out.wrap(&link, at, &mut batch).unwrap();
        }
        let mut outbox = TunnelOutbox::default();
        assert_eq!(outbox.send(&one, &out, &batch), []);
        let got = received(&mut TunnelInbox::new(), &two, to.is_v4());
        assert_eq!(
            got.iter().map(|d| (d[8], d.len())).collect::<Vec<_>>(),
            [(0, 68), (1, 68), (2, 68), (3, 48)]
        );
    }
}

#[test]
fn a_datagram_that_does_not_fit_the_way_says_how_wide_it_is() {
    let sockets = TunnelSockets::bind(&[], 0, true).unwrap();
    let link = Link { port: PortId(3), to: (Addr::LOOPBACK_V4, 9), wrap: Wrap::Vxlan { vni: 1 } };
    let (mut batch, mut out) = (FrameBatch::new(), TunnelOutput::default());
    // The loopback's MTU is 65,536, beyond what a datagram can be: that is refused, too.
    assert!(batch.push(&[0; 65_530], Offload::NONE));
    out.wrap(&link, 0, &mut batch).unwrap();
    let problems = TunnelOutbox::default().send(&sockets, &out, &batch).to_vec();
    assert!(problems.iter().any(|p| matches!(p, Problem::Narrow(PortId(3), _))), "{problems:?}");
    assert!(problems.contains(&Problem::Lost(PortId(3), crate::packet::DropReason::TooBig, 1)));
}

#[test]
fn a_port_that_is_taken_is_said_to_be() {
    let first = TunnelSockets::bind(&[], 0, true).unwrap();
    let error = TunnelSockets::bind(&[], first.port(), true).unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
}
