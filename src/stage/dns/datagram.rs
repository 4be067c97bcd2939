//! The datagrams around queries and answers.

use zerocopy::IntoBytes;

use crate::packet::{Csum, Fragment, Gso, Offload, PacketBuf, Parsed};
use crate::wire::addr::Addr;
use crate::wire::checksum;
use crate::wire::ethernet::{self, Ethernet};
use crate::wire::ipv4::Ipv4;
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::mac::Mac;
use crate::wire::udp::{self, Udp};

/// Where a query's datagram came from and went to, which is all that its answer needs of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Datagram {
    client: (Mac, Addr, u16),
    server: (Mac, Addr, u16),
}

impl Datagram {
    /// Of a query.
    pub fn new(parsed: &Parsed) -> Self {
        Self {
            client: (parsed.src_mac, parsed.src, parsed.src_port),
            server: (parsed.dst_mac, parsed.dst, parsed.dst_port),
        }
    }
}

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

/// The datagram that answers. Its checksum is left unfinished.
pub fn reply(to: &Datagram, answer: &[u8]) -> PacketBuf {
    let ((client_mac, dst, dst_port), (server_mac, src, src_port)) = (to.client, to.server);
    let len = (udp::HEADER_LEN + answer.len()) as u16;
    let ethertype = if dst.is_v4() { ethernet::IPV4 } else { ethernet::IPV6 };
    let eth = Ethernet { dst: client_mac, src: server_mac, ethertype: ethertype.into() };
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
        src_port: src_port.into(),
        dst_port: dst_port.into(),
        len: len.into(),
        checksum: checksum::pseudo_header(src, dst, ipv6::UDP, len.into()).into(),
    };
    frame.extend(header.as_bytes());
    frame.extend(answer);
    let csum = Csum::Partial { start, offset: udp::CHECKSUM_OFFSET };
    PacketBuf::new(&frame, Offload { csum, ..Offload::NONE })
}
