//! What a port may say about itself: anti-spoofing at the edge (RFC 2827).
//!
//! An endpoint's MAC and addresses are known from its attachment, so whatever it sends under
//! another name is dropped here, before anything learns from it: frames, packets, and the claims
//! inside ARP and neighbour discovery. Nor may it play router or DHCP server for its neighbours.

use zerocopy::FromBytes;

use crate::packet::parse::L3_OFFSET;
use crate::packet::{DropReason, FlowKey, Fragment, L3, Parsed};
use crate::wire::addr::Addr;
use crate::wire::arp::{self, Arp};
use crate::wire::icmp::{self, Icmp};
use crate::wire::ipv6;
use crate::wire::mac::Mac;
use crate::wire::ndp::{self, Neighbour};

/// The rules of one port.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    /// Its own MAC.
    pub mac: Mac,
    /// Its own addresses. Its EUI-64 link-local address need not be listed.
    pub addrs: Vec<Addr>,
}

const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;
const DHCP6_SERVER: u16 = 547;
const DHCP6_CLIENT: u16 = 546;
/// ICMP router advertisement (RFC 1256), the IPv4 one that nobody uses and every host believes.
const V4_ROUTER_ADVERTISEMENT: u8 = 9;
/// Multicast listener messages, sent from `::` before there is an address (RFC 3590).
const MULTICAST_LISTENER: [u8; 3] = [131, 132, 143];
/// Where the options of a router solicitation begin.
const ROUTER_SOLICITATION_LEN: usize = 8;
/// Where those of a neighbour solicitation or advertisement begin.
const NEIGHBOUR_LEN: usize = 24;

impl Guard {
    /// Whether the port may send this frame.
    #[inline]
    pub fn check(&self, parsed: &Parsed, frame: &[u8]) -> Result<(), DropReason> {
        if parsed.src_mac != self.mac {
            return Err(DropReason::GuardMac);
        }
        match parsed.l3 {
            L3::V4 | L3::V6 if parsed.fragment == Fragment::Later => self.source(parsed),
            L3::V4 => self.ipv4(parsed, frame),
            L3::V6 => self.ipv6(parsed, frame),
            L3::Arp => self.arp(frame),
            L3::Other(_) => Ok(()),
        }
    }

    /// Whether the port may send what answers a packet keyed `key`, so that it need not be asked again.
    pub fn may_answer(&self, key: &FlowKey) -> bool {
        let answers_as_server = key.proto == ipv6::UDP
            && matches!(
                (key.src_port, key.dst_port),
                (DHCP_CLIENT, DHCP_SERVER) | (DHCP6_CLIENT, DHCP6_SERVER)
            );
        self.owns(key.dst) && !answers_as_server
    }

    #[inline]
    fn owns(&self, addr: Addr) -> bool {
        self.addrs.contains(&addr) || addr == self.link_local()
    }

    fn link_local(&self) -> Addr {
        Addr::from_prefix_and_id(0xfe80 << 48, self.mac.eui64())
    }

    #[inline]
    fn source(&self, parsed: &Parsed) -> Result<(), DropReason> {
        if self.owns(parsed.src) { Ok(()) } else { Err(DropReason::GuardAddress) }
    }

    #[inline]
    fn ipv4(&self, parsed: &Parsed, frame: &[u8]) -> Result<(), DropReason> {
        match parsed.proto {
            ipv6::UDP => match (parsed.src_port, parsed.dst_port) {
                (DHCP_SERVER, DHCP_CLIENT) => return Err(DropReason::GuardRouter),
                // RFC 2131 4.1: a client without an address asks from 0.0.0.0.
                (DHCP_CLIENT, DHCP_SERVER) if parsed.src.is_unspecified() => return Ok(()),
                _ => {}
            },
            ipv6::ICMP => {
                let kind = parsed.l4_bytes(frame).first().copied();
                if matches!(kind, Some(icmp::v4::REDIRECT | V4_ROUTER_ADVERTISEMENT)) {
                    return Err(DropReason::GuardRouter);
                }
            }
            _ => {}
        }
        self.source(parsed)
    }

    #[inline]
    fn ipv6(&self, parsed: &Parsed, frame: &[u8]) -> Result<(), DropReason> {
        match parsed.proto {
            ipv6::ICMPV6 => self.icmpv6(parsed, parsed.l4_bytes(frame)),
            ipv6::UDP if (parsed.src_port, parsed.dst_port) == (DHCP6_SERVER, DHCP6_CLIENT) => {
                Err(DropReason::GuardRouter)
            }
            _ => self.source(parsed),
        }
    }

    fn icmpv6(&self, parsed: &Parsed, message: &[u8]) -> Result<(), DropReason> {
        let (icmp, _) = Icmp::ref_from_prefix(message).map_err(|_| DropReason::Truncated)?;
        let from_nobody = parsed.src.is_unspecified();
        match icmp.kind {
            icmp::v6::ROUTER_ADVERTISEMENT | icmp::v6::REDIRECT => Err(DropReason::GuardRouter),
            icmp::v6::NEIGHBOUR_SOLICITATION => {
                if !from_nobody {
                    self.source(parsed)?;
                } else if !self.owns(target(message)?) {
                    // Probing for a foreign address makes its owner give it up (RFC 4862 5.4.3).
                    return Err(DropReason::GuardNeighbour);
                }
                self.options(message, NEIGHBOUR_LEN)
            }
            icmp::v6::NEIGHBOUR_ADVERTISEMENT => {
                self.source(parsed)?;
                if !self.owns(target(message)?) {
                    return Err(DropReason::GuardNeighbour);
                }
                self.options(message, NEIGHBOUR_LEN)
            }
            icmp::v6::ROUTER_SOLICITATION => {
                if !from_nobody {
                    self.source(parsed)?;
                }
                self.options(message, ROUTER_SOLICITATION_LEN)
            }
            kind if from_nobody && MULTICAST_LISTENER.contains(&kind) => Ok(()),
            _ => self.source(parsed),
        }
    }

    /// Every link-layer address given in an option is the port's own. All are looked at: which of
    /// two a receiver believes is its own affair.
    fn options(&self, message: &[u8], fixed: usize) -> Result<(), DropReason> {
        let options = message.get(fixed..).ok_or(DropReason::Truncated)?;
        if !ndp::options_are_valid(options) {
            return Err(DropReason::GuardNeighbour);
        }
        let foreign = ndp::Options::new(options).any(|(kind, body)| {
            matches!(kind, ndp::SOURCE_LINK_LAYER | ndp::TARGET_LINK_LAYER) && body != self.mac.0
        });
        if foreign { Err(DropReason::GuardNeighbour) } else { Ok(()) }
    }

    /// The sender's two addresses are the port's own; a probe (RFC 5227 1.1) names no IP address.
    fn arp(&self, frame: &[u8]) -> Result<(), DropReason> {
        let packet = frame.get(L3_OFFSET..).unwrap_or_default();
        let (arp, _) = Arp::ref_from_prefix(packet).map_err(|_| DropReason::Truncated)?;
        if !arp.is_valid() {
            return Err(DropReason::Malformed);
        }
        let probe = arp.oper == arp::REQUEST && arp.spa == [0; 4];
        if arp.sha == self.mac && (probe || self.owns(Addr::from_v4_bytes(arp.spa))) {
            Ok(())
        } else {
            Err(DropReason::GuardNeighbour)
        }
    }
}

fn target(message: &[u8]) -> Result<Addr, DropReason> {
    let body = message.get(4..).unwrap_or_default();
    let (neighbour, _) = Neighbour::ref_from_prefix(body).map_err(|_| DropReason::Truncated)?;
    Ok(neighbour.target_addr())
}

#[cfg(test)]
mod tests;
