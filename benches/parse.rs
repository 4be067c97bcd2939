//! What every frame costs before and after its look-up: parsing, rewriting, cutting.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use etherparse::PacketBuilder;
use wharf::base::hash::Seed;
use wharf::base::ids::DomainId;
use wharf::packet::rewrite::NatDelta;
use wharf::packet::split::Segments;
use wharf::packet::{Csum, FlowKey, FrameBatch, Gso, Offload, PacketBuf, Parsed, Rewrite, Scope};
use wharf::wire::addr::Addr;
use wharf::wire::mac::Mac;

const SRC: [u8; 6] = [2, 0x42, 172, 17, 0, 2];
const DST: [u8; 6] = [2, 0x42, 172, 17, 0, 1];

fn v4() -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    PacketBuilder::ethernet2(SRC, DST).ipv4([172, 17, 0, 2], [192, 0, 2, 1], 64)
}

fn v6() -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    PacketBuilder::ethernet2(SRC, DST).ipv6([0xfd; 16], [0x20; 16], 64)
}

fn tcp(v6_too: bool, payload: &[u8]) -> Vec<u8> {
    let ip = if v6_too { v6() } else { v4() };
    let mut frame = Vec::new();
    ip.tcp(40000, 443, 7, 502).ack(9).psh().write(&mut frame, payload).expect("a valid packet");
    frame
}

fn udp(v6_too: bool, payload: &[u8]) -> Vec<u8> {
    let ip = if v6_too { v6() } else { v4() };
    let mut frame = Vec::new();
    ip.udp(40000, 53).write(&mut frame, payload).expect("a valid packet");
    frame
}

fn kinds() -> Vec<(&'static str, Vec<u8>)> {
    let mut echo = Vec::new();
    v4().icmpv4_echo_request(7, 1).write(&mut echo, &[0; 56]).expect("a valid packet");
    let mut arp = vec![0; 60];
    arp[12..14].copy_from_slice(&[8, 6]);
    // Destination options of eight bytes before TCP.
    let mut extended = tcp(true, &[0; 64]);
    extended.splice(54..54, [6, 0, 1, 4, 0, 0, 0, 0]);
    extended[20] = 60;
    extended[19] += 8;
    vec![
        ("tcp4", tcp(false, &[0; 64])),
        ("tcp6", tcp(true, &[0; 64])),
        ("udp4", udp(false, &[0; 18])),
        ("udp6", udp(true, &[0; 18])),
        ("tcp6-extension", extended),
        ("echo4", echo),
        ("arp", arp),
    ]
}

fn batch_of(frame: &[u8], offload: Offload) -> FrameBatch {
    let mut batch = FrameBatch::new();
    while batch.push(frame, offload) {}
    batch
}

/// Parsing and the hash of the flow key, over a whole batch: the figure is a frame's share with its
/// headers in the cache.
fn parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    for (name, frame) in kinds() {
        let batch = batch_of(&frame, Offload::NONE);
        group.throughput(Throughput::Elements(batch.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(name), &batch, |b, batch| {
            b.iter(|| {
                // A sum, since a look into each result through memory costs more than the parsing.
                let hash = |index| {
                    let parsed = Parsed::new(batch.bytes(index)).expect("a valid packet");
                    FlowKey::new(&parsed, DomainId(1), Scope::Routed).hash(Seed(42))
                };
                (0..black_box(batch).len()).map(hash).fold(0, u64::wrapping_add)
            });
        });
    }
    group.finish();
}

fn rewrite(c: &mut Criterion) {
    let mut group = c.benchmark_group("rewrite");
    for (name, frame, outside) in [
        ("nat-route-tcp4", tcp(false, &[0; 64]), Addr::from_v4_bytes([198, 51, 100, 1])),
        ("nat-route-tcp6", tcp(true, &[0; 64]), Addr::from_v6_bytes([0x2a; 16])),
        ("nat-route-udp4", udp(false, &[0; 18]), Addr::from_v4_bytes([198, 51, 100, 1])),
    ] {
        let parsed = Parsed::new(&frame).expect("a valid packet");
        let from = FlowKey::new(&parsed, DomainId(0), Scope::Routed);
        let to = FlowKey { src: outside, src_port: 62_000, ..from };
        let there = Rewrite {
            nat: Some((to, NatDelta::between(&from, &to))),
            route: Some((Mac(SRC), Mac(DST))),
        };
        let mut batch = batch_of(&frame, Offload::NONE);
        let ttl_at = if to.src.is_v4() { 22 } else { 21 };
        group.throughput(Throughput::Elements(batch.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                for index in 0..batch.len() {
                    let mut frame = batch.frame(index);
                    frame.bytes_mut()[ttl_at] = 64; // Or the hops would run out.
                    black_box(&there).apply(&mut frame, black_box(&parsed));
                }
            });
        });
    }
    group.finish();
}

fn split(c: &mut Criterion) {
    let mut group = c.benchmark_group("split");
    for (name, v6_too, gso) in [("tso4", false, Gso::TcpV4), ("tso6", true, Gso::TcpV6)] {
        let frame = tcp(v6_too, &vec![0x5a; 64_000]);
        let parsed = Parsed::new(&frame).expect("a valid packet");
        let csum = Csum::Partial { start: parsed.l4, offset: 16 };
        let mut buf = PacketBuf::new(&frame, Offload { gso, gso_size: 1448, csum, ecn: false });
        group.throughput(Throughput::Elements(64_000_u64.div_ceil(1448)));
        group.bench_function(name, |b| {
            b.iter(|| {
                // Cutting leaves the first headers in place, so the frame can be cut again.
                let mut segments = Segments::new(buf.frame(), &parsed).expect("a super-frame");
                while let Some(segment) = segments.next() {
                    black_box(segment.bytes());
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, parse, rewrite, split);
criterion_main!(benches);
