//! The whole data path, from a batch that was read to the frames that are to be written.
//!
//! Hits: the same batch again and again, its headers put back each time since routing and translating
//! change them; `restore` is what that alone costs, and it is contained in every figure, that of new
//! flows too. What is measured is the thread's processor time, so that neighbours on the machine take
//! some of the caches and none of the clock. A calibration is printed first: figures without it say
//! nothing about another machine.

#![allow(clippy::pedantic, clippy::type_complexity, reason = "a bench reads as a list of cases")]
#![allow(missing_docs, reason = "criterion's macro makes an undocumented function")]

#[path = "pipeline/calibration.rs"]
mod calibration;
#[path = "pipeline/cpu_time.rs"]
mod cpu_time;
#[allow(
    clippy::unwrap_used,
    clippy::struct_excessive_bools,
    clippy::needless_pass_by_value,
    reason = "what scenarios need is more than benches do"
)]
#[path = "../tests/common/world.rs"]
mod world;

use std::hint::black_box;
use std::time::Duration;

use crate::cpu_time::CpuTime;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use wharf::base::hash::Seed;
use wharf::base::ids::PortId;
use wharf::base::time::Span;
use wharf::datapath::Output;
use wharf::datapath::inspect::FlowFilter;
use wharf::packet::{FrameBatch, Offload};
use wharf::wire::addr::Family;
use wharf::wire::ipv6::UDP;
use world::{
    Host, NetworkOptions, REMOTE_MAC, UPLINK_MAC, UPLINK_PORT, World, arp_request, own, tcp, udp,
};

/// Bytes at the front of a frame that its way through the switch may change.
const HEAD: usize = 64;
/// Makes the shortest frame as long as that.
const PAYLOAD: [u8; 22] = [0; 22];
/// Flows that a batch's frames belong to in turn.
const FLOWS: u16 = 16;

/// A batch that is processed again and again.
struct Hot {
    world: World,
    port: PortId,
    batch: FrameBatch,
    heads: Vec<[u8; HEAD]>,
    out: Output,
}

impl Hot {
    fn new(world: World, port: PortId, frames: &[Vec<u8>], size: usize) -> Self {
        let mut batch = FrameBatch::new();
        let frames: Vec<_> = frames.iter().cycle().take(size).collect();
        assert!(frames.iter().all(|frame| batch.push(frame, Offload::NONE)));
        let heads = frames.iter().map(|frame| frame[..HEAD].try_into().expect("long enough"));
        let heads = heads.collect();
        Self { world, port, batch, heads, out: Output::default() }
    }

    #[inline]
    fn restore(&mut self) {
        for (at, head) in self.heads.iter().enumerate() {
            self.batch.frame(at).bytes_mut()[..HEAD].copy_from_slice(head);
        }
    }

    #[inline]
    fn process(&mut self) -> usize {
        self.out.clear();
        self.world.dp.frames(self.world.now, self.port, &mut self.batch, &mut self.out);
        self.out.frames.len()
    }
}

/// A world whose frames are hits, the port they come from, and the frames.
type Made = (World, PortId, Vec<Vec<u8>>);

fn ports() -> std::ops::Range<u16> {
    5_000..5_000 + FLOWS
}

fn bridged(family: Family, is_tcp: bool) -> Made {
    let mut world = World::new();
    let net = world.network(NetworkOptions::default());
    let (a, b) = (world.endpoint(net), world.endpoint(net));
    let to = (b.addr(family), 7_000);
    let frames: Vec<_> = ports().map(|port| packet(&a, b.mac, port, to, is_tcp)).collect();
    for frame in &frames {
        world.pass(a.port, frame);
    }
    (world, a.port, frames)
}

fn packet(from: &Host, via: wharf::wire::mac::Mac, port: u16, to: To, is_tcp: bool) -> Vec<u8> {
    if is_tcp {
        tcp(from, via, port, to, "A", (1, 1), &PAYLOAD)
    } else {
        udp(from, via, port, to, &PAYLOAD)
    }
}

type To = (std::net::IpAddr, u16);

fn routed(family: Family) -> Made {
    let mut world = World::new();
    let open = NetworkOptions { open: true, ..NetworkOptions::default() };
    let (one, two) = (world.network(open), world.network(open));
    let (a, b) = (world.endpoint(one), world.endpoint(two));
    let to = (b.addr(family), 7_000);
    let frames: Vec<_> = ports().map(|port| udp(&a, a.router, port, to, &PAYLOAD)).collect();
    for frame in &frames {
        world.pass(a.port, frame);
    }
    (world, a.port, frames)
}

/// Masqueraded packets on their way out, or the answers on their way in.
fn masqueraded(family: Family, is_tcp: bool, inward: bool) -> Made {
    let mut world = World::new();
    let net = world.network(NetworkOptions::default());
    let (a, remote) = (world.endpoint(net), world.uplink());
    let to = (remote.addr(family), 7_000);
    let (mut out, mut back) = (Vec::new(), Vec::new());
    for port in ports() {
        let frame = packet(&a, a.router, port, to, is_tcp);
        let there = world.pass_resolving(a.port, &frame, &remote);
        back.push(packet(&remote, UPLINK_MAC, to.1, there.src(), is_tcp));
        out.push(frame);
    }
    if inward { (world, UPLINK_PORT, back) } else { (world, a.port, out) }
}

fn published(family: Family) -> Made {
    let mut world = World::new();
    let net = world.network(NetworkOptions::default());
    let (web, remote) = (world.endpoint(net), world.uplink());
    world.publish(1, UDP, 1180, &web, 5_000);
    let to = (own(family), 1180);
    let frames: Vec<_> = ports().map(|port| udp(&remote, UPLINK_MAC, port, to, &PAYLOAD)).collect();
    for frame in &frames {
        world.pass(UPLINK_PORT, frame);
    }
    (world, UPLINK_PORT, frames)
}

/// A name, and how to make what it means.
type Case<'a> = (&'a str, &'a dyn Fn() -> Made);

fn hits(c: &mut Criterion<CpuTime>) {
    use Family::{V4, V6};
    let cases: [Case<'_>; 12] = [
        ("bridge-udp4", &|| bridged(V4, false)),
        ("bridge-udp6", &|| bridged(V6, false)),
        ("bridge-tcp4", &|| bridged(V4, true)),
        ("route-udp4", &|| routed(V4)),
        ("route-udp6", &|| routed(V6)),
        ("nat-out-udp4", &|| masqueraded(V4, false, false)),
        ("nat-out-udp6", &|| masqueraded(V6, false, false)),
        ("nat-out-tcp4", &|| masqueraded(V4, true, false)),
        ("nat-in-udp4", &|| masqueraded(V4, false, true)),
        ("nat-in-tcp4", &|| masqueraded(V4, true, true)),
        ("published-udp4", &|| published(V4)),
        ("published-udp6", &|| published(V6)),
    ];
    for (name, make) in cases {
        let mut group = c.benchmark_group(format!("pipeline/hit/{name}"));
        for size in sizes(name) {
            let (world, port, frames) = make();
            let mut hot = Hot::new(world, port, &frames, *size);
            group.throughput(Throughput::Elements(*size as u64));
            group.bench_function(BenchmarkId::from_parameter(size), |b| {
                b.iter(|| {
                    hot.restore();
                    black_box(hot.process())
                });
            });
            let stats = hot.world.dp.worker_stats();
            assert!(stats.misses <= 2 * u64::from(FLOWS), "measured misses: {stats:?}");
        }
    }
}

/// All sizes where it matters most, and the usual one elsewhere.
fn sizes(name: &str) -> &'static [usize] {
    if matches!(name, "bridge-udp4" | "nat-out-udp4") { &[1, 8, 32, 64] } else { &[32] }
}

/// What the measuring itself costs.
fn restore(c: &mut Criterion<CpuTime>) {
    let (world, port, frames) = bridged(Family::V4, false);
    let mut hot = Hot::new(world, port, &frames, 32);
    let mut group = c.benchmark_group("pipeline/restore");
    group.throughput(Throughput::Elements(32));
    group.bench_function("32", |b| {
        b.iter(|| {
            hot.restore();
            black_box(&mut hot.batch);
        });
    });
}

/// Answers in place, and broadcasts to sixteen ports.
fn slow_answers(c: &mut Criterion<CpuTime>) {
    let mut world = World::new();
    let net = world.network(NetworkOptions::default());
    let hosts: Vec<_> = (0..17).map(|_| world.endpoint(net)).collect();
    let mut asking = arp_request(&hosts[0], hosts[1].v4);
    asking.resize(HEAD, 0);
    let all = ([255; 4].into(), 7_000);
    let broadcast = udp(&hosts[0], wharf::wire::mac::Mac::BROADCAST, 7_000, all, &PAYLOAD);
    let mut hot = Hot::new(world, hosts[0].port, &[asking], 32);
    let mut group = c.benchmark_group("pipeline");
    group.throughput(Throughput::Elements(32));
    group.bench_function("arp-answered/32", |b| {
        b.iter(|| {
            hot.restore();
            assert_eq!(hot.process(), 32);
        });
    });
    let mut hot = Hot::new(hot.world, hosts[0].port, &[broadcast], 32);
    group.bench_function("flood-to-16/32", |b| {
        b.iter(|| {
            hot.world.now = hot.world.now + Span::from_millis(10);
            assert_eq!(hot.process(), 32 * 16);
        });
    });
}

/// Flows begun before the table is emptied: fewer than one port's share of mappings.
const NEW_FLOWS: u32 = 16_384;
/// Mappings that end with one tick, at most.
const ENDED_AT_ONCE: u32 = 2_048;

/// Gives each frame of the batch UDP ports that no frame had before.
fn renumber(hot: &mut Hot, next: &mut u32) {
    hot.restore();
    for at in 0..hot.heads.len() {
        let mut frame = hot.batch.frame(at);
        let ports = 1_024 + *next as u16;
        frame.bytes_mut()[34..36].copy_from_slice(&ports.to_be_bytes());
        *next += 1;
    }
}

fn empty(hot: &mut Hot) {
    hot.world.dp.flush_flows(hot.world.now, &FlowFilter::default());
    // Mappings linger for two minutes, and so many end at a time.
    hot.world.now = hot.world.now + Span::from_secs(121);
    for _ in 0..=NEW_FLOWS / ENDED_AT_ONCE {
        hot.world.now = hot.world.now + Span::from_secs(1);
        hot.out.clear();
        hot.world.dp.tick(hot.world.now, &mut hot.out);
    }
}

/// The remote host's MAC is known and fresh.
fn resolve(hot: &mut Hot, remote: Option<&Host>) {
    hot.restore();
    let first = hot.batch.bytes(0).to_vec();
    if let Some(remote) = remote {
        hot.world.pass_resolving(hot.port, &first, remote);
    }
}

fn misses(c: &mut Criterion<CpuTime>) {
    let cases: [Case<'_>; 3] = [
        ("bridge", &|| bridged(Family::V4, false)),
        ("route", &|| routed(Family::V4)),
        ("nat-new-mapping", &|| masqueraded(Family::V4, false, false)),
    ];
    for (name, make) in cases {
        let mut group = c.benchmark_group(format!("pipeline/miss/{name}"));
        for size in [1, 32] {
            let (world, port, frames) = make();
            let remote = name.starts_with("nat").then_some(Host {
                port: UPLINK_PORT,
                mac: REMOTE_MAC,
                v4: [192, 0, 2, 9].into(),
                v6: std::net::Ipv6Addr::UNSPECIFIED,
                router: UPLINK_MAC,
            });
            let mut hot = Hot::new(world, port, &frames, size);
            group.throughput(Throughput::Elements(size as u64));
            group.bench_function(BenchmarkId::from_parameter(size), |b| {
                b.iter_custom(|batches| {
                    let (mut spent, mut left) = (Duration::ZERO, batches);
                    while left > 0 {
                        empty(&mut hot);
                        resolve(&mut hot, remote.as_ref());
                        let some = left.min(u64::from(NEW_FLOWS) / size as u64);
                        let (mut next, begun) = (0, cpu_time::now());
                        for _ in 0..some {
                            renumber(&mut hot, &mut next);
                            black_box(hot.process());
                        }
                        spent += cpu_time::since(begun);
                        left -= some;
                    }
                    spent
                });
            });
            assert!(hot.world.dp.worker_stats().hits < 1_000, "measured hits");
        }
    }
}

/// Flows in the table, and how many ports they begin at.
const MANY_FLOWS: usize = 100_000;
const MANY_PORTS: usize = 100;
const MANY_BATCHES: usize = 8_192;

/// Frames of a hundred thousand flows in an order that no processor foretells. They lie one after the
/// other in memory, as reads from a device bring them; filling the batch is part of the figure.
fn many(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("pipeline/100k-flows");
    for name in ["bridge", "nat-out"] {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let hosts: Vec<_> = (0..MANY_PORTS).map(|_| world.endpoint(net)).collect();
        let remote = world.uplink();
        let mut frames: Vec<Vec<Vec<u8>>> = vec![Vec::new(); MANY_PORTS];
        for n in 0..MANY_FLOWS {
            let (from, peer) = (&hosts[n % MANY_PORTS], &hosts[(n + 1) % MANY_PORTS]);
            // One outside address has ports for half as many: two flows share a mapping.
            let (port, to) = (2_000 + (n / MANY_PORTS / 2) as u16, 9 + (n / MANY_PORTS % 2) as u16);
            let frame = if name == "bridge" {
                udp(from, peer.mac, port, (peer.v4.into(), to), &PAYLOAD)
            } else {
                udp(from, from.router, port, (remote.v4.into(), to), &PAYLOAD)
            };
            if name == "bridge" {
                world.pass(from.port, &frame);
            } else {
                world.pass_resolving(from.port, &frame, &remote);
            }
            frames[n % MANY_PORTS].push(frame);
        }
        let random = |n: usize| Seed(3).hash([n as u64]) as usize;
        let read: Vec<(PortId, Vec<u8>)> = (0..MANY_BATCHES)
            .map(|n| {
                let from = random(n) % MANY_PORTS;
                let all = &frames[from];
                let picked = (0..32).flat_map(|k| all[random(n * 32 + k) % all.len()].clone());
                (hosts[from].port, picked.collect())
            })
            .collect();
        let (mut batch, mut out, mut at) = (FrameBatch::new(), Output::default(), 0);
        let now = world.now;
        group.throughput(Throughput::Elements(32));
        group.bench_function(BenchmarkId::new(name, 32), |b| {
            b.iter(|| {
                let (port, bytes) = &read[at % MANY_BATCHES];
                at += 1;
                fill(&mut batch, bytes);
                out.clear();
                world.dp.frames(now, *port, &mut batch, &mut out);
                black_box(out.frames.len())
            });
        });
        let stats = world.dp.worker_stats();
        assert!(stats.misses < 2 * MANY_FLOWS as u64, "measured misses: {stats:?}");
        group.bench_function(BenchmarkId::new(format!("{name}-fill-alone"), 32), |b| {
            b.iter(|| {
                let (_, bytes) = &read[at % MANY_BATCHES];
                at += 1;
                fill(&mut batch, bytes);
                black_box(&mut batch);
            });
        });
    }
}

#[inline]
fn fill(batch: &mut FrameBatch, bytes: &[u8]) {
    batch.clear();
    for frame in bytes.as_chunks::<HEAD>().0 {
        black_box(batch.push(frame, Offload::NONE));
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .with_measurement(CpuTime)
        .sample_size(30)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = restore, hits, misses, slow_answers, many
}

fn main() {
    calibration::print();
    benches();
    Criterion::default().configure_from_args().final_summary();
}
