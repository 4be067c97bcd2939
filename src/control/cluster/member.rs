//! How a node owns a subnet and is alive, as a machine without I/O: the store's answers, what the watch
//! tells and the time go in, questions come out, one at a time.
//!
//! Three keys without expiry say who owns what. `nodes/N` gives a name to one identity, and to it at most
//! one subnet; `subnets/S` names the owner. Both are written in one transaction which rests on `nodes/N`
//! as it was last seen and on `subnets/S` being free. So of all claims of a node that are on their way, late
//! ones of an earlier life included, one at most succeeds; and of all nodes that claim a subnet, one. Expiry
//! has no part in it, hence no clock either.
//!
//! `alive/N`, under a lease, says that a node can be reached and how. It is written only while `nodes/N` is
//! as this node believes it to be: who was removed cannot come back unnoticed. With the lease's end routes
//! are withdrawn and nothing else: the subnet stays the silent node's.
//!
//! `wharf node rm` takes a silent node's name away and puts its subnet under the lease of a quarantine. It
//! is etcd that ends it, so that no two nodes' clocks have to agree. Until then the subnet is the removed
//! node's for the asking; afterwards it is anybody's, and a node that still has containers there is told so
//! and stays out.
//!
//! `tests/model.rs` tries out all interleavings of two nodes' steps, losses, delays, restarts and removals.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::ask::{Change, Compare, Listing, Op, Request, Response};
use super::errand::{Errand, ErrandError, Removed};
use super::mirror::{Kept, Mirror};
use super::plan::{Plan, Slot};
use super::problem::Problem;
use super::records::{
    self, ALIVE, AliveRecord, Backend, ENDPOINTS, EndpointRecord, NODES, NodeRecord, PlanRecord,
    SUBNETS, SubnetRecord, VERSION,
};
use crate::base::limits::CLUSTER_OPS_MAX;
use crate::base::time::{Span, Time};

/// Who this node is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Me {
    /// Its name.
    pub name: String,
    /// Random, made at its first start and kept.
    pub identity: String,
    /// Random, made at each start of the daemon.
    pub instance: String,
    /// The machine's boot.
    pub seat: String,
}

/// What this node wants.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Wish {
    /// The plan, if there is none yet; one that differs is a problem.
    pub plan: Option<Plan>,
    /// A subnet chosen by hand.
    pub subnet: Option<IpNet>,
    /// How long a silent node counts as alive.
    pub liveness: Span,
    /// How long a removed node's subnet is nobody's.
    pub quarantine: Span,
    /// Where tunnels to this node end.
    pub addresses: Vec<std::net::IpAddr>,
    /// Of which kind.
    pub backend: Option<Backend>,
    /// When the node started, for people.
    pub since_ms: u64,
}

/// What a question was asked for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Purpose {
    Grant,
    Keep,
    Txn(Vec<Op>),
    Announce(Vec<Op>),
    ErrandGrant,
    Errand(Vec<Op>),
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Lease {
    id: u64,
    renew_at: Time,
}

/// What comes next.
enum Step {
    Ask(Request, Purpose),
    Blocked(Problem),
    /// Until something is told, or some time has passed.
    Wait,
    Nothing,
}

/// How long a node waits after a transaction that failed on what the watch will tell about.
const PAUSE: Span = Span::from_millis(100);

/// A node's part in the protocol.
#[derive(Clone, Hash, Debug)]
pub struct Member {
    me: Me,
    wish: Wish,
    mirror: Mirror,
    listed: bool,
    lease: Option<Lease>,
    asked: Option<Purpose>,
    wait_until: Time,
    announced: bool,
    left: bool,
    /// What the network of this node has: its containers' addresses are from there.
    held: Option<Vec<IpNet>>,
    endpoints: BTreeMap<String, EndpointRecord>,
    problem: Option<Problem>,
    errand: Option<Errand>,
}

impl Member {
    /// A node that knows nothing yet; `held` is what its network has from an earlier life.
    pub fn new(me: Me, wish: Wish, held: Option<Vec<IpNet>>) -> Self {
        Self {
            me,
            wish,
            mirror: Mirror::default(),
            listed: false,
            lease: None,
            asked: None,
            wait_until: Time::ZERO,
            announced: false,
            left: false,
            held,
            endpoints: BTreeMap::new(),
            problem: None,
            errand: None,
        }
    }

    /// This node's end of the tunnels.
    pub fn end(&self) -> Option<&Backend> {
        self.wish.backend.as_ref()
    }

    /// Who it is.
    pub fn me(&self) -> &Me {
        &self.me
    }

    /// What it knows.
    pub fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    /// The same, to ask what moved.
    pub fn mirror_mut(&mut self) -> &mut Mirror {
        &mut self.mirror
    }

    /// Why it gets no further, if so.
    pub fn problem(&self) -> Option<&Problem> {
        self.problem.as_ref()
    }

    /// The subnets it owns, as far as it knows.
    pub fn owned(&self) -> Option<Vec<IpNet>> {
        let node = self.mirror.node(&self.me.name)?;
        (node.record.identity == self.me.identity).then(|| self.mirror.owned_by(&self.me.name))?
    }

    /// Whether others can reach it, as far as it knows.
    pub fn is_announced(&self) -> bool {
        let alive = self.mirror.alive(&self.me.name);
        alive.is_some_and(|kept| kept.record.instance == self.me.instance)
    }

    /// Whether what this node's network has cannot be its own.
    pub fn is_homeless(&self) -> bool {
        let lost = matches!(self.problem, Some(Problem::Evicted { .. } | Problem::Foreign { .. }));
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

    /// An endpoint of this node, or that it is gone.
    pub fn endpoint(&mut self, id: &str, record: Option<EndpointRecord>) {
        match record {
            Some(record) => drop(self.endpoints.insert(id.to_owned(), record)),
            None => drop(self.endpoints.remove(id)),
        }
    }

    /// The store was listed.
    pub fn listed(&mut self, now: Time, listing: &Listing) {
        self.mirror.replace(now, self.wish.liveness, listing);
        self.listed = true;
        self.asked = None;
        self.wait_until = now;
    }

    /// The watch tells.
    pub fn changed(&mut self, now: Time, change: &Change) {
        self.mirror.change(change);
        self.wait_until = self.wait_until.min(now);
    }

    /// The store is away: what was asked may or may not be done, and must be listed anew.
    pub fn lost(&mut self) {
        self.listed = false;
        self.asked = None;
        if let Some(errand) = &mut self.errand {
            errand.fail(ErrandError::Lost);
        }
    }

    /// When to ask for the next question again, if nothing happens before.
    pub fn deadline(&self, now: Time) -> Option<Time> {
        let renew = self.lease.as_ref().map(|lease| lease.renew_at);
        let wait = (self.wait_until > now).then_some(self.wait_until);
        renew.into_iter().chain(wait).chain(self.mirror.deadline()).min()
    }

    /// Begins to remove a node. Its end is in [`Member::errand`].
    pub fn remove(&mut self, name: &str) {
        self.errand = Some(Errand::new(name));
    }

    /// How a removal ended, once.
    pub fn errand(&mut self) -> Option<Result<Removed, ErrandError>> {
        let ended = self.errand.as_mut()?.take_outcome()?;
        self.errand = None;
        Some(ended)
    }

    /// The next question, if there is one now.
    pub fn next(&mut self, now: Time) -> Option<Request> {
        if !self.listed || self.asked.is_some() {
            return None;
        }
        let step = self.errand_step().unwrap_or_else(|| self.step(now));
        match step {
            Step::Ask(request, purpose) => {
                self.asked = Some(purpose);
                Some(request)
            }
            Step::Blocked(problem) => {
                self.problem = Some(problem);
                None
            }
            Step::Wait => None,
            Step::Nothing => {
                self.problem = None;
                None
            }
        }
    }

    /// The answer to the last question.
    pub fn answered(&mut self, now: Time, response: &Response) {
        let Some(purpose) = self.asked.take() else { return };
        match (purpose, response) {
            (Purpose::Grant, Response::Granted(id)) => self.lease = Some(self.lease(now, *id)),
            (Purpose::Keep, Response::Kept) => {
                let id = self.lease.as_ref().map(|lease| lease.id);
                self.lease = id.map(|id| self.lease(now, id));
            }
            (Purpose::Keep | Purpose::Announce(_), Response::LeaseGone) => self.lease = None,
            (Purpose::Txn(ops), Response::Done(revision)) => self.mirror.done(*revision, &ops),
            (Purpose::Announce(ops), Response::Done(revision)) => {
                self.announced = true;
                self.mirror.done(*revision, &ops);
            }
            (Purpose::ErrandGrant, Response::Granted(lease)) => {
                if let Some(errand) = &mut self.errand {
                    errand.lease = Some(*lease);
                }
            }
            (Purpose::Errand(ops), Response::Done(revision)) => {
                self.mirror.done(*revision, &ops);
                self.removed();
            }
            (Purpose::Errand(_), Response::LeaseGone) => {
                if let Some(errand) = &mut self.errand {
                    errand.lease = None;
                    errand.retry();
                }
            }
            (purpose, Response::Otherwise(revision, found)) => {
                for (key, entry) in found {
                    self.mirror.found(*revision, key, entry.as_ref());
                }
                if matches!(purpose, Purpose::Errand(_)) {
                    self.retry_errand();
                } else {
                    self.wait_until = now + PAUSE;
                }
            }
            _ => self.wait_until = now + PAUSE,
        }
    }

    fn lease(&self, now: Time, id: u64) -> Lease {
        Lease { id, renew_at: now + Span(self.wish.liveness.0 / 3) }
    }

    /// One thing after the other; each rests on the one before.
    fn step(&self, now: Time) -> Step {
        if self.left {
            return Step::Blocked(Problem::Left);
        }
        if self.wait_until > now {
            return Step::Wait;
        }
        if let Some(lease) = &self.lease
            && lease.renew_at <= now
        {
            return Step::Ask(Request::Keep(lease.id), Purpose::Keep);
        }
        let plan = match (self.mirror.plan(), &self.wish.plan) {
            (None, None) => return Step::Blocked(Problem::NoPlan),
            (None, Some(plan)) => return write_plan(plan),
            (Some(there), Some(mine)) if there != mine => {
                return Step::Blocked(Problem::OtherPlan {
                    there: there.to_string(),
                    here: mine.to_string(),
                });
            }
            (Some(there), _) => there,
        };
        let node = match self.mirror.node(&self.me.name) {
            None => return self.register(),
            Some(node) if node.record.identity != self.me.identity => {
                return Step::Blocked(Problem::NameTaken { name: self.me.name.clone() });
            }
            Some(node) => node,
        };
        let Some(key) = &node.record.subnet else { return self.claim(plan, node) };
        let Some(owned) = self.owned() else { return self.mend(key, node) };
        if self.held.as_ref() != Some(&owned) {
            // Control makes the network first, or says why it cannot.
            let held = self.held.clone();
            return held
                .map_or(Step::Nothing, |held| Step::Blocked(Problem::Moved { held, owned }));
        }
        if self.lease.is_none() {
            return Step::Ask(Request::Grant(seconds(self.wish.liveness)), Purpose::Grant);
        }
        self.announce(node).or_else(|| self.endpoint_step(node)).unwrap_or(Step::Nothing)
    }

    fn register(&self) -> Step {
        let key = format!("{NODES}{}", self.me.name);
        txn(vec![Compare::Absent(key.clone())], vec![put(&key, self.record(None), 0)])
    }

    fn record(&self, subnet: Option<String>) -> String {
        records::text(&NodeRecord { v: VERSION, identity: self.me.identity.clone(), subnet })
    }

    /// Claims the subnet that this node's network has; else the one that was wished for; else any.
    fn claim(&self, plan: &Plan, node: &Kept<NodeRecord>) -> Step {
        let (slot, free) = match self.choose(plan) {
            Ok(chosen) => chosen,
            Err(problem) => return Step::Blocked(problem),
        };
        let key = plan.key(slot);
        let (node_key, subnet_key) =
            (format!("{NODES}{}", self.me.name), format!("{SUBNETS}{key}"));
        let owned =
            SubnetRecord::Owned { node: self.me.name.clone(), identity: self.me.identity.clone() };
        txn(
            vec![Compare::At(node_key.clone(), node.revision), free],
            vec![
                put(&subnet_key, records::text(&owned), 0),
                put(&node_key, self.record(Some(key)), 0),
            ],
        )
    }

    fn choose(&self, plan: &Plan) -> Result<(Slot, Compare), Problem> {
        if let Some(held) = &self.held {
            let slot = held.first().and_then(|net| plan.slot_of(*net));
            let slot = slot.filter(|slot| plan.subnets(*slot) == *held);
            let slot = slot.ok_or_else(|| Problem::Foreign { held: held.clone() })?;
            return self.free(plan, slot).map_err(|by| Problem::Evicted { held: held.clone(), by });
        }
        if let Some(wish) = self.wish.subnet {
            let slot = plan.slot_of(wish).ok_or(Problem::Foreign { held: vec![wish] })?;
            return self.free(plan, slot).map_err(|by| Problem::WishTaken { wish, by });
        }
        let start = self
            .me
            .identity
            .bytes()
            .fold(0_u64, |h, b| h.wrapping_mul(0x100_0000_01b3) ^ u64::from(b));
        let mut free = plan.from(start).filter(|slot| !plan.is_reserved(*slot));
        let found = free.find_map(|slot| match self.free(plan, slot) {
            Ok((slot, Compare::Absent(key))) => Some((slot, Compare::Absent(key))),
            _ => None,
        });
        found.ok_or(Problem::Full { plan: plan.to_string() })
    }

    /// Whether a subnet can be claimed, and what that rests on; else whose it is.
    fn free(&self, plan: &Plan, slot: Slot) -> Result<(Slot, Compare), String> {
        let key = plan.key(slot);
        let compare = match self.mirror.subnet(&key) {
            None => Compare::Absent(format!("{SUBNETS}{key}")),
            Some(kept) => match &kept.record {
                // Ours, and nobody else's until the quarantine ends.
                SubnetRecord::Quarantined { node, identity }
                    if *node == self.me.name && *identity == self.me.identity =>
                {
                    Compare::At(format!("{SUBNETS}{key}"), kept.revision)
                }
                SubnetRecord::Quarantined { node, .. } => {
                    return Err(format!("nobody until the quarantine of `{node}` ends"));
                }
                SubnetRecord::Owned { node, .. } => return Err(format!("`{node}`")),
                SubnetRecord::Reserved { .. } => return Err("nobody: it is reserved".to_owned()),
            },
        };
        Ok((slot, compare))
    }

    /// The node's record names a subnet whose own record does not agree: somebody removed it by hand.
    fn mend(&self, key: &str, node: &Kept<NodeRecord>) -> Step {
        let subnet_key = format!("{SUBNETS}{key}");
        if let Some(kept) = self.mirror.subnet(key) {
            let by = match &kept.record {
                SubnetRecord::Owned { node, .. } | SubnetRecord::Quarantined { node, .. } => {
                    format!("`{node}`")
                }
                SubnetRecord::Reserved { note } => format!("nobody ({note})"),
            };
            return Step::Blocked(Problem::Contradiction { subnet: key.to_owned(), by });
        }
        let owned =
            SubnetRecord::Owned { node: self.me.name.clone(), identity: self.me.identity.clone() };
        txn(
            vec![
                Compare::At(format!("{NODES}{}", self.me.name), node.revision),
                Compare::Absent(subnet_key.clone()),
            ],
            vec![put(&subnet_key, records::text(&owned), 0)],
        )
    }

    /// Tells others that this node is there and how it is reached, unless they know.
    fn announce(&self, node: &Kept<NodeRecord>) -> Option<Step> {
        let lease = self.lease.as_ref()?;
        let wanted = AliveRecord {
            v: VERSION,
            identity: self.me.identity.clone(),
            instance: self.me.instance.clone(),
            seat: self.me.seat.clone(),
            addresses: self.wish.addresses.clone(),
            backend: self.wish.backend.clone(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            since_ms: self.wish.since_ms,
        };
        let key = format!("{ALIVE}{}", self.me.name);
        let mut compare = vec![Compare::At(format!("{NODES}{}", self.me.name), node.revision)];
        match self.mirror.alive(&self.me.name) {
            Some(kept) if kept.record == wanted && kept.lease == lease.id => return None,
            Some(kept) if kept.record.instance != self.me.instance => {
                // An earlier life of ours has the same seat. Anybody else with our identity is a copy of this
                // node: which of both was first stays.
                if self.announced {
                    return Some(Step::Blocked(Problem::Superseded { name: self.me.name.clone() }));
                }
                if kept.record.seat != self.me.seat {
                    return Some(Step::Blocked(Problem::Twin { name: self.me.name.clone() }));
                }
                compare.push(Compare::At(key.clone(), kept.revision));
            }
            Some(kept) => compare.push(Compare::At(key.clone(), kept.revision)),
            None => compare.push(Compare::Absent(key.clone())),
        }
        let ops = vec![put(&key, records::text(&wanted), lease.id)];
        Some(Step::Ask(Request::Txn(compare, ops.clone()), Purpose::Announce(ops)))
    }

    /// Writes what others do not know yet of this node's endpoints, some at a time.
    fn endpoint_step(&self, node: &Kept<NodeRecord>) -> Option<Step> {
        let name = &self.me.name;
        let none = BTreeMap::new();
        let written = self.mirror.endpoints_of(name).unwrap_or(&none);
        let differs = |(id, wanted): &(&String, &EndpointRecord)| {
            written.get(*id).is_none_or(|kept| kept.record != **wanted)
        };
        let puts = self.endpoints.iter().filter(differs);
        let puts = puts
            .map(|(id, record)| put(&format!("{ENDPOINTS}{name}/{id}"), records::text(record), 0));
        let gone = written.keys().filter(|id| !self.endpoints.contains_key(*id));
        let ops: Vec<Op> = gone
            .map(|id| Op::Delete(format!("{ENDPOINTS}{name}/{id}")))
            .chain(puts)
            .take(CLUSTER_OPS_MAX)
            .collect();
        if ops.is_empty() {
            return None;
        }
        Some(txn(vec![Compare::At(format!("{NODES}{name}"), node.revision)], ops))
    }

    /// The next step of a removal, if there is one.
    fn errand_step(&mut self) -> Option<Step> {
        let errand = self.errand.as_mut()?;
        if errand.is_over() {
            return None;
        }
        let own = errand.name == self.me.name;
        let Some(node) = self.mirror.node(&errand.name) else {
            errand.fail(ErrandError::NoNode);
            return None;
        };
        let (key, alive_key) =
            (format!("{NODES}{}", errand.name), format!("{ALIVE}{}", errand.name));
        let mut compare = vec![Compare::At(key.clone(), node.revision)];
        let mut ops = vec![Op::Delete(key), Op::DeleteAll(format!("{ENDPOINTS}{}/", errand.name))];
        let mine = own && node.record.identity == self.me.identity;
        if !mine && self.mirror.alive(&errand.name).is_some() {
            errand.fail(ErrandError::Alive);
            return None;
        }
        if mine {
            ops.push(Op::Delete(alive_key));
        } else {
            compare.push(Compare::Absent(alive_key));
        }
        errand.subnets = self.mirror.owned_by(&errand.name).unwrap_or_default();
        let subnet = node.record.subnet.as_ref().filter(|_| !errand.subnets.is_empty());
        if let Some(subnet) = subnet {
            let Some(lease) = errand.lease else {
                return Some(Step::Ask(
                    Request::Grant(seconds(self.wish.quarantine)),
                    Purpose::ErrandGrant,
                ));
            };
            let record = SubnetRecord::Quarantined {
                node: errand.name.clone(),
                identity: node.record.identity.clone(),
            };
            ops.push(put(&format!("{SUBNETS}{subnet}"), records::text(&record), lease));
        }
        Some(Step::Ask(Request::Txn(compare, ops.clone()), Purpose::Errand(ops)))
    }

    fn removed(&mut self) {
        let Some(errand) = &mut self.errand else { return };
        if errand.name == self.me.name {
            self.left = true;
        }
        errand.succeed(self.wish.quarantine);
    }

    fn retry_errand(&mut self) {
        if let Some(errand) = &mut self.errand {
            errand.retry();
        }
    }
}

fn write_plan(plan: &Plan) -> Step {
    let value = records::text(&PlanRecord { v: VERSION, plan: plan.clone() });
    txn(vec![Compare::Absent(records::PLAN.to_owned())], vec![put(records::PLAN, value, 0)])
}

fn txn(compare: Vec<Compare>, ops: Vec<Op>) -> Step {
    Step::Ask(Request::Txn(compare, ops.clone()), Purpose::Txn(ops))
}

fn put(key: &str, value: String, lease: u64) -> Op {
    Op::Put { key: key.to_owned(), value, lease }
}

/// Whole seconds, as leases are counted.
fn seconds(span: Span) -> u32 {
    u32::try_from(span.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX).max(1)
}
