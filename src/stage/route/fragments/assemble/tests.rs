use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::*;
use crate::base::time::Span;
use crate::packet::Fragment;
use crate::stage::route::fragments::fragment_own;
use crate::wire::ethernet::{self, Ethernet};
use crate::wire::ipv6::Ipv6;
use crate::wire::mac::Mac;

const NET: DomainId = DomainId(3);

fn addr(v6: bool, n: u8) -> Addr {
    if v6 {
        Addr::from_prefix_and_id(0xfd00 << 48, n.into())
    } else {
        Addr::from_v4_bytes([10, 0, 0, n])
    }
}

/// A datagram of one source with this many bytes behind its IP header.
fn datagram(v6: bool, from: u8, len: usize) -> PacketBuf {
    let payload: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
    let ethertype = if v6 { ethernet::IPV6 } else { ethernet::IPV4 };
    let eth = Ethernet { dst: Mac([2; 6]), src: Mac([4; 6]), ethertype: ethertype.into() };
    let (src, dst) = (addr(v6, from), addr(v6, 200));
    let bytes = if v6 {
        let ip = Ipv6::new(src, dst, ipv6::UDP, len as u16);
        [eth.as_bytes(), ip.as_bytes(), &payload].concat()
    } else {
        let mut ip = Ipv4::new(src, dst, ipv6::UDP, len as u16);
        ip.flags_offset = 0.into();
        ip.fill_checksum();
        [eth.as_bytes(), ip.as_bytes(), &payload].concat()
    };
    PacketBuf::new(&bytes, Offload::NONE)
}

fn cut(whole: &PacketBuf, mtu: u16, id: u32) -> Vec<PacketBuf> {
    let mut whole = whole.clone();
    let parsed = Parsed::new(whole.bytes()).unwrap();
    fragment_own(&mut whole.frame(), &parsed, mtu, id)
}

fn add(
    assembler: &mut Assembler,
    secs: u64,
    buf: &PacketBuf,
) -> Result<Option<PacketBuf>, DropReason> {
    let mut buf = buf.clone();
    let parsed = Parsed::new(buf.bytes()).unwrap();
    assert_ne!(parsed.fragment, Fragment::Whole);
    let now = Time::ZERO + Span::from_secs(secs);
    assembler.add(now, NET, &parsed, &buf.frame())
}

proptest! {
    #[test]
    fn whatever_was_cut_is_whole_again_in_any_order_with_duplicates(
        v6: bool,
        len in 3000_usize..20_000,
        mtu in 1280_u16..2000,
        order in any::<prop::sample::Index>(),
        twice in any::<prop::sample::Index>(),
    ) {
        let whole = datagram(v6, 1, len);
        let mut pieces = cut(&whole, mtu, 7);
        prop_assert!(pieces.iter().all(|piece| piece.len() <= 14 + usize::from(mtu)));
        let by = order.index(pieces.len());
        pieces.rotate_left(by);
        // Not the last one: then the datagram is gone, and it would begin another.
        let copy = pieces[twice.index(pieces.len() - 1)].clone();
        pieces.insert(pieces.len() - 1, copy);
        let mut assembler = Assembler::default();
        let last = pieces.len() - 1;
        for (n, piece) in pieces.iter().enumerate() {
            match add(&mut assembler, 0, piece) {
                Ok(Some(done)) => {
                    prop_assert_eq!(n, last);
                    let (done, whole) = (done.bytes(), whole.bytes());
                    // But for the identification and with it the checksum.
                    let head = if v6 { 14 + 40 } else { 14 + 20 };
                    prop_assert_eq!(&done[head..], &whole[head..]);
                    let parsed = Parsed::new(done).unwrap();
                    prop_assert_eq!(parsed.fragment, Fragment::Whole);
                    prop_assert!(v6 || parsed.ipv4_checksum_is_right(done));
                    prop_assert_eq!(parsed.proto, ipv6::UDP);
                }
                Ok(None) => prop_assert!(n < last),
                Err(reason) => prop_assert_eq!(reason, DropReason::FragmentOverlap),
            }
        }
        prop_assert_eq!(assembler.held(), (0, 0));
        prop_assert_eq!(assembler.next_deadline(), None);
    }
}

#[test]
fn an_overlap_ends_the_datagram_for_good() {
    for v6 in [false, true] {
        let mut assembler = Assembler::default();
        let whole = datagram(v6, 1, 6000);
        let (large, small) = (cut(&whole, 1500, 7), cut(&whole, 1400, 7));
        assert_eq!(add(&mut assembler, 0, &large[0]).map(|_| ()), Ok(()));
        let overlap = add(&mut assembler, 0, &small[1]).map(|_| ());
        assert_eq!(overlap, Err(DropReason::FragmentOverlap));
        for piece in &large {
            let result = add(&mut assembler, 0, piece).map(|_| ());
            assert_eq!(result, Err(DropReason::FragmentOverlap), "RFC 5722");
        }
        assert_eq!(assembler.held(), (1, 0), "only its name is remembered");
        assembler.tick(Time::ZERO + FRAGMENT_TIMEOUT);
        assert_eq!(assembler.held(), (0, 0));
    }
}

#[test]
fn what_never_becomes_whole_is_forgotten_in_time() {
    let mut assembler = Assembler::default();
    let pieces = cut(&datagram(true, 1, 6000), 1500, 7);
    assert_eq!(add(&mut assembler, 5, &pieces[0]).map(|_| ()), Ok(()));
    let deadline = assembler.next_deadline().unwrap();
    assert_eq!(deadline, Time::ZERO + Span::from_secs(5) + FRAGMENT_TIMEOUT);
    assembler.tick(deadline);
    assert_eq!((assembler.held(), assembler.next_deadline()), ((0, 0), None));
}

#[test]
fn a_source_over_its_bound_loses_its_own_oldest_datagram_and_nobody_else_s() {
    let mut assembler = Assembler::default();
    let neighbour = cut(&datagram(false, 9, 3000), 1500, 1);
    assert_eq!(add(&mut assembler, 0, &neighbour[0]).map(|_| ()), Ok(()));
    assert_eq!(add(&mut assembler, 0, &neighbour[1]).map(|_| ()), Ok(()));
    for id in 0..100 {
        // The last piece alone takes the whole datagram's memory.
        let pieces = cut(&datagram(false, 1, 60_000), 1500, id);
        assert_eq!(add(&mut assembler, 0, pieces.last().unwrap()).map(|_| ()), Ok(()));
        let (_, bytes) = assembler.held();
        assert!(bytes <= FRAGMENT_BYTES_PER_SOURCE_MAX + 3000, "{bytes}");
    }
    assert!(add(&mut assembler, 0, &neighbour[2]).unwrap().is_some(), "the neighbour's is whole");
}

#[test]
fn all_sources_together_are_bounded() {
    let mut assembler = Assembler::default();
    for from in 1..150 {
        let pieces = cut(&datagram(false, from, 60_000), 1500, 7);
        assert_eq!(add(&mut assembler, 0, pieces.last().unwrap()).map(|_| ()), Ok(()));
        assert!(assembler.held().1 <= FRAGMENT_BYTES_MAX);
    }
}
