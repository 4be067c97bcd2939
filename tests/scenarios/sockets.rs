//! What the socket uplink asks of the host, and what it must never ask.

use std::net::IpAddr;
use std::sync::Arc;

use wharf::base::ids::DomainId;
use wharf::base::limits::BATCH_FRAMES_MAX;
use wharf::config::{Delta, Port, PortKind, Uplink, UplinkKind};
use wharf::datapath::Output;
use wharf::packet::{Csum, DropReason, FrameBatch, Gso, Offload, PacketBuf};
use wharf::stage::sockets::{
    Delivery, FrameSlot, Room, SockAddr, SocketCall, SocketError, SocketEvent, SocketId, Via,
};
use wharf::wire::addr::Family;

use crate::packets::*;
use crate::world::*;

/// A datagram larger than any MTU in use.
const LARGE: [u8; 8_192] = [0x5a; 8_192];

/// A world whose way out is the host's sockets, and a container.
pub(crate) fn world() -> (World, Host) {
    let mut world = World::new();
    world.apply(Delta::Uplink(Arc::new(Uplink {
        id: UPLINK,
        name: "default".into(),
        kind: UplinkKind::Sockets,
        port: UPLINK_PORT,
        addrs: vec![],
        routers: vec![],
        nat_ports: 1024..=65535,
        shared: false,
        nat: Default::default(),
        mtu: 1500,
    })));
    world.apply(Delta::Port(Arc::new(Port {
        id: UPLINK_PORT,
        name: "default".into(),
        kind: PortKind::SocketUplink,
        domain: DomainId::from(UPLINK),
        mac: UPLINK_MAC,
        addrs: vec![],
        guard: false,
        isolated: false,
        mtu: 1500,
        uso: true,
    })));
    let net = world.network(NetworkOptions::default());
    let container = world.endpoint(net);
    (world, container)
}

pub(crate) fn outside(family: Family) -> IpAddr {
    match family {
        Family::V4 => "198.51.100.7".parse().unwrap(),
        Family::V6 => "2001:db8:ffff::7".parse().unwrap(),
    }
}

/// Hands a batch to the data path: what it asks of sockets, and the payload of each datagram sent.
fn asked(
    world: &mut World,
    from: &Host,
    frames: &[Vec<u8>],
) -> (Vec<SocketCall>, Vec<Vec<u8>>, Output) {
    let mut batch = FrameBatch::new();
    for frame in frames {
        assert!(batch.push(frame, Offload::NONE));
    }
    let mut out = Output::default();
    world.dp.frames(world.now, from.port, &mut batch, &mut out);
    world.dp.flush_sockets(world.now, &mut out);
    let calls = std::mem::take(&mut out.sockets.calls);
    let sent = calls.iter().filter_map(|call| {
        let SocketCall::SendTo { parts, .. } = *call else { return None };
        let pieces = out.sockets.chain(parts).map(|part| {
            let frame = batch.bytes(usize::from(part.slot.0));
            frame[part.start as usize..(part.start + part.len) as usize].to_vec()
        });
        Some(pieces.collect::<Vec<_>>().concat())
    });
    let sent = sent.collect();
    (calls, sent, out)
}

fn socket_of(calls: &[SocketCall]) -> SocketId {
    let opened = calls.iter().find_map(|call| match call {
        SocketCall::SendTo { via: Via::Socket(socket), .. } => Some(*socket),
        _ => None,
    });
    opened.unwrap_or_else(|| panic!("none is used: {calls:?}"))
}

/// The host's loopback under all its names, groups, links, broadcast, and the switch's own networks.
const FORBIDDEN: [&str; 22] = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "0.1.2.3",
    "224.0.0.251",
    "239.255.255.250",
    "255.255.255.255",
    "169.254.169.254",
    "10.20.0.1",
    "10.20.0.200",
    "10.21.0.1",
    "10.21.0.2",
    "::1",
    "::",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:198.51.100.7",
    "ff02::fb",
    "ff0e::1",
    "fe80::1",
    "fd00:20::dead",
    "fd00:20:1::2",
];

#[test]
fn no_socket_is_ever_asked_to_reach_a_forbidden_destination() {
    for to in FORBIDDEN {
        let (mut world, container) = world();
        world.network(NetworkOptions::default());
        let to: IpAddr = to.parse().unwrap();
        let router = container.router;
        let frames = [
            udp(&container, router, 5_000, (to, 53), b"x"),
            udp(&container, router, 5_000, (to, 8_000), b"x"),
            tcp(&container, router, 5_000, (to, 80), "S", (1, 0), b""),
            ping(&container, router, to, 9, b"x"),
        ];
        for frame in frames {
            let drops = |world: &World| -> u64 {
                DropReason::all().map(|reason| world.dp.drops(container.port, reason)).sum()
            };
            let before = drops(&world);
            let (calls, _, out) = asked(&mut world, &container, &[frame]);
            assert!(calls.is_empty(), "{to}: {calls:?}");
            // The gateway answers pings and questions for names itself.
            let answered = !out.frames.is_empty();
            assert!(answered || drops(&world) == before + 1, "{to} is dropped by name");
        }
        // Nor are pieces put together for such a place.
        let whole = udp(&container, router, 5_000, (to, 8_000), &LARGE);
        let (calls, ..) = asked(&mut world, &container, &fragments(&whole, 7, 1_400));
        assert!(calls.is_empty(), "{to}: {calls:?}");
    }
}

#[test]
fn a_datagram_that_comes_in_fragments_is_sent_as_one_in_whatever_order_they_come() {
    for family in FAMILIES {
        for turned in 0..6 {
            let (mut world, container) = world();
            let whole = udp(&container, container.router, 5_000, (outside(family), 53), &LARGE);
            let mut pieces = fragments(&whole, 7, 1_400);
            pieces.rotate_left(turned);
            let (calls, sent, _) = asked(&mut world, &container, &pieces);
            assert!(
                matches!(calls[..], [SocketCall::Open { .. }, SocketCall::SendTo { to, .. }]
                    if to == SockAddr { addr: outside(family).into(), port: 53 }),
                "{calls:?}"
            );
            assert_eq!(sent, [LARGE.to_vec()]);
        }
    }
}

#[test]
fn a_batch_full_of_fragments_still_sends_what_they_make() {
    for family in FAMILIES {
        let (mut world, container) = world();
        let datagram = |id: u16| {
            let to = (outside(family), 53);
            let payload = vec![id as u8; 8_192];
            fragments(&udp(&container, container.router, 5_000, to, &payload), id, 1_400)
        };
        let all: Vec<_> = (0..20).flat_map(datagram).collect();
        let mut sent = Vec::new();
        for batch in all.chunks(BATCH_FRAMES_MAX) {
            sent.extend(asked(&mut world, &container, batch).1);
        }
        let sent = sent.concat();
        let expected: Vec<u8> = (0..20).flat_map(|id| vec![id; 8_192]).collect();
        assert!(sent == expected, "{} bytes of {}", sent.len(), expected.len());
    }
}

#[test]
fn a_large_echo_request_is_put_together_too() {
    for family in FAMILIES {
        let (mut world, container) = world();
        let whole = ping(&container, container.router, outside(family), 9, &[7; 4_000]);
        let (calls, sent, _) = asked(&mut world, &container, &fragments(&whole, 7, 1_400));
        assert!(matches!(calls[..], [SocketCall::Open { .. }, SocketCall::SendTo { .. }]));
        assert!(sent[0].len() == 4_008 && sent[0].ends_with(&[7; 4_000]));
    }
}

#[test]
fn overlapping_fragments_never_reach_a_socket() {
    for family in FAMILIES {
        let (mut world, container) = world();
        let whole = udp(&container, container.router, 5_000, (outside(family), 53), &LARGE);
        let mut pieces = fragments(&whole, 7, 1_400);
        pieces.insert(1, fragment(&whole, 7, 1_392, true, &[1; 80]));
        let (calls, ..) = asked(&mut world, &container, &pieces);
        assert!(calls.is_empty(), "{calls:?}");
        assert!(world.dp.drops(container.port, DropReason::FragmentOverlap) > 0);
        assert_eq!(world.dp.drops(container.port, DropReason::FragmentLimit), 0);
    }
}

/// What a datagram, or a train, from the outside becomes on its way to the container.
fn delivered(
    world: &mut World,
    container: &Host,
    family: Family,
    payload: &[u8],
    segment: Option<u16>,
) -> Vec<Sent> {
    let ask = udp(container, container.router, 5_000, (outside(family), 53), b"ask");
    let (calls, ..) = asked(world, container, &[ask]);
    let socket = socket_of(&calls);
    let headers = if family == Family::V4 { 42 } else { 62 };
    let mut received = FrameBatch::new();
    assert!(received.push(&[&vec![0; headers], payload].concat(), Offload::NONE));
    let mut out = Output::default();
    let event = SocketEvent::Datagram {
        via: Via::Socket(socket),
        slot: FrameSlot(0),
        frame: received.frame(0),
        from: SockAddr { addr: outside(family).into(), port: 53 },
        to: None,
        segment,
    };
    world.dp.socket_event(world.now, event, &mut out);
    let [Delivery::Slot { port, slot: FrameSlot(0) }] = out.sockets.deliveries[..] else {
        panic!("{:?}", out.sockets.deliveries)
    };
    assert_eq!(port, container.port);
    let pieces = world.dp.cut_delivery(port, received.frame(0));
    let whole = || PacketBuf::new(received.bytes(0), received.offload(0));
    let pieces = if pieces.is_empty() { vec![whole()] } else { pieces };
    let sent =
        |piece: PacketBuf| Sent { port, bytes: piece.bytes().to_vec(), offload: piece.offload() };
    pieces.into_iter().map(sent).collect()
}

#[test]
fn a_datagram_larger_than_the_container_s_mtu_arrives_in_fragments() {
    for family in FAMILIES {
        let (mut world, container) = world();
        let pieces = delivered(&mut world, &container, family, &LARGE, None);
        assert_eq!(pieces.len(), 6);
        assert!(pieces.iter().all(|piece| piece.bytes.len() <= 14 + 1500));
        let whole = reassembled(&pieces);
        whole.assert_checksums();
        assert_eq!(
            (whole.src(), whole.dst()),
            ((outside(family), 53), (container.addr(family), 5_000))
        );
        assert!(whole.bytes.ends_with(&LARGE));
        let again = delivered(&mut world, &container, family, &LARGE, None);
        assert_ne!(again[0].bytes, pieces[0].bytes, "an identification of its own");
    }
}

#[test]
fn a_train_arrives_whole_where_the_device_takes_it_and_one_by_one_elsewhere() {
    for family in FAMILIES {
        let (mut world, container) = world();
        let train: Vec<u8> = (0..3_000).map(|n| (n / 1_000) as u8).collect();
        let whole = delivered(&mut world, &container, family, &train, Some(1_000));
        assert_eq!((whole.len(), whole[0].offload.gso), (1, Gso::UdpL4));
        assert!(matches!(whole[0].offload.csum, Csum::Partial { .. }));

        world.change_port(container.port, |port| port.uso = false);
        let pieces = delivered(&mut world, &container, family, &train, Some(1_000));
        assert_eq!(pieces.len(), 3);
        for (n, piece) in pieces.iter().enumerate() {
            assert_eq!(piece.offload.gso, Gso::None);
            piece.assert_checksums();
            assert!(piece.bytes.ends_with(&[n as u8; 1_000]));
        }

        // A train of datagrams that are each too large.
        let pieces = delivered(&mut world, &container, family, &[1; 6_000], Some(3_000));
        assert_eq!(pieces.len(), 6);
        reassembled(&pieces[..3]).assert_checksums();
        reassembled(&pieces[3..]).assert_checksums();
    }
}

#[test]
fn a_family_that_the_host_lacks_is_unreachable_at_once() {
    for (family, expected) in FAMILIES.into_iter().zip([(3, 0), (1, 0)]) {
        let (mut world, container) = world();
        let to = (outside(family), 443);
        let (calls, ..) =
            asked(&mut world, &container, &[udp(&container, container.router, 5_000, to, b"x")]);
        let (socket, mut out) = (socket_of(&calls), Output::default());
        // What sending says where there is no route, or no address to send from.
        let event = SocketEvent::DatagramError {
            via: Via::Socket(socket),
            error: SocketError::NetUnreachable,
            offender: "0.0.0.0".parse().unwrap(),
            to: SockAddr { addr: to.0.into(), port: to.1 },
            echo_seq: 0,
        };
        world.dp.socket_event(world.now, event, &mut out);
        let [Delivery::Made { port, frame }] = out.sockets.deliveries[..] else {
            panic!("{:?}", out.sockets.deliveries)
        };
        let sent = Sent { port, bytes: frame.bytes().to_vec(), offload: frame.offload };
        assert_eq!((port, sent.icmp()), (container.port, expected));
        sent.assert_checksums();
    }
}

/// Bytes come from the outside: the super-frame that they become.
fn super_frame(world: &mut World, family: Family, socket: SocketId) -> FrameBatch {
    let headers = if family == Family::V4 { 54 } else { 74 };
    let mut received = FrameBatch::new();
    assert!(received.push(&vec![0; headers + 5_000], Offload::NONE));
    let (slot, frame, mut out) = (FrameSlot(0), received.frame(0), Output::default());
    let event = SocketEvent::Data { socket, slot, frame, more: false };
    world.dp.socket_event(world.now, event, &mut out);
    assert!(matches!(out.sockets.deliveries[..], [Delivery::Slot { .. }]));
    received
}

/// A container may itself be a router, with less room behind it than before it.
#[test]
fn a_router_behind_a_container_makes_its_connection_s_segments_smaller() {
    for (family, sizes) in FAMILIES.into_iter().zip([[1460, 1360], [1440, 1340]]) {
        let (mut world, container) = world();
        let (to, mut syn) = ((outside(family), 80), Vec::new());
        let from = || ip(&container, container.router, container.addr(family), to.0, 64);
        let builder = from().tcp(5_000, 80, 100, 60_000).syn();
        builder.options_raw(&[2, 4, 5, 0xb4]).unwrap().write(&mut syn, &[]).unwrap();
        let (calls, ..) = asked(&mut world, &container, &[syn]);
        let [SocketCall::Connect { socket, .. }] = calls[..] else { panic!("{calls:?}") };
        let (room, mut out) = (Room { free: 80_000, total: 80_000 }, Output::default());
        world.dp.socket_event(world.now, SocketEvent::Connected { socket, room }, &mut out);
        let Delivery::Made { frame, .. } = &out.sockets.deliveries[0] else { panic!("no SYN-ACK") };
        let at = if family == Family::V4 { 34 } else { 54 };
        let seq = u32::from_be_bytes(frame.bytes()[at + 4..at + 8].try_into().unwrap());
        let numbers = (101, seq.wrapping_add(1));
        let ack = tcp(&container, container.router, 5_000, to, "A", numbers, b"");
        asked(&mut world, &container, &[ack]);
        let mut out = Output::default();
        let readable = SocketEvent::Readable { socket, hangup: false };
        world.dp.socket_event(world.now, readable, &mut out);
        world.dp.flush_sockets(world.now, &mut out);
        let before = super_frame(&mut world, family, socket);
        assert_eq!(before.offload(0).gso_size, sizes[0]);

        let (quoted, mut error, mtu) = (&before.bytes(0)[14..562], Vec::new(), [0, 0, 5, 0x78]);
        match family {
            Family::V4 => from().icmpv4_raw(3, 4, mtu).write(&mut error, quoted).unwrap(),
            Family::V6 => from().icmpv6_raw(2, 0, mtu).write(&mut error, quoted).unwrap(),
        }
        let (calls, ..) = asked(&mut world, &container, &[error]);
        assert!(calls.contains(&SocketCall::SetPeekOffset { socket, offset: 0 }), "{calls:?}");
        let after = super_frame(&mut world, family, socket);
        assert_eq!(after.offload(0).gso_size, sizes[1]);
    }
}
