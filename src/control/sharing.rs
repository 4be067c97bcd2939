//! The real host's side of sharing its address: the table, the packet socket's filter, the reserved
//! ports, and a look at who else uses them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use crossbeam_channel::Sender;

use super::model::{PortRange, Proto};
use super::outside::{HostError, HostShare, HostWatch, OpenedShare, SeenHost, ShareRequest};
use super::share::addresses;
use crate::base::ids::PortId;
use crate::base::time::Span;
use crate::datapath::Lan;
use crate::io::netfilter::conntrack;
use crate::io::netfilter::table::{Held, OwnedTable, TableError};
use crate::io::netlink::{Monitor, Netlink, Stop, Woken};
use crate::io::packet::{PacketSocket, SharedPorts};
use crate::io::reserved_ports::{self, ReservedPorts};
use crate::io::sock_diag;
use crate::wire::addr::Addr;
use crate::wire::mac::Mac;
use crate::worker::command::Notice;

/// The ports that an uplink takes if none are asked for: behind those that the kernel gives by itself.
const USUAL: (u16, u16) = (61_440, 65_535);
/// If these are in use, so many others, from the last on.
const WINDOW: u16 = 4_096;
/// How often somebody is looked for who uses a port of ours.
const AUDIT: Span = Span::from_secs(60);
/// How soon after a change of the host.
const AUDIT_SOON: Span = Span::from_secs(2);
/// A change seldom comes alone.
const SETTLE: Span = Span::from_millis(50);

/// What is needed to share the host's addresses.
#[derive(Clone, Debug)]
pub struct Sharing {
    /// Where it is noted what must be given back.
    dir: PathBuf,
    notices: Sender<Notice>,
}

impl Sharing {
    /// Notes go to this directory, which a reboot empties, and notices to control. What a daemon that was
    /// killed has left is given back.
    pub fn new(dir: PathBuf, notices: Sender<Notice>) -> Self {
        ReservedPorts::restore(&dir);
        Self { dir, notices }
    }

    /// For who never shares: nothing is noted and nobody hears.
    pub fn nowhere() -> Self {
        Self { dir: PathBuf::from("/nonexistent"), notices: crossbeam_channel::bounded(0).0 }
    }

    pub(super) fn share(&self, request: &ShareRequest<'_>) -> Result<OpenedShare, HostError> {
        let interface = request.interface;
        let seen = look_at(interface, true)?;
        let mut notes = Vec::new();
        let ports = choose(request, &ips(&seen.lan), &mut notes)?;
        let range = ports.first()..=ports.last();
        let mut table = OwnedTable::create(interface, &range)?;
        table.change(&addresses(ips(&seen.lan)), &[])?;
        table.change(&request.held, &[])?;
        let mut published = Published::default();
        published.change(&request.held, &[]);
        let socket = PacketSocket::open_shared(interface, seen.mac, &published.with(&range))?;
        let filter = socket.shared_ports().map_err(|e| HostError::Failed(e.to_string()))?;
        let reserved = self.reserve(interface, &range, &mut notes)?;
        let host = SystemShare {
            interface: interface.to_owned(),
            range,
            mac: seen.mac,
            addrs: ips(&seen.lan),
            published,
            filter,
            table,
            _reserved: reserved,
        };
        Ok(OpenedShare { sockets: vec![socket], ports, notes, seen, host: Box::new(host) })
    }

    /// Keeps the kernel from giving our ports to anybody. Where it never would, a failure is only noted.
    fn reserve(
        &self,
        interface: &str,
        range: &RangeInclusive<u16>,
        notes: &mut Vec<String>,
    ) -> Result<Option<ReservedPorts>, HostError> {
        match ReservedPorts::add(&self.dir, interface, range.clone()) {
            Ok(reserved) => Ok(Some(reserved)),
            Err(error) if overlap(&reserved_ports::automatic(), range) => {
                Err(HostError::Denied(format!(
                    "the kernel gives ports of {}-{} to programs by itself, and that cannot be \
                     turned off ({error}): choose others with --ports",
                    range.start(),
                    range.end()
                )))
            }
            Err(error) => {
                notes.push(format!("its ports are not reserved: {error}"));
                Ok(None)
            }
        }
    }

    pub(super) fn watch(&self, port: PortId) -> Result<Box<dyn HostWatch>, HostError> {
        let (monitor, stop) = Monitor::open()?;
        let notices = self.notices.clone();
        let follow = move || {
            let mut patience = AUDIT;
            while let Ok(woken) = monitor.wait(patience) {
                let quiet = woken == Woken::Quiet;
                patience = if quiet { AUDIT } else { AUDIT_SOON };
                let settled = quiet || monitor.wait(SETTLE).is_ok_and(|w| w != Woken::Stopped);
                let stopped = woken == Woken::Stopped || !settled;
                if stopped || notices.send(Notice::HostChanged(port, quiet)).is_err() {
                    return;
                }
            }
        };
        let name = format!("host-{}", port.0);
        std::thread::Builder::new()
            .name(name)
            .spawn(follow)
            .map_err(|error| HostError::Failed(format!("starting a thread: {error}")))?;
        Ok(Box::new(Watching(stop)))
    }
}

/// Ends its thread when it is dropped.
#[derive(Debug)]
struct Watching(#[allow(dead_code, reason = "held for its drop")] Stop);

impl HostWatch for Watching {}

/// A working share.
#[derive(Debug)]
struct SystemShare {
    interface: String,
    range: RangeInclusive<u16>,
    mac: Mac,
    addrs: Vec<IpAddr>,
    published: Published,
    filter: SharedPorts,
    table: OwnedTable,
    _reserved: Option<ReservedPorts>,
}

impl HostShare for SystemShare {
    fn hold(&mut self, more: &[Held], less: &[Held]) -> Result<(), HostError> {
        self.published.change(more, less);
        // Between the two a port is nobody's or both's for a moment; what both have is answered by the
        // kernel alone, since the data path hears of it later and forgets it earlier.
        self.filter.set(self.mac, &self.published.with(&self.range))?;
        Ok(self.table.change(more, less)?)
    }

    fn look(&mut self) -> Result<SeenHost, HostError> {
        let seen = look_at(&self.interface, false)?;
        let now = ips(&seen.lan);
        if now != self.addrs {
            self.table.change(&addresses(now.clone()), &addresses(self.addrs.clone()))?;
            self.addrs = now;
        }
        Ok(seen)
    }

    fn conflicts(&self) -> Result<Vec<String>, HostError> {
        users(&self.range, &self.addrs)
    }
}

/// How many publications have each port, whatever the protocol: the filter in the socket does not ask.
#[derive(Debug, Default)]
struct Published(BTreeMap<u16, u32>);

impl Published {
    fn change(&mut self, more: &[Held], less: &[Held]) {
        let port = |held: &Held| match held {
            Held::Port { port, .. } | Held::At { port, .. } => Some(*port),
            Held::Address(_) => None,
        };
        for port in more.iter().filter_map(port) {
            *self.0.entry(port).or_default() += 1;
        }
        for port in less.iter().filter_map(port) {
            match self.0.get_mut(&port) {
                Some(1) => drop(self.0.remove(&port)),
                Some(count) => *count -= 1,
                None => {}
            }
        }
    }

    fn with(&self, range: &RangeInclusive<u16>) -> Vec<RangeInclusive<u16>> {
        self.0.keys().map(|port| *port..=*port).chain([range.clone()]).collect()
    }
}

/// The host on this NIC: addresses that others can reach, those to be preferred first, and the routers of
/// default routes by this NIC, the best of each family first.
fn look_at(interface: &str, must_be_up: bool) -> Result<SeenHost, HostError> {
    let mut netlink = Netlink::open()?;
    let link = netlink.link(interface)?;
    let Some(mac) = link.mac.filter(|_| !link.loopback) else {
        return Err(HostError::Failed(format!(
            "the interface `{interface}` has no Ethernet address, so its address cannot be shared: \
             choose a wired interface, or the `sockets` uplink"
        )));
    };
    if must_be_up && !link.up {
        return Err(HostError::Failed(format!(
            "the interface `{interface}` is down: set it up first (`ip link set {interface} up`)"
        )));
    }
    let usable =
        |a: &crate::io::netlink::Address| a.index == link.index && !a.link_local && !a.tentative;
    let mut addrs: Vec<_> = netlink.addresses()?.into_iter().filter(usable).collect();
    addrs.sort_by_key(|a| (a.secondary, a.net.addr().is_ipv6()));
    let by_this = |r: &crate::io::netlink::Route| r.is_default() && r.index == Some(link.index);
    let mut routes: Vec<_> = netlink.routes()?.into_iter().filter(by_this).collect();
    routes.sort_by_key(|route| route.metric);
    let lan = Lan {
        addrs: addrs.iter().map(|a| (Addr::from(a.net.addr()), a.net.prefix_len())).collect(),
        routers: routes.iter().filter_map(|route| route.via).map(Addr::from).collect(),
        dns: Vec::new(),
        mtu: None,
    };
    Ok(SeenHost { lan, mac, mtu: u16::try_from(link.mtu).unwrap_or(u16::MAX) })
}

fn ips(lan: &Lan) -> Vec<IpAddr> {
    lan.addrs.iter().map(|(addr, _)| addr.ip()).collect()
}

/// The range that is asked for, or the usual one, or another one if somebody uses that.
fn choose(
    request: &ShareRequest<'_>,
    addrs: &[IpAddr],
    notes: &mut Vec<String>,
) -> Result<PortRange, HostError> {
    let usual = PortRange::new(USUAL.0, USUAL.1).unwrap_or(PortRange::single(USUAL.1));
    let wanted = request.ports.unwrap_or(usual);
    let Some(user) = first_user(request, wanted, addrs)? else { return Ok(wanted) };
    if request.ports.is_none() {
        for other in others() {
            if first_user(request, other, addrs)?.is_none() {
                notes.push(format!("it has the ports {other}, since {user} uses one of {wanted}"));
                return Ok(other);
            }
        }
    }
    Err(HostError::Failed(format!(
        "{user} uses a port of {wanted} on the host's address: choose others with `--ports \
         FIRST-LAST`, or end that first"
    )))
}

/// Ranges to fall back to: those from which the kernel gives none by itself come first.
fn others() -> Vec<PortRange> {
    let windows = (1..USUAL.0 / WINDOW).rev();
    let windows = windows.filter_map(|n| PortRange::new(n * WINDOW, n * WINDOW + (WINDOW - 1)));
    let automatic = reserved_ports::automatic();
    let is_automatic = |range: &PortRange| overlap(&automatic, &(range.first()..=range.last()));
    let (last, first): (Vec<_>, Vec<_>) = windows.partition(is_automatic);
    first.into_iter().chain(last).collect()
}

fn overlap(one: &RangeInclusive<u16>, other: &RangeInclusive<u16>) -> bool {
    one.start() <= other.end() && other.start() <= one.end()
}

fn first_user(
    request: &ShareRequest<'_>,
    range: PortRange,
    addrs: &[IpAddr],
) -> Result<Option<String>, HostError> {
    if let Some((_, holder)) = request.taken.iter().find(|(taken, _)| taken.overlaps(range)) {
        return Ok(Some(holder.clone()));
    }
    Ok(users(&(range.first()..=range.last()), addrs)?.into_iter().next())
}

/// Programs of the host, and its own address translation, that use ports of a range at our addresses.
fn users(range: &RangeInclusive<u16>, addrs: &[IpAddr]) -> Result<Vec<String>, HostError> {
    let failed = |what: &str, error: std::io::Error| {
        HostError::Failed(format!("cannot list the host's {what}: {error}"))
    };
    let sockets = sock_diag::ports().map_err(|error| failed("sockets", error))?;
    let sockets = sockets.into_iter().filter(|socket| {
        range.contains(&socket.port) && addrs.iter().any(|addr| socket.covers(*addr))
    });
    let mut users: Vec<String> = sockets
        .filter(|socket| !socket.is_own())
        .map(|socket| format!("{} at port {}/{}", socket.holder(), socket.port, name(socket.proto)))
        .collect();
    let tracked = conntrack::translated().map_err(|error| failed("tracked connections", error))?;
    for one in tracked {
        let ours =
            |end: std::net::SocketAddr| addrs.contains(&end.ip()) && range.contains(&end.port());
        let Some(port) = [one.answers_to, one.to].into_iter().find(|end| ours(*end)) else {
            continue;
        };
        let (from, port, proto) = (one.from, port.port(), name(one.proto));
        users.push(format!("the host's own translation of {from} at port {port}/{proto}"));
    }
    Ok(users)
}

fn name(proto: u8) -> String {
    let known = [Proto::Tcp, Proto::Udp, Proto::Sctp].into_iter().find(|p| p.number() == proto);
    known.map_or_else(|| proto.to_string(), |proto| proto.to_string())
}

impl From<TableError> for HostError {
    fn from(error: TableError) -> Self {
        match error {
            TableError::NotPermitted => Self::Denied(error.to_string()),
            other => Self::Failed(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fallback_ranges_are_disjoint_and_those_of_the_kernel_s_choice_come_last() {
        let others = others();
        assert_eq!(others.len(), 14);
        for (n, range) in others.iter().enumerate() {
            assert_eq!(range.count(), u32::from(WINDOW));
            assert!(range.last() < USUAL.0);
            assert!(others[..n].iter().all(|other| !other.overlaps(*range)));
        }
        let automatic = reserved_ports::automatic();
        let is_automatic = |range: &PortRange| overlap(&automatic, &(range.first()..=range.last()));
        assert!(others.is_sorted_by_key(is_automatic));
    }

    #[test]
    fn a_port_is_passed_as_long_as_one_publication_has_it() {
        let mut published = Published::default();
        let port = |v6| Held::Port { v6, proto: 6, port: 80 };
        published.change(&[port(false), port(true)], &[]);
        published.change(&[], &[port(false)]);
        assert_eq!(published.with(&(9..=10)), [80..=80, 9..=10]);
        published.change(&[], &[port(true)]);
        assert_eq!(published.with(&(9..=10)), [9..=10]);
    }
}
