//! The world: a LAN with a remote host, a daemon, two networks and three containers.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use ipnet::IpNet;
use rustix::process::Signal;

use super::check::Family;
use super::daemon::Daemon;
use super::now;
use super::report::Report;
use crate::cli::human::list;
use crate::cli::join::{Join, Joined};
use crate::cli::options::EndpointOptions;
use crate::cli::output::Failure;
use crate::control::model::{NetworkSpec, PacketSpec, UplinkKind, UplinkSpec};
use crate::io::netlink::{AddressOptions, Netlink, NetlinkError};
use crate::io::netns::{NetNs, in_namespace};
use crate::io::process::{self, Child, Isolation, Network, prepare_network};
use crate::io::sysctl;
use crate::io::tap::{Tap, TapError};

/// Where servers of the demo listen.
pub(super) const PORT: u16 = 5000;
/// Where `web`'s is published.
pub(super) const PUBLISHED: u16 = 1180;
/// The uplink's end of the LAN.
const LAN_INTERFACE: &str = "lan0";
/// A host that does not speak IPv6 by then never will.
const SETTLING: Duration = Duration::from_secs(2);

/// One network stack, kept alive by a process.
#[derive(Debug)]
pub(super) struct Host {
    /// Its name.
    pub(super) name: &'static str,
    /// Its network namespace.
    pub(super) ns: NetNs,
    addresses: Vec<IpNet>,
    child: Child,
}

impl Host {
    /// Its address of this family.
    pub(super) fn addr(&self, family: Family) -> IpAddr {
        family.of(self.addresses.iter().map(IpNet::addr))
    }

    /// Its address with the demo's port.
    pub(super) fn server(&self, family: Family) -> SocketAddr {
        SocketAddr::new(self.addr(family), PORT)
    }

    /// The process that keeps it.
    pub(super) fn pid(&self) -> u32 {
        self.child.process().pid()
    }

    fn start(
        name: &'static str,
        prepare: impl FnOnce() -> Result<Joined, String>,
    ) -> Result<(Self, Joined), Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["demo", "--hold", name]).stdin(std::process::Stdio::null());
        let isolation =
            Isolation { network: Network::New, die_with_parent: true, new_session: true };
        let child = process::spawn(&mut command, isolation, || {
            prepare_network().map_err(|error| error.to_string())?;
            serde_json::to_vec(&prepare()?).map_err(|error| error.to_string())
        })?;
        let joined: Joined = serde_json::from_slice(&child.report)?;
        let ns = child.network()?;
        Ok((Self { name, ns, addresses: joined.addresses.clone(), child }, joined))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.process().signal(Signal::KILL);
        let _ = self.child.process().wait();
    }
}

/// All of it. Ends with its value, the containers first.
#[derive(Debug)]
pub(super) struct World {
    /// On the network blue.
    pub(super) app: Host,
    /// On the network blue, with published ports.
    pub(super) web: Host,
    /// On the network green.
    pub(super) db: Host,
    /// On the LAN.
    pub(super) remote: Host,
    /// The switch.
    pub(super) daemon: Daemon,
    uplink: Vec<IpNet>,
    gateways: Vec<IpAddr>,
}

impl World {
    /// Builds it and says what is there.
    pub(super) fn build(demo: &Path, report: &mut Report) -> Result<Self, Failure> {
        // What most often is missing gets the plainest answer.
        Tap::open("wharf-probe", 1).map_err(no_tap)?;
        report.begin()?;
        let daemon = Daemon::start(demo)?;
        report.fact("daemon", &format!("process {}", daemon.process().pid()), &[])?;

        let remote = remote_host(&nets(["192.0.2.9/24", "fd99::9/64"]))?;
        let uplink = nets(["192.0.2.2/24", "fd99::2/64"]);
        daemon.client.create_uplink(&UplinkSpec {
            name: "default".to_owned(),
            kind: UplinkKind::Packet(PacketSpec {
                interface: LAN_INTERFACE.to_owned(),
                addresses: uplink.clone(),
                ..PacketSpec::default()
            }),
        })?;
        let mut gateways = Vec::new();
        for (name, subnets) in
            [("blue", ["10.20.0.0/24", "fd20::/64"]), ("green", ["10.30.0.0/24", "fd30::/64"])]
        {
            let spec = NetworkSpec { subnets: nets(subnets), ..NetworkSpec::named(name) };
            let network = daemon.client.create_network(&spec)?;
            if name == "blue" {
                gateways.extend(network.subnets.iter().map(|subnet| subnet.gateway));
            }
        }
        let publish = ["tcp", "udp"].map(|proto| format!("{PUBLISHED}:{PORT}/{proto}"));
        let app = container(&daemon, "app", "blue", &[], report)?;
        let web = container(&daemon, "web", "blue", &publish, report)?;
        let db = container(&daemon, "db", "green", &[], report)?;
        settle(&remote)?;
        report.fact("switch", "on the LAN", &uplink)?;
        report.fact("remote", "on the LAN", &remote.addresses)?;
        Ok(Self { app, web, db, remote, daemon, uplink, gateways })
    }

    /// The switch's address on the LAN.
    pub(super) fn uplink(&self, family: Family) -> IpAddr {
        family.of(self.uplink.iter().map(IpNet::addr))
    }

    /// The gateway of the network blue.
    pub(super) fn gateway(&self, family: Family) -> IpAddr {
        family.of(self.gateways.iter().copied())
    }
}

/// As `wharf run` does it.
fn container(
    daemon: &Daemon,
    name: &'static str,
    network: &str,
    publish: &[String],
    report: &mut Report,
) -> Result<Host, Failure> {
    let (host, joined) = Host::start(name, || {
        let networks = [network.to_owned()];
        let options = EndpointOptions { publish: publish.to_vec(), ..EndpointOptions::default() };
        let join = Join {
            socket: daemon.dir.attach_socket(),
            name: Some(name),
            networks: &networks,
            ifname: "eth0",
            options: &options,
            pid: Some(std::process::id()),
        };
        let own = NetNs::current().map_err(|error| error.to_string())?;
        let mut joined = Joined::default();
        join.attach(&own, &mut joined).map_err(|error| error.to_string())?;
        Ok(joined)
    })?;
    let place = match joined.published.as_slice() {
        [] => format!("on {network}"),
        published => format!("on {network}, publishes {}", list(published)),
    };
    report.fact(name, &place, &joined.addresses)?;
    Ok(host)
}

/// A host at the other end of a veth pair, whose end here is the uplink's.
fn remote_host(addresses: &[IpNet]) -> Result<Host, Failure> {
    let (host, _) = Host::start("remote", || {
        Ok(Joined { addresses: addresses.to_vec(), ..Joined::default() })
    })?;
    let mut netlink = Netlink::open()?;
    netlink.create_veth(LAN_INTERFACE, "eth0", Some(&host.ns))?;
    // This end belongs to the switch alone.
    let _ = sysctl::disable_ipv6(LAN_INTERFACE, true);
    let index = netlink.link(LAN_INTERFACE)?.index;
    netlink.set_up(index)?;
    in_namespace(&host.ns, || -> Result<(), NetlinkError> {
        let _ = sysctl::quiet_ipv6("eth0");
        let mut netlink = Netlink::open()?;
        let index = netlink.link("eth0")?.index;
        for address in addresses {
            netlink.add_address(index, *address, AddressOptions::default())?;
        }
        netlink.set_up(index)
    })??;
    Ok(host)
}

/// Waits until a host speaks IPv6, which begins when the kernel has noticed that the cable is plugged
/// in: at once, or, where both ends of a veth pair happen to have the same number, within a second.
fn settle(host: &Host) -> Result<(), Failure> {
    let end = now() + SETTLING;
    loop {
        let addresses = in_namespace(&host.ns, || Netlink::open()?.addresses())??;
        let speaks = addresses.iter().any(|address| {
            address.net.addr().is_ipv6() && address.link_local && !address.tentative
        });
        if speaks || now() > end {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(2));
    }
}

fn no_tap(error: TapError) -> Failure {
    Failure::new(error).hint("`wharf doctor` says what this kernel and this user can do")
}

fn nets<const N: usize>(texts: [&str; N]) -> Vec<IpNet> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}
