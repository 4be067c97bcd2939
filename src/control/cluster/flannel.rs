//! A node in Flannel's layout: leases of a day in Flannel's keys, so that it joins a cluster of Flannel's own
//! daemons. What they do is followed, with what they leave to chance written as compare-and-swap: a race
//! for a subnet is decided by the store and tried again with another one.
//!
//! It is weaker than our own layout: who is silent for a day has lost its subnet, and its containers'
//! addresses may be somebody else's then. A lost lease is taken back if nobody has it yet; else the node
//! stays out until its containers are detached.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::ask::{Change, Compare, Entry, Listing, Op, Request, Response};
use super::flannel_records::{CONFIG, FlannelConfig, LeaseRecord, SUBNETS, key, nets};
use super::member::{Me, Wish};
use super::mirror::{Kept, Reachable};
use super::plan::Plan;
use super::problem::Problem;
use super::records::Backend;
use crate::base::limits::{CLUSTER_FAULTS_MAX, CLUSTER_NODES_MAX};
use crate::base::time::{Span, Time};
use crate::control::ipam::overlaps;

/// How long a lease lasts, and how long before its end it is renewed.
const LEASE_SECS: u32 = 86_400;
const RENEW: Span = Span::from_secs(LEASE_SECS as u64 - 3_600);
/// How long to wait after what failed.
const PAUSE: Span = Span::from_millis(100);

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Purpose {
    Grant,
    Txn(Vec<Op>),
}

/// A lease as it is in the store.
type Lease = (Vec<IpNet>, Kept<LeaseRecord>);

/// A node's part.
#[derive(Clone, Debug)]
pub struct Flannel {
    me: Me,
    wish: Wish,
    listed: bool,
    config: Option<Result<FlannelConfig, String>>,
    leases: BTreeMap<String, Lease>,
    /// Subnets without a value of Flannel's: set aside by hand.
    reserved: BTreeMap<String, Vec<IpNet>>,
    faults: BTreeMap<String, String>,
    granted: Option<u64>,
    renew_at: Time,
    asked: Option<Purpose>,
    wait_until: Time,
    held: Option<Vec<IpNet>>,
    problem: Option<Problem>,
    moved: bool,
}

impl Flannel {
    /// A node that knows nothing yet.
    pub fn new(me: Me, wish: Wish, held: Option<Vec<IpNet>>) -> Self {
        Self {
            me,
            wish,
            listed: false,
            config: None,
            leases: BTreeMap::new(),
            reserved: BTreeMap::new(),
            faults: BTreeMap::new(),
            granted: None,
            renew_at: Time::ZERO,
            asked: None,
            wait_until: Time::ZERO,
            held,
            problem: None,
            moved: false,
        }
    }

    /// Who it is.
    pub fn me(&self) -> &Me {
        &self.me
    }

    /// Why it gets no further, if so.
    pub fn problem(&self) -> Option<&Problem> {
        self.problem.as_ref()
    }

    /// This node's end of the tunnels, as Flannel's configuration has it.
    pub fn end(&self) -> Option<&Backend> {
        self.config.as_ref()?.as_ref().ok().and(self.wish.backend.as_ref())
    }

    /// How the network is cut.
    pub fn plan(&self) -> Option<&Plan> {
        self.config.as_ref()?.as_ref().ok().map(|config| &config.plan)
    }

    /// Keys that cannot be read, and why.
    pub fn faults(&self) -> &BTreeMap<String, String> {
        &self.faults
    }

    /// The subnets it has a lease of.
    pub fn owned(&self) -> Option<Vec<IpNet>> {
        self.mine().map(|(_, (nets, _))| nets.clone())
    }

    /// Whether what this node's network has cannot be its own.
    pub fn is_homeless(&self) -> bool {
        let lost =
            matches!(self.problem, Some(Problem::LeaseLost { .. } | Problem::Foreign { .. }));
        lost && self.held.is_some()
    }

    /// The network of this node has these subnets now, or none.
    pub fn hold(&mut self, held: Option<Vec<IpNet>>) {
        self.held = held;
    }

    /// Tunnels to this node end there now.
    pub fn reach(&mut self, addresses: Vec<std::net::IpAddr>) {
        self.wish.addresses = addresses;
    }

    /// The store was listed.
    pub fn listed(&mut self, now: Time, listing: &Listing) {
        self.leases.clear();
        self.reserved.clear();
        self.faults.clear();
        self.config = None;
        for (key, entry) in &listing.entries {
            self.put(key, entry);
        }
        self.listed = true;
        self.asked = None;
        self.moved = true;
        self.wait_until = now;
    }

    /// The watch tells.
    pub fn changed(&mut self, now: Time, change: &Change) {
        self.found(&change.key, change.revision, change.now.as_ref());
        self.wait_until = self.wait_until.min(now);
    }

    fn found(&mut self, key: &str, revision: u64, entry: Option<&Entry>) {
        match entry {
            Some(entry) => self.put(key, entry),
            None if key == CONFIG => self.config = None,
            None => {
                let name = key.strip_prefix(SUBNETS).unwrap_or_default();
                self.reserved.remove(name);
                self.faults.remove(key);
                if self.leases.get(name).is_some_and(|(_, kept)| kept.revision < revision) {
                    self.leases.remove(name);
                }
            }
        }
        self.moved = true;
    }

    fn put(&mut self, key: &str, entry: &Entry) {
        if key == CONFIG {
            let config = FlannelConfig::read(&entry.value);
            if let (Ok(config), Some(Backend::Vxlan { vni, port, .. })) =
                (&config, &mut self.wish.backend)
            {
                (*vni, *port) = (config.vni, config.port);
            }
            self.config = Some(config);
            return;
        }
        let name = key.strip_prefix(SUBNETS);
        let Some((name, nets)) = name.and_then(|name| Some((name.to_owned(), nets(name)?))) else {
            self.fault(key, "no such key is known");
            return;
        };
        let record = match serde_json::from_slice::<LeaseRecord>(&entry.value) {
            Ok(record) if self.leases.len() < CLUSTER_NODES_MAX => record,
            Ok(_) => return self.fault(key, "there are more nodes than this one keeps"),
            Err(why) => {
                self.leases.remove(&name);
                self.reserved.insert(name, nets);
                return self.fault(key, &why.to_string());
            }
        };
        self.faults.remove(key);
        self.reserved.remove(&name);
        let kept = Kept { record, revision: entry.revision, lease: entry.lease };
        if self.leases.get(&name).is_none_or(|(_, there)| there.revision < kept.revision) {
            self.leases.insert(name, (nets, kept));
        }
    }

    fn fault(&mut self, key: &str, why: &str) {
        if self.faults.len() < CLUSTER_FAULTS_MAX {
            self.faults.insert(key.to_owned(), why.to_owned());
        }
    }

    /// The store is away.
    pub fn lost(&mut self) {
        self.listed = false;
        self.asked = None;
    }

    /// When to ask for the next question again, if nothing happens before.
    pub fn deadline(&self, now: Time) -> Option<Time> {
        let wait = (self.wait_until > now).then_some(self.wait_until);
        let renew = (self.renew_at > now).then_some(self.renew_at);
        wait.into_iter().chain(renew).min()
    }

    /// Whether peers may have changed since this was last asked.
    pub fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// All other nodes with VXLAN, by their public addresses.
    pub fn peers(&self) -> BTreeMap<String, Reachable> {
        let Some(Ok(config)) = &self.config else { return BTreeMap::new() };
        let mine = self.mine().map(|(key, _)| key.clone());
        let others = self.leases.iter().filter(|(key, _)| Some(*key) != mine.as_ref());
        let view = |(_, (nets, kept)): (&String, &Lease)| {
            let alive = kept.record.alive(config.port)?;
            Some((kept.record.public_ip.to_string(), Reachable { subnets: nets.clone(), alive }))
        };
        others.filter_map(view).collect()
    }

    fn mine(&self) -> Option<(&String, &Lease)> {
        let is_mine = |(_, (_, kept)): &(&String, &Lease)| {
            self.wish.addresses.contains(&kept.record.public_ip.into())
        };
        self.leases.iter().find(is_mine)
    }

    /// The next question, if there is one now.
    pub fn next(&mut self, now: Time) -> Option<Request> {
        if !self.listed || self.asked.is_some() || self.wait_until > now {
            return None;
        }
        match self.step(now) {
            Ok(None) => {
                self.problem = None;
                None
            }
            Ok(Some((request, purpose))) => {
                self.asked = Some(purpose);
                Some(request)
            }
            Err(problem) => {
                self.problem = Some(problem);
                None
            }
        }
    }

    fn step(&self, now: Time) -> Result<Option<(Request, Purpose)>, Problem> {
        let flannel = |why: &str| Problem::Flannel(why.to_owned());
        let config = match &self.config {
            None => return Err(flannel("there is no key `config` below the prefix")),
            Some(Err(why)) => return Err(flannel(why)),
            Some(Ok(config)) => config,
        };
        let Some(Backend::Vxlan { mac, .. }) = self.wish.backend else {
            return Err(flannel("this node has no end of a VXLAN tunnel"));
        };
        let dual = config.plan.ranges().count() == 2;
        let record = LeaseRecord::of(&self.wish.addresses, config.vni, mac, dual);
        let record =
            record.ok_or_else(|| flannel("this node has no IPv4 address to be reached at"))?;
        let (name, compare) = match self.mine() {
            Some((name, (nets, kept))) => {
                if self.held.as_ref() != Some(nets) {
                    let (held, owned) = (self.held.clone(), nets.clone());
                    return held.map_or(Ok(None), |held| Err(Problem::Moved { held, owned }));
                }
                if kept.record == record && now < self.renew_at {
                    return Ok(None);
                }
                (name.clone(), Compare::At(format!("{SUBNETS}{name}"), kept.revision))
            }
            None => {
                let name = key(&self.choose(config)?);
                (name.clone(), Compare::Absent(format!("{SUBNETS}{name}")))
            }
        };
        // The same whether it is made or renewed: a new lease of etcd's, and the key under it.
        let Some(lease) = self.granted else {
            return Ok(Some((Request::Grant(LEASE_SECS), Purpose::Grant)));
        };
        let value = super::records::text(&record);
        let ops = vec![Op::Put { key: format!("{SUBNETS}{name}"), value, lease }];
        Ok(Some((Request::Txn(vec![compare], ops.clone()), Purpose::Txn(ops))))
    }

    /// What this node's network has, else any subnet that nobody has.
    fn choose(&self, config: &FlannelConfig) -> Result<Vec<IpNet>, Problem> {
        let taken = |nets: &[IpNet]| {
            let there = self.leases.values().map(|(nets, _)| nets).chain(self.reserved.values());
            there.flatten().any(|there| nets.iter().any(|net| overlaps(net, there)))
        };
        if let Some(held) = &self.held {
            let subnet = held.first().copied();
            let fits = subnet.and_then(|net| config.plan.slot_of(net)).is_some();
            return match subnet {
                Some(subnet) if fits && taken(held) => Err(Problem::LeaseLost { subnet }),
                Some(_) if fits => Ok(held.clone()),
                _ => Err(Problem::Foreign { held: held.clone() }),
            };
        }
        let start = self
            .me
            .instance
            .bytes()
            .fold(0_u64, |h, b| h.wrapping_mul(0x100_0000_01b3) ^ u64::from(b));
        let (first, last) = config.bounds;
        let mut slots = config.plan.from(start).filter(|slot| (first..=last).contains(&slot.0));
        let free =
            slots.find_map(|slot| Some(config.plan.subnets(slot)).filter(|nets| !taken(nets)));
        free.ok_or_else(|| Problem::Full { plan: config.plan.to_string() })
    }

    /// The answer to the last question.
    pub fn answered(&mut self, now: Time, response: &Response) {
        let Some(purpose) = self.asked.take() else { return };
        match (purpose, response) {
            (Purpose::Grant, Response::Granted(id)) => self.granted = Some(*id),
            (Purpose::Txn(ops), Response::Done(revision)) => {
                self.granted = None;
                self.renew_at = now + RENEW;
                for op in ops {
                    if let Op::Put { key, value, lease } = op {
                        self.put(
                            &key,
                            &Entry { value: value.into_bytes(), revision: *revision, lease },
                        );
                    }
                }
                self.moved = true;
            }
            (_, Response::Otherwise(revision, found)) => {
                for (key, entry) in found {
                    self.found(key, *revision, entry.as_ref());
                }
                self.wait_until = now + PAUSE;
            }
            _ => {
                self.granted = None;
                self.wait_until = now + PAUSE;
            }
        }
    }

    /// All leases: subnets and how they are reached.
    pub fn leases(
        &self,
    ) -> impl Iterator<Item = (&Vec<IpNet>, String, Vec<std::net::IpAddr>, bool)> {
        let mine = self.mine().map(|(key, _)| key);
        self.leases.iter().map(move |(key, (nets, kept))| {
            let addresses =
                [Some(kept.record.public_ip.into()), kept.record.public_ipv6.map(Into::into)];
            let name = kept.record.public_ip.to_string();
            (nets, name, addresses.into_iter().flatten().collect(), Some(key) == mine)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::cluster::tests::store::Store;
    use crate::wire::mac::Mac;

    const NOW: Time = Time(1_000_000_000);

    fn store() -> Store {
        let mut store = Store::default();
        let value = r#"{"Network":"10.42.0.0/22","Backend":{"Type":"vxlan"}}"#.to_owned();
        let op = Op::Put { key: CONFIG.to_owned(), value, lease: 0 };
        store.ask(0, &Request::Txn(Vec::new(), vec![op]));
        store
    }

    fn node(address: &str, held: Option<Vec<IpNet>>) -> Flannel {
        let me = Me {
            name: address.to_owned(),
            identity: address.to_owned(),
            instance: "same".to_owned(),
            seat: String::new(),
        };
        let wish = Wish {
            plan: None,
            subnet: None,
            liveness: Span::from_secs(15),
            quarantine: Span::from_secs(300),
            addresses: vec![address.parse().unwrap()],
            backend: Some(Backend::Vxlan { vni: 1, port: 8472, mac: Mac([2, 0, 0, 0, 0, 1]) }),
            since_ms: 0,
        };
        Flannel::new(me, wish, held)
    }

    /// Steps until there is nothing to do; the network is made as soon as it can be.
    fn run(store: &mut Store, node: &mut Flannel, now: Time) {
        for _ in 0..20 {
            if node.held.is_none() {
                node.hold(node.owned());
            }
            let Some(request) = node.next(now + PAUSE + PAUSE) else { continue };
            let response = store.ask(0, &request);
            node.answered(now, &response);
        }
    }

    fn joined(store: &mut Store, address: &str, held: Option<Vec<IpNet>>) -> Flannel {
        let mut node = node(address, held);
        node.listed(NOW, &store.list());
        run(store, &mut node, NOW);
        node
    }

    #[test]
    fn two_nodes_that_start_at_once_end_up_with_a_subnet_each() {
        let mut store = store();
        let (mut a, mut b) = (node("192.0.2.1", None), node("192.0.2.2", None));
        a.listed(NOW, &store.list());
        b.listed(NOW, &store.list());
        run(&mut store, &mut a, NOW);
        // It has not heard of the first, and would choose the same.
        run(&mut store, &mut b, NOW);
        assert_eq!((a.problem(), b.problem()), (None, None));
        assert_ne!(a.owned().unwrap(), b.owned().unwrap());
        b.listed(NOW, &store.list());
        assert_eq!(b.peers()["192.0.2.1"].subnets, a.owned().unwrap());
    }

    #[test]
    fn a_node_that_comes_back_has_the_lease_of_its_address_and_renews_it() {
        let mut store = store();
        let first = joined(&mut store, "192.0.2.1", None);
        let before = store.entries.values().last().unwrap().lease;
        let again = joined(&mut store, "192.0.2.1", first.held.clone());
        assert_eq!(again.owned(), first.owned());
        let after = store.entries.values().last().unwrap().lease;
        assert_ne!(before, after, "it is under a new lease");
        assert_eq!(again.clone().next(NOW), None);
        let mut later = again;
        assert!(later.next(NOW + RENEW).is_some());
    }

    #[test]
    fn a_lost_lease_is_taken_back_unless_somebody_has_it() {
        for somebody in [false, true] {
            let mut store = store();
            let mut a = joined(&mut store, "192.0.2.1", None);
            let held = a.held.clone().unwrap();
            let lease = store.entries.values().last().unwrap().lease;
            store.expire(lease);
            if somebody {
                let mut b = node("192.0.2.2", Some(held.clone()));
                b.listed(NOW, &store.list());
                run(&mut store, &mut b, NOW);
                assert_eq!(b.owned(), Some(held.clone()));
            }
            a.listed(NOW, &store.list());
            run(&mut store, &mut a, NOW);
            assert_eq!(a.is_homeless(), somebody);
            assert_eq!(a.owned() == Some(held), !somebody);
        }
    }

    #[test]
    fn what_was_reserved_by_hand_and_what_is_out_of_bounds_is_not_taken() {
        let mut store = store();
        for n in [1, 2] {
            let key = format!("{SUBNETS}10.42.{n}.0-24");
            let op = Op::Put { key, value: String::new(), lease: 0 };
            store.ask(0, &Request::Txn(Vec::new(), vec![op]));
        }
        let a = joined(&mut store, "192.0.2.1", None);
        assert_eq!(a.owned(), Some(vec!["10.42.3.0/24".parse().unwrap()]));
        let b = joined(&mut store, "192.0.2.2", None);
        assert!(matches!(b.problem(), Some(Problem::Full { .. })));
    }
}
