//! The Internet checksum: full sums over growing lengths, and one update.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use wharf::wire::checksum;

fn sums(c: &mut Criterion) {
    let mut group = c.benchmark_group("checksum/sum");
    let bytes: Vec<u8> = (0..65_535_u32).map(|n| (n * 31) as u8).collect();
    for len in [20, 64, 128, 256, 576, 1448, 4096, 9000, 65_535] {
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_with_input(BenchmarkId::from_parameter(len), &bytes[..len], |b, bytes| {
            b.iter(|| checksum::sum(black_box(bytes)));
        });
    }
    group.finish();
}

fn updates(c: &mut Criterion) {
    let mut group = c.benchmark_group("checksum");
    group.throughput(Throughput::Elements(1));
    group.bench_function("update", |b| {
        b.iter(|| checksum::update(black_box(0x1234), black_box(0xfe01)));
    });
    group.finish();
}

criterion_group!(benches, sums, updates);
criterion_main!(benches);
