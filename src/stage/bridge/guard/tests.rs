use etherparse::PacketBuilder;
use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::*;

const MAC: Mac = Mac([0x02, 0x42, 172, 17, 0, 2]);
const OTHER: Mac = Mac([0x02, 0x42, 172, 17, 0, 3]);

fn addr(text: &str) -> Addr {
    text.parse().unwrap()
}

fn guard() -> Guard {
    Guard { mac: MAC, addrs: vec![addr("172.17.0.2"), addr("fd00::2")] }
}

fn check(frame: &[u8]) -> Result<(), DropReason> {
    guard().check(&Parsed::new(frame).unwrap(), frame)
}

fn udp(mac: Mac, src: &str, dst: &str, ports: (u16, u16)) -> Vec<u8> {
    let link = PacketBuilder::ethernet2(mac.0, OTHER.0);
    let (src, dst) = (addr(src), addr(dst));
    let ip = match (src.v4(), dst.v4()) {
        (Some(src), Some(dst)) => link.ipv4(src.octets(), dst.octets(), 64),
        _ => link.ipv6(src.bytes(), dst.bytes(), 64),
    };
    let mut frame = Vec::new();
    ip.udp(ports.0, ports.1).write(&mut frame, b"data").unwrap();
    frame
}

fn arp(oper: u16, sha: Mac, spa: &str) -> Vec<u8> {
    let mut frame = [&Mac::BROADCAST.0[..], &MAC.0, &[8, 6]].concat();
    let arp = Arp::new(oper, (sha, spa.parse().unwrap()), (OTHER, "172.17.0.3".parse().unwrap()));
    frame.extend_from_slice(arp.as_bytes());
    frame
}

/// An ICMPv6 message after its four first bytes.
fn icmpv6(src: &str, kind: u8, body: &[u8]) -> Vec<u8> {
    let link = PacketBuilder::ethernet2(MAC.0, [0x33, 0x33, 0, 0, 0, 1]);
    let ip = link.ipv6(addr(src).bytes(), addr("ff02::1").bytes(), 255);
    let (first, rest) = body.split_at(4);
    let mut frame = Vec::new();
    ip.icmpv6_raw(kind, 0, first.try_into().unwrap()).write(&mut frame, rest).unwrap();
    frame
}

fn neighbour(src: &str, kind: u8, target: &str, option: Option<(u8, Mac)>) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend_from_slice(&addr(target).bytes());
    if let Some((kind, mac)) = option {
        body.extend_from_slice(&[kind, 1]);
        body.extend_from_slice(&mac.0);
    }
    icmpv6(src, kind, &body)
}

const NS: u8 = icmp::v6::NEIGHBOUR_SOLICITATION;
const NA: u8 = icmp::v6::NEIGHBOUR_ADVERTISEMENT;
const SLLA: u8 = ndp::SOURCE_LINK_LAYER;
const TLLA: u8 = ndp::TARGET_LINK_LAYER;

#[test]
fn a_port_may_send_under_its_own_addresses() {
    assert_eq!(check(&udp(MAC, "172.17.0.2", "10.0.0.1", (1, 2))), Ok(()));
    assert_eq!(check(&udp(MAC, "fd00::2", "2001:db8::1", (1, 2))), Ok(()));
    assert_eq!(check(&udp(MAC, "fe80::42:acff:fe11:2", "fe80::1", (1, 2))), Ok(()), "EUI-64");
}

#[test]
fn a_foreign_source_mac_is_dropped() {
    let frame = udp(OTHER, "172.17.0.2", "10.0.0.1", (1, 2));
    assert_eq!(check(&frame), Err(DropReason::GuardMac));
}

#[test]
fn a_foreign_source_address_is_dropped_in_both_families() {
    for (src, dst) in [
        ("172.17.0.3", "10.0.0.1"),
        ("127.0.0.1", "10.0.0.1"),
        ("0.0.0.0", "10.0.0.1"),
        ("fd00::3", "fd00::1"),
        ("fe80::1", "fd00::1"),
        ("::", "fd00::1"),
    ] {
        let frame = udp(MAC, src, dst, (1, 2));
        assert_eq!(check(&frame), Err(DropReason::GuardAddress), "{src}");
    }
}

#[test]
fn the_own_ipv4_address_is_no_ipv6_address() {
    let mut frame = udp(MAC, "fd00::2", "fd00::1", (1, 2));
    frame[22..38].copy_from_slice(&addr("172.17.0.2").bytes());
    assert_eq!(Parsed::new(&frame), Err(DropReason::MartianSource), "it does not even come here");
}

#[test]
fn a_client_may_ask_for_an_address_but_nobody_may_give_one() {
    assert_eq!(check(&udp(MAC, "0.0.0.0", "255.255.255.255", (68, 67))), Ok(()));
    for (src, dst, ports) in
        [("172.17.0.2", "255.255.255.255", (67, 68)), ("fd00::2", "fe80::9", (547, 546))]
    {
        assert_eq!(check(&udp(MAC, src, dst, ports)), Err(DropReason::GuardRouter), "{src}");
    }
}

#[test]
fn arp_may_speak_for_the_own_address_only() {
    for oper in [arp::REQUEST, arp::REPLY] {
        assert_eq!(check(&arp(oper, MAC, "172.17.0.2")), Ok(()));
        assert_eq!(check(&arp(oper, MAC, "172.17.0.1")), Err(DropReason::GuardNeighbour));
        assert_eq!(check(&arp(oper, OTHER, "172.17.0.2")), Err(DropReason::GuardNeighbour));
    }
    assert_eq!(check(&arp(arp::REQUEST, MAC, "0.0.0.0")), Ok(()), "a probe");
    assert_eq!(check(&arp(arp::REPLY, MAC, "0.0.0.0")), Err(DropReason::GuardNeighbour));
    assert_eq!(check(&arp(3, MAC, "172.17.0.2")), Err(DropReason::Malformed));
    let mut cut = arp(arp::REQUEST, MAC, "172.17.0.2");
    cut.truncate(40);
    assert_eq!(check(&cut), Err(DropReason::Truncated));
}

#[test]
fn a_solicitation_may_name_the_own_mac_only() {
    assert_eq!(check(&neighbour("fd00::2", NS, "fd00::1", Some((SLLA, MAC)))), Ok(()));
    assert_eq!(check(&neighbour("fd00::2", NS, "fd00::1", None)), Ok(()));
    let foreign = neighbour("fd00::2", NS, "fd00::1", Some((SLLA, OTHER)));
    assert_eq!(check(&foreign), Err(DropReason::GuardNeighbour));
    let spoofed = neighbour("fd00::3", NS, "fd00::1", Some((SLLA, MAC)));
    assert_eq!(check(&spoofed), Err(DropReason::GuardAddress));
}

#[test]
fn duplicate_address_detection_is_for_the_own_address_only() {
    assert_eq!(check(&neighbour("::", NS, "fd00::2", None)), Ok(()));
    assert_eq!(check(&neighbour("::", NS, "fd00::1", None)), Err(DropReason::GuardNeighbour));
    assert_eq!(check(&icmpv6("::", 143, &[0; 8])), Ok(()), "listener reports go with it");
    let echo = icmpv6("::", icmp::v6::ECHO_REQUEST, &[0; 8]);
    assert_eq!(check(&echo), Err(DropReason::GuardAddress));
}

#[test]
fn an_advertisement_may_name_the_own_address_and_mac_only() {
    assert_eq!(check(&neighbour("fd00::2", NA, "fd00::2", Some((TLLA, MAC)))), Ok(()));
    for (target, mac) in [("fd00::1", MAC), ("fd00::2", OTHER)] {
        let frame = neighbour("fd00::2", NA, target, Some((TLLA, mac)));
        assert_eq!(check(&frame), Err(DropReason::GuardNeighbour), "{target} {mac}");
    }
}

#[test]
fn a_second_option_cannot_hide_behind_the_first() {
    let mut body = vec![0; 4];
    body.extend_from_slice(&addr("fd00::2").bytes());
    for mac in [MAC, OTHER] {
        body.extend_from_slice(&[TLLA, 1]);
        body.extend_from_slice(&mac.0);
    }
    assert_eq!(check(&icmpv6("fd00::2", NA, &body)), Err(DropReason::GuardNeighbour));
    body.truncate(28);
    body.extend_from_slice(&[TLLA, 0, 0, 0, 0, 0, 0, 0]);
    let endless = icmpv6("fd00::2", NA, &body);
    assert_eq!(check(&endless), Err(DropReason::GuardNeighbour), "an option of no length");
}

#[test]
fn an_endpoint_is_no_router() {
    for kind in [icmp::v6::ROUTER_ADVERTISEMENT, icmp::v6::REDIRECT] {
        let frame = icmpv6("fe80::42:acff:fe11:2", kind, &[0; 40]);
        assert_eq!(check(&frame), Err(DropReason::GuardRouter), "{kind}");
    }
    let solicitation = icmpv6("::", icmp::v6::ROUTER_SOLICITATION, &[0; 4]);
    assert_eq!(check(&solicitation), Ok(()));
    for kind in [icmp::v4::REDIRECT, V4_ROUTER_ADVERTISEMENT] {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(MAC.0, OTHER.0)
            .ipv4([172, 17, 0, 2], [172, 17, 0, 3], 64)
            .icmpv4_raw(kind, 0, [0; 4])
            .write(&mut frame, &[0; 28])
            .unwrap();
        assert_eq!(check(&frame), Err(DropReason::GuardRouter), "{kind}");
    }
}

#[test]
fn a_later_fragment_is_judged_by_its_source() {
    let mut frame = udp(MAC, "172.17.0.2", "10.0.0.1", (67, 68));
    frame[21] = 2;
    assert_eq!(check(&frame), Ok(()), "offset 16: what looks like ports is payload");
    frame[29] = 9;
    assert_eq!(check(&frame), Err(DropReason::GuardAddress));
}

proptest! {
    #[test]
    fn no_frame_makes_it_panic(mut frame in prop::collection::vec(any::<u8>(), 14..120), kind in 0_usize..4) {
        let types = [[8, 0], [8, 6], [0x86, 0xdd], [0x12, 0x34]];
        frame[12..14].copy_from_slice(&types[kind]);
        frame[6..12].copy_from_slice(&MAC.0);
        if let Ok(parsed) = Parsed::new(&frame) {
            let _ = guard().check(&parsed, &frame);
        }
    }
}
