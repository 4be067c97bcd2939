//! Packets that no honest stack makes in one piece: fragments, and frames put together by hand.
#![allow(dead_code, reason = "no target uses all of it")]

use etherparse::{IpFragOffset, Ipv4Header};
use wharf::packet::Offload;

use crate::world::Sent;

const ETHERNET: usize = 14;
const V6: usize = 40;
const FRAGMENT: u8 = 44;

fn is_v4(frame: &[u8]) -> bool {
    frame[12..14] == [8, 0]
}

/// A packet without options cut into fragments with `size` bytes of payload each.
pub(crate) fn fragments(frame: &[u8], id: u16, size: usize) -> Vec<Vec<u8>> {
    let payload = &frame[ETHERNET + if is_v4(frame) { 20 } else { V6 }..];
    let parts = payload.chunks(size).enumerate();
    parts
        .map(|(n, part)| fragment(frame, id, n * size, n * size + part.len() < payload.len(), part))
        .collect()
}

/// One fragment with the addresses and the protocol of `frame`.
pub(crate) fn fragment(frame: &[u8], id: u16, at: usize, more: bool, part: &[u8]) -> Vec<u8> {
    let mut made = frame[..ETHERNET].to_vec();
    if is_v4(frame) {
        let mut ip = Ipv4Header::from_slice(&frame[ETHERNET..]).unwrap().0;
        ip.total_len = (20 + part.len()) as u16;
        ip.identification = id;
        ip.dont_fragment = false;
        ip.more_fragments = more;
        ip.fragment_offset = IpFragOffset::try_new((at / 8) as u16).unwrap();
        ip.header_checksum = ip.calc_header_checksum();
        ip.write(&mut made).unwrap();
    } else {
        let mut ip = frame[ETHERNET..ETHERNET + V6].to_vec();
        ip[4..6].copy_from_slice(&((8 + part.len()) as u16).to_be_bytes());
        let next = std::mem::replace(&mut ip[6], FRAGMENT);
        made.extend_from_slice(&ip);
        made.extend_from_slice(&[next, 0]);
        made.extend_from_slice(&(at as u16 | u16::from(more)).to_be_bytes());
        made.extend_from_slice(&u32::from(id).to_be_bytes());
    }
    made.extend_from_slice(part);
    made
}

/// What a receiver makes of fragments that came in any order.
pub(crate) fn reassembled(sent: &[Sent]) -> Sent {
    let mut pieces: Vec<_> = sent.iter().map(|sent| (piece(&sent.bytes), &sent.bytes)).collect();
    pieces.sort_by_key(|((at, ..), _)| *at);
    let mut payload = Vec::new();
    for ((at, header, _), bytes) in &pieces {
        assert_eq!(*at, payload.len(), "no gap and no overlap");
        payload.extend_from_slice(&bytes[*header..]);
    }
    let ((_, header, more), last) = pieces[pieces.len() - 1];
    assert!(!more, "the last one is there");
    let mut whole = last[..ETHERNET].to_vec();
    if is_v4(last) {
        let mut ip = Ipv4Header::from_slice(&last[ETHERNET..]).unwrap().0;
        assert_eq!(ip.header_checksum, ip.calc_header_checksum());
        ip.total_len = (20 + payload.len()) as u16;
        ip.fragment_offset = IpFragOffset::ZERO;
        ip.header_checksum = ip.calc_header_checksum();
        ip.write(&mut whole).unwrap();
    } else {
        let mut ip = last[ETHERNET..ETHERNET + V6].to_vec();
        ip[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
        ip[6] = last[header - 8];
        whole.extend_from_slice(&ip);
    }
    whole.extend_from_slice(&payload);
    Sent { port: sent[0].port, bytes: whole, offload: Offload::NONE }
}

/// Offset in the datagram, length of all headers, and whether more follow.
fn piece(frame: &[u8]) -> (usize, usize, bool) {
    if is_v4(frame) {
        let ip = Ipv4Header::from_slice(&frame[ETHERNET..]).unwrap().0;
        return (usize::from(ip.fragment_offset.value()) * 8, ETHERNET + 20, ip.more_fragments);
    }
    assert_eq!(frame[ETHERNET + 6], FRAGMENT, "a fragment");
    let at = ETHERNET + V6;
    let word = u16::from_be_bytes([frame[at + 2], frame[at + 3]]);
    (usize::from(word & !7), at + 8, word & 1 != 0)
}
