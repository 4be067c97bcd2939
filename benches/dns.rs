//! Local names: a query's frame in, its answer's frame out, with a hundred names and with ten thousand.

#![allow(missing_docs, reason = "criterion's macro makes an undocumented function")]

use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use wharf::base::hash::Seed;
use wharf::base::ids::{NetworkId, PortId};
use wharf::base::time::Time;
use wharf::config::{Delta, Guise, Network, Port, PortKind, Subnet};
use wharf::datapath::{Datapath, Output};
use wharf::packet::{FrameBatch, Offload};
use wharf::stage::dns::{Named, Zone, answer};
use wharf::wire::addr::Addr;
use wharf::wire::mac::Mac;

const NETWORK: NetworkId = NetworkId(0);
const GATEWAY: Mac = Mac([2, 0x42, 10, 20, 0, 1]);
const CLIENT: Mac = Mac([2, 0x42, 10, 20, 0, 2]);

fn zone(names: u16) -> Zone {
    let mut zone = Zone::new(vec![(Addr::from_v4_bytes([10, 20, 0, 0]), 16)]);
    for n in 0..names {
        let [high, low] = n.to_be_bytes();
        let (name, whole) = (format!("c{n}"), format!("c{n}.blue"));
        let addrs = vec![Addr::from_v4_bytes([10, 20, high, low])];
        let names = vec![name, whole.clone()];
        let named = Named { names, whole, addrs, ..Named::default() };
        zone.put(PortId(n), Some(named.into()));
    }
    zone
}

fn query(n: u16) -> Vec<u8> {
    let name = format!("c{n}");
    let mut query = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0".to_vec();
    query.push(name.len() as u8);
    query.extend(name.as_bytes());
    query.extend(b"\x04blue\0\0\x01\0\x01");
    query
}

fn frame(query: &[u8]) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ethernet2(CLIENT.0, GATEWAY.0);
    let builder = builder.ipv4([10, 20, 0, 2], [10, 20, 0, 1], 64).udp(40_000, 53);
    let mut frame = Vec::new();
    builder.write(&mut frame, query).expect("a vector takes it");
    frame
}

fn switch(names: u16) -> Datapath {
    let mut datapath = Datapath::new(Seed(1));
    let addr = |last| Addr::from_v4_bytes([10, 20, 0, last]);
    let network = Network {
        id: NETWORK,
        name: "blue".into(),
        subnets: vec![Subnet { prefix: addr(0), len: 16, gateway: addr(1) }],
        gateway_mac: GATEWAY,
        mtu: 1500,
        isolated: true,
        internal: true,
        uplink: None,
        host_port: None,
        host_loopback: false,
        guise: Guise::default(),
    };
    let port = Port {
        id: PortId(1),
        name: "client".into(),
        kind: PortKind::Endpoint,
        domain: NETWORK.into(),
        mac: CLIENT,
        addrs: vec![addr(2)],
        guard: true,
        isolated: false,
        mtu: 1500,
        uso: true,
    };
    let deltas = [
        Delta::Network(network.into()),
        Delta::Port(port.into()),
        Delta::Names(NETWORK, Arc::new(zone(names))),
    ];
    for delta in deltas {
        datapath.apply(Time(1), &delta, &mut Output::default());
    }
    datapath
}

fn local_names(c: &mut Criterion) {
    for (group, whole) in [("dns/answer", false), ("dns/frame", true)] {
        let mut group = c.benchmark_group(group);
        group.throughput(Throughput::Elements(1));
        for names in [100, 10_000] {
            let queries: Vec<_> = (0..names).map(query).collect();
            let frames: Vec<_> = queries.iter().map(|query| frame(query)).collect();
            let (zone, mut datapath) = (zone(names), switch(names));
            let (mut batch, mut out) = (FrameBatch::new(), Output::default());
            let mut at = 0_usize;
            group.bench_function(BenchmarkId::from_parameter(names), |b| {
                b.iter(|| {
                    at = (at + 7_919) % usize::from(names);
                    if !whole {
                        std::hint::black_box(answer(&zone, &queries[at], false));
                        return;
                    }
                    batch.clear();
                    assert!(batch.push(&frames[at], Offload::NONE));
                    datapath.frames(Time(2), PortId(1), &mut batch, &mut out);
                    assert_eq!(out.frames.len(), 1, "answered");
                    out.clear();
                });
            });
        }
        group.finish();
    }
}

fn changes(c: &mut Criterion) {
    let mut group = c.benchmark_group("dns/change");
    for names in [100, 10_000] {
        let mut datapath = switch(names);
        let named = |n: u8| {
            let addrs = vec![Addr::from_v4_bytes([10, 20, 200, n])];
            Arc::new(Named {
                names: vec!["new".to_owned()],
                whole: "new.blue".to_owned(),
                addrs,
                ..Named::default()
            })
        };
        let all: Vec<_> = (0..4).map(named).collect();
        let (mut at, mut out) = (0, Output::default());
        group.bench_function(BenchmarkId::from_parameter(names), |b| {
            b.iter(|| {
                at = (at + 1) % all.len();
                let named = Some(Arc::clone(&all[at]));
                datapath.apply(Time(2), &Delta::Name(NETWORK, PortId(u16::MAX), named), &mut out);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, local_names, changes);
criterion_main!(benches);
