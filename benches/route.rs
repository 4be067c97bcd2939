//! The route table as it grows, in both families: from a host's few routes to a full Internet table.

#![allow(missing_docs, reason = "criterion's macro makes an undocumented function")]

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use wharf::stage::route::lpm::RouteTable;
use wharf::wire::addr::Addr;

const SIZES: [usize; 6] = [10, 100, 1_000, 10_000, 100_000, 1_000_000];

/// Numbers without pattern (SplitMix64).
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// An address of the part of the space that is routed: half of IPv4, 2000::/4 of IPv6.
fn addr(v6: bool, state: &mut u64) -> Addr {
    let bits = random(state);
    if v6 {
        Addr::from_prefix_and_id(0x2000 << 48 | bits >> 4, random(state))
    } else {
        Addr::from_v4_bits((bits >> 33) as u32)
    }
}

/// So many routes, most of them /24 or /48, as on the Internet, and a default route.
fn filled(v6: bool, size: usize) -> RouteTable<u32> {
    let mut table = RouteTable::new();
    let mut state = 42;
    table.insert(if v6 { Addr::UNSPECIFIED } else { Addr::from_v4_bits(0) }, 0, 0);
    while table.len() < size {
        let prefix = addr(v6, &mut state);
        let shorter = (random(&mut state) % 16).saturating_sub(7) as u8;
        let len = if v6 { 48 - shorter } else { 24 - shorter };
        table.insert(prefix, len, table.len() as u32);
    }
    table
}

fn lookup(c: &mut Criterion) {
    for (v6, name) in [(false, "route/lookup v4"), (true, "route/lookup v6")] {
        let mut group = c.benchmark_group(name);
        for size in SIZES {
            let table = filled(v6, size);
            let mut state = 7;
            group.bench_function(BenchmarkId::from_parameter(size), |b| {
                b.iter(|| black_box(table.lookup(addr(v6, &mut state))));
            });
        }
        group.finish();
    }
}

fn change(c: &mut Criterion) {
    let mut group = c.benchmark_group("route/insert and remove");
    for size in [1_000, 100_000] {
        let mut table = filled(false, size);
        let mut state = 9;
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter_batched(
                || addr(false, &mut state),
                |prefix| {
                    table.insert(prefix, 32, 1);
                    table.remove(prefix, 32)
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, lookup, change);
criterion_main!(benches);
