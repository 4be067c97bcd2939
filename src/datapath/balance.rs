//! Services: which backend serves a connection, and whether it still does.
//!
//! The choice is made once, for a flow's first packet, before anything is routed; the flow remembers it. An
//! established flow keeps its backend while that is one of the service's. When it is no more, a TCP
//! connection goes on to its own end as long as the backend is there, and a UDP flow ends: the next datagram
//! finds another.

use super::Datapath;
use super::decide::{self, Decision, NextHop, Notes, Route};
use crate::base::time::Time;
use crate::config::{Port, PortKind, Tables};
use crate::packet::{DropReason, FlowKey};
use crate::stage::flow::{Direction, Flow};
use crate::stage::route::icmp_error::IcmpError;
use crate::stage::service::{Backend, Found, Traffic};
use crate::wire::ipv6;

/// What is decided about a packet to a virtual address; `None`: its destination is none.
pub(super) fn virtual_address(
    tables: &Tables,
    from: &Port,
    key: &FlowKey,
    notes: &mut Notes,
) -> Option<Decision> {
    if let Some(found) = tables.services().lookup(key.proto, key.dst, key.dst_port) {
        return Some(serve(tables, from, key, found, notes));
    }
    let service = tables.services().by_vip(key.dst)?;
    if matches!(key.proto, ipv6::ICMP | ipv6::ICMPV6) {
        notes.note("service", || format!("{} is the service {}", key.dst, service.name));
        return Some(Decision::Gateway);
    }
    notes.note("service", || format!("{} has no port {}", service.name, key.dst_port));
    Some(Decision::Refuse(DropReason::NoService))
}

/// The same for a packet to an address of the node's own.
pub(super) fn node_port(
    tables: &Tables,
    from: &Port,
    key: &FlowKey,
    notes: &mut Notes,
) -> Option<Decision> {
    let found = tables.services().by_node_port(key.proto, key.dst_port)?;
    Some(serve(tables, from, key, found, notes))
}

fn serve(
    tables: &Tables,
    from: &Port,
    key: &FlowKey,
    found: Found<'_>,
    notes: &mut Notes,
) -> Decision {
    let Found { service, front, external } = found;
    let pool = front.pool(key.dst.family());
    let reached = |backend: &Backend| may_reach(tables, from, backend, external);
    let policy = if external { service.external } else { service.internal };
    let local = |backend: &Backend| policy == Traffic::Cluster || backend.plug.is_some();
    let usable = |backend: &Backend| local(backend) && reached(backend);
    let affine = tables.services().affine(found, pool, key.src).filter(|b| usable(b));
    let hash = service.hash(front, (key.src, key.src_port));
    if let Some(backend) = affine.or_else(|| pool.choose(hash, usable)) {
        let why = if affine.is_some() { " as before" } else { "" };
        notes.note("service", || {
            let (addr, port) = (backend.addr, backend.port);
            format!("{}: backend {} at {addr}:{port} serves{why}", service.name, backend.name)
        });
        return to_backend(tables, from, key, backend, notes);
    }
    if pool.choose(hash, reached).is_some() {
        notes.note("service", || format!("{} has no backend on this node", service.name));
        return Decision::Drop(DropReason::NoLocalBackend);
    }
    if pool.is_empty() {
        notes.note("service", || format!("{} has no backend that is ready", service.name));
        return Decision::Refuse(DropReason::NoBackend);
    }
    notes.note("service", || format!("{} may reach no backend of {}", from.name, service.name));
    Decision::Reject(DropReason::NetworkIsolated, IcmpError::Prohibited)
}

/// Whether a packet that came from `from` may go to a backend. A node port is open to whoever reaches the
/// node, as a published port is; a virtual address opens no way between networks that keep apart.
fn may_reach(tables: &Tables, from: &Port, backend: &Backend, external: bool) -> bool {
    let outside = matches!(from.kind, PortKind::PacketUplink | PortKind::SocketUplink);
    let Some(plug) = backend.plug else { return !outside };
    let Some(port) = tables.port(plug) else { return false };
    let Some(theirs) = tables.network_of(port.domain) else { return false };
    if external {
        return !theirs.internal;
    }
    if from.domain == port.domain {
        return from.id == port.id || !(from.isolated && port.isolated);
    }
    let ours = tables.network_of(from.domain);
    ours.is_some_and(|ours| !ours.isolated && !theirs.isolated)
}

fn to_backend(
    tables: &Tables,
    from: &Port,
    key: &FlowKey,
    backend: &Backend,
    notes: &mut Notes,
) -> Decision {
    let to = (backend.addr, backend.port);
    let Some(plug) = backend.plug else {
        let key = FlowKey { dst: to.0, dst_port: to.1, ..*key };
        return decide::beyond(tables, from, &key, notes);
    };
    let Some(port) = tables.port(plug) else { return Decision::Drop(DropReason::PortGone) };
    let snat = decide::client_source(tables, port, key.src, notes);
    Decision::Route(Route { egress: port.id, next_hop: NextHop::Station(port.mac), to, snat })
}

/// What a flow to a service is decided today: to where it goes, if it may go on. `None`: it is no such flow.
pub(super) fn again(tables: &Tables, from: &Port, flow: &Flow) -> Option<Decision> {
    let [key, reply] = flow.keys();
    let found = find(tables, key)?;
    let pool = found.front.pool(key.dst.family());
    let known = pool.at(reply.src, reply.src_port).filter(|b| takes_part(key, b)).cloned();
    let backend = known.or_else(|| leaving(tables, key, reply, flow))?;
    Some(to_backend(tables, from, key, &backend, &mut Notes::off()))
}

/// The service that packets with this key are for.
fn find<'a>(tables: &'a Tables, key: &FlowKey) -> Option<Found<'a>> {
    let services = tables.services();
    services.lookup(key.proto, key.dst, key.dst_port).or_else(|| {
        let found = services.by_node_port(key.proto, key.dst_port)?;
        (tables.is_host_addr(key.dst) || tables.is_gateway(key.dst)).then_some(found)
    })
}

/// A backend that takes no new connections keeps those of TCP.
fn takes_part(key: &FlowKey, backend: &Backend) -> bool {
    backend.weight > 0 || key.proto == ipv6::TCP
}

/// A backend that the service has no more, while it is still there.
fn leaving(tables: &Tables, key: &FlowKey, reply: &FlowKey, flow: &Flow) -> Option<Backend> {
    if key.proto != ipv6::TCP {
        return None;
    }
    let port = tables.port(flow.port(Direction::Responder))?;
    let ours = port.addrs.contains(&reply.src);
    Some(Backend {
        identity: 0,
        name: "".into(),
        addr: reply.src,
        port: reply.src_port,
        plug: ours.then_some(port.id),
        weight: 0,
    })
}

impl Datapath {
    /// The service that packets with this key are for.
    pub(super) fn service_of(&self, key: &FlowKey) -> Option<&str> {
        Some(&self.found(key)?.service.name)
    }

    fn found(&self, key: &FlowKey) -> Option<Found<'_>> {
        find(&self.tables, key)
    }

    /// Remembers which backend a client was given, if its service wants it to stay there.
    pub(super) fn remember_client(&mut self, now: Time, key: &FlowKey, route: &Route) {
        let found = self.found(key).filter(|found| found.service.affinity.is_some());
        let Some(found) = found else { return };
        let backend = found.front.pool(key.dst.family()).at(route.to.0, route.to.1);
        let Some(identity) = backend.map(|backend| backend.identity) else { return };
        let id = found.service.id;
        self.tables.services_mut().served(now, id, key.src, identity);
    }
}
