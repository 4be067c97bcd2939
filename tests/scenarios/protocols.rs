//! Protocols that have no ports, or others than TCP's and UDP's.

use std::net::IpAddr;

use wharf::packet::DropReason;
use wharf::wire::addr::Family;

use crate::world::*;

const SCTP: u8 = 132;
const GRE: u8 = 47;
/// For experiments (RFC 3692).
const UNKNOWN: u8 = 253;

fn packet(
    from: &Host,
    via: wharf::wire::mac::Mac,
    to: IpAddr,
    proto: u8,
    payload: &[u8],
) -> Vec<u8> {
    let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
    let mut frame = Vec::new();
    ip(from, via, from.addr(family), to, 64).write(&mut frame, proto.into(), payload).unwrap();
    frame
}

/// SCTP's common header (RFC 9260 3.1) and a chunk, with its CRC32c.
fn sctp(ports: (u16, u16), chunk: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&ports.0.to_be_bytes());
    bytes.extend_from_slice(&ports.1.to_be_bytes());
    bytes.extend_from_slice(&[1, 2, 3, 4, 0, 0, 0, 0]);
    bytes.extend_from_slice(chunk);
    let sum = crc32c(&bytes).to_le_bytes();
    bytes[8..12].copy_from_slice(&sum);
    bytes
}

/// Bit by bit, as RFC 9260 appendix A defines it.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 }
        })
    })
}

fn l4(family: Family) -> usize {
    if family == Family::V4 { 34 } else { 54 }
}

#[test]
fn sctp_and_unknown_protocols_are_bridged_and_routed_and_their_flows_are_known() {
    for family in FAMILIES {
        for (proto, payload) in [
            (SCTP, sctp((5_000, 9), b"an INIT, perhaps")),
            (GRE, b"a tunnel's packet".to_vec()),
            (UNKNOWN, b"".to_vec()),
        ] {
            let mut world = World::new();
            let open = NetworkOptions { open: true, ..Default::default() };
            let (one, two) = (world.network(open), world.network(open));
            let (a, b, c) = (world.endpoint(one), world.endpoint(one), world.endpoint(two));
            let bridged = packet(&a, b.mac, b.addr(family), proto, &payload);
            let routed = packet(&a, a.router, c.addr(family), proto, &payload);
            for _ in 0..2 {
                assert_eq!(world.pass(a.port, &bridged).bytes, bridged);
                let sent = world.pass(a.port, &routed);
                assert_eq!((sent.port, sent.ttl()), (c.port, 63));
                assert_eq!(sent.bytes[l4(family)..], payload);
            }
            let stats = world.dp.worker_stats();
            assert_eq!((stats.hits, stats.flows), (2, 2), "protocol {proto}");
        }
    }
}

#[test]
fn sctp_is_masqueraded_with_its_checksum_right() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (a, b, remote) = (world.endpoint(net), world.endpoint(net), world.uplink());
        let mut seen = Vec::new();
        for host in [a, b] {
            let payload = sctp((5_000, 9), b"INIT");
            let frame = packet(&host, host.router, remote.addr(family), SCTP, &payload);
            let there = world.pass_resolving(host.port, &frame, &remote);
            let port = u16::from_be_bytes([there.bytes[l4(family)], there.bytes[l4(family) + 1]]);
            assert_eq!(there.bytes[l4(family)..], sctp((port, 9), b"INIT"));
            let answer = packet(&remote, UPLINK_MAC, own(family), SCTP, &sctp((9, port), b"ACK"));
            let back = world.pass(UPLINK_PORT, &answer);
            assert_eq!((back.port, back.dst().0), (host.port, host.addr(family)));
            assert_eq!(back.bytes[l4(family)..], sctp((9, 5_000), b"ACK"));
            seen.push(port);
        }
        assert_ne!(seen[0], seen[1]);
    }
}

#[test]
fn a_protocol_without_ports_is_masqueraded_for_one_container_at_a_time() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (a, b, remote) = (world.endpoint(net), world.endpoint(net), world.uplink());
        let frame = packet(&a, a.router, remote.addr(family), GRE, b"there");
        let there = world.pass_resolving(a.port, &frame, &remote);
        assert_eq!((there.src().0, &there.bytes[l4(family)..]), (own(family), &b"there"[..]));
        let back = packet(&remote, UPLINK_MAC, own(family), GRE, b"back");
        let back = world.pass(UPLINK_PORT, &back);
        assert_eq!((back.port, back.dst().0), (a.port, a.addr(family)));
        let other = packet(&b, b.router, remote.addr(family), GRE, b"me too");
        world.refused(b.port, &other, DropReason::PortsExhausted);
    }
}

#[test]
fn frames_that_are_not_ip_are_bridged_and_never_routed() {
    let mut world = World::new();
    let net = world.network(NetworkOptions::default());
    let (a, b) = (world.endpoint(net), world.endpoint(net));
    let mut frame = vec![0x11; 60];
    frame[..6].copy_from_slice(&b.mac.0);
    frame[6..12].copy_from_slice(&a.mac.0);
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    assert_eq!(world.pass(a.port, &frame).bytes, frame);
    frame[..6].copy_from_slice(&a.router.0);
    world.dropped(a.port, &frame, DropReason::NotForUs);
}
