//! The datagrams around queries and answers.

use zerocopy::IntoBytes;

use crate::packet::{Csum, Fragment, Gso, Offload, PacketBuf, Parsed};
use crate::wire::checksum;
use crate::wire::ethernet::{self, Ethernet};
use crate::wire::ipv4::Ipv4;
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::udp::{self, Udp};

/// The query in a datagram; none in anything that is more or less than one whole datagram.
pub fn query<'a>(parsed: &Parsed, frame: &'a [u8], offload: Offload) -> Option<&'a [u8]> {
    let whole = parsed.fragment == Fragment::Whole && offload.gso == Gso::None;
    if !whole || parsed.proto != ipv6::UDP {
        return None;
    }
    let bytes = parsed.l4_bytes(frame);
    let told = usize::from(u16::from_be_bytes([*bytes.get(4)?, *bytes.get(5)?]));
    bytes.get(udp::HEADER_LEN..told)
}

/// The datagram that answers the one that was `parsed`. Its checksum is left unfinished.
pub fn reply(parsed: &Parsed, answer: &[u8]) -> PacketBuf {
    let (src, dst) = (parsed.dst, parsed.src);
    let len = (udp::HEADER_LEN + answer.len()) as u16;
    let ethertype = if dst.is_v4() { ethernet::IPV4 } else { ethernet::IPV6 };
    let (to, from) = (parsed.src_mac, parsed.dst_mac);
    let eth = Ethernet { dst: to, src: from, ethertype: ethertype.into() };
    let mut frame = eth.as_bytes().to_vec();
    if dst.is_v4() {
        let mut ip = Ipv4::new(src, dst, ipv6::UDP, len);
        ip.fill_checksum();
        frame.extend(ip.as_bytes());
    } else {
        frame.extend(Ipv6::new(src, dst, ipv6::UDP, len).as_bytes());
    }
    let start = frame.len() as u16;
    let header = Udp {
        src_port: parsed.dst_port.into(),
        dst_port: parsed.src_port.into(),
        len: len.into(),
        checksum: checksum::pseudo_header(src, dst, ipv6::UDP, len.into()).into(),
    };
    frame.extend(header.as_bytes());
    frame.extend(answer);
    let csum = Csum::Partial { start, offset: udp::CHECKSUM_OFFSET };
    PacketBuf::new(&frame, Offload { csum, ..Offload::NONE })
}
