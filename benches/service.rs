//! Services: the first packet to one of many, and what comes after it.
//!
//! `cargo bench --bench service` also prints the memory of ten thousand services and how long it takes until
//! a backend that left gets nothing more.

#![allow(clippy::disallowed_methods, reason = "a bench measures time")]
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench is its own user")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use etherparse::PacketBuilder;
use wharf::base::hash::Seed;
use wharf::base::ids::{NetworkId, PortId, ServiceId};
use wharf::base::time::{Span, Time};
use wharf::config::{Delta, Guise, Network, Port, PortKind, Subnet};
use wharf::datapath::inspect::FlowFilter;
use wharf::datapath::{Datapath, Output};
use wharf::packet::{FrameBatch, Offload};
use wharf::stage::dns::Named;
use wharf::stage::service::{Backend, Front, Maglev, Pool, Service, Traffic, identity};
use wharf::wire::addr::Addr;
use wharf::wire::ipv6;
use wharf::wire::mac::Mac;

const BACKENDS: u16 = 10;
const BATCH: u16 = 64;
const GATEWAY: Mac = Mac([2, 0, 0, 0, 0, 1]);
/// Flows after which the table is emptied, between measurements.
const FLOWS: u32 = 60_000;

fn network(id: u16) -> Delta {
    let addr = |last| Addr::from_v4_bytes([10, id as u8, 0, last]);
    Delta::Network(Arc::new(Network {
        id: NetworkId(id),
        name: format!("net{id}").into(),
        subnets: vec![Subnet { prefix: addr(0), len: 16, gateway: addr(1) }],
        gateway_mac: GATEWAY,
        mtu: 1500,
        isolated: false,
        internal: false,
        uplink: None,
        host_port: None,
        host_loopback: false,
        guise: Guise::default(),
    }))
}

fn endpoint(id: u16, network: u16, addr: Addr) -> Delta {
    Delta::Port(Arc::new(Port {
        id: PortId(id),
        name: format!("c{id}").into(),
        kind: PortKind::Endpoint,
        domain: NetworkId(network).into(),
        mac: mac(id),
        addrs: vec![addr],
        guard: true,
        isolated: false,
        mtu: 1500,
        uso: true,
    }))
}

fn mac(id: u16) -> Mac {
    let [high, low] = id.to_be_bytes();
    Mac([2, 1, 0, 0, high, low])
}

fn client() -> Addr {
    Addr::from_v4_bytes([10, 1, 0, 2])
}

fn backend_addr(n: u16) -> Addr {
    let [high, low] = (n + 2).to_be_bytes();
    Addr::from_v4_bytes([10, 2, high, low])
}

fn vip(service: u32) -> Addr {
    Addr::from_v4_bits(0x0a60_0000 + 2 + service)
}

fn service(id: u32, backends: u16) -> Arc<Service> {
    let backends: Vec<_> = (0..backends)
        .map(|n| Backend {
            identity: identity(&format!("s{id}-{n}")),
            name: format!("s{id}-{n}").into(),
            addr: backend_addr(n),
            port: 8080,
            plug: Some(PortId(2 + n)),
            weight: 1,
        })
        .collect();
    let members: Vec<_> = backends.iter().map(|b| (b.identity, b.weight)).collect();
    let pools = [Pool::new(backends, Arc::new(Maglev::new(&members))), Pool::default()];
    let front = Front { proto: ipv6::UDP, port: 80, node_port: None, pools };
    Arc::new(Service {
        id: ServiceId(id),
        name: format!("s{id}").into(),
        vips: vec![vip(id)],
        fronts: vec![front],
        affinity: None,
        internal: Traffic::Cluster,
        external: Traffic::Cluster,
        health: None,
    })
}

fn world(services: u32) -> Datapath {
    let (mut datapath, mut out) = (Datapath::new(Seed(7)), Output::default());
    datapath.set_default_shares(1 << 20, 1 << 20);
    let named = Arc::new(Named::default());
    let mut deltas = vec![network(1), network(2), endpoint(1, 1, client())];
    deltas.extend((0..BACKENDS).map(|n| endpoint(2 + n, 2, backend_addr(n))));
    deltas
        .extend((0..services).map(|id| Delta::Service(service(id, BACKENDS), Arc::clone(&named))));
    for delta in deltas {
        datapath.apply(Time::ZERO, &delta, &mut out);
    }
    while datapath.next_deadline(Time(1)).is_some_and(|at| at <= Time(1)) {
        datapath.tick(Time(1), &mut out);
    }
    datapath
}

fn frame(to: (Addr, u16), from_port: u16) -> Vec<u8> {
    let octets = |addr: Addr| addr.v4().unwrap().octets();
    let builder = PacketBuilder::ethernet2(mac(1).0, GATEWAY.0)
        .ipv4(octets(client()), octets(to.0), 64)
        .udp(from_port, to.1);
    let mut frame = Vec::new();
    builder.write(&mut frame, &[0; 32]).unwrap();
    frame
}

/// Time of `count` packets, `to(n)` the destination of the nth; each with a port of its own if `fresh`.
fn run(
    datapath: &mut Datapath,
    count: u64,
    fresh: bool,
    to: impl Fn(u32) -> (Addr, u16),
) -> Duration {
    let (mut batch, mut out) = (FrameBatch::new(), Output::default());
    let (mut spent, mut now, mut next) = (Duration::ZERO, Time(2), 0_u32);
    for _ in 0..count.div_ceil(u64::from(BATCH)) {
        batch.clear();
        for n in 0..u32::from(BATCH) {
            let number = if fresh { next + n } else { n };
            let frame = frame(to(number), 1_024 + (number % FLOWS) as u16);
            assert!(batch.push(&frame, Offload::NONE));
        }
        next += u32::from(BATCH);
        let start = Instant::now();
        datapath.frames(now, PortId(1), &mut batch, &mut out);
        spent += start.elapsed();
        assert_eq!(out.frames.len(), usize::from(BATCH), "all are sent on");
        out.clear();
        if fresh && next % FLOWS < u32::from(BATCH) {
            now = now + Span::from_secs(1);
            datapath.flush_flows(now, &FlowFilter::default());
        }
    }
    spent
}

fn first_packet(c: &mut Criterion) {
    let mut group = c.benchmark_group("service/first packet");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    let mut plain = world(0);
    group.bench_function("without services", |b| {
        let to = |n: u32| (backend_addr((n % 10) as u16), 8080);
        b.iter_custom(|count| run(&mut plain, count, true, to));
    });
    for services in [1, 100, 10_000] {
        let mut datapath = world(services);
        let to = |n: u32| (vip(n.wrapping_mul(2_654_435_761) % services), 80);
        group.bench_function(BenchmarkId::from_parameter(services), |b| {
            b.iter_custom(|count| run(&mut datapath, count, true, to));
        });
    }
    group.finish();
}

fn established(c: &mut Criterion) {
    let mut group = c.benchmark_group("service/established");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    let mut plain = world(0);
    group.bench_function("without services", |b| {
        let to = |n: u32| (backend_addr((n % 10) as u16), 8080);
        b.iter_custom(|count| run(&mut plain, count, false, to));
    });
    let mut datapath = world(10_000);
    group.bench_function("10000", |b| {
        b.iter_custom(|count| run(&mut datapath, count, false, |n| (vip(n * 100), 80)));
    });
    group.finish();
}

/// From the news that a backend left to the table without it, in the data path.
fn backend_leaves(c: &mut Criterion) {
    for (services, backends) in [(10_000, 10), (1, 100), (1, 1_000)] {
        let mut datapath = world(services);
        let named = Arc::new(Named::default());
        c.bench_function(&format!("service/backend leaves/{services} of {backends}"), |b| {
            b.iter(|| {
                let delta = Delta::Service(service(0, backends - 1), Arc::clone(&named));
                datapath.apply(Time(3), &delta, &mut Output::default());
            });
        });
    }
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

fn memory(_: &mut Criterion) {
    let before = resident();
    let datapath = world(10_000);
    let taken = resident().saturating_sub(before);
    let pools = datapath.tables().services().iter().flat_map(|s| &s.fronts).map(|f| &f.pools[0]);
    let tables: usize = pools.filter_map(Pool::table).map(|t| t.memory_bytes()).sum();
    println!("10,000 services of 10 backends: {} KiB, tables {} KiB", taken >> 10, tables >> 10);
}

criterion_group!(benches, memory, first_packet, established, backend_leaves);
criterion_main!(benches);
