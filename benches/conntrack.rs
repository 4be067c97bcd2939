//! The flow table: look-ups as it grows, new flows, ageing, TCP tracking.
//!
//! `cargo bench --bench conntrack` also prints the memory of a million flows and the longest pauses
//! while the table grows, in batches of 64 new flows.

#![allow(clippy::disallowed_methods, reason = "a bench measures time")]
#![allow(clippy::cast_precision_loss, reason = "for showing only")]
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench is its own user")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use wharf::base::hash::Seed;
use wharf::base::ids::{NetworkId, PortId, UplinkId};
use wharf::base::time::{Span, Time};
use wharf::packet::{FlowKey, Scope};
use wharf::stage::flow::{Class, Direction, Flow, FlowTable, TcpSegment, TcpState};
use wharf::wire::addr::Addr;
use wharf::wire::{ipv6, tcp};

const MILLION: u32 = 1_000_000;
const BATCH: usize = 64;
const PORTS: [PortId; 2] = [PortId(1), PortId(2)];

/// Masqueraded flow `n`, of either family.
fn keys(n: u32, v6: bool) -> [FlowKey; 2] {
    let addr = |hi: u32, lo: u32| {
        if v6 {
            let bits = 0xfd00_u128 << 112 | u128::from(hi) << 32 | u128::from(lo);
            Addr::from_v6_bytes(bits.to_be_bytes())
        } else {
            Addr::from_v4_bits(hi << 24 | lo)
        }
    };
    let there = FlowKey {
        src: addr(10, n / 50),
        dst: addr(100, n % 20),
        src_port: 32_768 + (n / 20 % 16_384) as u16,
        dst_port: 443 + (n % 50) as u16,
        domain: NetworkId(1).into(),
        proto: ipv6::UDP,
        scope: Scope::Routed,
    };
    let mut back = there.reversed(UplinkId(0).into(), Scope::Routed);
    back.dst = addr(203, n / 60_000);
    back.dst_port = (n % 60_000) as u16;
    [there, back]
}

fn empty() -> FlowTable {
    let mut table = FlowTable::new(Seed(0x5eed), 2 * MILLION as usize);
    table.set_share(PORTS[0], 2 * MILLION as usize);
    table
}

fn filled(n: u32, v6: bool) -> FlowTable {
    let mut table = empty();
    for n in 0..n {
        table.insert(Flow::new(Time::ZERO, keys(n, v6), PORTS)).unwrap();
    }
    table
}

/// Keys of existing flows in random order, both directions.
fn probes(flows: u32, v6: bool) -> Vec<FlowKey> {
    let random = |n: u32| Seed(1).hash([u64::from(n)]);
    (0..1 << 18)
        .map(|n| {
            let random = random(n);
            keys(random as u32 % flows, v6)[(random >> 40 & 1) as usize]
        })
        .collect()
}

fn lookups(c: &mut Criterion) {
    let mut group = c.benchmark_group("conntrack/lookup");
    for (flows, v6) in [(1_000, false), (64_000, false), (MILLION, false), (MILLION, true)] {
        let table = filled(flows, v6);
        let family = if v6 { "v6" } else { "v4" };
        let bytes = table.memory_bytes();
        println!("{flows} flows {family}: {:.1} bytes each", bytes as f64 / f64::from(flows));
        let probes = probes(flows, v6);
        group.throughput(Throughput::Elements(BATCH as u64));
        let mut batches = probes.chunks_exact(BATCH).cycle();
        group.bench_function(BenchmarkId::new(format!("one by one {family}"), flows), |b| {
            b.iter(|| {
                for key in batches.next().unwrap() {
                    let hash = key.hash(table.seed());
                    let (index, _) = table.lookup(key, hash).unwrap();
                    black_box(table.get(index).hops);
                }
            });
        });
        group.bench_function(BenchmarkId::new(format!("prefetched {family}"), flows), |b| {
            b.iter(|| {
                let batch = batches.next().unwrap();
                let mut hashes = [0; BATCH];
                for (hash, key) in hashes.iter_mut().zip(batch) {
                    *hash = key.hash(table.seed());
                    table.prefetch(table.likely(*hash, table.place(*hash)));
                }
                for (hash, key) in hashes.iter().zip(batch) {
                    let (index, _) = table.lookup(key, *hash).unwrap();
                    black_box(table.get(index).hops);
                }
            });
        });
    }
    group.finish();
}

/// Times `iters` calls of `step` on tables of at most a million flows, made anew outside the clock.
fn timed(iters: u64, mut step: impl FnMut(&mut FlowTable, u32)) -> Duration {
    let (mut spent, mut left) = (Duration::ZERO, iters);
    while left > 0 {
        let mut table = empty();
        let now = left.min(u64::from(MILLION));
        let start = Instant::now();
        (0..now as u32).for_each(|n| step(&mut table, n));
        spent += start.elapsed();
        left -= now;
    }
    spent
}

fn turnover(c: &mut Criterion) {
    let mut group = c.benchmark_group("conntrack");
    group.throughput(Throughput::Elements(1));
    group.bench_function("new flow", |b| {
        b.iter_custom(|iters| {
            timed(iters, |table, n| {
                let flow = Flow::new(Time::ZERO, keys(n, false), PORTS);
                black_box(table.insert(flow).unwrap());
            })
        });
    });
    let mut table = filled(MILLION, false);
    let mut now = Time::ZERO;
    group.bench_function("expire one of a million, insert another", |b| {
        let mut n = MILLION;
        b.iter(|| {
            // 121 seconds divided by a million: the rate at which so many are alive.
            now = Time((now.0 + 121_000).max(Span::from_secs(121).0));
            table.expire(now, 1, |flow| {
                black_box(flow);
            });
            table.insert(Flow::new(now, keys(n % (2 * MILLION), false), PORTS)).unwrap();
            n += 1;
        });
    });
    group.bench_function("nothing to expire in a million", |b| {
        b.iter(|| black_box(table.expire(now, 64, |_| {})));
    });
    let (index, _) = table.iter().next().unwrap();
    group.bench_function("touch within a second", |b| {
        b.iter(|| table.touch(now, black_box(index), Class::UdpSingle));
    });
    group.finish();
}

fn tracking(c: &mut Criterion) {
    let segment =
        |flags, seq, ack, len| TcpSegment { seq, ack, window: 500, flags, len, scale: Some(7) };
    let mut state = TcpState::begin(&segment(tcp::SYN, 0, 0, 0), false).unwrap();
    state.track(Direction::Responder, &segment(tcp::SYN | tcp::ACK, 0, 1, 0)).unwrap();
    let mut seq = 1_u32;
    c.bench_function("conntrack/tcp: data and acknowledgement", |b| {
        b.iter(|| {
            let data = segment(tcp::ACK, seq, 1, 1_448);
            state.track(Direction::Initiator, black_box(&data)).unwrap();
            seq = seq.wrapping_add(1_448);
            let ack = segment(tcp::ACK, 1, seq, 0);
            state.track(Direction::Responder, black_box(&ack)).unwrap();
        });
    });
}

/// Not a mean but the worst: how long 64 new flows take while the table grows to a million.
fn pauses(_: &mut Criterion) {
    let mut table = empty();
    let mut times: Vec<Duration> = (0..MILLION / BATCH as u32)
        .map(|batch| {
            let start = Instant::now();
            for n in 0..BATCH as u32 {
                let flow = Flow::new(Time::ZERO, keys(batch * BATCH as u32 + n, false), PORTS);
                table.insert(flow).unwrap();
            }
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    let at = |share: f64| times[(share * (times.len() - 1) as f64) as usize];
    println!(
        "64 new flows while growing to a million: p50 {:?}, p99 {:?}, p99.9 {:?}, longest {:?}",
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    );
    let start = Instant::now();
    let ended = table.expire(Time::ZERO + Span::from_secs(1_000), usize::MAX, |_| {});
    println!("{ended} flows expire in {:?}", start.elapsed());
}

fn quick() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}

criterion_group! { name = benches; config = quick(); targets = lookups, turnover, tracking, pauses }
criterion_main!(benches);
