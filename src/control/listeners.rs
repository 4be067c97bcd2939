//! The listening sockets of published ports.
//!
//! They are bound while a publication is planned, before anything is stored, so that the kernel's "no" is
//! the command's answer; afterwards a worker serves them. Every publication has them whatever its
//! network's uplink is: the host's own users, its firewall and a loopback address then mean what they
//! always mean. Two have none: SCTP, of which an ordinary user may have no sockets everywhere, and
//! addresses that only the switch has (a gateway, or its own address on a LAN).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use super::Control;
use super::compile;
use super::error::ControlError;
use super::model::{EventKind, PortRange, Proto, PublishSpec};
use super::state::UplinkState;
use super::store::record::PublicationRecord;
use crate::base::ids::PublicationId;
use crate::io::host_listen::{ListenError, Listener, Transport};
use crate::stage::sockets::{ListenerId, Published, Target};
use crate::worker::command::Command;

/// A publication that is not stored yet, and its sockets: one for each port, or none. Dropping it
/// closes them.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) record: PublicationRecord,
    pub(super) sockets: Vec<Listener>,
}

/// Which sockets serve which publication.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    /// Names are given in order and not again while the daemon runs.
    next: u32,
    serving: BTreeMap<PublicationId, Range<u32>>,
    /// Publications that were there before the daemon and cannot be listened for, and why.
    failed: BTreeMap<PublicationId, String>,
}

impl Listeners {
    /// Publications that nobody listens for.
    pub(super) fn failures(&self) -> impl Iterator<Item = (&PublicationId, &String)> {
        self.failed.iter()
    }
}

impl Control {
    /// Binds what a publication needs.
    pub(super) fn bind(
        &self,
        addr: Option<IpAddr>,
        ports: PortRange,
        proto: Proto,
    ) -> Result<Vec<Listener>, ListenError> {
        let transport = match proto {
            Proto::Tcp => Transport::Tcp,
            Proto::Udp => Transport::Udp,
            Proto::Sctp => return Ok(Vec::new()),
        };
        if addr.is_some_and(|addr| self.is_the_switch_s(addr)) {
            return Ok(Vec::new());
        }
        let host = &self.outside.host;
        (ports.first()..=ports.last()).map(|port| host.listen(addr, port, transport)).collect()
    }

    /// Whether an address is one of ours that the host does not have.
    fn is_the_switch_s(&self, addr: IpAddr) -> bool {
        let own = self.state.uplinks.values().filter(|uplink| !uplink.shares_host());
        let mut lan = own.flat_map(UplinkState::addrs);
        let ours = !self.settings.guise.transparent;
        let mut networks = self.state.networks.values().filter(|n| ours && n.record.host.is_none());
        lan.any(|(own, _)| own == addr)
            || networks.any(|n| n.record.subnets.iter().any(|(_, gateway)| *gateway == addr))
    }

    /// Chooses ports that neither we nor anybody else has, and binds them.
    pub(super) fn bind_free(
        &mut self,
        spec: &PublishSpec,
        from: PortRange,
    ) -> Result<(PortRange, Vec<Listener>), ControlError> {
        let count = spec.ports.count();
        // Each attempt begins past the last one, so these go round once.
        for _ in 0..from.count() {
            let free = self.state.host_ports.choose(spec.proto, spec.host_addr, count, from);
            let Some(ports) = free else { break };
            match self.bind(spec.host_addr, ports, spec.proto) {
                Ok(sockets) => return Ok((ports, sockets)),
                Err(ListenError::InUse { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(ControlError::NoPortFree { from: from.to_string(), proto: spec.proto })
    }

    /// Hands a publication's sockets to the workers.
    pub(super) fn serve_listeners(
        &mut self,
        record: &PublicationRecord,
        sockets: Vec<Listener>,
        target: &Arc<Target>,
    ) {
        if sockets.is_empty() {
            return;
        }
        let first = self.listeners.next;
        self.listeners.next = first.wrapping_add(sockets.len() as u32);
        let ids = first..self.listeners.next;
        for ((id, port), socket) in ids.clone().zip(record.ports.first()..).zip(sockets) {
            let target = Arc::clone(target);
            let published = Published { listener: ListenerId(id), target, port };
            self.outside.dataplane.send(Command::AddListener(socket, published));
        }
        self.listeners.serving.insert(record.id, ids);
    }

    /// Closes a publication's sockets.
    pub(super) fn close_listeners(&mut self, publication: PublicationId) {
        self.listeners.failed.remove(&publication);
        for id in self.listeners.serving.remove(&publication).into_iter().flatten() {
            self.outside.dataplane.send(Command::RemoveListener(ListenerId(id)));
        }
    }

    /// The container behind the publications of an endpoint.
    pub(super) fn target(&self, endpoint: &str) -> Option<Arc<Target>> {
        let endpoint = self.state.endpoints.get(endpoint)?;
        compile::target(&self.state, endpoint, &self.settings.guise).map(Arc::new)
    }

    /// Binds a publication that the store has. It stays if that fails: whoever is in the way may go.
    pub(super) fn listen_again(&mut self, record: &PublicationRecord, target: &Arc<Target>) {
        match self.bind(record.host_addr, record.host_ports, record.proto) {
            Ok(sockets) => {
                self.listeners.failed.remove(&record.id);
                self.serve_listeners(record, sockets, target);
            }
            Err(error) => {
                let info = self.publication_info(record);
                let text = format!("{} does not answer at {info}: {error}", info.endpoint);
                self.listeners.failed.insert(record.id, text.clone());
                let (network, endpoint) = (Some(&*info.network), Some(&*info.endpoint));
                self.event(EventKind::PortLost, network, endpoint, text);
            }
        }
    }

    /// Tries again what could not be bound.
    pub(super) fn retry_listeners(&mut self) {
        for id in self.listeners.failed.keys().copied().collect::<Vec<_>>() {
            let Some(record) = self.state.publications.get(&id).cloned() else { continue };
            if let Some(target) = self.target(&record.endpoint) {
                self.listen_again(&record, &target);
            }
        }
    }

    /// A container came to one more network, or left one: which clients it can answer by way of the
    /// gateway has changed for its publications on the others.
    pub(super) fn retarget(&self, container: &str) {
        for endpoint in self.state.named(container) {
            let mut serving =
                endpoint.publications.iter().filter_map(|p| self.listeners.serving.get(p));
            let Some(target) = self.target(&endpoint.record.id) else { continue };
            for ids in serving.by_ref() {
                let command = Command::Retarget(ids.clone(), Arc::clone(&target));
                self.outside.dataplane.send(command);
            }
        }
    }
}
