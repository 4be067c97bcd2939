//! A guest that configures itself: what it is told, by whichever protocol it asks.
//!
//! Its addresses are those of its record and no others, so nothing is leased in truth: every answer says
//! the same, and one that is lost or comes twice changes nothing.

use zerocopy::{FromBytes, IntoBytes};

use crate::packet::{Fragment, Offload, PacketBuf, Parsed};
use crate::wire::addr::Addr;
use crate::wire::checksum;
use crate::wire::ethernet::{self, Ethernet};
use crate::wire::ipv4::Ipv4;
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::mac::Mac;
use crate::wire::udp::{self, Udp};

/// How long an answer holds, in seconds. The address does not change; what else is said may.
pub const LEASE: u32 = 3_600;

/// A guest's part of one family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Its address.
    pub addr: Addr,
    /// Prefix of the link.
    pub prefix: Addr,
    /// Length of that.
    pub prefix_len: u8,
    /// The gateway's address in it.
    pub gateway: Addr,
    /// Who answers names there.
    pub name_server: Addr,
}

/// What a guest is told.
#[derive(Clone, Copy, Debug)]
pub struct Guest<'a> {
    /// Its own MAC.
    pub mac: Mac,
    /// The gateway's.
    pub gateway_mac: Mac,
    /// The gateway's link-local address.
    pub router: Addr,
    /// Its place in the family that it asks in.
    pub place: Place,
    /// Largest IP packet.
    pub mtu: u16,
    /// The domain in which its short names are looked for.
    pub domain: &'a str,
}

impl Guest<'_> {
    /// The domain as labels (RFC 1035 3.1). A name that is none has none.
    pub(super) fn domain_labels(&self) -> Vec<u8> {
        let mut labels = Vec::new();
        for label in self.domain.split('.') {
            let Some(len) = u8::try_from(label.len()).ok().filter(|len| (1..64).contains(len))
            else {
                return Vec::new();
            };
            labels.push(len);
            labels.extend(label.as_bytes());
        }
        labels.push(0);
        labels
    }
}

/// The message in a datagram between these ports, whole and with a right, an unfinished or no checksum:
/// what a guest's kernel leaves to its network card is not finished here.
pub(super) fn message<'a>(frame: &'a [u8], parsed: &Parsed, ports: (u16, u16)) -> Option<&'a [u8]> {
    let meant = (parsed.src_port, parsed.dst_port) == ports && parsed.proto == ipv6::UDP;
    if !meant || parsed.fragment != Fragment::Whole {
        return None;
    }
    let l4 = parsed.l4_bytes(frame);
    let (header, _) = Udp::ref_from_prefix(l4).ok()?;
    l4.get(udp::HEADER_LEN..usize::from(header.len.get()))
}

/// A datagram in a frame.
pub(super) fn datagram(from: (Mac, Addr, u16), to: (Mac, Addr, u16), message: &[u8]) -> PacketBuf {
    let len = (udp::HEADER_LEN + message.len()) as u16;
    let v4 = from.1.is_v4();
    let ethertype = if v4 { ethernet::IPV4 } else { ethernet::IPV6 };
    let eth = Ethernet { dst: to.0, src: from.0, ethertype: ethertype.into() };
    let mut frame = eth.as_bytes().to_vec();
    if v4 {
        let mut ip = Ipv4::new(from.1, to.1, ipv6::UDP, len);
        ip.fill_checksum();
        frame.extend(ip.as_bytes());
    } else {
        frame.extend(Ipv6::new(from.1, to.1, ipv6::UDP, len).as_bytes());
    }
    let (src_port, dst_port) = (from.2.into(), to.2.into());
    let mut header = Udp { src_port, dst_port, len: len.into(), checksum: 0.into() };
    let pseudo = checksum::pseudo_header(from.1, to.1, ipv6::UDP, len.into());
    let sum = checksum::add(checksum::sum(header.as_bytes()), checksum::sum(message));
    let field = !checksum::add(pseudo, sum);
    // RFC 768: a computed zero is sent as all ones.
    header.checksum = if field == 0 { 0xffff } else { field }.into();
    frame.extend(header.as_bytes());
    frame.extend(message);
    PacketBuf::new(&frame, Offload::NONE)
}
