//! What a tunnel costs: wrapping a frame, cutting a super-frame into datagrams, merging what arrives.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use etherparse::PacketBuilder;
use wharf::base::ids::PortId;
use wharf::packet::merge::{Merged, Merger};
use wharf::packet::{Csum, FrameBatch, Gso, Offload};
use wharf::stage::tunnel::{Link, TunnelOutput, Wrap, vxlan};
use wharf::wire::addr::Addr;
use wharf::wire::checksum;

const LINK: Link = Link {
    port: PortId(1),
    to: (Addr::from_v4_bytes([192, 0, 2, 2]), 4789),
    wrap: Wrap::Vxlan { vni: 1 },
};
/// Payload of a segment: what is left of 1450 with timestamps.
const SEGMENT: usize = 1398;

fn tcp(seq: u32, payload: usize) -> Vec<u8> {
    let link = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 244, 1, 2], [10, 244, 2, 2], 64);
    let options = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
    let tcp = link.tcp(40000, 443, seq, 502).ack(9).options_raw(&options).expect("options");
    let mut frame = Vec::new();
    tcp.write(&mut frame, &vec![0x5a; payload]).expect("a valid packet");
    frame
}

/// Frames that need nothing but their headers, 64 at a time.
fn wrap(c: &mut Criterion) {
    let mut group = c.benchmark_group("tunnel-wrap");
    for size in [18, 1398] {
        let mut batch = FrameBatch::new();
        while batch.push(&tcp(1, size), Offload::NONE) {}
        group.throughput(Throughput::Elements(batch.len() as u64));
        let mut out = TunnelOutput::default();
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| {
                out.clear();
                for at in 0..batch.len() {
                    out.wrap(&LINK, at, &mut batch).expect("an ordinary frame");
                    batch.frame(at).trim_front(8);
                }
                black_box(out.trains().len())
            });
        });
    }
    group.finish();
}

/// One super-frame of 60 KB, per segment; and the same work's checksums alone.
fn cut(c: &mut Criterion) {
    let mut group = c.benchmark_group("tunnel-cut");
    let count = 43;
    let mut frame = tcp(1, count * SEGMENT);
    let pseudo = checksum::pseudo_header(
        Addr::from_v4_bytes([10, 244, 1, 2]),
        Addr::from_v4_bytes([10, 244, 2, 2]),
        6,
        (frame.len() - 34) as u32,
    );
    frame[50..52].copy_from_slice(&pseudo.to_be_bytes());
    let csum = Csum::Partial { start: 34, offset: 16 };
    let offload = Offload { gso: Gso::TcpV4, gso_size: SEGMENT as u16, csum, ecn: false };
    let (mut batch, mut out) = (FrameBatch::new(), TunnelOutput::default());
    assert!(batch.push(&frame, offload));
    group.throughput(Throughput::Elements(count as u64));
    group.bench_function("segments", |b| {
        b.iter(|| {
            out.clear();
            out.wrap(&LINK, 0, &mut batch).expect("a super-frame");
            black_box(out.trains().len())
        });
    });
    group.bench_function("checksums-alone", |b| {
        b.iter(|| {
            let payload = &batch.bytes(0)[66..];
            payload.chunks(SEGMENT).map(checksum::sum).fold(0, checksum::add)
        });
    });
    group.finish();
}

/// A train of 43 segments as it arrives, per segment; and what of that are copy and checksum.
fn merge(c: &mut Criterion) {
    let mut group = c.benchmark_group("tunnel-merge");
    let header = [8, 0, 0, 0, 0, 0, 1, 0];
    let segments: Vec<Vec<u8>> =
        (0..43).map(|n| [&header[..], &tcp(1 + n * SEGMENT as u32, SEGMENT)].concat()).collect();
    group.throughput(Throughput::Elements(segments.len() as u64));
    let train = segments.concat();
    let size = segments[0].len();
    group.bench_function("segments", |b| {
        b.iter_batched_ref(
            || (FrameBatch::new(), Merger::default()),
            |(batch, merger)| {
                for datagram in train.chunks(size) {
                    let inner = vxlan::open(datagram).expect("VXLAN");
                    let merged = merger.push(batch, inner.frame, 1450).expect("a good frame");
                    assert_ne!(merged, Merged::Full);
                }
                merger.finish(batch);
                assert_eq!(batch.len(), 1);
            },
            BatchSize::PerIteration,
        );
    });
    let mut room = vec![0_u8; 70_000];
    group.bench_function("copies-and-checksums-alone", |b| {
        b.iter(|| {
            let mut at = 0;
            let mut sum = 0;
            for datagram in train.chunks(size) {
                sum = checksum::add(sum, checksum::sum(&datagram[42..]));
                room[at..at + SEGMENT].copy_from_slice(&datagram[size - SEGMENT..]);
                at += SEGMENT;
            }
            black_box((&room, sum));
        });
    });
    group.finish();
}

criterion_group!(benches, wrap, cut, merge);
criterion_main!(benches);
