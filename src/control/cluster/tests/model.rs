//! All interleavings of a few nodes' steps, to a depth, against a store that behaves as etcd does.
//!
//! A question can be answered, be lost before it is carried out, be carried out and its answer be lost, or
//! be carried out at any later time. Watches tell late. Leases end whenever they like, which is what clocks
//! that disagree, paused processes and partitions amount to. Daemons die and start again, with what their
//! state directory kept. An operator removes whoever is silent, and a quarantine ends whenever it likes.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use ipnet::IpNet;

use crate::base::time::{Span, Time};
use crate::control::cluster::ask::Request;
use crate::control::cluster::records::{NODES, Record, SUBNETS, SubnetRecord, read};
use crate::control::cluster::tests::store::Store;
use crate::control::cluster::{Me, Member, Plan, Wish};

const NOW: Time = Time(1_000_000_000);

#[derive(Clone, Hash)]
struct Node {
    member: Option<Member>,
    /// What its network has, in its state directory.
    held: Option<Vec<IpNet>>,
    /// Up to which revision its watch has told.
    told: u64,
    lives: u8,
    /// Somebody removed it.
    removed: bool,
    /// Which identity it has: a copy has its original's.
    identity: &'static str,
    seat: &'static str,
}

#[derive(Clone, Hash)]
struct World {
    store: Store,
    nodes: Vec<Node>,
    /// Questions that will be carried out late or never.
    limbo: Vec<Request>,
    operator: bool,
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    Answered,
    Lost,
    AnswerLost,
    Late,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Step(usize, Fate),
    Tell(usize),
    Die(usize),
    Start(usize),
    Late(usize),
    Expire(u64),
    Remove(usize, usize),
}

fn wish() -> Wish {
    Wish {
        plan: Some(Plan::new(&["10.244.0.0/23".parse().unwrap()], &[24], &[]).unwrap()),
        subnet: None,
        liveness: Span::from_secs(10),
        quarantine: Span::from_secs(300),
        addresses: Vec::new(),
        backend: None,
        since_ms: 0,
    }
}

fn node(identity: &'static str, seat: &'static str) -> Node {
    Node { member: None, held: None, told: 0, lives: 0, removed: false, identity, seat }
}

impl World {
    /// Nodes with a name each; those of one identity are copies of one node.
    fn new(identities: &[(&'static str, &'static str)]) -> Self {
        let nodes = identities.iter().map(|(identity, seat)| node(identity, seat)).collect();
        Self { store: Store::default(), nodes, limbo: Vec::new(), operator: true }
    }

    fn actions(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        for (n, node) in self.nodes.iter().enumerate() {
            let Some(member) = &node.member else {
                if node.lives < 2 {
                    actions.push(Action::Start(n));
                }
                continue;
            };
            if member.clone().next(NOW).is_some() {
                actions.extend(
                    [Fate::Answered, Fate::Lost, Fate::AnswerLost]
                        .map(|fate| Action::Step(n, fate)),
                );
                if self.limbo.len() < 2 {
                    actions.push(Action::Step(n, Fate::Late));
                }
            }
            if node.told < self.store.revision {
                actions.push(Action::Tell(n));
            }
            if node.lives < 2 {
                actions.push(Action::Die(n));
            }
            if self.operator {
                actions.extend(
                    (0..self.nodes.len())
                        .filter(|other| *other != n)
                        .map(|other| Action::Remove(n, other)),
                );
            }
        }
        actions.extend((0..self.limbo.len()).map(Action::Late));
        actions.extend(self.store.leases.keys().map(|id| Action::Expire(*id)));
        actions
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Step(n, fate) => self.step(n, fate),
            Action::Tell(n) => {
                let node = &mut self.nodes[n];
                let changes = self.store.since(node.told).to_vec();
                node.told = self.store.revision;
                let member = node.member.as_mut().unwrap();
                for change in &changes {
                    member.changed(NOW, change);
                }
            }
            Action::Die(n) => self.nodes[n].member = None,
            Action::Start(n) => {
                let node = &mut self.nodes[n];
                node.lives += 1;
                let me = Me {
                    name: node.identity.to_owned(),
                    identity: format!("identity-{}", node.identity),
                    instance: format!("{n}-{}", node.lives),
                    seat: node.seat.to_owned(),
                };
                let mut member = Member::new(me, wish(), node.held.clone());
                member.listed(NOW, &self.store.list());
                node.told = self.store.revision;
                node.member = Some(member);
            }
            Action::Late(n) => {
                let request = self.limbo.remove(n);
                self.store.ask(0, &request);
            }
            Action::Expire(id) => self.store.expire(id),
            Action::Remove(by, who) => {
                self.operator = false;
                let name = self.nodes[who].identity.to_owned();
                self.nodes[by].member.as_mut().unwrap().remove(&name);
            }
        }
        self.settle();
    }

    fn step(&mut self, n: usize, fate: Fate) {
        let member = self.nodes[n].member.as_mut().unwrap();
        let request = member.next(NOW).unwrap();
        match fate {
            Fate::Answered => {
                let response = self.store.ask(0, &request);
                member.answered(NOW, &response);
                // Time in this model stands still: a pause is over at once.
                return;
            }
            Fate::Lost => {}
            Fate::AnswerLost => {
                self.store.ask(0, &request);
            }
            Fate::Late => self.limbo.push(request),
        }
        member.lost();
        member.listed(NOW, &self.store.list());
        self.nodes[n].told = self.store.revision;
    }

    /// Control's part: a node that owns something makes its network of it, and keeps what it has.
    fn settle(&mut self) {
        for node in &mut self.nodes {
            let Some(member) = &mut node.member else { continue };
            if node.held.is_none()
                && let Some(owned) = member.owned()
            {
                node.held = Some(owned.clone());
                member.hold(Some(owned));
            }
        }
    }

    /// What must hold in every state.
    fn check(&self) -> Result<(), String> {
        let mut named: BTreeMap<String, String> = BTreeMap::new();
        for (key, entry) in self.store.entries.range(NODES.to_owned()..) {
            let Ok(Record::Node(name, record)) = read(key, &entry.value) else { continue };
            let Some(subnet) = record.subnet else { continue };
            if let Some(other) = named.insert(subnet.clone(), name.clone()) {
                return Err(format!("the store gives {subnet} to {other} and {name}"));
            }
            let owner = &self.store.entries[&format!("{SUBNETS}{subnet}")].value;
            let owner = read(&format!("{SUBNETS}{subnet}"), owner).unwrap();
            match owner {
                Record::Subnet(_, SubnetRecord::Owned { node, .. }) if node == name => {}
                other => return Err(format!("{name} has {subnet}, which is {other:?}")),
            }
        }
        let mut announced: BTreeMap<Vec<IpNet>, usize> = BTreeMap::new();
        let mut held: BTreeMap<Vec<IpNet>, usize> = BTreeMap::new();
        for (n, node) in self.nodes.iter().enumerate() {
            let Some(mine) = &node.held else { continue };
            // Only an operator's word makes somebody else's of what a node has, and it is then not removed
            // that has to be seen, but that no route leads to it any more.
            let twins = |other: usize| self.nodes[other].identity == node.identity;
            if let Some(other) = held.insert(mine.clone(), n)
                && self.operator
                && !twins(other)
            {
                return Err(format!("{other} and {n} both have {mine:?}"));
            }
            let member = node.member.as_ref();
            if member.is_some_and(|m| self.alive(m))
                && let Some(other) = announced.insert(mine.clone(), n)
            {
                return Err(format!("routes to {mine:?} lead to {other} and {n}"));
            }
        }
        Ok(())
    }

    /// Whether the store says that this very daemon is alive.
    fn alive(&self, member: &Member) -> bool {
        let key = format!("alive/{}", member.me().name);
        let entry = self.store.entries.get(&key).and_then(|e| read(&key, &e.value).ok());
        matches!(entry, Some(Record::Alive(_, record)) if record.instance == member.me().instance)
    }
}

/// Tries everything, breadth first, and says how many states there were.
fn explore(start: World, depth: usize) -> usize {
    let most =
        std::env::var("WHARF_MODEL_STATES").ok().and_then(|n| n.parse().ok()).unwrap_or(MOST);
    let mut seen = HashSet::new();
    let mut queue = VecDeque::from([(start, Vec::new())]);
    while let Some((world, path)) = queue.pop_front() {
        if let Err(why) = world.check() {
            panic!("{why}\nafter {path:?}");
        }
        if path.len() == depth {
            continue;
        }
        for action in world.actions() {
            let mut next = world.clone();
            next.act(action);
            let mut hasher = DefaultHasher::new();
            next.hash(&mut hasher);
            if seen.len() < most && seen.insert(hasher.finish()) {
                let mut path: Vec<Action> = path.clone();
                path.push(action);
                queue.push_back((next, path));
            }
        }
    }
    seen.len()
}

/// Both nodes started and listed, and the plan written: where the races begin.
fn begun(identities: &[(&'static str, &'static str)]) -> World {
    let mut world = World::new(identities);
    world.act(Action::Start(0));
    world.act(Action::Step(0, Fate::Answered));
    (1..identities.len()).for_each(|n| world.act(Action::Start(n)));
    world
}

/// The first node owns its subnet and is alive.
fn joined(identities: &[(&'static str, &'static str)]) -> World {
    let mut world = begun(identities);
    while world.nodes[0].member.as_ref().unwrap().clone().next(NOW).is_some() {
        world.act(Action::Step(0, Fate::Answered));
    }
    assert!(world.nodes[0].member.as_ref().unwrap().is_announced());
    world
}

/// States that one test looks at; more with `WHARF_MODEL_STATES`.
const MOST: usize = 1_500;

#[test]
fn two_nodes_that_start_at_once_never_own_the_same_subnet() {
    let states = explore(begun(&[("a", "1"), ("b", "2")]), 9);
    assert!(states >= MOST, "{states}");
}

#[test]
fn a_node_that_joins_while_another_is_removed_and_returns_never_gets_what_that_one_announces() {
    let states = explore(joined(&[("a", "1"), ("b", "2")]), 10);
    assert!(states >= MOST, "{states}");
}

#[test]
fn of_two_copies_of_one_node_one_is_alive() {
    explore(begun(&[("a", "1"), ("a", "2")]), 9);
    explore(joined(&[("a", "1"), ("a", "2")]), 9);
}

#[test]
fn without_losses_two_nodes_join_and_each_knows_the_other() {
    let mut world = begun(&[("a", "1"), ("b", "2")]);
    for _ in 0..40 {
        for n in 0..2 {
            let next = world.nodes[n].member.as_ref().unwrap().clone().next(NOW);
            match next {
                Some(_) => world.act(Action::Step(n, Fate::Answered)),
                None => world.act(Action::Tell(n)),
            }
        }
    }
    for node in &world.nodes {
        let member = node.member.as_ref().unwrap();
        assert_eq!(member.problem(), None);
        assert_eq!(member.mirror().peers(&member.me().name).len(), 1);
    }
}

#[test]
fn a_removed_node_gets_its_subnet_back_within_the_quarantine_and_is_told_afterwards() {
    for ends in [false, true] {
        let mut world = joined(&[("a", "1"), ("b", "2")]);
        let run = |world: &mut World, n: usize| {
            for _ in 0..20 {
                world.act(Action::Tell(n));
                if world.nodes[n].member.as_ref().unwrap().clone().next(NOW).is_some() {
                    world.act(Action::Step(n, Fate::Answered));
                }
            }
        };
        let held = world.nodes[0].held.clone();
        world.act(Action::Die(0));
        let lease = *world.store.leases.keys().next().unwrap();
        world.act(Action::Expire(lease));
        world.act(Action::Tell(1));
        world.act(Action::Remove(1, 0));
        run(&mut world, 1);
        if ends {
            let quarantine = world
                .store
                .leases
                .iter()
                .find(|(_, l)| l.seconds == 300)
                .map(|(id, _)| *id)
                .unwrap();
            world.act(Action::Expire(quarantine));
            // A newcomer takes what is free.
            world.nodes.push(node("c", "3"));
            world.act(Action::Start(2));
            run(&mut world, 2);
            assert_eq!(world.nodes[2].held, held);
        }
        world.act(Action::Start(0));
        run(&mut world, 0);
        let back = world.nodes[0].member.as_mut().unwrap();
        if ends {
            assert_eq!(back.next(NOW), None);
            assert!(
                back.problem().unwrap().to_string().contains("belongs to `c` now"),
                "{:?}",
                back.problem()
            );
        } else {
            assert_eq!(back.owned(), held);
            assert!(back.is_announced());
        }
    }
}

#[test]
fn who_is_alive_is_not_removed() {
    let mut world = joined(&[("a", "1"), ("b", "2")]);
    world.act(Action::Tell(1));
    world.act(Action::Remove(1, 0));
    let member = world.nodes[1].member.as_mut().unwrap();
    assert_eq!(member.next(NOW).map(|_| ()), Some(()));
    assert_eq!(member.errand(), Some(Err(crate::control::cluster::ErrandError::Alive)));
}
