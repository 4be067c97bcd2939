//! The forwarding database as it grows: finding a station, and hearing from it again.
//!
//! Stations are asked for in an order that the processor cannot foretell, so that the larger tables
//! show what a miss of the cache costs. 65,536 is the table's bound.

#![allow(missing_docs, reason = "criterion's macro makes an undocumented function")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use wharf::base::hash::Seed;
use wharf::base::ids::PortId;
use wharf::base::limits::{FDB_ENTRIES_MAX, FDB_ENTRIES_PER_PORT_MAX};
use wharf::base::time::{Span, Time};
use wharf::stage::bridge::fdb::{Fdb, Learned};
use wharf::wire::mac::Mac;

const SIZES: [usize; 5] = [10, 100, 1_000, 10_000, FDB_ENTRIES_MAX];

fn mac(n: usize) -> Mac {
    let [a, b, c, d] = (n as u32).to_be_bytes();
    Mac([2, 0x42, a, b, c, d])
}

fn filled(size: usize) -> Fdb {
    let mut fdb = Fdb::with_seed(Seed(42));
    for n in 0..size {
        let port = PortId((n / FDB_ENTRIES_PER_PORT_MAX) as u16);
        assert_eq!(fdb.learn(Time::ZERO, mac(n), port), Learned::New);
    }
    fdb
}

/// A walk over `0..size` without pattern.
fn next(at: usize, size: usize) -> usize {
    (at.wrapping_mul(0x5851_f42d).wrapping_add(0x1405_7b7f) >> 3) % size
}

fn lookup(c: &mut Criterion) {
    let mut group = c.benchmark_group("fdb/lookup");
    for size in SIZES {
        let fdb = filled(size);
        let now = Time::ZERO + Span::from_secs(1);
        let mut at = 1;
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| {
                at = next(at, size);
                black_box(fdb.lookup(now, mac(at)))
            });
        });
        let mut at = 1;
        group.bench_function(BenchmarkId::new("absent", size), |b| {
            b.iter(|| {
                at = next(at, size);
                black_box(fdb.lookup(now, mac(at + FDB_ENTRIES_MAX)))
            });
        });
    }
    group.finish();
}

fn learn(c: &mut Criterion) {
    let mut group = c.benchmark_group("fdb/learn");
    for size in SIZES {
        let mut fdb = filled(size);
        let mut at = 1;
        let now = Time::ZERO + Span::from_millis(500);
        group.bench_function(BenchmarkId::new("heard a moment ago", size), |b| {
            b.iter(|| {
                at = next(at, size);
                let port = PortId((at / FDB_ENTRIES_PER_PORT_MAX) as u16);
                black_box(fdb.learn(now, mac(at), port))
            });
        });
        let mut now = Time::ZERO;
        group.bench_function(BenchmarkId::new("heard long ago", size), |b| {
            b.iter(|| {
                at = next(at, size);
                now = now + Span::from_millis(1000);
                let port = PortId((at / FDB_ENTRIES_PER_PORT_MAX) as u16);
                black_box(fdb.learn(now, mac(at), port))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, lookup, learn);
criterion_main!(benches);
