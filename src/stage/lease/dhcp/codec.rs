//! DHCP messages in frames.

use std::net::Ipv4Addr;

use smoltcp::wire::{DhcpMessageType, DhcpOpCode, EthernetAddress};
use zerocopy::{FromBytes, IntoBytes};

use super::{DHCP_CLIENT_PORT, DHCP_SERVER_PORT, DhcpPacket, DhcpRepr};
use crate::packet::{Fragment, L3, Offload, PacketBuf, Parsed};
use crate::wire::addr::Addr;
use crate::wire::checksum;
use crate::wire::dhcp::{
    self, DNS, LEASE_TIME, MAGIC, MESSAGE_MIN, MESSAGE_TYPE, MTU, REBIND_TIME, RENEW_TIME, ROUTER,
    ROUTES, SERVER, SUBNET_MASK,
};
use crate::wire::ethernet::{self, Ethernet};
use crate::wire::ipv4::Ipv4;
use crate::wire::ipv6;
use crate::wire::mac::Mac;
use crate::wire::udp::{self, Udp};

/// The limited broadcast.
pub(super) const EVERYBODY: (Mac, Addr) = (Mac::BROADCAST, Addr::from_v4_bits(u32::MAX));

const WANTED: [u8; 8] =
    [ROUTES, SUBNET_MASK, ROUTER, DNS, MTU, LEASE_TIME, RENEW_TIME, REBIND_TIME];

/// Routers and name servers taken from one answer.
const LIST_MAX: usize = 4;
/// The least MTU anybody means in earnest (RFC 1122 3.3.3).
const MTU_MIN: u16 = 576;
/// What an answer says.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) kind: DhcpMessageType,
    pub(super) addr: Option<Addr>,
    pub(super) server: Option<Addr>,
    pub(super) prefix_len: u8,
    pub(super) routers: Vec<Addr>,
    pub(super) dns: Vec<Addr>,
    pub(super) mtu: Option<u16>,
    pub(super) lease: Option<u32>,
    pub(super) renew: Option<u32>,
    pub(super) rebind: Option<u32>,
}

/// The DHCP message in a frame, if it is one from a server, whole, and its checksum right or none
/// or unfinished: a server on the same host leaves it to its network card, which is not there.
pub(super) fn payload<'a>(frame: &'a [u8], parsed: &Parsed) -> Option<&'a [u8]> {
    let ports = (parsed.src_port, parsed.dst_port) == (DHCP_SERVER_PORT, DHCP_CLIENT_PORT);
    let plain = parsed.l3 == L3::V4 && parsed.fragment == Fragment::Whole;
    if !ports || !plain || parsed.proto != ipv6::UDP {
        return None;
    }
    let l4 = parsed.l4_bytes(frame);
    let (header, _) = Udp::ref_from_prefix(l4).ok()?;
    let datagram = l4.get(..usize::from(header.len.get()))?;
    let len = datagram.len() as u32;
    let pseudo = checksum::pseudo_header(parsed.src, parsed.dst, ipv6::UDP, len);
    let field = header.checksum.get();
    let complete = checksum::add(pseudo, checksum::sum(datagram)) == 0xffff;
    let right = field == 0 || field == pseudo || complete;
    right.then(|| datagram.get(udp::HEADER_LEN..)).flatten()
}

impl Answer {
    /// Reads a message if it answers ours.
    pub(super) fn read(payload: &[u8], xid: u32, mac: Mac) -> Option<Self> {
        let packet = DhcpPacket::new_checked(payload).ok()?;
        let ours = packet.opcode() == DhcpOpCode::Reply
            && packet.transaction_id() == xid
            && packet.hardware_len() == 6
            && packet.client_hardware_address().0 == mac.0
            && packet.magic_number().to_be_bytes() == MAGIC;
        if !ours {
            return None;
        }
        let option = |kind| packet.options().find(|o| o.kind == kind).map(|o| o.data);
        let number = |kind| Some(u32::from_be_bytes(option(kind)?.try_into().ok()?));
        let addr = Addr::from(packet.your_ip());
        let mtu = option(MTU).and_then(|data| Some(u16::from_be_bytes(data.try_into().ok()?)));
        let default =
            option(ROUTES).and_then(dhcp::default_route).filter(|router| is_usable(*router));
        let routers = || option(ROUTER).map(addresses).unwrap_or_default();
        Some(Self {
            kind: DhcpMessageType::from(*option(MESSAGE_TYPE)?.first()?),
            addr: is_usable(addr).then_some(addr),
            server: option(SERVER).and_then(|data| addresses(data).first().copied()),
            prefix_len: prefix_len(number(SUBNET_MASK), addr),
            routers: default.map_or_else(routers, |router| vec![router]),
            dns: option(DNS).map(addresses).unwrap_or_default(),
            mtu: mtu.filter(|mtu| *mtu >= MTU_MIN),
            lease: number(LEASE_TIME),
            renew: number(RENEW_TIME),
            rebind: number(REBIND_TIME),
        })
    }
}

fn is_usable(addr: Addr) -> bool {
    !addr.is_unspecified() && !addr.is_multicast_or_broadcast() && !addr.is_loopback()
}

fn addresses(data: &[u8]) -> Vec<Addr> {
    dhcp::addresses(data).filter(|addr| is_usable(*addr)).take(LIST_MAX).collect()
}

/// The length of a mask without gaps; without one, that of the address's class.
fn prefix_len(mask: Option<u32>, addr: Addr) -> u8 {
    mask.and_then(dhcp::prefix_len).unwrap_or_else(|| {
        match addr.v4().map_or(0, |a| a.octets()[0]) {
            0..128 => 8,
            128..192 => 16,
            _ => 24,
        }
    })
}

/// What all our messages have in common.
pub(super) fn template(mac: Mac) -> DhcpRepr<'static> {
    let none = Ipv4Addr::UNSPECIFIED;
    DhcpRepr {
        message_type: DhcpMessageType::Discover,
        transaction_id: 0,
        secs: 0,
        client_hardware_address: EthernetAddress(mac.0),
        client_ip: none,
        your_ip: none,
        server_ip: none,
        router: None,
        subnet_mask: None,
        relay_agent_ip: none,
        broadcast: false,
        requested_ip: None,
        client_identifier: Some(EthernetAddress(mac.0)),
        server_identifier: None,
        parameter_request_list: Some(&WANTED),
        dns_servers: None,
        max_size: Some(1500),
        lease_duration: None,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    }
}

/// A message to everybody from nobody.
pub(super) fn broadcast(mac: Mac, repr: &DhcpRepr<'_>) -> PacketBuf {
    send((mac, Addr::from_v4_bits(0)), EVERYBODY, repr)
}

/// A message in a frame.
pub(super) fn send(from: (Mac, Addr), to: (Mac, Addr), repr: &DhcpRepr<'_>) -> PacketBuf {
    let mut message = vec![0; repr.buffer_len().max(MESSAGE_MIN)];
    // It cannot fail, having asked for the length; an empty message would be dropped by the server.
    let written = repr.emit(&mut DhcpPacket::new_unchecked(&mut message));
    debug_assert!(written.is_ok(), "buffer_len is right");
    frame(from, to, (DHCP_CLIENT_PORT, DHCP_SERVER_PORT), &message)
}

/// A datagram in a frame.
pub(super) fn frame(
    from: (Mac, Addr),
    to: (Mac, Addr),
    ports: (u16, u16),
    payload: &[u8],
) -> PacketBuf {
    let len = (udp::HEADER_LEN + payload.len()) as u16;
    let eth = Ethernet { dst: to.0, src: from.0, ethertype: ethernet::IPV4.into() };
    let mut ip = Ipv4::new(from.1, to.1, ipv6::UDP, len);
    ip.fill_checksum();
    let (src_port, dst_port) = (ports.0.into(), ports.1.into());
    let mut header = Udp { src_port, dst_port, len: len.into(), checksum: 0.into() };
    let pseudo = checksum::pseudo_header(from.1, to.1, ipv6::UDP, len.into());
    let sum = checksum::add(checksum::sum(header.as_bytes()), checksum::sum(payload));
    let field = !checksum::add(pseudo, sum);
    // RFC 768: a computed zero is sent as all ones.
    header.checksum = if field == 0 { 0xffff } else { field }.into();
    let bytes = [eth.as_bytes(), ip.as_bytes(), header.as_bytes(), payload].concat();
    PacketBuf::new(&bytes, Offload::NONE)
}
