//! Cutting packets: one of somebody's that may be cut (RFC 791 section 3.2), and one of our own (RFC 8200
//! section 4.5).

use zerocopy::{FromBytes, IntoBytes};

use crate::packet::parse::L3_OFFSET;
use crate::packet::{FrameMut, Gso, L3, Offload, PacketBuf, Parsed, finish};
use crate::wire::checksum;
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::ipv6::{self, Ipv6};

/// Length of IPv6's fragment header.
const FRAGMENT_LEN: usize = size_of::<ipv6::Fragment>();
/// The least MTU of IPv4 (RFC 791): a header of 60 bytes and 8 of data.
const MTU_MIN: u16 = 68;
/// The bit of an option's kind that puts it into every fragment.
const COPIED: u8 = 0x80;

/// The packet as fragments of at most `mtu` bytes each. None if it must not be cut (DF, IPv6), if it
/// is a super-frame (which is split first), or if it fits anyway.
pub fn fragment_v4(frame: &mut FrameMut<'_>, parsed: &Parsed, mtu: u16) -> Vec<PacketBuf> {
    let total = parsed.ip_len as usize;
    if total <= usize::from(mtu) || mtu < MTU_MIN || !may_be_cut(frame, parsed) {
        return Vec::new();
    }
    finish::finish_checksum(frame);
    let Some((link, packet)) = frame.bytes().split_at_checked(L3_OFFSET) else { return Vec::new() };
    let Ok((ip, _)) = Ipv4::ref_from_prefix(packet) else { return Vec::new() };
    let (Some(options), Some(payload)) =
        (packet.get(ipv4::HEADER_LEN..ip.header_len()), packet.get(ip.header_len()..total))
    else {
        return Vec::new();
    };
    let size = (usize::from(mtu) - ip.header_len()) & !7;
    let copied = copied_options(options);
    let mut fragments = Vec::with_capacity(payload.len().div_ceil(size));
    for (number, piece) in payload.chunks(size).enumerate() {
        let offset = ip.flags_offset.get() & ipv4::OFFSET_MASK;
        // It cannot pass 13 bits: the parser has seen that offset and length fit a datagram.
        let offset = usize::from(offset) + number * size / 8;
        let more_here = (number + 1) * size < payload.len();
        let more = more_here || ip.flags_offset.get() & ipv4::MF != 0;
        let options = if number == 0 { options } else { &copied };
        let header = header(ip, options, piece.len(), offset as u16, more);
        let bytes = [link, &header, piece].concat();
        fragments.push(PacketBuf::new(&bytes, Offload::NONE));
    }
    fragments
}

/// A packet that we send ourselves as fragments of at most `mtu` bytes each; none if it fits, or is a
/// super-frame. `id` must not come again soon.
pub fn fragment_own(
    frame: &mut FrameMut<'_>,
    parsed: &Parsed,
    mtu: u16,
    id: u32,
) -> Vec<PacketBuf> {
    if parsed.ip_len as usize <= usize::from(mtu) || frame.offload().gso != Gso::None {
        return Vec::new();
    }
    match parsed.l3 {
        L3::V4 => {
            if let Some(packet) = frame.bytes_mut().get_mut(L3_OFFSET..)
                && let Ok((ip, _)) = Ipv4::mut_from_prefix(packet)
            {
                // Each fragment's header is summed anew.
                (ip.id, ip.flags_offset) = ((id as u16).into(), 0.into());
            }
            fragment_v4(frame, parsed, mtu)
        }
        L3::V6 => fragment_v6(frame, parsed, mtu, id),
        L3::Arp | L3::Other(_) => Vec::new(),
    }
}

/// The same for IPv6. Extension headers would go with the payload, which is right for those that only
/// the destination reads.
fn fragment_v6(frame: &mut FrameMut<'_>, parsed: &Parsed, mtu: u16, id: u32) -> Vec<PacketBuf> {
    finish::finish_checksum(frame);
    let end = L3_OFFSET + parsed.ip_len as usize;
    let payload_at = L3_OFFSET + ipv6::HEADER_LEN;
    let head = frame.bytes().get(..payload_at).zip(frame.bytes().get(payload_at..end));
    let Some((head, payload)) = head else { return Vec::new() };
    let Ok((ip, _)) = Ipv6::ref_from_prefix(&head[L3_OFFSET..]) else { return Vec::new() };
    // No link of IPv6 has a smaller MTU (RFC 8200 5).
    let size = usize::from(mtu.max(ipv6::MIN_MTU)) - ipv6::HEADER_LEN - FRAGMENT_LEN;
    let size = size & !7;
    let mut fragments = Vec::with_capacity(payload.len().div_ceil(size));
    for (number, piece) in payload.chunks(size).enumerate() {
        let more = u16::from((number + 1) * size < payload.len());
        let mut own = *ip;
        own.next_header = ipv6::FRAGMENT;
        own.payload_len = ((FRAGMENT_LEN + piece.len()) as u16).into();
        let header = ipv6::Fragment {
            next_header: ip.next_header,
            reserved: 0,
            offset_more: ((number * size) as u16 | more).into(),
            id: id.into(),
        };
        let link = &head[..L3_OFFSET];
        let bytes = [link, own.as_bytes(), header.as_bytes(), piece].concat();
        fragments.push(PacketBuf::new(&bytes, Offload::NONE));
    }
    fragments
}

fn may_be_cut(frame: &FrameMut<'_>, parsed: &Parsed) -> bool {
    let packet = frame.bytes().get(L3_OFFSET..).unwrap_or_default();
    parsed.l3 == L3::V4
        && frame.offload().gso == Gso::None
        && Ipv4::ref_from_prefix(packet).is_ok_and(|(ip, _)| ip.flags_offset.get() & ipv4::DF == 0)
}

fn header(ip: &Ipv4, options: &[u8], payload: usize, offset: u16, more: bool) -> Vec<u8> {
    let len = ipv4::HEADER_LEN + options.len();
    let mut ip = *ip;
    ip.version_ihl = 0x40 | (len / 4) as u8;
    ip.total_len = ((len + payload) as u16).into();
    ip.flags_offset = (offset | if more { ipv4::MF } else { 0 }).into();
    ip.checksum = 0.into();
    let sum = checksum::add(checksum::sum(ip.as_bytes()), checksum::sum(options));
    ip.checksum = (!sum).into();
    [ip.as_bytes(), options].concat()
}

/// The options of later fragments, padded to words.
fn copied_options(mut options: &[u8]) -> Vec<u8> {
    let mut copied = Vec::new();
    while let [kind, rest @ ..] = options {
        let len = match *kind {
            0 => break,
            1 => 1,
            _ => usize::from(rest.first().copied().unwrap_or(0)),
        };
        let (Some(option), Some(after)) = (options.get(..len), options.get(len..)) else { break };
        if len == 0 {
            break;
        }
        if kind & COPIED != 0 {
            copied.extend_from_slice(option);
        }
        options = after;
    }
    copied.resize(copied.len().next_multiple_of(4), 0);
    copied
}

#[cfg(test)]
mod tests {
    use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv4Options, PacketBuilder};
    use proptest::prelude::*;

    use super::*;

    /// A UDP packet with DF clear, and these options.
    fn packet(len: usize, options: &[u8]) -> Vec<u8> {
        let mut ip = Ipv4Header::new(0, 64, IpNumber::UDP, [10, 0, 0, 1], [10, 0, 0, 2]).unwrap();
        ip.dont_fragment = false;
        ip.identification = 77;
        ip.options = Ipv4Options::try_from(options).unwrap();
        let headers = etherparse::IpHeaders::Ipv4(ip, etherparse::Ipv4Extensions::default());
        let payload: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ip(headers);
        builder.udp(1, 2).write(&mut frame, &payload).unwrap();
        frame
    }

    fn cut(frame: &[u8], mtu: u16) -> Vec<PacketBuf> {
        let mut buf = PacketBuf::new(frame, Offload::NONE);
        fragment_v4(&mut buf.frame(), &Parsed::new(frame).unwrap(), mtu)
    }

    /// The header as an independent parser reads it, its checksum checked, and the payload.
    fn read(fragment: &PacketBuf) -> (Ipv4Header, Vec<u8>) {
        let (header, rest) = Ipv4Header::from_slice(&fragment.bytes()[14..]).unwrap();
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        assert_eq!(usize::from(header.total_len), fragment.len() - 14);
        (header, rest.to_vec())
    }

    proptest! {
        #[test]
        fn the_pieces_put_together_are_the_packet(len in 0_usize..9000, mtu in 68_u16..9000, options in 0_usize..3) {
            let options = [&[][..], &[7, 7, 4, 0, 0, 0, 0, 0], &[0x94, 4, 0, 0]][options];
            let frame = packet(len, options);
            let fragments = cut(&frame, mtu);
            if frame.len() - 14 <= usize::from(mtu) {
                prop_assert!(fragments.is_empty());
                return Ok(());
            }
            let mut whole = Vec::new();
            for (number, fragment) in fragments.iter().enumerate() {
                let (header, payload) = read(fragment);
                prop_assert!(fragment.len() - 14 <= usize::from(mtu));
                prop_assert_eq!(usize::from(header.fragment_offset.value()) * 8, whole.len());
                prop_assert_eq!(header.more_fragments, number + 1 < fragments.len());
                prop_assert_eq!(header.identification, 77);
                let has_options = !options.is_empty() && (number == 0 || options[0] & COPIED != 0);
                prop_assert_eq!(!header.options.is_empty(), has_options);
                whole.extend_from_slice(&payload);
            }
            prop_assert_eq!(&whole[..], &frame[34 + options.len()..]);
        }
    }

    #[test]
    fn a_fragment_is_cut_further_and_keeps_its_place() {
        let mut frame = packet(1000, &[]);
        frame[20..22].copy_from_slice(&(ipv4::MF + 100).to_be_bytes());
        let all = cut(&frame, 500);
        let places: Vec<_> =
            all.iter().map(read).map(|(h, _)| (h.fragment_offset, h.more_fragments)).collect();
        let at = |units| IpFragOffset::try_new(units).unwrap();
        assert_eq!(places, [(at(100), true), (at(160), true), (at(220), true)]);
    }

    #[test]
    fn what_must_not_be_cut_is_left_alone() {
        let mut frame = packet(3000, &[]);
        frame[20] |= 0x40;
        assert!(cut(&frame, 1500).is_empty(), "DF");
        frame[20] = 0;
        assert!(cut(&frame, 67).is_empty(), "no such MTU");
        frame[20..22].copy_from_slice(&0x1fff_u16.to_be_bytes());
        assert!(Parsed::new(&frame).is_err(), "beyond the largest offset");
    }
}
