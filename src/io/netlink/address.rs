//! Addresses of interfaces.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Netlink, NetlinkError};

/// An address of an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address {
    /// The interface.
    pub index: u32,
    /// Address and length of its prefix.
    pub net: IpNet,
    /// Not usable yet: duplicate address detection runs (RFC 4862 section 5.4).
    pub tentative: bool,
    /// Another one is to be preferred: a second of the same subnet, a temporary one (RFC 8981), or one
    /// whose time is nearly over.
    pub secondary: bool,
    /// Valid on this link only.
    pub link_local: bool,
}

/// What comes with a new address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AddressOptions {
    /// Do not make a route to the address's prefix.
    pub no_prefix_route: bool,
}

impl Netlink {
    /// All addresses of the namespace.
    pub fn addresses(&mut self) -> Result<Vec<Address>, NetlinkError> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let table = self.dump("list the addresses", &request)?;
        Ok(table.into_iter().filter_map(parse).collect())
    }

    /// Adds an address. An IPv6 one is usable at once: whoever calls this has assigned it, so there
    /// is nothing for duplicate address detection to find (`IFA_F_NODAD`).
    pub fn add_address(
        &mut self,
        index: u32,
        net: IpNet,
        options: AddressOptions,
    ) -> Result<(), NetlinkError> {
        let mut flags = AddressFlags::empty();
        if net.addr().is_ipv6() {
            flags |= AddressFlags::Nodad;
        }
        if options.no_prefix_route {
            flags |= AddressFlags::Noprefixroute;
        }
        let mut request = message(index, net);
        request.attributes.push(AddressAttribute::Flags(flags));
        if let IpNet::V4(v4) = net
            && v4.prefix_len() < 31
        {
            request.attributes.push(AddressAttribute::Broadcast(v4.broadcast()));
        }
        self.execute(
            &format!("add the address {net}"),
            RouteNetlinkMessage::NewAddress(request),
            NLM_F_CREATE | NLM_F_EXCL,
        )
    }

    /// Takes an address away.
    pub fn delete_address(&mut self, index: u32, net: IpNet) -> Result<(), NetlinkError> {
        let request = RouteNetlinkMessage::DelAddress(message(index, net));
        self.execute(&format!("remove the address {net}"), request, 0)
    }
}

fn message(index: u32, net: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = net.prefix_len();
    message.header.scope = scope_of(net.addr());
    message.header.family = match net {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    };
    // IPv4 distinguishes the own address from that of a point-to-point peer.
    message.attributes =
        vec![AddressAttribute::Local(net.addr()), AddressAttribute::Address(net.addr())];
    message
}

fn scope_of(address: IpAddr) -> AddressScope {
    match address {
        a if a.is_loopback() => AddressScope::Host,
        IpAddr::V4(v4) if v4.is_link_local() => AddressScope::Link,
        IpAddr::V6(v6) if v6.is_unicast_link_local() => AddressScope::Link,
        _ => AddressScope::Universe,
    }
}

fn parse(message: RouteNetlinkMessage) -> Option<Address> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    let (mut local, mut peer, mut flags) = (None, None, AddressFlags::empty());
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => peer = Some(*address),
            AddressAttribute::Flags(given) => flags = *given,
            _ => {}
        }
    }
    Some(Address {
        index: message.header.index,
        net: IpNet::new(local.or(peer)?, message.header.prefix_len).ok()?,
        secondary: flags.intersects(AddressFlags::Secondary | AddressFlags::Deprecated),
        tentative: flags.contains(AddressFlags::Tentative),
        link_local: message.header.scope == AddressScope::Link,
    })
}
