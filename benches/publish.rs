//! Published ports: with one, twelve thousand, and a range of as many; finding one, and publishing all.

#![allow(missing_docs, reason = "criterion's macro makes an undocumented function")]

use std::hint::black_box;
use std::ops::RangeInclusive;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use wharf::base::ids::{DomainId, PortId, PublicationId};
use wharf::stage::service::publish::{Publication, PublishTable};
use wharf::wire::addr::Addr;
use wharf::wire::ipv6::TCP;

const FIRST: u16 = 10_000;
const MANY: u16 = 12_000;
const HOST: Addr = Addr::from_v4_bytes([192, 0, 2, 1]);

fn publication(id: u32, host_ports: RangeInclusive<u16>) -> Publication {
    Publication {
        id: PublicationId(id),
        proto: TCP,
        host_addr: None,
        host_ports,
        target_v4: Some(Addr::from_v4_bytes([10, 20, 0, 2])),
        target_v6: None,
        target_port: 80,
        domain: DomainId(0),
        endpoint: PortId(1),
    }
}

fn published(all: impl Iterator<Item = Publication>) -> PublishTable {
    let mut table = PublishTable::default();
    for one in all {
        table.insert(one).expect("nothing overlaps");
    }
    table
}

fn singles(n: u16) -> PublishTable {
    published((0..n).map(|i| publication(u32::from(i), FIRST + i..=FIRST + i)))
}

fn lookup(c: &mut Criterion) {
    let range = || published(std::iter::once(publication(1, FIRST..=FIRST + MANY - 1)));
    let tables = [("one", singles(1), 1), ("12000", singles(MANY), MANY), ("range", range(), MANY)];
    let mut group = c.benchmark_group("publish/lookup");
    for (name, table, n) in tables {
        let mut at = 0_u16;
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| {
                at = at.wrapping_mul(25_173).wrapping_add(13_849);
                black_box(table.lookup(TCP, HOST, FIRST + at % n)).expect("it is published")
            });
        });
    }
}

fn publish(c: &mut Criterion) {
    let mut group = c.benchmark_group("publish/all");
    group.throughput(Throughput::Elements(u64::from(MANY)));
    group.bench_function("12000", |b| {
        b.iter_batched(|| (), |()| singles(MANY), BatchSize::LargeInput);
    });
}

criterion_group!(benches, lookup, publish);
criterion_main!(benches);
