//! Fifty nodes, two thousand endpoints, a store and a network between them that loses, delays and is cut:
//! seeded, in virtual time. The seed is in every failure's message; `WHARF_SEED` runs one again.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::base::time::{Span, Time};
use crate::control::cluster::ask::{Request, Response};
use crate::control::cluster::records::EndpointRecord;
use crate::control::cluster::tests::store::Store;
use crate::control::cluster::{Me, Member, Plan, Wish};
use crate::wire::mac::Mac;

const NODES: usize = 50;
const ENDPOINTS: usize = 2_000;
const LIVENESS: Span = Span::from_secs(15);
/// A step of virtual time, in milliseconds.
const TICK: u64 = 100;
/// How long a client waits for an answer, in milliseconds.
const PATIENCE: u64 = 3_000;
/// After a node's end others have no route to it any more within this: its lease, which may just have been
/// renewed, an answer that was waited for and the list afterwards, with its grace.
const WITHDRAWN_MS: u64 = 2 * 15_000 + 2 * PATIENCE;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

struct Node {
    member: Option<Member>,
    held: Option<Vec<IpNet>>,
    endpoints: BTreeMap<String, EndpointRecord>,
    lives: u32,
    told: u64,
    cut_until: u64,
    /// The question on its way: when it arrives, when its answer does, and until when it is waited for.
    asked: Option<(u64, u64, Request, Option<Response>)>,
    connected: bool,
    /// Its clock is this much faster, in thousandths, and began there.
    skew: (u64, u64),
    died_ms: u64,
}

struct World {
    random: Random,
    store: Store,
    now: u64,
    nodes: Vec<Node>,
    owners: BTreeMap<Vec<IpNet>, usize>,
    /// Questions of lives that are over, or that nobody waits for any more.
    late: Vec<(u64, Request)>,
}

fn wish() -> Wish {
    let nets: [IpNet; 2] = ["10.244.0.0/18".parse().unwrap(), "fd10:244::/58".parse().unwrap()];
    Wish {
        plan: Some(Plan::new(&nets, &[24, 64], &[]).unwrap()),
        subnet: None,
        liveness: LIVENESS,
        quarantine: Span::from_secs(60),
        addresses: Vec::new(),
        backend: None,
        since_ms: 0,
    }
}

fn endpoint(name: &str, random: &mut Random) -> EndpointRecord {
    let addr = std::net::Ipv4Addr::from(0x0af4_0000 | random.below(1 << 16) as u32);
    EndpointRecord {
        name: name.to_owned(),
        network: "cluster".to_owned(),
        addresses: vec![addr.into()],
        mac: Mac::from_ipv4(addr),
        labels: BTreeMap::new(),
    }
}

impl Node {
    fn clock(&self, now: u64) -> Time {
        Time((self.skew.1 + now + now * self.skew.0 / 1_000) * 1_000_000)
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let nodes = (0..NODES).map(|n| {
            let per_node = ENDPOINTS / NODES;
            let endpoints = (0..per_node)
                .map(|e| (format!("{n}-{e}"), endpoint(&format!("e{n}-{e}"), &mut random)));
            let endpoints = endpoints.collect();
            let skew = (random.below(20), random.below(1_000_000));
            Node {
                member: None,
                held: None,
                endpoints,
                lives: 0,
                told: 0,
                cut_until: 0,
                asked: None,
                connected: false,
                skew,
                died_ms: 0,
            }
        });
        let nodes = nodes.collect();
        Self {
            random,
            store: Store::default(),
            now: 0,
            nodes,
            owners: BTreeMap::new(),
            late: Vec::new(),
        }
    }

    fn start(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        node.lives += 1;
        let me = Me {
            name: format!("node-{n}"),
            identity: format!("identity-{n}"),
            instance: format!("{n}.{}", node.lives),
            seat: format!("seat-{n}"),
        };
        let mut member = Member::new(me, wish(), node.held.clone());
        for (id, record) in &node.endpoints {
            member.endpoint(id, Some(record.clone()));
        }
        node.member = Some(member);
        node.connected = false;
    }

    fn die(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        node.member = None;
        node.died_ms = self.now;
        self.abandon(n);
    }

    /// What was asked may still arrive.
    fn abandon(&mut self, n: usize) {
        if let Some((arrives, _, request, None)) = self.nodes[n].asked.take() {
            let later = arrives + self.random.below(20_000);
            self.late.push((later, request));
        }
    }

    fn tick(&mut self) {
        self.now += TICK;
        self.store.expire_due(self.now);
        let now = self.now;
        let due: Vec<_> = self.late.extract_if(.., |(at, _)| *at <= now).collect();
        for (_, request) in due {
            self.store.ask(now, &request);
        }
        for n in 0..self.nodes.len() {
            self.run(n);
        }
        self.check();
    }

    fn run(&mut self, n: usize) {
        let now = self.now;
        let node = &mut self.nodes[n];
        let time = node.clock(now);
        let cut = node.cut_until > now;
        let Some(member) = &mut node.member else { return };
        if !node.connected {
            if cut {
                return;
            }
            member.listed(time, &self.store.list());
            node.told = self.store.revision;
            node.connected = true;
        }
        // The watch tells a little late, and nothing while the node is cut off.
        if !cut && self.random.one_in(2) {
            for change in self.store.since(node.told) {
                member.changed(time, change);
            }
            node.told = self.store.revision;
        }
        let mut lost = false;
        if let Some((arrives, answers, request, answer)) = &mut node.asked {
            if answer.is_none() && *arrives <= now && !cut {
                *answer = Some(self.store.ask(now, request));
            }
            match answer {
                Some(answer) if *answers <= now && !cut => {
                    member.answered(time, answer);
                    node.asked = None;
                }
                _ => lost = now > *arrives + PATIENCE,
            }
        }
        if lost {
            member.lost();
            node.connected = false;
            self.abandon(n);
            return;
        }
        if node.asked.is_none()
            && let Some(request) = member.next(time)
        {
            let arrives = now + self.random.below(3) * TICK;
            let answers = arrives + self.random.below(3) * TICK;
            node.asked = Some((arrives, answers, request, None));
        }
        let owned = member.owned();
        if node.held.is_none() && owned.is_some() {
            node.held.clone_from(&owned);
            member.hold(owned);
        }
        member.mirror_mut().take_moved(time);
    }

    /// No subnet ever passes from one node to another here: nobody is removed.
    fn check(&mut self) {
        for (n, node) in self.nodes.iter().enumerate() {
            let Some(held) = &node.held else { continue };
            let owner = *self.owners.entry(held.clone()).or_insert(n);
            assert_eq!(owner, n, "{held:?} has two owners at {} ms", self.now);
            // Nobody has a route to one who is long dead.
            if node.member.is_none() && self.now > node.died_ms + WITHDRAWN_MS {
                let name = format!("node-{n}");
                for other in self
                    .nodes
                    .iter()
                    .filter(|o| o.connected && o.cut_until + WITHDRAWN_MS < self.now)
                {
                    let Some(member) = &other.member else { continue };
                    let known = member.mirror().peers(&member.me().name).contains_key(&name);
                    assert!(
                        !known,
                        "{} still has a route to {name} at {} ms",
                        member.me().name,
                        self.now
                    );
                }
            }
        }
    }

    fn churn(&mut self) {
        let n = self.random.below(NODES as u64) as usize;
        match self.random.below(10) {
            0 if self.nodes[n].member.is_some() => self.die(n),
            0..=2 if self.nodes[n].member.is_none() => self.start(n),
            3 => self.nodes[n].cut_until = self.now + self.random.below(40_000),
            _ => {
                let e = self.random.below((ENDPOINTS / NODES) as u64);
                let (id, name) = (format!("{n}-{e}"), format!("e{n}-{e}"));
                let node = &mut self.nodes[n];
                let record =
                    node.endpoints.remove(&id).is_none().then(|| endpoint(&name, &mut self.random));
                if let Some(record) = &record {
                    node.endpoints.insert(id.clone(), record.clone());
                }
                if let Some(member) = &mut node.member {
                    member.endpoint(&id, record);
                }
            }
        }
    }

    /// Quiet: everybody lives and nobody is cut off. Then all know all, and nothing else.
    fn settle(&mut self) {
        for n in 0..NODES {
            self.nodes[n].cut_until = 0;
            if self.nodes[n].member.is_none() {
                self.start(n);
            }
        }
        for _ in 0..450 {
            self.tick();
        }
        let mut all = BTreeSet::new();
        for (n, node) in self.nodes.iter().enumerate() {
            all.extend(node.endpoints.keys().map(|id| (format!("node-{n}"), id.clone())));
        }
        for (n, node) in self.nodes.iter().enumerate() {
            let member = node.member.as_ref().unwrap();
            assert_eq!(member.problem(), None, "node-{n}");
            assert_eq!(member.mirror().peers(&member.me().name).len(), NODES - 1, "node-{n}");
            let known: BTreeSet<_> = member
                .mirror()
                .endpoints()
                .map(|(node, id, _)| (node.clone(), id.clone()))
                .collect();
            assert!(known == all, "node-{n} knows {} endpoints of {}", known.len(), all.len());
        }
    }
}

fn simulate(seed: u64) {
    let mut world = World::new(seed);
    for n in 0..NODES {
        // Some start at once, others one after the other.
        if n % 4 == 0 {
            world.tick();
        }
        world.start(n);
    }
    for _ in 0..800 {
        world.tick();
        if world.random.one_in(2) {
            world.churn();
        }
    }
    world.settle();
}

#[test]
fn fifty_nodes_with_churn_losses_and_cuts_never_share_a_subnet_and_end_up_knowing_all() {
    let seeds = match std::env::var("WHARF_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 1..2,
    };
    for seed in seeds {
        let ran = std::panic::catch_unwind(|| simulate(seed));
        assert!(ran.is_ok(), "the seed is {seed}");
    }
}
