//! Policy: 10,000 rules over 2,000 endpoints. All compiled anew, one endpoint's change, and what the
//! first packet of a flow pays; established flows are never asked, so there is nothing to measure.

#![allow(clippy::pedantic, reason = "a bench reads as a list of cases")]
#![allow(missing_docs, reason = "criterion's macro makes an undocumented function")]

#[allow(
    clippy::unwrap_used,
    clippy::struct_excessive_bools,
    clippy::needless_pass_by_value,
    reason = "what scenarios need is more than benches do"
)]
#[path = "../tests/common/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hashbrown::HashMap;
use wharf::base::ids::PortId;
use wharf::config::{Delta, PolicyTables, Tables};
use wharf::datapath::Output;
use wharf::datapath::inspect::FlowFilter;
use wharf::packet::{FrameBatch, Offload};
use wharf::stage::policy::{
    Action, Block, Compiled, Direction, Facts, Namespaces, Party, Peer, PortMatch, Requirement,
    Rule, Selector, Subject,
};
use wharf::wire::addr::{Addr, Family};
use world::{NetworkOptions, World, udp};

const UDP: u8 = 17;
const RULES: u32 = 10_000;
const ENDPOINTS: u32 = 2_000;
/// Endpoints of one app, and apps of one namespace.
const APPS: u32 = 200;
const NAMESPACES: u32 = 20;

fn named(app: u32) -> Selector {
    let namespaces = Namespaces::Named(format!("ns{}", app % NAMESPACES));
    Selector { namespaces, labels: vec![Requirement::equals("app", format!("app{app}"))] }
}

fn facts(endpoint: u32) -> Facts {
    let app = endpoint % APPS;
    let label = |key: &str, value: String| (key.to_owned(), value);
    let labels = [
        label("app", format!("app{app}")),
        label("tier", format!("tier{}", endpoint % 3)),
        label("wharf/name", format!("c{endpoint}")),
    ];
    Facts {
        namespace: format!("ns{}", app % NAMESPACES),
        namespace_labels: BTreeMap::new(),
        labels: BTreeMap::from(labels),
    }
}

/// Of each app fifty rules: apps, tiers of other namespaces, blocks of addresses, and denial of the rest.
fn rules() -> Vec<Rule> {
    let mut rules = Vec::new();
    for n in 0..RULES {
        let (app, at) = (n % APPS, n / APPS);
        let peer = match at % 3 {
            0 => Peer::Endpoints(named((app + at * 7) % APPS)),
            1 => Peer::Endpoints(Selector {
                namespaces: Namespaces::All,
                labels: vec![Requirement::In(
                    "tier".to_owned(),
                    vec![format!("tier{}", at % 5), format!("tier{}", at % 7)],
                )],
            }),
            _ => {
                let prefix = Addr::from_v4_bytes([10, app as u8, at as u8, 0]);
                Peer::Block(Block { prefix, len: 24, except: Vec::new() })
            }
        };
        let direction = if at % 2 == 0 { Direction::Ingress } else { Direction::Egress };
        let last = at >= 48;
        rules.push(Rule {
            name: format!("app{app} rules[{at}]").into(),
            action: if last { Action::Deny } else { Action::Allow },
            direction,
            subject: named(app),
            peers: if last { Vec::new() } else { vec![peer] },
            ports: if last { Vec::new() } else { vec![PortMatch::Range(UDP, at as u16, 9_000)] },
        });
    }
    rules
}

fn tables(compiled: &Compiled, all: &[Facts]) -> PolicyTables {
    let subjects: HashMap<PortId, Arc<Subject>> = all
        .iter()
        .enumerate()
        .map(|(n, facts)| (PortId(n as u16 + 1), Arc::new(compiled.subject(facts))))
        .collect();
    PolicyTables { policy: Arc::clone(compiled.policy()), subjects }
}

fn compile(c: &mut Criterion) {
    let (rules, all) = (rules(), (0..ENDPOINTS).map(facts).collect::<Vec<_>>());
    let mut group = c.benchmark_group("policy");
    group.bench_function("compile all", |b| {
        let mut worker = Tables::default();
        b.iter(|| {
            let compiled = Compiled::new(&rules);
            worker.apply(&Delta::Policy(Arc::new(tables(&compiled, &all))));
        });
    });
    let compiled = Compiled::new(&rules);
    let mut worker = Tables::default();
    worker.apply(&Delta::Policy(Arc::new(tables(&compiled, &all))));
    group.bench_function("one endpoint changes", |b| {
        let mut n = 0;
        b.iter(|| {
            n = (n + 1) % ENDPOINTS;
            let subject = Arc::new(compiled.subject(&all[n as usize]));
            worker.apply(&Delta::Subject(PortId(n as u16 + 1), Some(subject)));
        });
    });
    group.bench_function("both ends judged", |b| {
        let tables = tables(&compiled, &all);
        let mut n: u32 = 0;
        b.iter(|| {
            n = n.wrapping_mul(25_173).wrapping_add(13_849);
            let [from, to] = [n % ENDPOINTS, n / 7 % ENDPOINTS].map(|n| PortId(n as u16 + 1));
            let (Some(a), Some(b)) = (tables.subject(from), tables.subject(to)) else { return };
            let addr = Addr::from_v4_bytes([10, n as u8, (n >> 8) as u8, 1]);
            let port = (UDP, n as u16 % 10_000);
            let judge = |direction, own, peer| {
                let party = Party { subject: Some(peer), addr };
                tables.policy.judge(direction, own, &party, port, &std::iter::empty())
            };
            black_box(judge(Direction::Egress, a, b));
            black_box(judge(Direction::Ingress, b, a));
        });
    });
}

/// First packets of bridged flows through the whole data path; the difference of both is what policy costs.
fn first_packets(c: &mut Criterion) {
    const BATCH: u16 = 64;
    let mut group = c.benchmark_group("policy/first packet");
    group.throughput(Throughput::Elements(u64::from(BATCH)));
    for with in [false, true] {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (a, b) = (world.endpoint(net), world.endpoint(net));
        if with {
            let compiled = Compiled::new(&rules());
            let all: Vec<Facts> = (0..ENDPOINTS).map(facts).collect();
            // Tiers that both admit one another.
            let mut tables = tables(&compiled, &all);
            let subject = |n| Arc::new(compiled.subject(&facts(n)));
            tables.subjects.insert(a.port, subject(1));
            tables.subjects.insert(b.port, subject(202));
            world.apply(Delta::Policy(Arc::new(tables)));
        }
        let mut batch = FrameBatch::new();
        for port in 0..BATCH {
            let frame = udp(&a, b.mac, 5_000 + port, (b.addr(Family::V4), 7_000), &[0; 22]);
            assert!(batch.push(&frame, Offload::NONE));
        }
        let mut out = Output::default();
        group.bench_function(if with { "with" } else { "without" }, |bencher| {
            bencher.iter(|| {
                out.clear();
                world.dp.frames(world.now, a.port, &mut batch, &mut out);
                assert_eq!(out.frames.len(), usize::from(BATCH), "all may pass");
                world.dp.flush_flows(world.now, &FlowFilter::default());
            });
        });
    }
}

criterion_group!(benches, compile, first_packets);
criterion_main!(benches);
