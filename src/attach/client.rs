//! The attacher's end. Works as root and inside a user namespace that owns the target's namespace
//! and that the calling process has entered before.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::protocol::{
    AttachReply, AttachRequest, Attached, BadMessage, Greeting, Hello, Refusal, TAP_KIND, VERSION,
    parse_greeting, parse_reply, to_bytes,
};
use crate::base::limits::ATTACH_PATIENCE;
use crate::io::fdpass::{Connection, FdPassError};
use crate::io::netlink::{AddressOptions, Netlink, NetlinkError, NewRoute};
use crate::io::netns::{NetNs, NetNsError, in_namespace};
use crate::io::sysctl::{self, SysctlError};
use crate::io::tap::{Tap, TapError, is_interface_name};
use crate::wire::mac::Mac;
use crate::wire::vnet;

/// The TAP's name while it is in staging, where nothing else is.
const STAGING_NAME: &str = "wharf-staging";

/// A container that is attached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attachment {
    /// What the daemon assigned; the link has it now.
    pub attached: Attached,
    /// What could not be done and only costs comfort: sentences for standard error.
    pub warnings: Vec<String>,
}

/// Why attaching failed. The container's namespace is as it was.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The daemon is not running, or the connection broke.
    #[error("cannot reach the wharf daemon: {0}; is it running (`wharf status`)?")]
    Daemon(#[from] FdPassError),
    /// The daemon said something else than the protocol.
    #[error(transparent)]
    BadMessage(#[from] BadMessage),
    /// The daemon wants a TAP that this program cannot make.
    #[error(
        "the daemon wants a TAP of kind {0}, which this program does not know: run the same \
         version of wharf on both sides"
    )]
    TapKind(String),
    /// The daemon refused.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// The interface's name is taken in the container.
    #[error("the container has an interface `{0}` already: choose another name (`--ifname`)")]
    NameTaken(String),
    /// The TAP could not be opened.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// A namespace could not be entered or made.
    #[error(transparent)]
    Namespace(#[from] NetNsError),
    /// The link could not be moved or configured.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// What is done in the container besides plugging the link in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// The link is made, and gets everything that the daemon says.
    Whole,
    /// The same, but for IPv6: the container listens to the switch's router advertisements.
    Autoconfigured,
    /// The link stays down and without addresses, with the MAC that it has: somebody else configures it.
    /// One that is there already is taken over.
    Bare,
}

/// Attaches the network namespace `target` as `request` says and returns when its network works.
pub fn attach(
    socket: &Path,
    target: &NetNs,
    request: AttachRequest,
) -> Result<Attachment, AttachError> {
    let connection = Connection::connect(socket)?;
    attach_over(&connection, target, request, Manner::Whole, |_| ())
}

/// The same over a connection that is there; `amend` has the last word on what the link becomes.
pub fn attach_over(
    connection: &Connection,
    target: &NetNs,
    mut request: AttachRequest,
    manner: Manner,
    amend: impl FnOnce(&mut Attached),
) -> Result<Attachment, AttachError> {
    if !is_interface_name(&request.ifname) {
        return Err(TapError::BadName(request.ifname).into());
    }
    connection.set_patience(ATTACH_PATIENCE)?;
    let hello = greet(connection)?;
    request.version = VERSION;
    request.netns = request.netns.or_else(|| target.id().ok());

    let link = NewLink::take_over_or_create(target, &request.ifname, hello.queues, manner)?;
    if manner == Manner::Bare {
        request.mac = request.mac.or(link.mac);
    }
    let mut attached = negotiate(connection, &request, &link.taps)?;
    amend(&mut attached);
    let (_taps, warnings) = link.finish(&request.ifname, &attached, manner)?;
    Ok(Attachment { attached, warnings })
}

/// Makes a link named as in `request` in this process's own namespace and attaches it. Somebody else moves it
/// to where it belongs and gives it addresses, so it only gets what he does not know of: MAC, MTU, queue.
pub fn attach_link(socket: &Path, mut request: AttachRequest) -> Result<Attached, AttachError> {
    let connection = Connection::connect(socket)?;
    connection.set_patience(ATTACH_PATIENCE)?;
    let hello = greet(&connection)?;
    request.version = VERSION;
    let here = NetNs::current()?;
    // In the namespace that moved links come from, a staging one would be one move more for nothing.
    let taps = Tap::open(&request.ifname, hello.queues)?;
    let mut netlink = Netlink::open()?;
    let made = netlink.link(&request.ifname)?;
    let mut link =
        NewLink { target: &here, index: made.index, mac: made.mac, taps, finished: false };
    let attached = negotiate(&connection, &request, &link.taps)?;
    netlink.set_mac(link.index, attached.mac)?;
    netlink.set_mtu(link.index, attached.mtu)?;
    netlink.set_txqueuelen(link.index, attached.txqueuelen)?;
    link.finished = true;
    Ok(attached)
}

/// Gives a container whose TAP is lost, because no descriptor of it was kept, a new one that looks
/// the same. For a daemon that has the right to do so. The descriptors, and what could not be done.
pub fn reattach(
    target: &NetNs,
    ifname: &str,
    queues: usize,
    attached: &Attached,
) -> Result<(Vec<Tap>, Vec<String>), AttachError> {
    NewLink::create(target, ifname, queues)?.finish(ifname, attached, Manner::Whole)
}

fn greet(connection: &Connection) -> Result<Hello, AttachError> {
    let hello = match parse_greeting(&connection.recv()?.bytes)? {
        Greeting::Hello(hello) => hello,
        Greeting::Refused(refusal) => return Err(AttachError::Refused(refusal)),
    };
    if hello.tap_kind != TAP_KIND || hello.vnet_header_len != vnet::HEADER_LEN {
        return Err(AttachError::TapKind(hello.tap_kind));
    }
    Ok(hello)
}

fn negotiate(
    connection: &Connection,
    request: &AttachRequest,
    taps: &[Tap],
) -> Result<Attached, AttachError> {
    let fds: Vec<_> = taps.iter().map(AsFd::as_fd).collect();
    connection.send(&to_bytes(request), &fds)?;
    match parse_reply(&connection.recv()?.bytes)? {
        AttachReply::Attached(attached) => Ok(attached),
        AttachReply::Refused(refusal) => Err(AttachError::Refused(refusal)),
    }
}

/// The link in the container, until it is finished. Dropped before, it removes the link: closing our
/// descriptors would not, as the daemon may have duplicates.
struct NewLink<'a> {
    target: &'a NetNs,
    index: u32,
    mac: Option<Mac>,
    taps: Vec<Tap>,
    finished: bool,
}

impl<'a> NewLink<'a> {
    /// A link that a caller has made before (`ip tuntap add`) is his, and stays when this fails. Its
    /// descriptor is opened where it is, and keeps the namespace alive: there is no other way to it.
    fn take_over_or_create(
        target: &'a NetNs,
        ifname: &str,
        queues: usize,
        manner: Manner,
    ) -> Result<Self, AttachError> {
        let there = in_namespace(target, || Netlink::open()?.link(ifname))?;
        let Ok(link) = there else { return Self::create(target, ifname, queues) };
        if manner != Manner::Bare || queues != 1 {
            return Err(AttachError::NameTaken(ifname.to_owned()));
        }
        let taps = in_namespace(target, || Tap::open(ifname, queues))??;
        Ok(Self { target, index: link.index, mac: link.mac, taps, finished: true })
    }

    fn create(target: &'a NetNs, ifname: &str, queues: usize) -> Result<Self, AttachError> {
        let staging = NetNs::staging()?;
        let taps = in_namespace(&staging, || {
            let taps = Tap::open(STAGING_NAME, queues)?;
            let mut netlink = Netlink::open()?;
            let index = netlink.link(STAGING_NAME)?.index;
            match netlink.move_and_rename(index, target, ifname) {
                Err(error) if error.is_exists() => Err(AttachError::NameTaken(ifname.to_owned())),
                other => Ok(other.map(|()| taps)?),
            }
        })??;
        let link = in_namespace(target, || Netlink::open()?.link(ifname))??;
        Ok(Self { target, index: link.index, mac: link.mac, taps, finished: false })
    }

    fn finish(
        mut self,
        ifname: &str,
        attached: &Attached,
        manner: Manner,
    ) -> Result<(Vec<Tap>, Vec<String>), AttachError> {
        let index = self.index;
        let warnings = match manner {
            Manner::Bare => Vec::new(),
            _ => in_namespace(self.target, || configure(index, ifname, attached, manner))??,
        };
        self.finished = true;
        Ok((std::mem::take(&mut self.taps), warnings))
    }
}

impl Drop for NewLink<'_> {
    fn drop(&mut self) {
        if !self.finished {
            let index = self.index;
            let _ = in_namespace(self.target, || Netlink::open()?.delete_link(index));
        }
    }
}

/// Makes the link what the daemon said, in the calling thread's namespace.
fn configure(
    index: u32,
    ifname: &str,
    attached: &Attached,
    manner: Manner,
) -> Result<Vec<String>, NetlinkError> {
    let mut netlink = Netlink::open()?;
    let mut warnings = Vec::new();
    netlink.set_mac(index, attached.mac)?;
    netlink.set_mtu(index, attached.mtu)?;
    netlink.set_txqueuelen(index, attached.txqueuelen)?;
    if attached.addresses.iter().any(|net| net.addr().is_ipv6()) {
        tolerate(sysctl::disable_ipv6(ifname, false), &mut warnings);
    }
    if manner != Manner::Autoconfigured {
        // An assigned address is usable without this; the link-local one would not be for a second.
        tolerate(sysctl::quiet_ipv6(ifname), &mut warnings);
    }
    for net in &attached.addresses {
        netlink.add_address(index, *net, AddressOptions::default())?;
    }
    netlink.set_up(index)?;
    for route in &attached.routes {
        netlink.add_route(&new_route(index, route.dst, route.via, &attached.addresses))?;
    }
    for gateway in &attached.gateways {
        let everything = match gateway {
            IpAddr::V4(_) => IpNet::from(Ipv4Net::default()),
            IpAddr::V6(_) => IpNet::from(Ipv6Net::default()),
        };
        let route = new_route(index, everything, Some(*gateway), &attached.addresses);
        match netlink.add_route(&route) {
            // The container's first network has it.
            Err(error) if error.is_exists() => {}
            other => other?,
        }
    }
    Ok(warnings)
}

/// A router outside all subnets of the link has to be believed in (`onlink`).
fn new_route(index: u32, destination: IpNet, via: Option<IpAddr>, own: &[IpNet]) -> NewRoute {
    let known = |gateway: IpAddr| {
        own.iter().any(|net| net.contains(&gateway))
            || matches!(gateway, IpAddr::V6(v6) if v6.is_unicast_link_local())
    };
    NewRoute { destination, via, index, onlink: via.is_some_and(|gateway| !known(gateway)) }
}

fn tolerate(result: Result<(), SysctlError>, warnings: &mut Vec<String>) {
    match result {
        // Without IPv6 there is nothing to keep quiet.
        Ok(()) | Err(SysctlError::Missing { .. }) => {}
        Err(error) => warnings.push(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_outside_the_own_subnets_is_believed_to_be_on_the_link() {
        let own = ["10.1.0.2/24".parse().unwrap(), "fd01::2/64".parse().unwrap()];
        for (gateway, onlink) in [
            ("10.1.0.1", false),
            ("10.2.0.1", true),
            ("fd01::1", false),
            ("fd02::1", true),
            ("fe80::1", false),
        ] {
            let gateway: IpAddr = gateway.parse().unwrap();
            let route = new_route(1, "0.0.0.0/0".parse().unwrap(), Some(gateway), &own);
            assert_eq!(route.onlink, onlink, "{gateway}");
        }
        let direct = new_route(1, "10.3.0.0/24".parse().unwrap(), None, &own);
        assert!(!direct.onlink);
    }
}
