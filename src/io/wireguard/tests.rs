//! Two nodes that hand each other their datagrams, and what strangers do with these.

use std::sync::Arc;

use super::*;
use crate::config::Prefix;
use crate::packet::{Offload, PacketBuf};
use crate::wire::mac::Mac;

const PEER: PortId = PortId(7);

/// A node and what it has to say.
struct Node {
    wireguard: WireGuard,
    at: (Addr, u16),
    out: TunnelOutput,
    lost: Vec<Lost>,
}

fn at(n: u8) -> (Addr, u16) {
    (Addr::from_v4_bytes([192, 0, 2, n]), 51820)
}

fn peer(id: u16, key: PublicKey, endpoint: (Addr, u16)) -> Arc<Peer> {
    Arc::new(Peer {
        id: PeerId(id),
        port: PEER,
        name: "peer".into(),
        endpoint,
        subnets: vec![Prefix { addr: "10.244.2.0".parse().unwrap(), len: 24 }],
        mac: Mac([2, 0x57, 0, 0, 0, 2]),
        backend: Backend::Wireguard { key },
        mtu: 1440,
    })
}

impl Node {
    fn new(n: u8, keep_alive: Option<u16>) -> Self {
        let identity = Identity { secret: Secret::random().unwrap(), keep_alive };
        let wireguard = WireGuard::new(identity);
        Self { wireguard, at: at(n), out: TunnelOutput::default(), lost: Vec::new() }
    }

    fn key(&self) -> PublicKey {
        self.wireguard.identity.secret.public()
    }

    /// Two that know each other.
    fn pair() -> [Self; 2] {
        let (mut a, mut b) = (Self::new(1, None), Self::new(2, None));
        a.wireguard.put(&peer(3, b.key(), b.at));
        b.wireguard.put(&peer(4, a.key(), a.at));
        [a, b]
    }

    /// What it wants to send: where to, and the bytes.
    fn said(&mut self) -> Vec<((Addr, u16), Vec<u8>)> {
        let batch = FrameBatch::new();
        let mut said = Vec::new();
        for train in self.out.trains() {
            let bytes: Vec<u8> = self.out.pieces(train, &batch).flatten().copied().collect();
            let datagrams = bytes.chunks(train.segment as usize);
            said.extend(datagrams.map(|bytes| (train.to, bytes.to_vec())));
        }
        self.out.clear();
        said
    }

    fn send(&mut self, packets: &[Vec<u8>]) {
        let mut bare = TunnelOutput::default();
        for packet in packets {
            let link = Link { port: PEER, to: self.at, wrap: Wrap::Bare };
            let frame = [&[0; L3_OFFSET][..], packet].concat();
            bare.wrap_owned(&link, PacketBuf::new(&frame, Offload::NONE)).unwrap();
        }
        self.wireguard.seal(&bare, &FrameBatch::new(), &mut self.out, &mut self.lost);
    }

    fn hear(&mut self, from: (Addr, u16), datagram: &[u8]) -> Result<Option<Vec<u8>>, Lost> {
        let mut room = vec![0; 2048];
        let opened = self.wireguard.open(from, datagram, &mut room, &mut self.out)?;
        Ok(opened.map(|(port, end)| {
            assert_eq!(port, PEER);
            room[L3_OFFSET..end].to_vec()
        }))
    }

    /// Its peer.
    fn peer(&self) -> &Station {
        self.wireguard.stations.values().next().unwrap()
    }
}

/// Carries datagrams both ways until nothing is said any more; the packets that came out at each.
fn exchange(a: &mut Node, b: &mut Node) -> [Vec<Vec<u8>>; 2] {
    let mut got = [Vec::new(), Vec::new()];
    for _ in 0..10 {
        let (from_a, from_b) = (a.said(), b.said());
        if from_a.is_empty() && from_b.is_empty() {
            return got;
        }
        for (to, datagram) in from_a {
            assert_eq!(to.0, b.at.0);
            got[1].extend(b.hear(a.at, &datagram).unwrap());
        }
        for (to, datagram) in from_b {
            assert_eq!(to.0, a.at.0);
            got[0].extend(a.hear(b.at, &datagram).unwrap());
        }
    }
    panic!("they never end");
}

fn packet(v6: bool, len: usize, fill: u8) -> Vec<u8> {
    let builder = if v6 {
        etherparse::PacketBuilder::ipv6([0xfd; 16], [0xfe; 16], 64)
    } else {
        etherparse::PacketBuilder::ipv4([10, 244, 1, 2], [10, 244, 2, 2], 64)
    };
    let mut bytes = Vec::new();
    builder.udp(1000, 2000).write(&mut bytes, &vec![fill; len]).unwrap();
    bytes
}

#[test]
fn packets_wait_for_the_handshake_and_then_pass_in_both_directions_and_families() {
    let [mut a, mut b] = Node::pair();
    let sent: Vec<_> =
        [(false, 0), (true, 1), (false, 1300)].map(|(v6, len)| packet(v6, len, 7)).to_vec();
    a.send(&sent);
    assert_eq!(exchange(&mut a, &mut b), [vec![], sent.clone()]);
    b.send(&sent);
    assert_eq!(exchange(&mut a, &mut b), [sent, vec![]]);
    assert!(a.peer().is_ready() && b.peer().is_ready());
    assert!(a.lost.is_empty() && b.lost.is_empty());
}

#[test]
fn what_one_train_carries_is_one_train_when_it_is_encrypted() {
    let [mut a, mut b] = Node::pair();
    a.send(&[packet(false, 10, 0)]);
    exchange(&mut a, &mut b);
    a.send(&vec![packet(false, 1000, 1); 20]);
    let trains: Vec<_> = a.out.trains().iter().map(|t| (t.count, t.segment)).collect();
    assert_eq!(trains, [(20, 1028 + 32)]);
    assert_eq!(exchange(&mut a, &mut b)[1].len(), 20);
}

#[test]
fn nothing_that_should_be_encrypted_can_be_read_on_the_way() {
    let [mut a, mut b] = Node::pair();
    a.send(&[packet(false, 900, b'x')]);
    for _ in 0..3 {
        for (_, datagram) in a.said() {
            assert!(!datagram.windows(16).any(|bytes| bytes == [b'x'; 16]));
            b.hear(a.at, &datagram).unwrap();
        }
        for (_, datagram) in b.said() {
            a.hear(b.at, &datagram).unwrap();
        }
    }
}

#[test]
fn a_key_that_no_peer_has_and_a_handshake_for_another_key_are_refused_by_name() {
    let [mut a, mut b] = Node::pair();
    let mut stranger = Node::new(3, None);
    stranger.wireguard.put(&peer(1, b.key(), b.at));
    stranger.send(&[packet(false, 1, 1)]);
    let refused = Lost { port: None, reason: DropReason::WireguardKey };
    for (_, datagram) in stranger.said() {
        assert_eq!(b.hear(stranger.at, &datagram), Err(refused));
    }
    a.wireguard.put(&peer(3, stranger.key(), b.at));
    a.send(&[packet(false, 1, 1)]);
    for (_, datagram) in a.said() {
        assert_eq!(b.hear(a.at, &datagram), Err(refused), "it is meant for the stranger");
    }
    assert!(b.said().is_empty(), "a stranger gets no answer");
}

#[test]
fn what_is_replayed_forged_stale_or_no_message_is_refused_by_name_and_moves_nobody() {
    let [mut a, mut b] = Node::pair();
    a.send(&[packet(false, 1, 1)]);
    let begun = a.said().remove(0).1;
    b.hear(a.at, &begun).unwrap();
    let answer = b.said().remove(0).1;
    a.hear(b.at, &answer).unwrap();
    exchange(&mut a, &mut b);
    a.send(&[packet(false, 1, 2)]);
    let data = a.said().remove(0).1;
    let elsewhere = at(66);
    let mut forged = data.clone();
    *forged.last_mut().unwrap() ^= 1;
    let refused = |node: &mut Node, datagram: &[u8], reason| {
        let lost = node.hear(elsewhere, datagram).unwrap_err();
        assert_eq!(lost.reason, reason);
    };
    refused(&mut b, &forged, DropReason::WireguardForged);
    b.hear(a.at, &data).unwrap().unwrap();
    refused(&mut b, &data, DropReason::WireguardReplay);
    refused(&mut b, &begun, DropReason::WireguardStale);
    refused(&mut a, &answer, DropReason::WireguardStale);
    let mut unknown = data.clone();
    unknown[5] ^= 1;
    refused(&mut b, &unknown, DropReason::WireguardStale);
    for bytes in [&[][..], &[4], &[4, 0, 0, 0], &data[..31], &[9; 200], &begun[..147]] {
        refused(&mut b, bytes, DropReason::TunnelHeader);
    }
    assert_eq!((b.peer().endpoint, b.said().len()), (a.at, 0));
}

#[test]
fn a_peer_is_where_it_last_spoke_from() {
    let [mut a, mut b] = Node::pair();
    a.send(&[packet(false, 1, 1)]);
    exchange(&mut a, &mut b);
    a.send(&[packet(false, 1, 2)]);
    let moved = (at(9).0, 40_000);
    for (_, datagram) in a.said() {
        b.hear(moved, &datagram).unwrap();
    }
    b.send(&[packet(false, 1, 3)]);
    assert_eq!(b.said()[0].0, moved);
    b.wireguard.put(&peer(4, a.key(), a.at));
    assert_eq!(b.peer().endpoint, moved, "nothing was changed by hand");
    b.wireguard.put(&peer(4, a.key(), at(5)));
    assert_eq!(b.peer().endpoint, at(5));
}

#[test]
fn only_so_many_packets_wait_for_a_node_that_does_not_answer_and_the_newest_stay() {
    let [mut a, mut b] = Node::pair();
    let packets: Vec<_> = (0..70).map(|n| packet(false, 1, n)).collect();
    a.send(&packets);
    assert_eq!(a.lost.len(), 6);
    let unanswered = Lost { port: Some(PEER), reason: DropReason::WireguardUnanswered };
    assert!(a.lost.iter().all(|lost| *lost == unanswered));
    let said = a.out.trains().iter().map(|train| train.count).sum::<u32>();
    assert_eq!(said, 1, "one handshake is begun for all");
    assert_eq!(exchange(&mut a, &mut b)[1], packets[6..]);
}

#[test]
fn a_node_that_keeps_itself_alive_begins_by_itself_and_others_do_nothing_unasked() {
    let (mut a, mut b) = (Node::new(1, Some(25)), Node::new(2, None));
    a.wireguard.put(&peer(3, b.key(), b.at));
    b.wireguard.put(&peer(4, a.key(), at(77)));
    assert_eq!(b.wireguard.next_deadline(), None);
    assert!(a.wireguard.next_deadline().is_some());
    a.wireguard.tick(Time(1), &mut a.out, &mut a.lost);
    exchange(&mut a, &mut b);
    b.send(&[packet(true, 1, 1)]);
    assert_eq!(exchange(&mut a, &mut b)[0].len(), 1, "it is reached where it spoke from");
}

#[test]
fn strangers_who_begin_too_often_are_asked_to_show_where_they_are() {
    let [mut a, mut b] = Node::pair();
    let (mut busy, mut first) = (0, None);
    for _ in 0..=WIREGUARD_HANDSHAKES_PER_SECOND * 2 {
        let mut stranger = Node::new(3, None);
        stranger.wireguard.put(&peer(1, b.key(), b.at));
        stranger.send(&[packet(false, 1, 1)]);
        let (_, datagram) = stranger.said().remove(0);
        let lost = b.hear(stranger.at, &datagram).unwrap_err();
        busy += u64::from(lost.reason == DropReason::WireguardBusy);
        first.get_or_insert(datagram);
    }
    assert_eq!(busy, 1, "until there are too many they are merely unknown");
    // One who is a peer is told how to show it, and is served then.
    a.send(&[packet(false, 1, 1)]);
    let (_, begun) = a.said().remove(0);
    assert_eq!(b.hear(a.at, &begun).unwrap_err().reason, DropReason::WireguardBusy);
    let cookies = b.said();
    let (to, cookie) = cookies.last().unwrap();
    assert_eq!((*to, cookie.len()), (a.at, 64));
    assert_eq!(a.hear(b.at, cookie), Ok(None));
    let station = a.wireguard.stations.get_mut(&PeerId(3)).unwrap();
    let mut room = [0; HANDSHAKE_MAX];
    let TunnResult::WriteToNetwork(again) =
        station.tunn.format_handshake_initiation(&mut room, true)
    else {
        panic!("no handshake")
    };
    assert_eq!(b.hear(a.at, again), Ok(None));
    assert_eq!(b.said()[0].1.len(), 92, "the answer to a handshake");
}

#[test]
fn a_peer_that_goes_or_has_another_key_is_a_stranger_with_the_old_one() {
    let [mut a, mut b] = Node::pair();
    a.send(&[packet(false, 1, 1)]);
    exchange(&mut a, &mut b);
    a.send(&[packet(false, 1, 2)]);
    let (_, data) = a.said().remove(0);
    let other = Node::new(3, None).key();
    b.wireguard.put(&peer(4, other, a.at));
    assert_eq!(b.hear(a.at, &data).unwrap_err().reason, DropReason::WireguardStale);
    b.wireguard.remove(PeerId(4));
    let nobody = Lost { port: None, reason: DropReason::WireguardStale };
    assert_eq!(b.hear(a.at, &data), Err(nobody));
    b.send(&[packet(false, 1, 3)]);
    assert_eq!(b.lost, [Lost { port: Some(PEER), reason: DropReason::PortGone }]);
}
