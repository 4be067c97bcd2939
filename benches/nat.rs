//! Translation with a million flows: 50,000 mappings of 20 destinations each, in random order.
//!
//! `cargo bench --bench nat` also prints the resident memory that flows, mappings and contacts take.

#![allow(clippy::disallowed_methods, reason = "a bench measures time")]
#![allow(clippy::cast_precision_loss, reason = "for showing only")]
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench is its own user")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use wharf::base::hash::Seed;
use wharf::base::ids::{DomainId, NetworkId, PortId, PublicationId, UplinkId};
use wharf::base::time::{Span, Time};
use wharf::packet::{FlowKey, Offload, PacketBuf, Parsed, Rewrite, Scope};
use wharf::stage::flow::{Endpoint, Flow, FlowTable, MappingId, MappingTable, Wanted};
use wharf::stage::service::{Publication, PublishTable};
use wharf::wire::addr::Addr;
use wharf::wire::ipv6;

const SOCKETS: u32 = 50_000;
const DESTINATIONS: u32 = 20;
const FLOWS: u32 = SOCKETS * DESTINATIONS;
const PORTS: [PortId; 2] = [PortId(1), PortId(2)];
const BATCH: usize = 64;
/// Containers that share the outside address: one alone may not have all of its ports.
const HOLDERS: u32 = 16;

fn addr(v6: bool, net: u8, n: u32) -> Addr {
    if v6 {
        let bits = 0xfd00_u128 << 112 | u128::from(net) << 64 | u128::from(n);
        Addr::from_v6_bytes(bits.to_be_bytes())
    } else {
        Addr::from_v4_bits(u32::from(net) << 24 | n)
    }
}

fn outside(v6: bool) -> Addr {
    addr(v6, 203, 1)
}

fn holder(n: u32) -> PortId {
    PortId(1 + (n % HOLDERS) as u16)
}

/// How the inside sends packets of flow `n`.
fn key(v6: bool, n: u32) -> FlowKey {
    let socket = n / DESTINATIONS;
    FlowKey {
        src: addr(v6, 10, socket / 50),
        dst: addr(v6, 100, n % DESTINATIONS),
        src_port: 10_000 + (socket % 50) as u16,
        dst_port: 443,
        domain: NetworkId(1).into(),
        proto: ipv6::UDP,
        scope: Scope::Routed,
    }
}

struct Nat {
    flows: FlowTable,
    mappings: MappingTable,
}

impl Nat {
    fn new() -> Self {
        let mut nat = Self {
            flows: FlowTable::new(Seed(0x5eed), FLOWS as usize + 1_000),
            mappings: MappingTable::new(Seed(0x5eed)),
        };
        nat.flows.set_share(PORTS[0], FLOWS as usize);
        (0..HOLDERS).for_each(|n| nat.mappings.set_share(holder(n), FLOWS as usize));
        nat
    }

    /// What a miss costs beyond routing and policy.
    fn set_up(&mut self, key: FlowKey) -> MappingId {
        let inside =
            Endpoint { addr: key.src, domain: key.domain, port: key.src_port, proto: key.proto };
        let domain = DomainId::from(UplinkId(0));
        let addr = outside(!key.src.is_v4());
        let payer = holder(key.src_port.into());
        let id = self.mappings.acquire(&Wanted { inside, payer, domain, addr }).unwrap();
        self.mappings.add_contact(id, key.dst, None);
        let mut back = key.reversed(domain, Scope::Routed);
        back.dst = addr;
        back.dst_port = self.mappings.get(id).outside.port;
        let mut flow = Flow::new(Time::ZERO, [key, back], PORTS);
        flow.set_mapping(Some(id));
        self.flows.insert(flow).unwrap();
        id
    }
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or_default() * 4_096
}

fn random(n: u64) -> u64 {
    Seed(1).hash([n])
}

fn frame(v6: bool) -> Vec<u8> {
    let mut frame = vec![2; 12];
    let udp = [0x27, 0x10, 1, 0xbb, 0, 26, 0x12, 0x34];
    if v6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 26, ipv6::UDP, 64]);
        frame.extend(key(v6, 0).src.bytes());
        frame.extend(key(v6, 0).dst.bytes());
    } else {
        frame.extend([8, 0, 0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, ipv6::UDP, 0, 0]);
        frame.extend([10, 0, 0, 0, 100, 0, 0, 0]);
    }
    frame.extend(udp);
    frame.extend([0; 18]);
    frame
}

/// A batch of frames of random flows: found, touched, counted, rewritten.
fn hits(c: &mut Criterion) {
    let mut group = c.benchmark_group("nat/hit, a million flows");
    group.throughput(Throughput::Elements(BATCH as u64));
    for v6 in [false, true] {
        let before = resident_bytes();
        let mut nat = Nat::new();
        let start = Instant::now();
        for n in 0..FLOWS {
            black_box(nat.set_up(key(v6, n)));
        }
        let rate = f64::from(FLOWS) / start.elapsed().as_secs_f64();
        let each = |bytes: usize| bytes as f64 / f64::from(FLOWS);
        println!(
            "{} flows set up, {rate:.0} a second; bytes a flow: resident {:.1}, flows {:.1}, mappings {:.1}",
            nat.flows.len(),
            each(resident_bytes().saturating_sub(before)),
            each(nat.flows.memory_bytes()),
            each(nat.mappings.memory_bytes()),
        );
        let bytes = frame(v6);
        let parsed = Parsed::new(&bytes).unwrap();
        let mut buf = PacketBuf::new(&bytes, Offload::NONE);
        let keys: Vec<FlowKey> = (0..1 << 18).map(|n| key(v6, random(n) as u32 % FLOWS)).collect();
        let mut batches = keys.chunks_exact(BATCH).cycle();
        group.bench_function(if v6 { "v6" } else { "v4" }, |b| {
            b.iter(|| {
                let batch = batches.next().unwrap();
                let mut hashes = [0; BATCH];
                for (hash, key) in hashes.iter_mut().zip(batch) {
                    *hash = key.hash(nat.flows.seed());
                    let likely = nat.flows.likely(*hash, nat.flows.place(*hash));
                    nat.flows.prefetch(likely);
                }
                for (hash, key) in hashes.iter().zip(batch) {
                    let (index, dir) = nat.flows.lookup(key, *hash).unwrap();
                    let flow = nat.flows.get_mut(index);
                    flow.count(dir, 60);
                    let class = flow.class_after(dir);
                    let rewrite = Rewrite { nat: flow.rewrite(dir), route: None };
                    rewrite.apply(&mut buf.frame(), &parsed);
                    nat.flows.touch(Time::ZERO, index, class);
                }
            });
        });
    }
    group.finish();
}

/// Flows of new sockets and of known ones, ports chosen at various occupancies.
fn set_up(c: &mut Criterion) {
    let mut group = c.benchmark_group("nat");
    group.throughput(Throughput::Elements(1));
    group.bench_function("new flow with its mapping", |b| {
        b.iter_custom(|iters| {
            let (mut spent, mut left) = (Duration::ZERO, iters);
            while left > 0 {
                let mut nat = Nat::new();
                let now = left.min(u64::from(FLOWS));
                let start = Instant::now();
                for n in 0..now as u32 {
                    black_box(nat.set_up(key(false, n)));
                }
                spent += start.elapsed();
                left -= now;
            }
            spent
        });
    });
    for percent in [0, 50, 95, 99] {
        let mut table = MappingTable::new(Seed(5));
        (0..HOLDERS).for_each(|n| table.set_share(holder(n), 100_000));
        table.set_linger(Span::ZERO);
        let want = |host: u32, port: u16| Wanted {
            inside: Endpoint {
                addr: addr(false, 10, host),
                domain: NetworkId(1).into(),
                port,
                proto: ipv6::UDP,
            },
            payer: holder(host),
            domain: UplinkId(0).into(),
            addr: outside(false),
        };
        for n in 0..64_512 * percent / 100 {
            // Spread over the range, as clients spread theirs.
            let port = 1_024 + (u64::from(n) * 40_503 % 64_512) as u16;
            table.acquire(&want(n, port)).unwrap();
        }
        // A port that is taken from half on, so that another must be found.
        group.bench_function(BenchmarkId::new("port chosen, percent used", percent), |b| {
            let mut n = 0;
            b.iter(|| {
                n += 1;
                let port = 1_024 + (u64::from(n) * 40_503 % 64_512) as u16;
                let id = table.acquire(&want(1_000_000 + n % 1_000, port)).unwrap();
                table.release(Time::ZERO, black_box(id));
            });
        });
    }
    group.finish();
}

fn published(c: &mut Criterion) {
    let mut group = c.benchmark_group("nat/published port");
    for count in [1_u32, 12_000] {
        let mut table = PublishTable::new();
        for n in 0..count {
            let port = 20_000 + n as u16;
            let publication = Publication {
                id: PublicationId(n),
                proto: ipv6::TCP,
                host_addr: None,
                host_ports: port..=port,
                target_v4: Some(addr(false, 10, n)),
                target_v6: None,
                target_port: 80,
                domain: NetworkId(1).into(),
                endpoint: PORTS[0],
            };
            table.insert(publication).unwrap();
        }
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            let mut n = 0_u64;
            b.iter(|| {
                n += 1;
                let port = 20_000 + (random(n) % u64::from(count)) as u16;
                black_box(table.lookup(ipv6::TCP, outside(false), port).map(|found| found.id))
            });
        });
    }
    group.finish();
}

fn quick() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}

criterion_group! { name = benches; config = quick(); targets = hits, set_up, published }
criterion_main!(benches);
