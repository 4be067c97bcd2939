use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{Icmpv6Packet, Icmpv6Repr, NdiscNeighborFlags, NdiscRepr, RawHardwareAddress};

use super::*;
use crate::base::time::Span;

const A: Mac = Mac([0x02, 0x42, 172, 17, 0, 2]);
const GATEWAY: Mac = Mac([0x02, 0x42, 172, 17, 0, 1]);

fn addr(text: &str) -> Addr {
    text.parse().unwrap()
}

/// As Linux sends it, checksum finished: who has fd00::1, from fd00::2.
#[rustfmt::skip]
const SOLICITATION: [u8; 86] = [
    0x33, 0x33, 0xff, 0x00, 0x00, 0x01, 0x02, 0x42, 0xac, 0x11, 0x00, 0x02, 0x86, 0xdd,
    0x60, 0x00, 0x00, 0x00, 0x00, 0x20, 0x3a, 0xff,
    0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2,
    0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 1,
    0x87, 0x00, 0xd1, 0x43, 0, 0, 0, 0,
    0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
    0x01, 0x01, 0x02, 0x42, 0xac, 0x11, 0x00, 0x02,
];

/// What smoltcp, an independent reader, makes of a frame; it checks the checksum.
fn read(frame: &[u8]) -> NdiscRepr<'_> {
    let parsed = Parsed::new(frame).unwrap();
    assert_eq!(parsed.ttl, 255);
    let packet = Icmpv6Packet::new_checked(parsed.l4_bytes(frame)).unwrap();
    let (src, dst) = (parsed.src.v6().unwrap(), parsed.dst.v6().unwrap());
    match Icmpv6Repr::parse(&src, &dst, &packet, &ChecksumCapabilities::default()).unwrap() {
        Icmpv6Repr::Ndisc(repr) => repr,
        other => panic!("{other:?}"),
    }
}

fn asked(frame: &[u8]) -> Result<Option<Question>, DropReason> {
    question(frame, &Parsed::new(frame).unwrap())
}

fn answered(frame: &[u8]) -> PacketBuf {
    let mut buf = PacketBuf::new(frame, Offload::NONE);
    answer(&mut buf.frame(), GATEWAY, true);
    buf
}

/// A frame whose checksum is made right after `change`.
fn with_sum(mut frame: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    change(&mut frame);
    frame[56..58].fill(0);
    let parsed = Parsed::new(&frame).unwrap();
    let message = parsed.l4_bytes(&frame);
    let len = message.len() as u32;
    let pseudo = checksum::pseudo_header(parsed.src, parsed.dst, ipv6::ICMPV6, len);
    let sum = !checksum::add(pseudo, checksum::sum(message));
    frame[56..58].copy_from_slice(&sum.to_be_bytes());
    frame
}

#[test]
fn our_own_solicitation_is_what_linux_sends() {
    let ours = solicitation((A, addr("fd00::2")), addr("fd00::1"), None);
    assert_eq!(ours.bytes(), SOLICITATION);
    let check = solicitation((A, addr("fd00::2")), addr("fd00::1"), Some(GATEWAY));
    assert_eq!(Parsed::new(check.bytes()).unwrap().dst, addr("fd00::1"));
    assert_eq!(check.bytes()[..6], GATEWAY.0);
}

#[test]
fn a_solicitation_becomes_the_advertisement() {
    let question = asked(&SOLICITATION).unwrap().unwrap();
    assert_eq!(question, Question { target: addr("fd00::1"), sender: (A, addr("fd00::2")) });
    let answer = answered(&SOLICITATION);
    let parsed = Parsed::new(answer.bytes()).unwrap();
    assert_eq!((parsed.dst_mac, parsed.src_mac), (A, GATEWAY));
    assert_eq!((parsed.src, parsed.dst), (addr("fd00::1"), addr("fd00::2")));
    let wanted = NdiscRepr::NeighborAdvert {
        flags: NdiscNeighborFlags::all(),
        target_addr: addr("fd00::1").v6().unwrap(),
        lladdr: Some(RawHardwareAddress::from_bytes(&GATEWAY.0)),
    };
    assert_eq!(read(answer.bytes()), wanted);
    assert_eq!(learned(answer.bytes(), &parsed), Some((addr("fd00::1"), GATEWAY)));
    assert!(is_solicited(answer.bytes(), &parsed));
}

#[test]
fn a_solicitation_without_option_grows_to_the_same_answer() {
    let bare = with_sum(SOLICITATION[..78].to_vec(), |f| f[19] = 24);
    assert_eq!(answered(&bare).bytes(), answered(&SOLICITATION).bytes());
}

#[test]
fn duplicate_address_detection_is_answered_to_everybody() {
    let probe = solicitation((A, Addr::UNSPECIFIED), addr("fd00::1"), None);
    assert_eq!(probe.len(), 78, "no option");
    assert_eq!(asked(probe.bytes()).unwrap().unwrap().sender, (A, Addr::UNSPECIFIED));
    let answer = answered(probe.bytes());
    let parsed = Parsed::new(answer.bytes()).unwrap();
    assert_eq!(
        (parsed.dst, parsed.dst_mac),
        (addr("ff02::1"), "33:33:00:00:00:01".parse().unwrap())
    );
    let NdiscRepr::NeighborAdvert { flags, .. } = read(answer.bytes()) else { panic!() };
    assert_eq!(flags, NdiscNeighborFlags::OVERRIDE | NdiscNeighborFlags::ROUTER);
    assert!(!is_solicited(answer.bytes(), &parsed));
    assert_eq!(learned(probe.bytes(), &Parsed::new(probe.bytes()).unwrap()), None);
}

#[test]
fn an_unfinished_checksum_is_accepted_and_a_wrong_one_is_not() {
    let mut frame = SOLICITATION;
    let parsed = Parsed::new(&frame).unwrap();
    let pseudo = checksum::pseudo_header(parsed.src, parsed.dst, ipv6::ICMPV6, 32);
    frame[56..58].copy_from_slice(&pseudo.to_be_bytes());
    assert!(asked(&frame).unwrap().is_some());
    assert_eq!(answered(&frame).bytes(), answered(&SOLICITATION).bytes());
    frame[57] ^= 1;
    assert_eq!(asked(&frame), Err(DropReason::Malformed));
    assert_eq!(answered(&frame).bytes(), frame, "and left as it was");
}

#[test]
fn what_was_routed_or_lies_is_dropped() {
    let whole = SOLICITATION.to_vec();
    for (at, value, why) in [
        (21, 254, "came through a router"),
        (55, 1, "code"),
        (62, 0xff, "target is a group"),
        (79, 0, "option of no length"),
        (79, 2, "option longer than the packet"),
        (80, 3, "a group's MAC"),
    ] {
        let frame = with_sum(whole.clone(), |f| f[at] = value);
        assert_eq!(asked(&frame), Err(DropReason::Malformed), "{why}");
    }
    let nobody_with_option = with_sum(whole.clone(), |f| f[22..38].fill(0));
    assert_eq!(asked(&nobody_with_option), Err(DropReason::Malformed));
    let short = with_sum(whole[..70].to_vec(), |f| f[19] = 16);
    assert_eq!(asked(&short), Err(DropReason::Truncated));
    let advertisement = with_sum(whole, |f| f[54] = v6::NEIGHBOUR_ADVERTISEMENT);
    assert_eq!(asked(&advertisement), Ok(None));
}

#[test]
fn a_router_is_asked_for() {
    let frame = router_solicitation((A, addr("fe80::42:acff:fe11:2")));
    let parsed = Parsed::new(frame.bytes()).unwrap();
    assert_eq!(
        (parsed.dst, parsed.dst_mac),
        (addr("ff02::2"), "33:33:00:00:00:02".parse().unwrap())
    );
    let lladdr = Some(RawHardwareAddress::from_bytes(&A.0));
    assert_eq!(read(frame.bytes()), NdiscRepr::RouterSolicit { lladdr });
    let early = router_solicitation((A, Addr::UNSPECIFIED));
    assert_eq!(read(early.bytes()), NdiscRepr::RouterSolicit { lladdr: None });
}

/// Prefix 2001:db8:1::/64 on-link and autonomous, MTU 1400, router 02:..:01 for 1800 s.
fn advertisement() -> Vec<u8> {
    let mut body = vec![64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
    body.extend_from_slice(&[ndp::SOURCE_LINK_LAYER, 1]);
    body.extend_from_slice(&GATEWAY.0);
    body.extend_from_slice(&[ndp::MTU, 1, 0, 0, 0, 0, 0x05, 0x78]);
    body.extend_from_slice(&[ndp::PREFIX_INFORMATION, 4, 64, 0xc0]);
    body.extend_from_slice(&86400_u32.to_be_bytes());
    body.extend_from_slice(&14400_u32.to_be_bytes());
    body.extend_from_slice(&[0; 4]);
    body.extend_from_slice(&addr("2001:db8:1::").bytes());
    let (from, to) = ((GATEWAY, addr("fe80::1")), (multicast(ALL_NODES), ALL_NODES));
    build(from, to, v6::ROUTER_ADVERTISEMENT, &body, None)
}

fn router(frame: &[u8]) -> Option<RouterAdvertisement> {
    parse_router_advertisement(frame, &Parsed::new(frame).unwrap())
}

#[test]
fn a_router_advertisement_is_read() {
    let frame = advertisement();
    assert!(matches!(read(&frame), NdiscRepr::RouterAdvert { mtu: Some(1400), .. }), "as smoltcp");
    let prefix = Prefix {
        prefix: addr("2001:db8:1::"),
        len: 64,
        on_link: true,
        autonomous: true,
        valid: Span::from_secs(86400),
        preferred: Span::from_secs(14400),
    };
    let wanted = RouterAdvertisement {
        router: addr("fe80::1"),
        mac: Some(GATEWAY),
        lifetime: Span::from_secs(1800),
        mtu: Some(1400),
        prefixes: vec![prefix],
    };
    assert_eq!(router(&frame), Some(wanted));
}

#[test]
fn a_router_from_elsewhere_is_not_believed() {
    let frame = advertisement();
    assert_eq!(router(&with_sum(frame.clone(), |f| f[21] = 64)), None);
    assert_eq!(router(&with_sum(frame.clone(), |f| f[22] = 0xfd)), None, "not link-local");
    assert_eq!(router(&with_sum(frame, |f| f[71] = 0)), None, "an option of no length");
}

proptest! {
    #[test]
    fn no_frame_makes_it_panic(mut frame in prop::collection::vec(any::<u8>(), 54..160), kind in 133_u8..138) {
        frame[12..15].copy_from_slice(&[0x86, 0xdd, 0x60]);
        let len = (frame.len() - 54) as u16;
        frame[18..20].copy_from_slice(&len.to_be_bytes());
        frame[20..22].copy_from_slice(&[ipv6::ICMPV6, 255]);
        if len >= 8 {
            frame[54..56].copy_from_slice(&[kind, 0]);
            frame = with_sum(frame, |_| {});
        }
        if let Ok(parsed) = Parsed::new(&frame) {
            let _ = (learned(&frame, &parsed), is_solicited(&frame, &parsed), router(&frame));
            let asked = question(&frame, &parsed);
            let answer = answered(&frame);
            if matches!(asked, Ok(Some(_))) {
                read(answer.bytes());
            }
        }
    }
}
