//! The real host: its routes, addresses and interfaces by rtnetlink, in the daemon's own network
//! namespace. Read anew whenever a decision needs it, not followed: an idle daemon stays asleep.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use super::ipam::Claim;
use super::outside::{
    Host, HostError, HostInterface, HostWatch, OpenedPacket, OpenedShare, ShareRequest,
};
use super::sharing::Sharing;
use crate::base::ids::PortId;
use crate::io::host_listen::{ListenError, Listener, Transport};
use crate::io::netdev;
use crate::io::netlink::{AddressOptions, Netlink, NetlinkError};
use crate::io::packet::{PacketError, PacketSocket};
use crate::io::sysctl;
use crate::io::tap::{Tap, TapError};
use crate::io::tunnel::{self, TunnelSockets};
use crate::wire::mac::Mac;

/// Frames that wait in the ring of the host's own interface.
const TXQUEUELEN: u32 = 2_000;

/// The host that the daemon runs on.
#[derive(Clone, Debug)]
pub struct SystemHost {
    /// Queues of an interface of the host's own.
    pub queues: usize,
    /// What sharing its addresses takes.
    pub sharing: Sharing,
}

/// Ranges to which the calling thread's namespace has routes, with a word on each.
pub fn host_routes() -> Result<Vec<Claim>, HostError> {
    let mut netlink = Netlink::open()?;
    let names: BTreeMap<u32, String> =
        netlink.links()?.into_iter().map(|link| (link.index, link.name)).collect();
    let claim = |route: crate::io::netlink::Route| {
        let name = route.index.and_then(|index| names.get(&index));
        let holder = match name {
            Some(name) => format!("a route of the host, via {name}"),
            None => "a route of the host".to_owned(),
        };
        Claim { net: route.destination, holder }
    };
    Ok(netlink.routes()?.into_iter().map(claim).collect())
}

impl Host for SystemHost {
    fn routes(&self) -> Result<Vec<Claim>, HostError> {
        host_routes()
    }

    fn addresses(&self) -> Result<Vec<IpAddr>, HostError> {
        let all = Netlink::open()?.addresses()?.into_iter();
        let usable = all.filter(|a| !a.link_local && !a.net.addr().is_loopback());
        let mut addrs: Vec<IpAddr> = usable.map(|a| a.net.addr()).collect();
        addrs.sort_unstable();
        addrs.dedup();
        Ok(addrs)
    }

    fn name_servers(&self) -> Vec<IpAddr> {
        let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        name_servers(&text)
    }

    fn search_domains(&self) -> Vec<String> {
        let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        search_domains(&text)
    }

    fn open_packet(&self, interface: &str, mac: Mac) -> Result<OpenedPacket, HostError> {
        let link = Netlink::open()?.link(interface)?;
        if !link.up {
            return Err(HostError::Failed(format!(
                "the interface `{interface}` is down: set it up first (`ip link set {interface} up`)"
            )));
        }
        let socket = PacketSocket::open(interface, mac)?;
        let mtu = u16::try_from(link.mtu).unwrap_or(u16::MAX);
        Ok(OpenedPacket { sockets: vec![socket], mtu, uso: false })
    }

    fn share(&self, request: &ShareRequest<'_>) -> Result<OpenedShare, HostError> {
        self.sharing.share(request)
    }

    fn watch(&self, port: PortId) -> Result<Box<dyn HostWatch>, HostError> {
        self.sharing.watch(port)
    }

    fn listen(
        &self,
        addr: Option<IpAddr>,
        port: u16,
        transport: Transport,
    ) -> Result<Listener, ListenError> {
        Listener::bind(addr, port, transport)
    }

    fn open_tunnels(
        &self,
        addrs: &[IpAddr],
        port: u16,
        one_port: bool,
    ) -> Result<TunnelSockets, ListenError> {
        TunnelSockets::bind(addrs, port, one_port)
    }

    fn path_mtu(&self, to: IpAddr, port: u16) -> Option<u16> {
        tunnel::path_mtu(to, port)
    }

    fn make_interface(&self, wanted: &HostInterface) -> Result<Vec<Tap>, HostError> {
        let taps = Tap::open(&wanted.name, self.queues)?;
        // Whatever fails from here on, dropping the TAP removes the interface.
        let mut netlink = Netlink::open()?;
        let index = netlink.link(&wanted.name)?.index;
        netlink.set_mac(index, wanted.mac)?;
        netlink.set_mtu(index, wanted.mtu.into())?;
        netlink.set_txqueuelen(index, TXQUEUELEN)?;
        if wanted.addresses.iter().any(|a| a.addr().is_ipv6()) {
            // Without IPv6 in the kernel the address below says so.
            let _ = sysctl::disable_ipv6(&wanted.name, false);
        }
        // The switch answers for the same addresses: the kernel's probes would find them taken.
        if let Err(error) = sysctl::quiet_ipv6(&wanted.name) {
            tracing::debug!("{error}");
        }
        for address in &wanted.addresses {
            netlink.add_address(index, *address, AddressOptions::default())?;
        }
        netlink.set_up(index)?;
        Ok(taps)
    }

    fn interfaces(&self) -> Result<Vec<String>, HostError> {
        Ok(Netlink::open()?.links()?.into_iter().map(|link| link.name).collect())
    }

    fn ring_drops(&self, pid: u32, ifname: &str) -> Option<u64> {
        netdev::transmit_drops(pid, ifname)
    }
}

/// Name servers of a `resolv.conf`, as many as the C library looks at. Without one it asks this host.
fn name_servers(text: &str) -> Vec<IpAddr> {
    const MAXNS: usize = 3;
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let addrs = lines.filter_map(|rest| rest.trim().parse::<IpAddr>().ok());
    let mut addrs: Vec<_> = addrs.filter(|a| !a.is_unspecified()).take(MAXNS).collect();
    if addrs.is_empty() {
        addrs.push(Ipv4Addr::LOCALHOST.into());
    }
    addrs
}

/// Search domains of a `resolv.conf`: of several lines the last one counts (resolv.conf(5)).
fn search_domains(text: &str) -> Vec<String> {
    const DOMAINS_MAX: usize = 6;
    let is_setting = |line: &&str| line.starts_with("search") || line.starts_with("domain");
    let last = text.lines().map(str::trim).rfind(is_setting);
    let domains = last.into_iter().flat_map(|line| line.split_whitespace().skip(1));
    let usable = domains.map(|d| d.trim_end_matches('.')).filter(|d| !d.is_empty());
    usable.take(DOMAINS_MAX).map(str::to_owned).collect()
}

impl From<NetlinkError> for HostError {
    fn from(error: NetlinkError) -> Self {
        match error.errno() {
            Some(libc::EPERM | libc::EACCES) => Self::Denied(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl From<TapError> for HostError {
    fn from(error: TapError) -> Self {
        match error {
            TapError::NotPermitted(_) | TapError::DeviceClosed(_) => {
                Self::Denied(error.to_string())
            }
            other => Self::Failed(other.to_string()),
        }
    }
}

impl From<PacketError> for HostError {
    fn from(error: PacketError) -> Self {
        match error {
            PacketError::NotPermitted => Self::Denied(error.to_string()),
            PacketError::Interface(error) => error.into(),
            other => Self::Failed(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_those_of_resolv_conf_with_loopback_s_and_else_this_host() {
        let text = "search x\nnameserver 127.0.0.53\nnameserver\t9.9.9.9\n#nameserver 1.1.1.1\n\
                    nameserver 2620:fe::fe\nnameserver fe80::1%eth0\nnameserver ::1\n";
        let addrs = |texts: &[&str]| -> Vec<IpAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        assert_eq!(name_servers(text), addrs(&["127.0.0.53", "9.9.9.9", "2620:fe::fe"]));
        assert_eq!(name_servers("nameserver 0.0.0.0\n"), addrs(&["127.0.0.1"]));
    }

    #[test]
    fn search_domains_are_those_of_the_last_line_that_names_any() {
        let text = "domain old.test\nsearch  a.test b.test.\t.\nnameserver 192.0.2.1\n";
        assert_eq!(search_domains(text), ["a.test", "b.test"]);
        assert_eq!(search_domains("nameserver 192.0.2.1\n"), Vec::<String>::new());
    }

    #[test]
    fn the_host_s_addresses_are_none_of_loopback() {
        let host = SystemHost { queues: 1, sharing: Sharing::nowhere() };
        assert!(host.addresses().unwrap().iter().all(|a| !a.is_loopback()));
        assert!(host.interfaces().unwrap().contains(&"lo".to_owned()));
        host.routes().unwrap();
    }

    #[test]
    fn an_interface_that_does_not_exist_is_named() {
        let host = SystemHost { queues: 1, sharing: Sharing::nowhere() };
        let error = host.open_packet("nosuch0", Mac::ZERO).unwrap_err().to_string();
        assert!(error.contains("`nosuch0`"), "{error}");
    }
}
