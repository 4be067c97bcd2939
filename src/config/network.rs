//! A network, as configured.

use std::sync::Arc;

use crate::base::ids::{NetworkId, PortId, UplinkId};
use crate::wire::addr::{Addr, Family};
use crate::wire::mac::Mac;

/// One range of a network's addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subnet {
    /// Network address.
    pub prefix: Addr,
    /// Prefix length, counted within the family.
    pub len: u8,
    /// The gateway's address in it.
    pub gateway: Addr,
}

/// A layer-2 domain with a gateway.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option of `network create`")]
pub struct Network {
    /// Its number.
    pub id: NetworkId,
    /// Its name.
    pub name: Arc<str>,
    /// Its subnets, at least one.
    pub subnets: Vec<Subnet>,
    /// The gateway's MAC, the same for every subnet.
    pub gateway_mac: Mac,
    /// Largest IP packet of its endpoints.
    pub mtu: u16,
    /// Not reachable from other networks, nor they from it.
    pub isolated: bool,
    /// No way out at all.
    pub internal: bool,
    /// The way out.
    pub uplink: Option<UplinkId>,
    /// The host's port, if the host takes part.
    pub host_port: Option<PortId>,
    /// The gateway's address stands for the host's loopback, as far as sockets reach it.
    pub host_loopback: bool,
    /// What it pretends to be.
    pub guise: Guise,
}

/// How a network looks that stands in for another program's: containers there expect that program's
/// addresses. An ordinary network has none of this.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Guise {
    /// Further addresses of the gateway, and what each stands for.
    pub also: Vec<(Addr, Stands)>,
    /// The container believes that it is on the host's own LAN, with the host's address: whatever address
    /// of it is asked for is answered, and what is sent there leaves by the uplink. That goes for the
    /// gateway's own address too, which is that of the LAN's real router.
    pub transparent: bool,
    /// Who solicits a router is told the IPv6 subnet, to make itself an address of it.
    pub advertises: bool,
    /// Protocols of which nothing leaves.
    pub without: Vec<u8>,
}

/// What an address of the gateway stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stands {
    /// The name server, and nothing else.
    NameServer,
    /// This address of the host, on every port.
    Host(Addr),
}

impl Network {
    /// The gateway of a family.
    pub fn gateway(&self, family: Family) -> Option<Addr> {
        self.subnets.iter().map(|s| s.gateway).find(|g| g.family() == family)
    }

    /// Whether `addr` is one of the gateway's: a subnet's, or the link-local address of its MAC.
    pub fn is_gateway(&self, addr: Addr) -> bool {
        let named = !self.guise.transparent && self.subnets.iter().any(|s| s.gateway == addr);
        named || addr == link_local(self.gateway_mac) || self.stands_for(addr).is_some()
    }

    /// What an address stands for that the gateway has besides its own.
    pub fn stands_for(&self, addr: Addr) -> Option<Stands> {
        self.guise.also.iter().find(|(also, _)| *also == addr).map(|(_, stands)| *stands)
    }

    /// What an address of the gateway stands for as far as sockets reach it: the host's loopback, if this
    /// network's containers may reach that; what the guise says.
    pub fn redirect(&self, addr: Addr) -> Option<Addr> {
        if !self.is_gateway(addr) {
            return None;
        }
        match self.stands_for(addr) {
            Some(Stands::Host(host)) => return Some(host),
            Some(Stands::NameServer) => return None,
            None => {}
        }
        let loopback = if addr.is_v4() { Addr::LOOPBACK_V4 } else { Addr::LOOPBACK_V6 };
        self.host_loopback.then_some(loopback)
    }

    /// All addresses that [`redirect`](Self::redirect) knows, with what they stand for: mostly none.
    pub fn redirects(&self) -> Box<[(Addr, Addr)]> {
        let also = self.guise.also.iter().map(|(addr, _)| *addr);
        let gateways = self.subnets.iter().map(|subnet| subnet.gateway);
        let all = also.chain(gateways).chain([link_local(self.gateway_mac)]);
        all.filter_map(|addr| Some((addr, self.redirect(addr)?))).collect()
    }

    /// The IPv6 subnet.
    pub fn subnet_v6(&self) -> Option<&Subnet> {
        self.subnets.iter().find(|s| !s.prefix.is_v4())
    }
}

impl Subnet {
    /// Whether `addr` lies in this subnet.
    pub fn contains(&self, addr: Addr) -> bool {
        if addr.family() != self.prefix.family() {
            return false;
        }
        let len = u32::from(self.len) + if self.prefix.is_v4() { 96 } else { 0 };
        let bits = |a: Addr| u128::from_be_bytes(a.bytes());
        let mask = if len == 0 { 0 } else { u128::MAX << (128 - len) };
        bits(addr) & mask == bits(self.prefix) & mask
    }

    /// IPv4's directed broadcast address of the subnet (RFC 919), if it has one.
    pub fn broadcast(&self) -> Option<Addr> {
        let bits = u32::from(self.prefix.v4()?);
        (self.len < 31).then(|| Addr::from_v4_bits(bits | (u32::MAX >> self.len)))
    }
}

/// The link-local IPv6 address of a MAC (RFC 4291 appendix A).
pub fn link_local(mac: Mac) -> Addr {
    let [a, b, c, d, e, f] = mac.0;
    Addr::from_v6_bytes([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_contains_its_own_family_only() {
        let subnet =
            |p: &str, len| Subnet { prefix: p.parse().unwrap(), len, gateway: Addr::UNSPECIFIED };
        let v4 = subnet("10.20.0.0", 24);
        assert!(v4.contains("10.20.0.9".parse().unwrap()));
        assert!(!v4.contains("10.20.1.9".parse().unwrap()));
        assert!(!v4.contains("fd00::1".parse().unwrap()));
        assert_eq!(v4.broadcast(), Some("10.20.0.255".parse().unwrap()));
        let v6 = subnet("fd00:1::", 64);
        assert!(v6.contains("fd00:1::9".parse().unwrap()));
        assert!(!v6.contains("fd00:2::9".parse().unwrap()));
        assert_eq!(v6.broadcast(), None);
    }

    #[test]
    fn the_link_local_address_of_a_mac_is_its_eui_64() {
        let mac = "02:42:ac:11:00:02".parse().unwrap();
        assert_eq!(link_local(mac), "fe80::42:acff:fe11:2".parse().unwrap());
    }
}
