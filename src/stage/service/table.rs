//! Services as the data path knows them: found by virtual address or node port, in one look-up however many
//! there are.

use std::sync::Arc;

use hashbrown::HashMap;

use super::affinity::Affinities;
use super::health::{Checked, Health};
use super::maglev::Maglev;
use crate::base::hash::Seed;
use crate::base::ids::{PortId, ServiceId};
use crate::base::time::{Span, Time};
use crate::wire::addr::{Addr, Family};

/// Alike on every node, so that all send a connection to the same backend.
const CHOICE: Seed = Seed(0x7365_7276_6963_6573);
/// Places looked at for a backend that a client may reach, before all are.
const PLACES_TRIED: usize = 16;

/// Which backends may serve.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Traffic {
    /// All.
    #[default]
    Cluster,
    /// Those of this node.
    Local,
}

/// Who serves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Backend {
    /// Hash of its name: the same wherever the service is known.
    pub identity: u64,
    /// What people call it.
    pub name: Arc<str>,
    /// Where it is.
    pub addr: Addr,
    /// Its port.
    pub port: u16,
    /// Where it is plugged in, if it is one of ours.
    pub plug: Option<PortId>,
    /// How much it takes; 0: no new connection.
    pub weight: u16,
}

/// The backends of one port in one family.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    backends: Vec<Backend>,
    table: Option<Arc<Maglev>>,
}

/// One port of a service.
#[derive(Clone, Debug)]
pub struct Front {
    /// Protocol number.
    pub proto: u8,
    /// At the virtual addresses.
    pub port: u16,
    /// At the node's own.
    pub node_port: Option<u16>,
    /// Backends: IPv4, IPv6.
    pub pools: [Pool; 2],
}

/// A service.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its number.
    pub id: ServiceId,
    /// Its name.
    pub name: Arc<str>,
    /// Its virtual addresses, at most one of each family.
    pub vips: Vec<Addr>,
    /// Its ports.
    pub fronts: Vec<Front>,
    /// How long a client stays with its backend after its last connection began.
    pub affinity: Option<Span>,
    /// Who serves the virtual address.
    pub internal: Traffic,
    /// Who serves the node port.
    pub external: Traffic,
    /// How backends are asked whether they serve, and which.
    pub health: Option<(Arc<Health>, Vec<Checked>)>,
}

/// One port of a service, found.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The service.
    pub service: &'a Service,
    /// The port.
    pub front: &'a Front,
    /// By its node port.
    pub external: bool,
}

impl Pool {
    /// A pool of these, with the table that others of the same backends may have, too.
    pub fn new(backends: Vec<Backend>, table: Arc<Maglev>) -> Self {
        Self { backends, table: Some(table) }
    }

    /// Who has its place at `hash`, of those that are usable.
    #[inline]
    pub fn choose(&self, hash: u64, usable: impl Fn(&Backend) -> bool) -> Option<&Backend> {
        let table = self.table.as_ref()?;
        let mut likely = table.from_place(hash).take(PLACES_TRIED);
        let found = likely.find_map(|n| self.backends.get(n).filter(|b| usable(b)));
        found.or_else(|| self.backends.iter().find(|b| b.weight > 0 && usable(b)))
    }

    /// The backend of this identity.
    pub fn by_identity(&self, identity: u64) -> Option<&Backend> {
        self.backends.iter().find(|b| b.identity == identity)
    }

    /// The backend at this address and port.
    pub fn at(&self, addr: Addr, port: u16) -> Option<&Backend> {
        self.backends.iter().find(|b| (b.addr, b.port) == (addr, port))
    }

    /// Whether nobody takes new connections.
    pub fn is_empty(&self) -> bool {
        self.table.as_ref().is_none_or(|table| table.is_empty())
    }

    /// All of them.
    pub fn backends(&self) -> &[Backend] {
        &self.backends
    }

    /// Its table.
    pub fn table(&self) -> Option<&Arc<Maglev>> {
        self.table.as_ref()
    }
}

impl Front {
    /// The backends of a family.
    #[inline]
    pub fn pool(&self, family: Family) -> &Pool {
        &self.pools[usize::from(family == Family::V6)]
    }
}

impl Service {
    /// What decides which backend serves a client: its address, and unless it shall stay with one, its port
    /// and where it wants to.
    #[inline]
    pub fn hash(&self, front: &Front, client: (Addr, u16)) -> u64 {
        let [hi, lo] = client.0.words();
        let port = if self.affinity.is_some() { 0 } else { u64::from(client.1) };
        let front = u64::from(front.port) << 8 | u64::from(front.proto);
        let front = if self.affinity.is_some() { 0 } else { front };
        CHOICE.hash([hi, lo, u64::from(self.id.0) << 32 | front, port])
    }
}

/// Where a front is.
type Place = (Arc<Service>, u16);

/// All services.
#[derive(Debug, Default)]
pub struct ServiceTable {
    services: HashMap<ServiceId, Arc<Service>>,
    vips: HashMap<Addr, ServiceId>,
    fronts: HashMap<(Addr, u16, u8), Place>,
    node_ports: HashMap<(u16, u8), Place>,
    affinities: Affinities,
}

impl ServiceTable {
    /// Takes a service in, in place of an older one of its number.
    pub fn put(&mut self, service: &Arc<Service>) {
        self.take_out(service.id);
        for vip in &service.vips {
            self.vips.insert(*vip, service.id);
        }
        for (n, front) in service.fronts.iter().enumerate() {
            let place = (Arc::clone(service), n as u16);
            for vip in &service.vips {
                self.fronts.insert((*vip, front.port, front.proto), place.clone());
            }
            if let Some(port) = front.node_port {
                self.node_ports.insert((port, front.proto), place);
            }
        }
        self.services.insert(service.id, Arc::clone(service));
    }

    /// Forgets a service.
    pub fn remove(&mut self, id: ServiceId) {
        self.take_out(id);
        self.affinities.forget(id);
    }

    fn take_out(&mut self, id: ServiceId) {
        let Some(old) = self.services.remove(&id) else { return };
        for vip in &old.vips {
            self.vips.remove(vip);
        }
        for front in &old.fronts {
            for vip in &old.vips {
                self.fronts.remove(&(*vip, front.port, front.proto));
            }
            if let Some(port) = front.node_port {
                self.node_ports.remove(&(port, front.proto));
            }
        }
    }

    /// Who answers at a port of a virtual address.
    #[inline]
    pub fn lookup(&self, proto: u8, addr: Addr, port: u16) -> Option<Found<'_>> {
        if self.fronts.is_empty() {
            return None;
        }
        found(self.fronts.get(&(addr, port, proto))?, false)
    }

    /// Who answers at a port of the node.
    #[inline]
    pub fn by_node_port(&self, proto: u8, port: u16) -> Option<Found<'_>> {
        if self.node_ports.is_empty() {
            return None;
        }
        found(self.node_ports.get(&(port, proto))?, true)
    }

    /// The service that has this virtual address.
    pub fn by_vip(&self, addr: Addr) -> Option<&Arc<Service>> {
        if self.vips.is_empty() {
            return None;
        }
        self.services.get(self.vips.get(&addr)?)
    }

    /// A service.
    pub fn get(&self, id: ServiceId) -> Option<&Arc<Service>> {
        self.services.get(&id)
    }

    /// All services, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// The backend of `pool` that a client stays with, if it does.
    pub fn affine<'a>(
        &self,
        found: Found<'a>,
        pool: &'a Pool,
        client: Addr,
    ) -> Option<&'a Backend> {
        found.service.affinity?;
        let backend = pool.by_identity(self.affinities.get(found.service.id, client)?)?;
        (backend.weight > 0).then_some(backend)
    }

    /// A client's connection to a service has begun, at this backend.
    pub fn served(&mut self, now: Time, id: ServiceId, client: Addr, identity: u64) {
        let span = self.services.get(&id).and_then(|service| service.affinity);
        if let Some(span) = span {
            self.affinities.put(id, client, identity, now + span);
        }
    }

    /// When a client is to be forgotten next.
    pub fn next_deadline(&self) -> Option<Time> {
        self.affinities.next_end()
    }

    /// Forgets clients whose time is over.
    pub fn expire(&mut self, now: Time) {
        self.affinities.expire(now);
    }
}

#[inline]
fn found((service, front): &Place, external: bool) -> Option<Found<'_>> {
    let front = service.fronts.get(usize::from(*front))?;
    Some(Found { service, front, external })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(n: u8, weight: u16) -> Backend {
        Backend {
            identity: u64::from(n),
            name: format!("b{n}").into(),
            addr: Addr::from_v4_bytes([10, 0, 0, n]),
            port: 80,
            plug: Some(PortId(n.into())),
            weight,
        }
    }

    fn pool(backends: Vec<Backend>) -> Pool {
        let members: Vec<_> = backends.iter().map(|b| (b.identity, b.weight)).collect();
        Pool::new(backends, Arc::new(Maglev::new(&members)))
    }

    fn service(id: u32, vip: &str, backends: Vec<Backend>, node_port: Option<u16>) -> Arc<Service> {
        let pools = [pool(backends), Pool::default()];
        let front = Front { proto: 6, port: 80, node_port, pools };
        Arc::new(Service {
            id: ServiceId(id),
            name: "web".into(),
            vips: vec![vip.parse().unwrap()],
            fronts: vec![front],
            affinity: Some(Span::from_secs(10)),
            internal: Traffic::Cluster,
            external: Traffic::Cluster,
            health: None,
        })
    }

    #[test]
    fn a_changed_service_leaves_nothing_of_its_older_self() {
        let mut table = ServiceTable::default();
        table.put(&service(1, "10.96.0.1", vec![backend(1, 1)], Some(30_080)));
        table.put(&service(1, "10.96.0.2", vec![backend(1, 1)], Some(30_081)));
        let (old, new) = ("10.96.0.1".parse().unwrap(), "10.96.0.2".parse().unwrap());
        assert!(table.lookup(6, old, 80).is_none() && table.by_vip(old).is_none());
        assert!(table.lookup(6, new, 80).is_some_and(|found| !found.external));
        assert!(table.lookup(17, new, 80).is_none() && table.lookup(6, new, 81).is_none());
        assert!(table.by_node_port(6, 30_080).is_none());
        assert!(table.by_node_port(6, 30_081).is_some_and(|found| found.external));
        table.remove(ServiceId(1));
        assert!(table.by_vip(new).is_none() && table.by_node_port(6, 30_081).is_none());
        assert_eq!(table.iter().count(), 0);
    }

    #[test]
    fn one_that_may_not_be_used_is_passed_over_however_many_are_before_it() {
        let pool = pool((1..=100).map(|n| backend(n, 1)).collect());
        for hash in 0..200_u64 {
            let hash = CHOICE.hash([hash]);
            assert_eq!(pool.choose(hash, |b| b.identity == 77).unwrap().identity, 77);
        }
        assert!(pool.choose(7, |_| false).is_none());
        assert!(Pool::default().is_empty() && Pool::default().choose(7, |_| true).is_none());
    }

    #[test]
    fn a_client_stays_with_its_backend_until_that_takes_no_more() {
        let mut table = ServiceTable::default();
        table.put(&service(1, "10.96.0.1", vec![backend(1, 1), backend(2, 1)], None));
        let (vip, client) = ("10.96.0.1".parse().unwrap(), "10.0.0.9".parse().unwrap());
        table.served(Time::ZERO, ServiceId(1), client, 2);
        let stays = |table: &ServiceTable| {
            let found = table.lookup(6, vip, 80).unwrap();
            table.affine(found, found.front.pool(Family::V4), client).map(|b| b.identity)
        };
        assert_eq!(stays(&table), Some(2));
        table.put(&service(1, "10.96.0.1", vec![backend(1, 1), backend(2, 0)], None));
        assert_eq!(stays(&table), None, "it is drained");
        table.put(&service(1, "10.96.0.1", vec![backend(1, 1), backend(2, 1)], None));
        assert_eq!(stays(&table), Some(2));
        table.expire(Time::ZERO + Span::from_secs(10));
        assert_eq!(stays(&table), None);
    }
}
