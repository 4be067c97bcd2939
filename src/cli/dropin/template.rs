//! What `pasta` copies from the host: the addresses and routers of the interface with the default route.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use crate::io::netlink::{Netlink, NetlinkError};

/// The interface that the default route of a family leaves by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Template {
    pub(super) ifname: String,
    pub(super) address: IpNet,
    pub(super) gateway: Option<IpAddr>,
}

/// IPv4's and IPv6's, in the calling thread's namespace; of this interface alone, if one is named.
pub(super) fn find(interface: Option<&str>) -> Result<[Option<Template>; 2], NetlinkError> {
    let mut netlink = Netlink::open()?;
    let links = netlink.links()?;
    let routes = netlink.routes()?;
    let addresses = netlink.addresses()?;
    let name = |index| links.iter().find(|link| link.index == index).map(|link| &link.name);
    let wanted = |index| interface.is_none() || name(index).map(String::as_str) == interface;
    let of_family = |v6: bool| {
        let mut defaults: Vec<_> = routes
            .iter()
            .filter(|route| route.is_default() && route.destination.addr().is_ipv6() == v6)
            .filter_map(|route| Some((route, route.index.filter(|index| wanted(*index))?)))
            .collect();
        defaults.sort_by_key(|(route, _)| route.metric);
        let found = defaults.first().map(|(route, index)| (route.via, *index));
        // An interface that is named need not have a default route.
        let named = || links.iter().find(|link| Some(link.name.as_str()) == interface);
        let (gateway, index) = found.or_else(|| named().map(|link| (None, link.index)))?;
        let mut own = addresses.iter().filter(|a| a.index == index && !a.link_local);
        let address = own.find(|a| a.net.addr().is_ipv6() == v6)?.net;
        Some(Template { ifname: name(index)?.clone(), address, gateway })
    };
    Ok([of_family(false), of_family(true)])
}

/// The length of a prefix that nobody says: that of the address's class (RFC 791), or a whole IPv6 subnet.
pub(super) fn default_len(addr: IpAddr) -> u8 {
    match addr {
        IpAddr::V4(addr) => match addr.octets()[0] {
            0..=127 => 8,
            128..=191 => 16,
            _ => 24,
        },
        IpAddr::V6(_) => 64,
    }
}

/// A subnet in which `own` can be an endpoint's, and a gateway's address in it: the real one where it lies
/// there. A host may have an address without neighbours (/32), or the first or last of its subnet.
pub(super) fn subnet(own: IpNet, gateway: Option<IpAddr>) -> (IpNet, IpAddr) {
    let lens: &[u8] = if own.addr().is_ipv6() { &[64, 48, 32] } else { &[24, 16, 8] };
    let fits = |len: &u8| {
        let len = *len;
        let net = with_len(own.addr(), len);
        let roomy = net.max_prefix_len() - len >= 2;
        let inner =
            |addr: IpAddr| net.contains(&addr) && addr != net.network() && addr != net.broadcast();
        roomy && inner(own.addr())
    };
    let mut candidates = std::iter::once(own.prefix_len()).chain(lens.iter().copied());
    let len = candidates.find(fits).unwrap_or(lens[0]);
    let net = with_len(own.addr(), len);
    let usable = |gateway: &IpAddr| {
        net.contains(gateway) && *gateway != own.addr() && *gateway != net.network()
    };
    let gateway = gateway.filter(usable).unwrap_or_else(|| {
        let mut first = net.hosts().filter(|host| usable(host));
        first.next().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    });
    (net, gateway)
}

fn with_len(addr: IpAddr, len: u8) -> IpNet {
    IpNet::new(addr, len).map_or_else(|_| addr.into(), |net| net.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_of_a_host_finds_a_subnet_with_a_gateway() {
        for (own, gateway, subnet_is, gateway_is) in [
            ("192.0.2.2/24", Some("192.0.2.1"), "192.0.2.0/24", "192.0.2.1"),
            ("192.0.2.2/24", None, "192.0.2.0/24", "192.0.2.1"),
            ("192.0.2.1/24", None, "192.0.2.0/24", "192.0.2.2"),
            ("192.0.2.2/32", Some("169.254.1.1"), "192.0.2.0/24", "192.0.2.1"),
            ("192.0.2.0/31", Some("192.0.2.1"), "192.0.0.0/16", "192.0.2.1"),
            ("fd00::2/64", Some("fe80::1"), "fd00::/64", "fd00::1"),
            ("fd00::1/128", None, "fd00::/64", "fd00::2"),
        ] {
            let found = subnet(own.parse().unwrap(), gateway.map(|g| g.parse().unwrap()));
            let text = (found.0.to_string(), found.1.to_string());
            assert_eq!(text, (subnet_is.to_owned(), gateway_is.to_owned()), "{own}");
        }
    }

    #[test]
    fn an_address_without_a_prefix_takes_its_class_s() {
        for (addr, len) in
            [("10.0.2.100", 8), ("172.16.0.1", 16), ("192.0.2.2", 24), ("fd00::1", 64)]
        {
            assert_eq!(default_len(addr.parse().unwrap()), len, "{addr}");
        }
    }
}
