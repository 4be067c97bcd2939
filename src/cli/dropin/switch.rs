//! A switch of this process's own, and one namespace plugged into it.
//!
//! The namespace is entered by a forked process, since only one with a single thread can enter a user
//! namespace. It speaks the attach protocol over a pair of sockets with the switch, which is started here
//! as soon as it exists:
//!
//! ```text
//! this process                         the forked one
//!   │  control, worker                    │ enters the namespace's owner
//!   │ ──── hello ───────────────────────▶ │ makes the TAP and moves it in
//!   │ ◀─── request, TAP's descriptors ─── │
//!   │ ──── addresses ───────────────────▶ │ configures the link, ends
//! ```

use std::cell::Cell;
use std::net::IpAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};

use crossbeam_channel::Sender;
use ipnet::IpNet;

use super::ends::{self, End};
use crate::attach::client::{Manner, attach_over};
use crate::attach::protocol::{AttachRequest, Attached, Hello};
use crate::cli::daemon::{self, attaching};
use crate::cli::options::DEFAULT_NETWORK;
use crate::cli::output::Failure;
use crate::config::Guise;
use crate::control::Control;
use crate::control::config::Config;
use crate::control::model::NetworkSpec;
use crate::io::fdpass::Connection;
use crate::io::netlink::{Netlink, NetlinkError};
use crate::io::netns::{NetNs, in_namespace};
use crate::io::process::{
    Child, Isolation, Network, prepare_network, spawn_as_owner_of, spawn_beside,
};

/// The container's name. It is asked for by nobody; a name of the host's own network should not be hidden
/// by it.
pub(super) const GUEST: &str = "wharf-guest";

/// The number of the loopback interface, in every namespace.
const LOOPBACK: u32 = 1;

/// A switch that runs.
pub(super) type Switch = Arc<Mutex<Control>>;

/// What is to be made.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// The only network.
    pub(super) network: NetworkSpec,
    /// What it looks like.
    pub(super) guise: Guise,
    /// Name servers to ask; the host's if none.
    pub(super) resolvers: Vec<IpAddr>,
    /// The endpoint.
    pub(super) request: AttachRequest,
    /// How its link is made.
    pub(super) manner: Manner,
    /// What the link gets instead of what the switch would give it.
    pub(super) instead: Instead,
    /// Whether the loopback interface is set up.
    pub(super) loopback: bool,
}

/// Addresses and routers of a link, in place of the switch's.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Instead {
    pub(super) addresses: Option<Vec<IpNet>>,
    pub(super) gateways: Option<Vec<IpAddr>>,
}

impl Instead {
    fn amend(&self, attached: &mut Attached) {
        if let Some(addresses) = &self.addresses {
            attached.addresses.clone_from(addresses);
        }
        if let Some(gateways) = &self.gateways {
            attached.gateways.clone_from(gateways);
        }
    }
}

/// A network of this name that only one endpoint will ever be on: there is nobody to guard it from.
pub(super) fn network(subnets: Vec<IpNet>, gateways: Vec<IpAddr>, mtu: u16) -> NetworkSpec {
    let mtu = Some(mtu);
    NetworkSpec { subnets, gateways, mtu, guard: false, ..NetworkSpec::named(DEFAULT_NETWORK) }
}

/// Starts a switch and plugs `ns` in. `confine` is called after the last thing that needs any right.
pub(super) fn serve_namespace(
    plan: &Plan,
    ns: &NetNs,
    ends: &Sender<End>,
    confine: impl FnOnce() -> Result<(), Failure>,
) -> Result<Switch, Failure> {
    let (ours, theirs) = pair()?;
    let inside = || {
        drop(ours.take());
        plug_in(plan, ns, theirs.take())
    };
    let mut started = None;
    let meanwhile = || {
        drop(theirs.take());
        started = ours.take().map(|ours| confine().and_then(|()| begin(plan, ours, ends)));
    };
    let spawned = spawn_as_owner_of(ns, inside, meanwhile);
    // Why there is no switch is the better answer: the other process only knows that it heard nothing.
    let switch = started.transpose()?;
    spawned?.process().wait()?;
    switch.ok_or_else(|| Failure::new("the switch was not started"))
}

/// The same for a command, in namespaces of its own.
pub(super) fn serve_command(
    plan: &Plan,
    command: &mut Command,
    ends: &Sender<End>,
) -> Result<(Switch, Child), Failure> {
    let (ours, theirs) = pair()?;
    let inside = || {
        drop(ours.take());
        prepare_network().map_err(|error| error.to_string())?;
        let own = NetNs::current().map_err(|error| error.to_string())?;
        plug_in(plan, &own, theirs.take())
    };
    let mut started = None;
    let meanwhile = || {
        drop(theirs.take());
        started = ours.take().map(|ours| begin(plan, ours, ends));
    };
    let isolation = Isolation { network: Network::New, die_with_parent: true, new_session: false };
    let spawned = spawn_beside(command, isolation, inside, meanwhile);
    let switch = started.transpose()?.ok_or_else(|| Failure::new("the switch was not started"));
    let child = spawned.map_err(crate::cli::run::spawn_failure)?;
    Ok((switch?, child))
}

/// One end of the connection, until it is taken.
type OneEnd = Cell<Option<Connection>>;

/// Both ends. Each process takes one and closes the other, so that the end of either is seen.
fn pair() -> Result<(OneEnd, OneEnd), Failure> {
    let (ours, theirs) = Connection::pair()?;
    Ok((Cell::new(Some(ours)), Cell::new(Some(theirs))))
}

/// The forked process's part.
fn plug_in(plan: &Plan, ns: &NetNs, connection: Option<Connection>) -> Result<Vec<u8>, String> {
    let connection = connection.ok_or("there is no connection to the switch")?;
    if plan.loopback {
        let up = in_namespace(ns, || Netlink::open()?.set_up(LOOPBACK));
        up.map_err(|e| e.to_string())?.map_err(|e: NetlinkError| e.to_string())?;
    }
    let request = plan.request.clone();
    let attachment =
        attach_over(&connection, ns, request, plan.manner, |attached| plan.instead.amend(attached))
            .map_err(|error| error.to_string())?;
    for warning in attachment.warnings {
        eprintln!("warning: {warning}");
    }
    Ok(Vec::new())
}

/// This process's part: a switch, and a thread that serves the one who attaches.
fn begin(plan: &Plan, connection: Connection, ends: &Sender<End>) -> Result<Switch, Failure> {
    let config = Config {
        default_uplink: Some("sockets".to_owned()),
        networks: vec![plan.network.clone()],
        dns: plan.resolvers.clone(),
        ..Config::default()
    };
    let switch = daemon::private(config, plan.guise.clone())?;
    let ends = ends.clone();
    let mut control = attaching::lock(&switch);
    control.subscribe(Box::new(move |event| match ends::of_event(event) {
        Some(end) => ends.send(end).is_ok(),
        None => true,
    }));
    let hello = Hello::new(control.queues());
    drop(control);
    let access = attaching::Access { owner: rustix::process::geteuid().as_raw(), group: None };
    let served = Arc::clone(&switch);
    std::thread::Builder::new()
        .name("attacher".to_owned())
        .spawn(move || attaching::serve(&connection, &hello, access, &served))?;
    Ok(switch)
}
