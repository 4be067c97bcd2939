//! What a node knows of the store: its keys, read, as listed and as told of by the watch since. It may be
//! behind, so that nothing is done on its word alone: each transaction names what it rests on.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::ask::{Change, Entry, Listing, Op};
use super::plan::Plan;
use super::records::{
    self, ALIVE, AliveRecord, ENDPOINTS, EndpointRecord, NODES, NodeRecord, PlanRecord, Record,
    SUBNETS, SubnetRecord,
};
use crate::base::limits::{CLUSTER_ENDPOINTS_MAX, CLUSTER_FAULTS_MAX, CLUSTER_NODES_MAX};
use crate::base::time::{Span, Time};

/// A record and where it stands in the store's history.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Kept<T> {
    /// The record.
    pub record: T,
    /// When it was written.
    pub revision: u64,
    /// Under which lease; 0 for none.
    pub lease: u64,
}

/// A node that can be reached.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Reachable {
    /// Its subnets, IPv4 first.
    pub subnets: Vec<IpNet>,
    /// How it is reached.
    pub alive: AliveRecord,
}

/// Everything below the prefix.
#[derive(Clone, Hash, Debug, Default)]
pub struct Mirror {
    plan: Option<Kept<PlanRecord>>,
    subnets: BTreeMap<String, Kept<SubnetRecord>>,
    nodes: BTreeMap<String, Kept<NodeRecord>>,
    alive: BTreeMap<String, Kept<AliveRecord>>,
    endpoints: BTreeMap<String, BTreeMap<String, Kept<EndpointRecord>>>,
    count: usize,
    /// Keys that cannot be read, and why.
    faults: BTreeMap<String, String>,
    /// Nodes that were alive when the store was last seen and are not in the list that came since: they
    /// may only not have found it again themselves.
    lingering: BTreeMap<String, (AliveRecord, Time)>,
    /// Whether peers may have changed.
    moved: bool,
}

impl Mirror {
    /// Takes in a list in place of all that was known. A node that was alive before stays so for `grace`.
    pub fn replace(&mut self, now: Time, grace: Span, listing: &Listing) {
        let mut fresh = Self { moved: true, ..Self::default() };
        for (key, entry) in &listing.entries {
            fresh.put(key, entry);
        }
        let before = std::mem::take(&mut self.alive).into_iter();
        let before = before.map(|(name, kept)| (name, (kept.record, now + grace)));
        // One who lingers already does so no longer for that.
        let before = before.chain(std::mem::take(&mut self.lingering));
        fresh.lingering = before.filter(|(name, _)| !fresh.alive.contains_key(name)).collect();
        *self = fresh;
    }

    /// Takes in what the watch tells.
    pub fn change(&mut self, change: &Change) {
        match &change.now {
            Some(entry) => self.put(&change.key, entry),
            None => self.delete(&change.key, change.revision),
        }
    }

    /// Takes in what a transaction of our own has done.
    pub fn done(&mut self, revision: u64, ops: &[Op]) {
        for op in ops {
            match op {
                Op::Put { key, value, lease } => {
                    let value = value.as_bytes().to_vec();
                    self.put(key, &Entry { value, revision, lease: *lease });
                }
                Op::Delete(key) => self.delete(key, revision),
                Op::DeleteAll(_) => {} // the watch tells of each
            }
        }
    }

    /// Takes in how a key is, of an answer.
    pub fn found(&mut self, revision: u64, key: &str, entry: Option<&Entry>) {
        match entry {
            Some(entry) => self.put(key, entry),
            None => self.delete(key, revision),
        }
    }

    fn put(&mut self, key: &str, entry: &Entry) {
        let (revision, lease) = (entry.revision, entry.lease);
        let record = match records::read(key, &entry.value) {
            Ok(record) => record,
            Err(why) => {
                self.delete(key, revision);
                if self.faults.len() < CLUSTER_FAULTS_MAX {
                    self.faults.insert(key.to_owned(), why.to_string());
                }
                return;
            }
        };
        self.faults.remove(key);
        match record {
            Record::Plan(record) => {
                self.moved = true;
                self.plan = Some(Kept { record, revision, lease });
            }
            Record::Subnet(name, record) => {
                self.moved |= newer(&mut self.subnets, name, Kept { record, revision, lease });
            }
            Record::Node(name, record)
                if self.nodes.len() < CLUSTER_NODES_MAX || self.nodes.contains_key(&name) =>
            {
                self.moved |= newer(&mut self.nodes, name, Kept { record, revision, lease });
            }
            Record::Alive(name, record)
                if self.alive.len() < CLUSTER_NODES_MAX || self.alive.contains_key(&name) =>
            {
                self.lingering.remove(&name);
                self.moved |= newer(&mut self.alive, name, Kept { record, revision, lease });
            }
            Record::Endpoint(node, id, record) if self.count < CLUSTER_ENDPOINTS_MAX => {
                let of_node = self.endpoints.entry(node).or_default();
                let before = of_node.len();
                newer(of_node, id, Kept { record, revision, lease });
                self.count += of_node.len() - before;
            }
            _ => {
                self.faults.insert(
                    key.to_owned(),
                    "there are more of its kind than this node keeps".to_owned(),
                );
            }
        }
    }

    fn delete(&mut self, key: &str, revision: u64) {
        self.faults.remove(key);
        if key == records::PLAN {
            self.plan = self.plan.take().filter(|kept| kept.revision > revision);
        } else if let Some(name) = key.strip_prefix(SUBNETS) {
            self.moved |= older(&mut self.subnets, name, revision);
        } else if let Some(name) = key.strip_prefix(NODES) {
            self.moved |= older(&mut self.nodes, name, revision);
        } else if let Some(name) = key.strip_prefix(ALIVE) {
            self.moved |= older(&mut self.alive, name, revision);
        } else if let Some((node, id)) =
            key.strip_prefix(ENDPOINTS).and_then(|rest| rest.split_once('/'))
        {
            let Some(of_node) = self.endpoints.get_mut(node) else { return };
            if older(of_node, id, revision) {
                self.count -= 1;
            }
            if of_node.is_empty() {
                self.endpoints.remove(node);
            }
        }
    }

    /// The plan.
    pub fn plan(&self) -> Option<&Plan> {
        self.plan.as_ref().map(|kept| &kept.record.plan)
    }

    /// Whose a subnet is, by its key.
    pub fn subnet(&self, key: &str) -> Option<&Kept<SubnetRecord>> {
        self.subnets.get(key)
    }

    /// All subnets that are not free, by their keys.
    pub fn subnets(&self) -> impl Iterator<Item = (&String, &Kept<SubnetRecord>)> {
        self.subnets.iter()
    }

    /// A node's record.
    pub fn node(&self, name: &str) -> Option<&Kept<NodeRecord>> {
        self.nodes.get(name)
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = (&String, &Kept<NodeRecord>)> {
        self.nodes.iter()
    }

    /// How a node that is alive says it is reached.
    pub fn alive(&self, name: &str) -> Option<&Kept<AliveRecord>> {
        self.alive.get(name)
    }

    /// A node's endpoints.
    pub fn endpoints_of(&self, node: &str) -> Option<&BTreeMap<String, Kept<EndpointRecord>>> {
        self.endpoints.get(node)
    }

    /// All endpoints with their nodes.
    pub fn endpoints(&self) -> impl Iterator<Item = (&String, &String, &EndpointRecord)> {
        let of_node = |(node, all)| (node, all);
        let all = self.endpoints.iter().map(of_node);
        all.flat_map(|(node, all): (&String, &BTreeMap<_, Kept<_>>)| {
            all.iter().map(move |(id, kept)| (node, id, &kept.record))
        })
    }

    /// How many endpoints there are.
    pub fn endpoint_count(&self) -> usize {
        self.count
    }

    /// Keys that cannot be read, and why.
    pub fn faults(&self) -> &BTreeMap<String, String> {
        &self.faults
    }

    /// The subnets that a node owns, if its record and the subnet's agree.
    pub fn owned_by(&self, name: &str) -> Option<Vec<IpNet>> {
        let plan = self.plan()?;
        let node = &self.nodes.get(name)?.record;
        let key = node.subnet.as_deref()?;
        match &self.subnets.get(key)?.record {
            SubnetRecord::Owned { node: owner, identity }
                if owner == name && *identity == node.identity =>
            {
                Some(plan.subnets(plan.slot(key)?))
            }
            _ => None,
        }
    }

    /// All nodes that can be reached, but for one. A node's subnets are what the store says it owns, not
    /// what it says itself.
    pub fn peers(&self, but: &str) -> BTreeMap<String, Reachable> {
        let alive = self.alive.iter().map(|(name, kept)| (name, &kept.record));
        let lingering = self.lingering.iter().map(|(name, (record, _))| (name, record));
        let view = |(name, alive): (&String, &AliveRecord)| {
            let node = &self.nodes.get(name)?.record;
            if name == but || node.identity != alive.identity {
                return None;
            }
            Some((name.clone(), Reachable { subnets: self.owned_by(name)?, alive: alive.clone() }))
        };
        alive.chain(lingering).filter_map(view).collect()
    }

    /// Whether a node is reached only on the word of an earlier list.
    pub fn is_lingering(&self, name: &str) -> bool {
        self.lingering.contains_key(name)
    }

    /// Whether peers may have changed since this was last asked, nodes that lingered long enough included.
    pub fn take_moved(&mut self, now: Time) -> bool {
        let before = self.lingering.len();
        self.lingering.retain(|_, (_, until)| *until > now);
        self.moved |= self.lingering.len() != before;
        std::mem::take(&mut self.moved)
    }

    /// When the next of those who linger goes.
    pub fn deadline(&self) -> Option<Time> {
        self.lingering.values().map(|(_, until)| *until).min()
    }
}

/// Puts in what is newer than what is there.
fn newer<T: PartialEq>(map: &mut BTreeMap<String, Kept<T>>, name: String, kept: Kept<T>) -> bool {
    match map.get_mut(&name) {
        Some(there) if there.revision >= kept.revision => false,
        Some(there) => {
            *there = kept;
            true
        }
        None => {
            map.insert(name, kept);
            true
        }
    }
}

/// Takes out what is older than its removal.
fn older<T>(map: &mut BTreeMap<String, Kept<T>>, name: &str, revision: u64) -> bool {
    let gone = map.get(name).is_some_and(|kept| kept.revision < revision);
    if gone {
        map.remove(name);
    }
    gone
}
