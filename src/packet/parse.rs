//! Header offsets, found once.
//!
//! One pass over a frame says where its network and transport headers lie and which flow it belongs
//! to. Everything later reads through these offsets; what contradicts itself is dropped here.

use zerocopy::FromBytes;

use super::DropReason;
use crate::base::limits;
use crate::wire::addr::Addr;
use crate::wire::checksum;
use crate::wire::ethernet::{self, Ethernet};
use crate::wire::icmp::{self, Icmp};
use crate::wire::ipv4::Ipv4;
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::mac::Mac;
use crate::wire::tcp::{self, Tcp};
use crate::wire::udp::{self, Udp};

/// Network protocol of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum L3 {
    /// Something we only bridge; the EtherType.
    Other(u16),
    /// ARP.
    Arp,
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Which part of a datagram a packet is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fragment {
    /// All of it.
    Whole,
    /// The first fragment: it has the transport header.
    First,
    /// A later one: it has none.
    Later,
}

/// What one pass over a frame found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parsed {
    /// Destination MAC.
    pub dst_mac: Mac,
    /// Source MAC.
    pub src_mac: Mac,
    /// Network protocol.
    pub l3: L3,
    /// Fragmentation.
    pub fragment: Fragment,
    /// Protocol after all extension headers; zero without IP.
    pub proto: u8,
    /// TCP flags; zero for other protocols.
    pub tcp_flags: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Offset of the transport header from the frame's start; the IP payload's if there is none.
    pub l4: u16,
    /// Length of the IP packet, headers included. What lies beyond in the frame is padding.
    pub ip_len: u32,
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Source port, or an echo request's identifier.
    pub src_port: u16,
    /// Destination port, or an echo reply's identifier.
    pub dst_port: u16,
}

/// Offset of the network header: our frames carry no tag.
pub const L3_OFFSET: usize = ethernet::HEADER_LEN;

/// Extension headers walked before giving up; more is an attack (RFC 8504 5.3 allows a limit).
const EXTENSIONS_MAX: usize = 8;

impl Parsed {
    /// Nothing was found yet.
    pub const NOTHING: Self = Self {
        dst_mac: Mac::ZERO,
        src_mac: Mac::ZERO,
        l3: L3::Other(0),
        fragment: Fragment::Whole,
        proto: 0,
        tcp_flags: 0,
        ttl: 0,
        l4: L3_OFFSET as u16,
        ip_len: 0,
        src: Addr::UNSPECIFIED,
        dst: Addr::UNSPECIFIED,
        src_port: 0,
        dst_port: 0,
    };

    /// Parses a frame from its Ethernet header.
    #[inline]
    pub fn new(frame: &[u8]) -> Result<Self, DropReason> {
        let mut parsed = Self::NOTHING;
        parsed.read(frame)?;
        Ok(parsed)
    }

    /// Parses a frame into its place. Eighty bytes that were written in small pieces must not be copied
    /// at once: the processor would wait for each piece to reach its cache (three times ten nanoseconds).
    #[inline]
    pub fn read(&mut self, frame: &[u8]) -> Result<(), DropReason> {
        let (eth, rest) = Ethernet::ref_from_prefix(frame).map_err(|_| DropReason::Truncated)?;
        self.dst_mac = eth.dst;
        self.src_mac = eth.src;
        self.fragment = Fragment::Whole;
        self.tcp_flags = 0;
        self.src_port = 0;
        self.dst_port = 0;
        match eth.ethertype.get() {
            ethernet::IPV4 => self.ipv4(rest),
            ethernet::IPV6 => self.ipv6(rest),
            other => self.not_ip(other),
        }
    }

    #[cold]
    fn not_ip(&mut self, ethertype: u16) -> Result<(), DropReason> {
        let (dst_mac, src_mac) = (self.dst_mac, self.src_mac);
        *self = Self { dst_mac, src_mac, l3: L3::Other(ethertype), ..Self::NOTHING };
        match ethertype {
            ethernet::ARP => self.l3 = L3::Arp,
            ethernet::VLAN | ethernet::QINQ => return Err(DropReason::VlanTagged),
            _ => {}
        }
        Ok(())
    }

    /// Whether the packet is IP of either version.
    #[inline]
    pub fn is_ip(&self) -> bool {
        matches!(self.l3, L3::V4 | L3::V6)
    }

    /// Length of the IP header with its options or extension headers.
    pub fn ip_header_len(&self) -> usize {
        usize::from(self.l4) - L3_OFFSET
    }

    /// Length of transport header and payload.
    pub fn l4_len(&self) -> usize {
        (self.ip_len as usize).saturating_sub(self.ip_header_len())
    }

    /// The part of `frame` from the transport header to the end of the IP packet.
    pub fn l4_bytes<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        let end = L3_OFFSET + self.ip_len as usize;
        frame.get(usize::from(self.l4)..end).unwrap_or_default()
    }

    /// Whether the IPv4 header checksum of `frame` is right, options included (RFC 1812 5.2.2); true
    /// for other protocols. Not part of [`new`](Self::new): a bridged frame is its receiver's to judge.
    #[inline]
    pub fn ipv4_checksum_is_right(&self, frame: &[u8]) -> bool {
        if self.l3 != L3::V4 {
            return true;
        }
        let header = frame.get(L3_OFFSET..usize::from(self.l4)).unwrap_or_default();
        let sum = match header.try_into() {
            Ok(plain) => checksum::sum_header(plain),
            Err(_) => checksum::sum(header),
        };
        sum == 0xffff
    }

    #[inline]
    fn ipv4(&mut self, packet: &[u8]) -> Result<(), DropReason> {
        let (ip, _) = Ipv4::ref_from_prefix(packet).map_err(|_| DropReason::Truncated)?;
        let (header_len, total) = (ip.header_len(), usize::from(ip.total_len.get()));
        let plain = ip.version_ihl == 0x45;
        if !plain && (ip.version() != 4 || header_len < 20) || total < header_len {
            return Err(DropReason::Malformed);
        }
        let payload = packet.get(header_len..total).ok_or(DropReason::Truncated)?;
        self.l3 = L3::V4;
        self.src = ip.src_addr();
        self.dst = ip.dst_addr();
        self.ttl = ip.ttl;
        self.proto = ip.protocol;
        self.ip_len = total as u32;
        self.l4 = (L3_OFFSET + header_len) as u16;
        if ip.is_fragment() {
            self.fragment(ip.fragment_offset(), ip.more_fragments(), payload.len())?;
        }
        self.transport(payload)
    }

    #[inline]
    fn ipv6(&mut self, packet: &[u8]) -> Result<(), DropReason> {
        let (ip, rest) = Ipv6::ref_from_prefix(packet).map_err(|_| DropReason::Truncated)?;
        if ip.version() != 6 {
            return Err(DropReason::Malformed);
        }
        let payload = rest.get(..usize::from(ip.payload_len.get())).ok_or(DropReason::Truncated)?;
        self.l3 = L3::V6;
        self.src = ip.src_addr();
        self.dst = ip.dst_addr();
        // A mapped address on the wire would be taken for IPv4's by every table (and by dual-stack
        // sockets: the kernel drops these packets too).
        if self.src.is_v4() {
            return Err(DropReason::MartianSource);
        }
        if self.dst.is_v4() {
            return Err(DropReason::MartianDestination);
        }
        self.ttl = ip.hop_limit;
        self.ip_len = (ipv6::HEADER_LEN + payload.len()) as u32;
        self.proto = ip.next_header;
        self.l4 = (L3_OFFSET + ipv6::HEADER_LEN) as u16;
        let payload =
            if is_extension(ip.next_header) { self.extensions(payload)? } else { payload };
        self.transport(payload)
    }

    /// Walks extension headers (RFC 8200 4) and returns what follows them. Hop-by-hop options come
    /// first or not at all, and a fragment header comes once (RFC 8200 4.1).
    #[cold]
    fn extensions<'a>(&mut self, mut rest: &'a [u8]) -> Result<&'a [u8], DropReason> {
        let mut fragmented = false;
        for position in 0..EXTENSIONS_MAX {
            let [next_header, len, ..] = *rest else { return Err(DropReason::Truncated) };
            let is_fragment = self.proto == ipv6::FRAGMENT;
            if (is_fragment && fragmented) || (self.proto == ipv6::HOP_BY_HOP && position > 0) {
                return Err(DropReason::Malformed);
            }
            let len = if is_fragment { 8 } else { 8 + usize::from(len) * 8 };
            let (header, payload) = rest.split_at_checked(len).ok_or(DropReason::Truncated)?;
            self.proto = next_header;
            self.l4 += len as u16;
            rest = payload;
            if is_fragment {
                fragmented = true;
                let header =
                    ipv6::Fragment::ref_from_bytes(header).map_err(|_| DropReason::Truncated)?;
                self.fragment(header.offset(), header.more(), payload.len())?;
            }
            // A later fragment names the next header too, but what follows is payload.
            if self.fragment == Fragment::Later || !is_extension(next_header) {
                return Ok(rest);
            }
        }
        Err(DropReason::Malformed)
    }

    /// Takes note of a fragment of `len` bytes at `offset`, in either family.
    #[cold]
    fn fragment(&mut self, offset: usize, more: bool, len: usize) -> Result<(), DropReason> {
        // All but the last are multiples of eight (RFC 791 3.2, RFC 8200 4.5), and the datagram must
        // not grow beyond what a length field can say: the "ping of death".
        if (more && !len.is_multiple_of(8)) || offset + len > limits::IP_PACKET_MAX {
            return Err(DropReason::Malformed);
        }
        if offset > 0 && self.proto == ipv6::TCP && offset < tcp::HEADER_LEN {
            // It would replace ports or flags that the first fragment was judged by (RFC 3128).
            return Err(DropReason::FragmentOverlap);
        }
        self.fragment = match (offset, more) {
            (0, false) => Fragment::Whole,
            (0, true) => Fragment::First,
            _ => Fragment::Later,
        };
        Ok(())
    }

    #[inline]
    fn transport(&mut self, payload: &[u8]) -> Result<(), DropReason> {
        if self.fragment == Fragment::Later {
            return Ok(());
        }
        match self.proto {
            ipv6::TCP => {
                let (tcp, _) = Tcp::ref_from_prefix(payload).map_err(|_| DropReason::Truncated)?;
                if tcp.header_len() < 20 || tcp.header_len() > payload.len() {
                    return Err(DropReason::Malformed);
                }
                self.src_port = tcp.src_port.get();
                self.dst_port = tcp.dst_port.get();
                self.tcp_flags = tcp.flags;
            }
            ipv6::UDP => {
                let (udp, _) = Udp::ref_from_prefix(payload).map_err(|_| DropReason::Truncated)?;
                let len = usize::from(udp.len.get());
                let too_long = self.fragment == Fragment::Whole && len > payload.len();
                if len < udp::HEADER_LEN || too_long {
                    return Err(DropReason::Malformed);
                }
                self.src_port = udp.src_port.get();
                self.dst_port = udp.dst_port.get();
            }
            _ => return self.other_transport(payload),
        }
        Ok(())
    }

    #[inline(never)]
    fn other_transport(&mut self, payload: &[u8]) -> Result<(), DropReason> {
        match self.proto {
            ipv6::SCTP => {
                let (sctp, _) = crate::wire::sctp::Sctp::ref_from_prefix(payload)
                    .map_err(|_| DropReason::Truncated)?;
                self.src_port = sctp.src_port.get();
                self.dst_port = sctp.dst_port.get();
            }
            proto if is_icmp_of(self.l3, proto) => {
                let (icmp, _) =
                    Icmp::ref_from_prefix(payload).map_err(|_| DropReason::Truncated)?;
                match icmp::Query::of(self.l3 == L3::V6, icmp.kind) {
                    Some(icmp::Query::Request) => self.src_port = icmp.id.get(),
                    Some(icmp::Query::Reply) => self.dst_port = icmp.id.get(),
                    None => {}
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn is_extension(next_header: u8) -> bool {
    matches!(next_header, ipv6::HOP_BY_HOP | ipv6::ROUTING | ipv6::FRAGMENT | ipv6::DEST_OPTIONS)
}

/// Whether the protocol is the family's own ICMP.
fn is_icmp_of(l3: L3, proto: u8) -> bool {
    matches!((l3, proto), (L3::V4, ipv6::ICMP) | (L3::V6, ipv6::ICMPV6))
}

/// Whether a packet is an ICMP message that is not a query: an error or neighbour discovery. Those
/// make no flow of their own.
pub fn is_icmp_non_query(parsed: &Parsed, frame: &[u8]) -> bool {
    let kind = parsed.l4_bytes(frame).first();
    let query = kind.and_then(|kind| icmp::Query::of(parsed.l3 == L3::V6, *kind));
    // A later fragment begins with payload.
    let has_type = parsed.fragment != Fragment::Later;
    has_type && is_icmp_of(parsed.l3, parsed.proto) && query.is_none()
}
