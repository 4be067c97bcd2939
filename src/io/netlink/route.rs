//! Routes of the main table.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
    RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Netlink, NetlinkError};

/// A route as the kernel shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// Where to; a prefix of length zero is the default route.
    pub destination: IpNet,
    /// The router; without one, the destination is on the link.
    pub via: Option<IpAddr>,
    /// The interface.
    pub index: Option<u32>,
    /// The preference: smaller is better.
    pub metric: u32,
    /// The table; 254 is the main one.
    pub table: u32,
    /// The source address that connections along this route get.
    pub source: Option<IpAddr>,
}

/// A route to be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewRoute {
    /// Where to.
    pub destination: IpNet,
    /// The router, if any.
    pub via: Option<IpAddr>,
    /// The interface.
    pub index: u32,
    /// Believe that the router is on the link although no subnet of the interface says so.
    pub onlink: bool,
}

impl Route {
    /// Whether this is a default route of the main table.
    pub fn is_default(&self) -> bool {
        self.destination.prefix_len() == 0 && self.table == u32::from(RouteHeader::RT_TABLE_MAIN)
    }
}

impl Netlink {
    /// All unicast routes of the namespace, of every table but that of the local addresses.
    pub fn routes(&mut self) -> Result<Vec<Route>, NetlinkError> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            let request = RouteNetlinkMessage::GetRoute(request);
            let table = self.dump("list the routes", &request)?;
            routes.extend(table.into_iter().filter_map(parse));
        }
        Ok(routes)
    }

    /// Adds a route to the main table. EEXIST: there is one with the same destination.
    pub fn add_route(&mut self, route: &NewRoute) -> Result<(), NetlinkError> {
        let operation = match route.via {
            Some(via) => format!("add the route to {} via {via}", route.destination),
            None => format!("add the route to {}", route.destination),
        };
        let request = RouteNetlinkMessage::NewRoute(message(route));
        self.execute(&operation, request, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Removes a route from the main table.
    pub fn delete_route(&mut self, route: &NewRoute) -> Result<(), NetlinkError> {
        let request = RouteNetlinkMessage::DelRoute(message(route));
        self.execute(&format!("remove the route to {}", route.destination), request, 0)
    }
}

fn message(route: &NewRoute) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = match route.destination {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    };
    header.destination_prefix_length = route.destination.prefix_len();
    header.table = RouteHeader::RT_TABLE_MAIN;
    header.protocol = RouteProtocol::Static;
    header.kind = RouteType::Unicast;
    header.scope = if route.via.is_some() { RouteScope::Universe } else { RouteScope::Link };
    if route.onlink {
        header.flags |= RouteFlags::Onlink;
    }
    message.attributes.push(RouteAttribute::Oif(route.index));
    if route.destination.prefix_len() > 0 {
        let network = RouteAddress::from(route.destination.network());
        message.attributes.push(RouteAttribute::Destination(network));
    }
    if let Some(via) = route.via {
        message.attributes.push(RouteAttribute::Gateway(via.into()));
    }
    message
}

fn parse(message: RouteNetlinkMessage) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    if message.header.kind != RouteType::Unicast {
        return None;
    }
    let mut destination: IpNet = match message.header.address_family {
        AddressFamily::Inet => Ipv4Net::default().into(),
        AddressFamily::Inet6 => Ipv6Net::default().into(),
        _ => return None,
    };
    let mut route = Route {
        destination,
        via: None,
        index: None,
        metric: 0,
        table: u32::from(message.header.table),
        source: None,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => {
                let length = message.header.destination_prefix_length;
                destination = IpNet::new(ip(address)?, length).ok()?;
            }
            RouteAttribute::Gateway(address) => route.via = ip(address),
            RouteAttribute::PrefSource(address) => route.source = ip(address),
            RouteAttribute::Oif(index) => route.index = Some(*index),
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::Table(table) => route.table = *table,
            _ => {}
        }
    }
    Some(Route { destination, ..route })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}
