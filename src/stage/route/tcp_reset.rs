//! A reset: the answer to a TCP segment for which there is no connection and will be none
//! (RFC 9293 3.10.7.1). An ICMP error says the same, but to a connection that exists it is a hint only
//! (RFC 5461), and some clients take it for a reason to try again.

use zerocopy::{FromBytes, IntoBytes};

use crate::packet::parse::L3_OFFSET;
use crate::packet::{Fragment, FrameMut, Offload, PacketBuf, Parsed};
use crate::wire::checksum;
use crate::wire::ethernet::{self, Ethernet};
use crate::wire::ipv4::Ipv4;
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::tcp::{self, Tcp};

/// The reset that answers a segment, from the address and the MAC that it was sent to. `None`: it is no
/// whole segment, or a reset itself.
pub fn answer(frame: &FrameMut<'_>, parsed: &Parsed) -> Option<PacketBuf> {
    let is_segment = parsed.proto == ipv6::TCP && parsed.fragment == Fragment::Whole;
    if !is_segment || parsed.tcp_flags & tcp::RST != 0 {
        return None;
    }
    let (segment, _) = Tcp::ref_from_prefix(parsed.l4_bytes(frame.bytes())).ok()?;
    let mut reset = reset(segment, parsed);
    let (from, to, len) = (parsed.dst, parsed.src, tcp::HEADER_LEN as u16);
    let pseudo = checksum::pseudo_header(from, to, ipv6::TCP, len.into());
    reset.checksum = (!checksum::add(pseudo, checksum::sum(reset.as_bytes()))).into();
    let ethertype = if from.is_v4() { ethernet::IPV4 } else { ethernet::IPV6 };
    let link = Ethernet { dst: parsed.src_mac, src: parsed.dst_mac, ethertype: ethertype.into() };
    let frame = if from.is_v4() {
        let mut ip = Ipv4::new(from, to, ipv6::TCP, len);
        ip.fill_checksum();
        [link.as_bytes(), ip.as_bytes(), reset.as_bytes()].concat()
    } else {
        let ip = Ipv6::new(from, to, ipv6::TCP, len);
        [link.as_bytes(), ip.as_bytes(), reset.as_bytes()].concat()
    };
    Some(PacketBuf::new(&frame, Offload::NONE))
}

/// The sequence number is where the other side waits for one, if it said so; it is told how much of it
/// was seen otherwise.
fn reset(segment: &Tcp, parsed: &Parsed) -> Tcp {
    let acknowledges = segment.has(tcp::ACK);
    let headers = usize::from(parsed.l4) - L3_OFFSET + segment.header_len();
    let counted = [tcp::SYN, tcp::FIN].iter().filter(|flag| segment.has(**flag)).count();
    let len = (parsed.ip_len as usize).saturating_sub(headers) + counted;
    let end = segment.seq.get().wrapping_add(len as u32);
    Tcp {
        src_port: segment.dst_port,
        dst_port: segment.src_port,
        seq: if acknowledges { segment.ack } else { 0.into() },
        ack: if acknowledges { 0 } else { end }.into(),
        data_offset: ((tcp::HEADER_LEN / 4) as u8) << 4,
        flags: if acknowledges { tcp::RST } else { tcp::RST | tcp::ACK },
        window: 0.into(),
        checksum: 0.into(),
        urgent: 0.into(),
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};

    use super::*;

    fn built(v4: bool, flags: &str, (seq, ack): (u32, u32), payload: &[u8]) -> Vec<u8> {
        let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let ip = if v4 {
            link.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        } else {
            let of = |last| std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last).octets();
            link.ipv6(of(1), of(2), 64)
        };
        let mut segment = ip.tcp(40_000, 80, seq, 1_000);
        for flag in flags.chars() {
            segment = match flag {
                'S' => segment.syn(),
                'F' => segment.fin(),
                'R' => segment.rst(),
                _ => segment.ack(ack),
            };
        }
        let mut frame = Vec::new();
        segment.write(&mut frame, payload).unwrap();
        frame
    }

    fn answered(frame: &[u8]) -> Option<PacketBuf> {
        let mut buf = PacketBuf::new(frame, Offload::NONE);
        let parsed = Parsed::new(frame).unwrap();
        answer(&buf.frame(), &parsed)
    }

    #[test]
    fn a_segment_s_reset_is_one_that_its_sender_believes() {
        for v4 in [true, false] {
            for (flags, numbers, payload, expected) in [
                ("S", (100, 0), &b""[..], (0, Some(101))),
                ("S", (u32::MAX, 0), b"", (0, Some(0))),
                ("A", (100, 7), b"data", (7, None)),
                ("FA", (100, 7), b"", (7, None)),
                ("F", (100, 0), b"data", (0, Some(105))),
            ] {
                let reset = answered(&built(v4, flags, numbers, payload)).unwrap();
                let sliced = SlicedPacket::from_ethernet(reset.bytes()).unwrap();
                let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("no TCP") };
                assert_eq!((tcp.source_port(), tcp.destination_port()), (80, 40_000));
                assert!(tcp.rst() && !tcp.syn() && !tcp.fin());
                let ack = tcp.ack().then(|| tcp.acknowledgment_number());
                assert_eq!((tcp.sequence_number(), ack), expected, "{flags}");
                let parsed = Parsed::new(reset.bytes()).unwrap();
                let l4 = parsed.l4_bytes(reset.bytes());
                let pseudo =
                    checksum::pseudo_header(parsed.src, parsed.dst, ipv6::TCP, l4.len() as u32);
                assert_eq!(checksum::add(pseudo, checksum::sum(l4)), 0xffff);
                assert_eq!(parsed.dst_mac, "02:00:00:00:00:01".parse().unwrap());
            }
        }
    }

    #[test]
    fn a_reset_is_not_answered() {
        assert!(answered(&built(true, "R", (1, 0), b"")).is_none());
        assert!(answered(&built(false, "RA", (1, 1), b"")).is_none());
    }
}
