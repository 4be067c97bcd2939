//! Whether a packet fits the way out, and keeping TCP from making ones that do not.

use zerocopy::FromBytes;

use crate::packet::parse::L3_OFFSET;
use crate::packet::{Csum, Fragment, FrameMut, Gso, L3, Offload, Parsed};
use crate::wire::checksum;
use crate::wire::tcp::{self, Tcp};
use crate::wire::{ipv4, ipv6, udp};

const MSS_OPTION: u8 = 2;

/// Whether the packet, or each segment it will be cut into, is at most `mtu` bytes from its IP
/// header on: what the kernel asks of a super-frame in `skb_gso_validate_network_len`.
#[inline]
pub fn fits(parsed: &Parsed, frame: &[u8], offload: Offload, mtu: u16) -> bool {
    let whole = parsed.ip_len as usize;
    let headers = match offload.gso {
        Gso::None => return whole <= usize::from(mtu),
        Gso::TcpV4 | Gso::TcpV6 => parsed.ip_header_len() + tcp_header_len(parsed, frame),
        Gso::UdpL4 => parsed.ip_header_len() + udp::HEADER_LEN,
    };
    whole.min(headers + usize::from(offload.gso_size)) <= usize::from(mtu)
}

fn tcp_header_len(parsed: &Parsed, frame: &[u8]) -> usize {
    // Without a header nothing fits: the longest there is.
    Tcp::ref_from_prefix(parsed.l4_bytes(frame)).map_or(60, |(tcp, _)| tcp.header_len())
}

/// Lowers the maximum segment size that a SYN offers to what fits `mtu` (RFC 4459 3.2): for peers
/// behind a router that swallows our "too big".
pub fn clamp_mss(frame: &mut FrameMut<'_>, parsed: &Parsed, mtu: u16) {
    let with_header = parsed.proto == ipv6::TCP && parsed.fragment != Fragment::Later;
    if !with_header || parsed.tcp_flags & tcp::SYN == 0 {
        return;
    }
    let headers = match parsed.l3 {
        L3::V4 => ipv4::HEADER_LEN + tcp::HEADER_LEN,
        _ => ipv6::HEADER_LEN + tcp::HEADER_LEN,
    };
    let most = mtu.saturating_sub(headers as u16);
    let partial = matches!(frame.offload().csum, Csum::Partial { start, .. } if start == parsed.l4);
    let end = L3_OFFSET + parsed.ip_len as usize;
    let Some(segment) = frame.bytes_mut().get_mut(usize::from(parsed.l4)..end) else { return };
    let Some(at) = mss_offset(segment) else { return };
    let Some(field) = segment.get_mut(at..at + 2) else { return };
    let old = u16::from_be_bytes([field[0], field[1]]);
    if old <= most {
        return;
    }
    field.copy_from_slice(&most.to_be_bytes());
    let Ok((tcp, _)) = Tcp::mut_from_prefix(segment) else { return };
    if !partial {
        let change = checksum::delta(old, most);
        // After an odd number of padding bytes the field straddles two words of the sum.
        let change = if at % 2 == 0 { change } else { change.swap_bytes() };
        tcp.checksum = checksum::update(tcp.checksum.get(), change).into();
    }
}

/// Where the MSS option's value lies in a TCP segment.
fn mss_offset(segment: &[u8]) -> Option<usize> {
    let (tcp, _) = Tcp::ref_from_prefix(segment).ok()?;
    let options = segment.get(..tcp.header_len())?;
    let mut at = tcp::HEADER_LEN;
    loop {
        match *options.get(at)? {
            0 => return None,
            1 => at += 1,
            kind => {
                let len = usize::from(*options.get(at + 1)?);
                let fits = len >= 2 && at + len <= options.len();
                if !fits || (kind == MSS_OPTION && len != 4) {
                    return None;
                }
                if kind == MSS_OPTION {
                    return Some(at + 2);
                }
                at += len;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{PacketBuilder, SlicedPacket, TcpHeader, TransportSlice};
    use proptest::prelude::*;

    use super::*;
    use crate::packet::{PacketBuf, finish};
    use crate::wire::addr::Addr;

    const A: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
    const B: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3];

    fn segment(v6: bool, syn: bool, options: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut tcp = TcpHeader::new(4000, 80, 1, 64240);
        tcp.syn = syn;
        tcp.set_options_raw(options).unwrap();
        let link = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let mut frame = Vec::new();
        if v6 {
            link.ipv6(A, B, 64).tcp_header(tcp).write(&mut frame, payload).unwrap();
        } else {
            let ip = link.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
            ip.tcp_header(tcp).write(&mut frame, payload).unwrap();
        }
        frame
    }

    fn super_frame(gso: Gso, gso_size: u16) -> Offload {
        Offload { gso, gso_size, csum: Csum::Partial { start: 34, offset: 16 }, ..Offload::NONE }
    }

    #[test]
    fn a_super_frame_fits_if_its_segments_do() {
        let timestamps = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
        for (v6, gso, size) in [(false, Gso::TcpV4, 1448), (true, Gso::TcpV6, 1428)] {
            let frame = segment(v6, false, &timestamps, &vec![0; 40_000]);
            let parsed = Parsed::new(&frame).unwrap();
            assert!(fits(&parsed, &frame, super_frame(gso, size), 1500));
            assert!(!fits(&parsed, &frame, super_frame(gso, size + 1), 1500));
            assert!(!fits(&parsed, &frame, Offload::NONE, 1500), "one packet of that size");
        }
    }

    #[test]
    fn an_ordinary_packet_fits_by_its_length() {
        let frame = segment(false, false, &[], &[0; 1460]);
        let parsed = Parsed::new(&frame).unwrap();
        assert!(fits(&parsed, &frame, Offload::NONE, 1500));
        assert!(!fits(&parsed, &frame, Offload::NONE, 1499));
        assert!(fits(&parsed, &frame, super_frame(Gso::TcpV4, 9000), 1500), "one short segment");
    }

    #[test]
    fn datagrams_to_be_cut_count_with_their_header() {
        let mut frame = Vec::new();
        let ip = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6(A, B, 64);
        ip.udp(1, 2).write(&mut frame, &[0; 9000]).unwrap();
        let parsed = Parsed::new(&frame).unwrap();
        assert!(fits(&parsed, &frame, super_frame(Gso::UdpL4, 1452), 1500));
        assert!(!fits(&parsed, &frame, super_frame(Gso::UdpL4, 1453), 1500));
    }

    fn clamped(frame: &[u8], offload: Offload, mtu: u16) -> PacketBuf {
        let mut buf = PacketBuf::new(frame, offload);
        clamp_mss(&mut buf.frame(), &Parsed::new(frame).unwrap(), mtu);
        buf
    }

    /// The MSS of a frame whose checksum an independent parser found right.
    fn mss(frame: &[u8]) -> Option<u16> {
        let sliced = SlicedPacket::from_ethernet(frame).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("no TCP") };
        let header = tcp.to_header();
        let parsed = Parsed::new(frame).unwrap();
        let sum = match (parsed.src.v4(), parsed.dst.v4()) {
            (Some(src), Some(dst)) => {
                header.calc_checksum_ipv4_raw(src.octets(), dst.octets(), tcp.payload())
            }
            _ => {
                header.calc_checksum_ipv6_raw(parsed.src.bytes(), parsed.dst.bytes(), tcp.payload())
            }
        };
        assert_eq!(header.checksum, sum.unwrap());
        header.options_iterator().flatten().find_map(|option| match option {
            etherparse::TcpOptionElement::MaximumSegmentSize(mss) => Some(mss),
            _ => None,
        })
    }

    #[test]
    fn a_syn_offers_no_more_than_fits_and_its_checksum_stays_right() {
        for (v6, fitting) in [(false, 1360), (true, 1340)] {
            for options in
                [&[2, 4, 5, 180][..], &[1, 2, 4, 5, 180, 0, 0, 0], &[4, 2, 1, 2, 4, 5, 180, 0]]
            {
                let frame = segment(v6, true, options, b"");
                assert_eq!(mss(clamped(&frame, Offload::NONE, 1400).bytes()), Some(fitting));
                assert_eq!(clamped(&frame, Offload::NONE, 9000).bytes(), frame, "never raised");
            }
        }
    }

    #[test]
    fn an_unfinished_checksum_is_right_when_finished() {
        let mut frame = segment(false, true, &[2, 4, 5, 180], b"");
        let pseudo = checksum::pseudo_header(
            Addr::from_v4_bytes([10, 0, 0, 1]),
            Addr::from_v4_bytes([10, 0, 0, 2]),
            6,
            24,
        );
        frame[50..52].copy_from_slice(&pseudo.to_be_bytes());
        let csum = Csum::Partial { start: 34, offset: 16 };
        let mut buf = clamped(&frame, Offload { csum, ..Offload::NONE }, 1400);
        finish::finish_checksum(&mut buf.frame());
        assert_eq!(mss(buf.bytes()), Some(1360));
    }

    #[test]
    fn only_a_syn_s_own_well_formed_option_is_touched() {
        for (syn, options) in [
            (false, &[2, 4, 5, 180][..]),
            (true, &[2, 3, 5, 180]),
            (true, &[0, 2, 4, 5]),
            (true, &[3, 0, 2, 4]),
        ] {
            let frame = segment(false, syn, options, &[2, 4, 5, 180]);
            assert_eq!(clamped(&frame, Offload::NONE, 576).bytes(), frame, "{options:?}");
        }
    }

    proptest! {
        #[test]
        fn no_options_make_it_panic(options in prop::collection::vec(any::<u8>(), 40), mtu: u16) {
            let frame = segment(true, true, &options, b"x");
            clamped(&frame, Offload::NONE, mtu);
        }
    }
}
