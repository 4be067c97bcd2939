//! Clients of published ports.

use super::*;

pub(super) fn publication(rig: &Rig) -> Published {
    let families = [addr("172.17.0.2"), addr("fd00::2")];
    let target = Target {
        port: PortId(3),
        domain: DomainId(1),
        link: Link { inside: INSIDE, gateway: GATEWAY },
        addrs: families.map(Some),
        gateways: [Some(addr("172.17.0.1")), Some(addr("fd00::1"))],
        subnets: vec![],
        mtu: 1500,
    };
    Published { listener: ListenerId(9), target: Arc::new(target), port: rig.inside.1 }
}

impl Rig {
    /// A client of a published port was accepted; its SYN has been sent to the container.
    pub(super) fn accepted(v4: bool) -> (Self, SocketId) {
        let mut rig = Self::new(v4);
        rig.flows.publish_tcp(publication(&rig));
        rig.event(SocketEvent::Incoming { listener: ListenerId(9) });
        let calls = rig.calls();
        let [SocketCall::Accept { socket, .. }] = calls[..] else { panic!("{calls:?}") };
        let client = SockAddr { addr: rig.outside.0, port: rig.outside.1 };
        let local = SockAddr { addr: addr("198.51.100.1"), port: 8080 };
        rig.event(SocketEvent::Accepted { socket, client, local, room: ROOM });
        let syn = rig.segment();
        assert_eq!(syn.flags, SYN);
        rig.ack = syn.seq.wrapping_add(1);
        let calls = rig.calls();
        let [SocketCall::Accept { socket: next, .. }] = calls[..] else { panic!("{calls:?}") };
        rig.event(SocketEvent::NotAccepted { socket: next, error: None });
        assert_eq!(rig.calls(), [], "the backlog is empty");
        (rig, socket)
    }
}

#[test]
fn a_published_port_s_client_is_connected_when_the_container_answers() {
    for v4 in [true, false] {
        let (mut rig, socket) = Rig::accepted(v4);
        rig.event(SocketEvent::Readable { socket, hangup: false });
        assert_eq!(rig.calls(), [], "nothing is read before the container has answered");
        let fields = TcpFields { seq: ISN, ack: rig.ack, flags: SYN | ACK, window: 4000 };
        rig.raw(fields, &[2, 4, 5, 180, 1, 3, 3, 9], &[]).unwrap();
        let calls = rig.calls();
        assert!(matches!(calls[..], [SocketCall::Peek { len: 4000, .. }]), "{calls:?}");
        rig.data(socket, b"GET /");
        let seen = rig.segments();
        assert_eq!(seen.iter().map(|s| s.data.len()).sum::<usize>(), 5);
        assert!(seen.iter().all(|s| s.ack == ISN.wrapping_add(1)));
    }
}

#[test]
fn nobody_listening_in_the_container_resets_the_client() {
    let (mut rig, socket) = Rig::accepted(true);
    let fields = TcpFields { seq: 0, ack: rig.ack, flags: RST | ACK, window: 0 };
    rig.raw(fields, &[], &[]).unwrap();
    let second = rig.segment();
    assert_eq!(second.flags, SYN, "it may listen in the other family");
    (rig.inside.0, rig.outside.0) = (addr("fd00::2"), addr("fd00::1"));
    let fields = TcpFields { ack: second.seq.wrapping_add(1), ..fields };
    rig.raw(fields, &[], &[]).unwrap();
    assert_eq!(rig.calls(), [SocketCall::Close { socket, reset: true }]);
    assert_eq!(rig.flows.counts()[0], 0);
    let (mut rig, socket) = Rig::accepted(false);
    for secs in [1, 2, 4, 8, 16] {
        rig.wait(Span::from_secs(secs));
    }
    assert_eq!(rig.calls(), [SocketCall::Close { socket, reset: true }], "nor silence");
}

#[test]
fn a_container_that_listens_in_one_family_serves_clients_of_both() {
    for v4 in [true, false] {
        let (mut rig, socket) = Rig::accepted(v4);
        let refusal = TcpFields { seq: 0, ack: rig.ack, flags: RST | ACK, window: 0 };
        rig.raw(refusal, &[], &[]).unwrap();
        let second = rig.segment();
        let others = if v4 { ["fd00::2", "fd00::1"] } else { ["172.17.0.2", "172.17.0.1"] };
        (rig.inside.0, rig.outside.0) = (addr(others[0]), addr(others[1]));
        let ack = second.seq.wrapping_add(1);
        rig.raw(TcpFields { seq: ISN, ack, flags: SYN | ACK, window: 4000 }, &[], &[]).unwrap();
        assert_eq!(rig.flows.tcp_flows().next().unwrap().state(), TcpState::Open);
        rig.event(SocketEvent::Readable { socket, hangup: false });
        assert!(matches!(rig.calls()[..], [SocketCall::Peek { .. }]));
    }
}

#[test]
fn two_publications_of_one_port_show_one_client_under_two_ports() {
    let (mut rig, _) = Rig::accepted(true);
    rig.flows.publish_tcp(Published { listener: ListenerId(10), ..publication(&rig) });
    rig.event(SocketEvent::Incoming { listener: ListenerId(10) });
    let calls = rig.calls();
    let [SocketCall::Accept { socket, .. }] = calls[..] else { panic!("{calls:?}") };
    let client = SockAddr { addr: rig.outside.0, port: rig.outside.1 };
    rig.event(SocketEvent::Accepted { socket, client, local: client, room: ROOM });
    let keys: std::collections::HashSet<_> =
        rig.flows.tcp_flows().map(|flow| (flow.key().dst, flow.key().dst_port)).collect();
    assert_eq!(rig.flows.tcp_flows().filter(|f| f.state() == TcpState::SynSent).count(), 2);
    assert!(keys.len() >= 2, "{keys:?}");
}

#[test]
fn a_flood_of_syns_meets_its_bound_and_clients_wait_in_the_backlog() {
    let mut rig = Rig::new(true);
    for port in 0..SOCKET_EMBRYONIC_PER_PORT_MAX as u16 {
        rig.inside.1 = port;
        rig.seq = ISN;
        rig.send(SYN, &[]).unwrap();
    }
    rig.inside.1 = 60_000;
    assert_eq!(rig.send(SYN, &[]), Err(DropReason::FlowShare));
    rig.calls();
    rig.flows.publish_tcp(publication(&rig));
    rig.event(SocketEvent::Incoming { listener: ListenerId(9) });
    assert_eq!(rig.calls(), []);
    let socket = rig.socket();
    rig.event(SocketEvent::Failed { socket, error: SocketError::Refused });
    rig.calls();
    rig.wait(Span::from_millis(50));
    assert!(matches!(rig.calls()[..], [SocketCall::Accept { .. }]), "asked again");
}
