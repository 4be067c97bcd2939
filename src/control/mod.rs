//! Layer 9: what is wanted. Desired state, validation, addresses, the store, and how all of it
//! reaches the workers. The only writer of configuration.
//!
//! Every request goes the same way: it is checked against [`state`] (all of it, with messages that
//! name holders), then written to the [`store`], then taken into the state, then sent to the workers
//! as deltas. What fails before the store has been written has changed nothing; after it nothing can
//! fail. [`outside`] has the traits behind which workers, the host and the holder of TAPs stand.
//!
//! All of it is synchronous. The daemon keeps one [`Control`] behind a mutex for the REST server, the
//! attach thread and the thread that reads the workers' notices.

mod advice;
mod attaching;
pub mod capture;
pub mod cluster;
mod compile;
pub mod config;
mod endpoints;
mod error;
mod events;
mod host_port;
mod host_ports;
pub mod ipam;
mod joining;
pub mod keeper;
mod listeners;
pub mod metrics;
pub mod model;
mod names;
pub mod netstate;
mod networks;
pub mod node_key;
mod nodes;
mod numbers;
pub mod outside;
pub mod policy;
mod publications;
pub mod publish_spec;
mod queries;
mod random;
mod rates;
mod reconcile;
mod relabel;
mod resolving;
mod services;
mod share;
pub mod sharing;
mod state;
pub mod store;
mod subnets;
mod tuning;
mod uplinks;
mod watching;
pub mod workers;

use std::net::IpAddr;
use std::sync::{Arc, Weak};

use self::config::{Config, Paths};
pub use self::error::ControlError;
use self::events::Events;
pub use self::events::Listener;
pub use self::joining::removal_failed;
use self::listeners::Listeners;
use self::model::{EventInfo, EventKind, StatusInfo};
use self::nodes::Nodes;
use self::outside::{Dataplane, Host, Keeper};
use self::policy::Policies;
use self::services::Services;
use self::state::State;
use self::store::Store;
use self::store::record::Change;
use crate::config::{Delta, Guise};
use crate::wire::addr::Addr;
use crate::worker::command::Command;

/// What the daemon gives to control and never changes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The config file's contents.
    pub config: Config,
    /// Where things are.
    pub paths: Paths,
    /// Milliseconds since 1970.
    pub clock: fn() -> u64,
    /// Queues of each TAP; the attach protocol's hello says the same.
    pub queues: usize,
    /// What its networks look like: something else than they are in a daemon that stands in for another
    /// program, which has one.
    pub guise: Guise,
}

/// The outside as control sees it.
#[derive(Debug)]
pub struct Outside {
    /// Where desired state is kept.
    pub store: Box<dyn Store>,
    /// The workers.
    pub dataplane: Box<dyn Dataplane>,
    /// Who keeps TAPs across a restart.
    pub keeper: Box<dyn Keeper>,
    /// The host.
    pub host: Box<dyn Host>,
}

/// The only writer of desired state.
#[derive(Debug)]
pub struct Control {
    settings: Settings,
    outside: Outside,
    state: State,
    events: Events,
    started_ms: u64,
    host_addrs: Vec<IpAddr>,
    listeners: Listeners,
    nodes: Nodes,
    resolvers: Vec<IpAddr>,
    /// Captures that go on.
    captures: Vec<Weak<()>>,
    joined: Option<joining::Joined>,
    services: Services,
    policies: Policies,
    watched: watching::Watched,
}

impl Control {
    /// Reads the store, gets TAPs back from their keeper, and tells the workers all of it. Afterwards
    /// everything that the store and the config file want exists, or an event says why not.
    pub fn new(settings: Settings, outside: Outside) -> Result<Self, ControlError> {
        let started_ms = (settings.clock)();
        let mut control = Self {
            settings,
            outside,
            state: State::new(),
            events: Events::default(),
            started_ms,
            host_addrs: Vec::new(),
            listeners: Listeners::default(),
            nodes: Nodes::default(),
            resolvers: Vec::new(),
            captures: Vec::new(),
            joined: None,
            services: Services::default(),
            policies: Policies::default(),
            watched: watching::Watched::default(),
        };
        control.tune();
        control.restore()?;
        Ok(control)
    }

    /// How the daemon is.
    pub fn status(&self) -> StatusInfo {
        let default_uplink =
            self.state.uplink(compile::DEFAULT).map(|u| u.record.spec.name.clone());
        let published = self.state.publications.values().map(|p| u64::from(p.host_ports.count()));
        StatusInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uid: rustix::process::geteuid().as_raw(),
            started_ms: self.started_ms,
            state_dir: self.settings.paths.state_dir.display().to_string(),
            runtime_dir: self.settings.paths.runtime_dir.display().to_string(),
            default_uplink,
            workers: self.outside.dataplane.workers(),
            networks: self.state.networks.len(),
            uplinks: self.state.uplinks.len(),
            endpoints: self.state.endpoints.len(),
            published_ports: published.sum(),
            notes: self.notes(),
        }
    }

    /// What a person should know before wondering.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.state.uplink(compile::DEFAULT).is_none() {
            notes.push(
                "the default uplink is none: networks that name no uplink have no way out; \
                 `wharf uplink create default --sockets` gives them one"
                    .to_owned(),
            );
        }
        for uplink in self.state.uplinks.values() {
            if let Some(failure) = &uplink.failure {
                notes.push(format!(
                    "the uplink `{}` does not work: {failure}",
                    uplink.record.spec.name
                ));
            }
        }
        notes.extend(self.listeners.failures().map(|(_, text)| text.clone()));
        notes.extend(self.cluster_notes());
        notes
    }

    /// Kept events from number `from` on.
    pub fn events(&self, from: u64) -> Vec<EventInfo> {
        self.events.since(from)
    }

    /// Calls `listener` with every event from now on, until it says `false`.
    pub fn subscribe(&mut self, listener: Listener) {
        self.events.listen(listener);
    }

    /// Gives up every endpoint and what keeps TAPs across a restart: a daemon that ends for good.
    pub fn release(&mut self) -> Result<(), ControlError> {
        for endpoint in self.endpoints() {
            self.detach(&endpoint.id, None, "the daemon ended and released it")?;
        }
        let failed = |why| ControlError::System(std::io::Error::other(why));
        self.outside.keeper.release().map_err(failed)
    }

    /// Gives back what was taken of the host: what the process's end alone does not.
    pub fn leave_host(&mut self) {
        for uplink in self.state.uplinks.values_mut() {
            uplink.share = None;
        }
    }

    /// Queues that a TAP must have.
    pub fn queues(&self) -> usize {
        self.settings.queues
    }

    fn now(&self) -> u64 {
        (self.settings.clock)()
    }

    fn event(
        &mut self,
        kind: EventKind,
        network: Option<&str>,
        endpoint: Option<&str>,
        text: String,
    ) {
        let hint = advice::on(kind).map(str::to_owned);
        self.event_with(kind, (network, endpoint), text, hint);
    }

    /// Something happened to a network (or uplink), an endpoint, both or neither, and this is to be done.
    fn event_with(
        &mut self,
        kind: EventKind,
        (network, endpoint): (Option<&str>, Option<&str>),
        text: String,
        hint: Option<String>,
    ) {
        tracing::info!(?kind, network, endpoint, hint, "{text}");
        let (network, endpoint) = (network.map(str::to_owned), endpoint.map(str::to_owned));
        let time_ms = self.now();
        self.events.record(EventInfo { seq: 0, time_ms, kind, network, endpoint, text, hint });
    }

    fn write(&mut self, changes: &[Change]) -> Result<(), ControlError> {
        Ok(self.outside.store.write(changes)?)
    }

    /// For what has happened already and cannot be refused, such as a container's end: a store that
    /// fails now is set right at the next start, which finds the same facts.
    fn write_fact(&mut self, changes: &[Change]) {
        if let Err(error) = self.outside.store.write(changes) {
            tracing::error!("{error}");
        }
    }

    fn send_deltas(&self, deltas: Vec<Delta>) {
        if !deltas.is_empty() {
            self.outside.dataplane.send(Command::Deltas(deltas));
        }
    }

    /// Tells the workers the host's own addresses if they have changed.
    fn refresh_host_addresses(&mut self) {
        match self.outside.host.addresses() {
            Ok(addrs) if addrs != self.host_addrs => {
                let told: Arc<[Addr]> = addrs.iter().copied().map(Addr::from).collect();
                self.host_addrs = addrs;
                self.send_deltas(vec![Delta::HostAddresses(told)]);
            }
            Ok(_) => {}
            Err(error) => tracing::warn!("cannot read the host's addresses: {error}"),
        }
    }
}

#[cfg(test)]
mod tests;
