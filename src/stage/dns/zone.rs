//! What one network's name server knows.
//!
//! Names come and go with the endpoints that have them, each change costing what that endpoint has and
//! not what the network has. A query between two changes sees the one or the other.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::base::ids::{PortId, ServiceId};
use crate::wire::addr::Addr;

/// A service at a name (RFC 2782).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// Port of it.
    pub port: u16,
    /// Name of whoever serves it, which has addresses.
    pub target: String,
}

/// What one endpoint, or one service of several, is called. Names are in lower case: RFC 4343 has them
/// compared so.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Named {
    /// All its names.
    pub names: Vec<String>,
    /// The one that its addresses have.
    pub whole: String,
    /// Its addresses.
    pub addrs: Vec<Addr>,
    /// Services under names such as `_http._tcp.web`.
    pub services: Vec<(String, Service)>,
    /// Names of single addresses beside, which services lead to.
    pub parts: Vec<(String, Addr)>,
}

/// Who has names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Owner {
    Endpoint(PortId),
    Service(ServiceId),
}

/// Names and addresses of one network.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Zone {
    owners: HashMap<Owner, Arc<Named>>,
    names: HashMap<String, Vec<Addr>>,
    services: HashMap<String, Vec<Service>>,
    addrs: HashMap<Addr, String>,
    subnets: Vec<(Addr, u8)>,
}

impl Zone {
    /// A zone of a network with these subnets, without a name yet.
    pub fn new(subnets: Vec<(Addr, u8)>) -> Self {
        Self { subnets, ..Self::default() }
    }

    /// Says what an endpoint is called from now on; nothing, if it is gone.
    pub fn put(&mut self, endpoint: PortId, named: Option<Arc<Named>>) {
        self.put_owner(Owner::Endpoint(endpoint), named);
    }

    /// Says what a service is called from now on; nothing, if it is gone.
    pub fn put_service(&mut self, service: ServiceId, named: Option<Arc<Named>>) {
        self.put_owner(Owner::Service(service), named);
    }

    fn put_owner(&mut self, owner: Owner, named: Option<Arc<Named>>) {
        if let Some(old) = self.owners.remove(&owner) {
            self.take_out(&old);
        }
        let Some(named) = named else { return };
        for addr in &named.addrs {
            named.names.iter().for_each(|name| self.add(name, *addr));
            if !named.whole.is_empty() {
                self.addrs.insert(*addr, named.whole.clone());
            }
        }
        named.parts.iter().for_each(|(name, addr)| self.add(name, *addr));
        for (name, service) in &named.services {
            self.add_service(name, service.clone());
        }
        self.owners.insert(owner, named);
    }

    fn take_out(&mut self, old: &Named) {
        old.names.iter().for_each(|name| self.remove(name, &old.addrs));
        old.parts.iter().for_each(|(name, addr)| self.remove(name, &[*addr]));
        if !old.whole.is_empty() {
            old.addrs.iter().for_each(|addr| drop(self.addrs.remove(addr)));
        }
        for (name, service) in &old.services {
            let Some(services) = self.services.get_mut(name) else { continue };
            services.retain(|other| other != service);
            if services.is_empty() {
                self.services.remove(name);
            }
        }
    }

    /// Adds an address to a name; several containers may share an alias.
    pub fn add(&mut self, name: &str, addr: Addr) {
        let addrs = self.names.entry(name.to_ascii_lowercase()).or_default();
        if !addrs.contains(&addr) {
            addrs.push(addr);
        }
    }

    fn remove(&mut self, name: &str, gone: &[Addr]) {
        let Some(addrs) = self.names.get_mut(name) else { return };
        addrs.retain(|addr| !gone.contains(addr));
        if addrs.is_empty() {
            self.names.remove(name);
        }
    }

    /// Adds a service under a name such as `_http._tcp.web`.
    pub fn add_service(&mut self, name: &str, service: Service) {
        let services = self.services.entry(name.to_ascii_lowercase()).or_default();
        if !services.contains(&service) {
            services.push(service);
        }
    }

    /// The addresses of a name in lower case.
    pub fn addrs(&self, name: &str) -> Option<&[Addr]> {
        self.names.get(name).map(Vec::as_slice)
    }

    /// The services under a name in lower case.
    pub fn services(&self, name: &str) -> Option<&[Service]> {
        self.services.get(name).map(Vec::as_slice)
    }

    /// The name of an address.
    pub fn name(&self, addr: Addr) -> Option<&str> {
        self.addrs.get(&addr).map(String::as_str)
    }

    /// Whether an address lies in the network, so that nobody else can know its name.
    pub fn contains(&self, addr: Addr) -> bool {
        let bits = |addr: Addr| u128::from_be_bytes(addr.bytes());
        self.subnets.iter().any(|&(prefix, len)| {
            let len = if prefix.is_v4() { 96 + u32::from(len) } else { len.into() };
            let mask = u128::MAX.checked_shl(128 - len.min(128)).unwrap_or(0);
            prefix.is_v4() == addr.is_v4() && (bits(prefix) ^ bits(addr)) & mask == 0
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_s_names_go_with_it_and_a_shared_alias_stays_the_others() {
        let named = |n: u8, names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            let whole = names[0].clone();
            let addrs = vec![Addr::from_v4_bytes([10, 0, 0, n])];
            Some(Arc::new(Named { names, whole, addrs, ..Named::default() }))
        };
        let mut zone = Zone::default();
        zone.put(PortId(1), named(1, &["a", "shop", "a"]));
        zone.put(PortId(2), named(2, &["b", "shop"]));
        let [one, two, three] = [1, 2, 3].map(|n| Addr::from_v4_bytes([10, 0, 0, n]));
        assert_eq!(zone.addrs("shop"), Some(&[one, two][..]));
        zone.put(PortId(1), named(3, &["c", "shop"]));
        assert_eq!((zone.addrs("a"), zone.name(one)), (None, None));
        assert_eq!(zone.addrs("shop"), Some(&[two, three][..]));
        assert_eq!((zone.addrs("c"), zone.name(three)), (Some(&[three][..]), Some("c")));
        for n in [1, 2] {
            zone.put(PortId(n), None);
        }
        assert_eq!(zone, Zone::default(), "nothing is left");
    }
}
