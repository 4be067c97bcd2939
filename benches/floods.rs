//! A well-behaved connection beside somebody who means harm, through the whole data path.
//!
//! For each kind of flood: the connection's frames in both directions, taken in turns with a batch of the flood,
//! against the same frames taken in turns with a loop that burns as much processor time and sends nothing. What the
//! connection keeps of its rate must be nine tenths, and each of its frames must arrive. `cargo bench --bench floods`
//! prints one line for each; `cargo test` runs it for a moment to see that it works. Measured is processor time of
//! this thread; frames are made outside the clock.

#![allow(clippy::pedantic, reason = "a bench reads as a list of cases")]
#![allow(missing_docs, reason = "a bench is its own user")]

#[path = "pipeline/cpu_time.rs"]
#[allow(dead_code, reason = "only its clock is used")]
mod cpu_time;
#[allow(clippy::unwrap_used, reason = "what scenarios need is more than benches do")]
#[path = "../tests/common/packets.rs"]
mod packets;
#[allow(clippy::unwrap_used, reason = "what scenarios need is more than benches do")]
#[path = "../tests/common/world.rs"]
mod world;

use std::net::IpAddr;
use std::time::Duration;

use cpu_time::{now, since};
use packets::fragments;
use wharf::base::ids::PortId;
use wharf::base::time::Span;
use wharf::datapath::Output;
use wharf::packet::{FrameBatch, Offload};
use wharf::wire::addr::Family;
use world::{
    FAMILIES, Host, NetworkOptions, UPLINK_MAC, UPLINK_PORT, World, icmp_unreachable, own, tcp, udp,
};

/// Frames of one batch, of the flood and of each direction of the connection.
const BATCH: usize = 64;
/// Different frames of a flood.
const KINDS: u16 = 4_096;
/// Of the rate beside a burning loop.
const BAR: f64 = 0.9;

/// A container with an established connection through the uplink, and the frames of it.
struct Scene {
    world: World,
    a: Host,
    b: Host,
    remote: Host,
    attacker: Host,
    family: Family,
    seen: (IpAddr, u16),
    good: [(PortId, Vec<u8>); 2],
    batch: FrameBatch,
    out: Output,
}

type Flood = (&'static str, fn(&Scene, u16) -> (PortId, Vec<u8>));

const FLOODS: [Flood; 8] = [
    ("forged resets", |s, n| {
        let seq = 1_000_000 + u32::from(n) * 500_009;
        (UPLINK_PORT, tcp(&s.remote, UPLINK_MAC, 80, s.seen, "R", (seq, 0), b""))
    }),
    ("an ACK storm", |s, n| {
        let ack = 50_000_000 + u32::from(n);
        (UPLINK_PORT, tcp(&s.remote, UPLINK_MAC, 80, s.seen, "A", (701, ack), b""))
    }),
    ("SYNs nobody asked for", |s, n| {
        let to = (own(s.family), 20_000 + n);
        (UPLINK_PORT, tcp(&s.attacker, UPLINK_MAC, n, to, "S", (1, 0), b""))
    }),
    ("SYNs at a published port", |s, n| {
        let to = (own(s.family), 80);
        (UPLINK_PORT, tcp(&s.attacker, UPLINK_MAC, 1_024 + n, to, "S", (1, 0), b""))
    }),
    ("fragments", |s, n| {
        let whole = udp(&s.attacker, UPLINK_MAC, 1, (own(s.family), 5_000), &[1; 3_000]);
        (UPLINK_PORT, fragments(&whole, n, 1_000).remove(1))
    }),
    ("ICMP errors about nothing", |s, n| {
        let us = Host {
            v4: match own(Family::V4) {
                IpAddr::V4(v4) => v4,
                IpAddr::V6(_) => s.a.v4,
            },
            v6: match own(Family::V6) {
                IpAddr::V6(v6) => v6,
                IpAddr::V4(_) => s.a.v6,
            },
            ..s.a
        };
        let to = (s.remote.addr(s.family), 80);
        let quote = tcp(&us, s.attacker.mac, 20_000 + n, to, "A", (1, 1), b"");
        (UPLINK_PORT, icmp_unreachable(&s.attacker, UPLINK_MAC, own(s.family), &quote[14..]))
    }),
    ("a port scan from inside", |s, n| {
        let to = (s.remote.addr(s.family), 1 + n);
        (s.b.port, tcp(&s.b, s.b.router, 6_000, to, "S", (1, 0), b""))
    }),
    ("inside addresses from outside", |s, n| {
        let liar = Host { v4: s.b.v4, v6: s.b.v6, ..s.remote };
        (UPLINK_PORT, udp(&liar, UPLINK_MAC, n, s.seen, b"from next door"))
    }),
];

impl Scene {
    fn new(family: Family) -> Self {
        let mut world = World::with_flow_limit(10_000);
        let net = world.network(NetworkOptions::default());
        let (a, b, remote) = (world.endpoint(net), world.endpoint(net), world.uplink());
        world.publish(1, wharf::wire::ipv6::TCP, 80, &b, 8_080);
        let attacker = Host {
            v4: [203, 0, 113, 66].into(),
            v6: "2001:db8:bad::66".parse().expect("an address"),
            ..remote
        };
        let to = (remote.addr(family), 80);
        let from_a =
            |flags, numbers, data: &[u8]| tcp(&a, a.router, 5_000, to, flags, numbers, data);
        let seen = world.pass_resolving(a.port, &from_a("S", (100, 0), b""), &remote).src();
        let back =
            |flags, numbers, data: &[u8]| tcp(&remote, UPLINK_MAC, 80, seen, flags, numbers, data);
        world.pass(UPLINK_PORT, &back("SA", (700, 101), b""));
        let good = [
            (a.port, from_a("A", (101, 701), &[7; 1_000])),
            (UPLINK_PORT, back("A", (701, 101), &[7; 1_000])),
        ];
        let (batch, out) = (FrameBatch::new(), Output::default());
        Self { world, a, b, remote, attacker, family, seen, good, batch, out }
    }

    /// Processor time of one batch that is filled already, and the frames that left.
    fn run(&mut self, port: PortId) -> (Duration, usize) {
        self.out.clear();
        let begun = now();
        self.world.dp.frames(self.world.now, port, &mut self.batch, &mut self.out);
        (since(begun), self.out.frames.len())
    }

    fn flood(&mut self, frames: &[(PortId, Vec<u8>)]) -> Duration {
        self.batch.clear();
        for (_, frame) in frames {
            assert!(self.batch.push(frame, Offload::NONE));
        }
        self.run(frames[0].0).0
    }

    /// The connection's frames in both directions.
    fn good(&mut self) -> Duration {
        let mut spent = Duration::ZERO;
        for way in 0..2 {
            self.batch.clear();
            let (port, frame) = &self.good[way];
            for _ in 0..BATCH {
                assert!(self.batch.push(frame, Offload::NONE));
            }
            let (took, left) = self.run(*port);
            assert_eq!(left, BATCH, "every frame of it arrives");
            spent += took;
        }
        spent
    }

    /// Time passes: what is due happens, and costs neither of them anything.
    fn pass_time(&mut self) {
        self.world.now = self.world.now + Span::from_millis(1);
        self.out.clear();
        self.world.dp.tick(self.world.now, &mut self.out);
    }
}

fn burn(span: Duration) {
    let begun = now();
    while since(begun) < span {
        std::hint::spin_loop();
    }
}

/// What the connection keeps of its rate, as the median of several turns.
fn kept(flood: Flood, family: Family, rounds: usize) -> (f64, f64) {
    let (mut beside_flood, mut beside_loop) = (Scene::new(family), Scene::new(family));
    let frames: Vec<_> = (0..KINDS).map(|n| flood.1(&beside_flood, n)).collect();
    let mut ratios = Vec::new();
    let (mut harm, mut floods) = (Duration::ZERO, 0);
    for turn in 0..11 {
        let (mut with, mut without) = (Duration::ZERO, Duration::ZERO);
        let mut flooding = Duration::ZERO;
        for part in frames.chunks(BATCH).cycle().take(rounds) {
            flooding += beside_flood.flood(part);
            with += beside_flood.good();
            beside_flood.pass_time();
        }
        let each = flooding / rounds as u32;
        for _ in 0..rounds {
            burn(each);
            without += beside_loop.good();
            beside_loop.pass_time();
        }
        // The first turn fills tables and caches.
        if turn > 0 {
            ratios.push(without.as_secs_f64() / with.as_secs_f64());
            (harm, floods) = (harm + flooding, floods + rounds * BATCH);
        }
    }
    ratios.sort_by(f64::total_cmp);
    (ratios[ratios.len() / 2], harm.as_secs_f64() * 1e9 / floods as f64)
}

fn main() {
    // `cargo bench` says so, `cargo test` says nothing.
    let test = !std::env::args().any(|argument| argument == "--bench");
    for flood in FLOODS {
        for family in FAMILIES {
            let (kept, each) = kept(flood, family, if test { 2 } else { 500 });
            let verdict = if kept >= BAR { "holds" } else { "MISSED" };
            let what = format!("beside {}", flood.0);
            println!(
                "{what:<40} {family:?}  keeps {:>5.1} % (at least {:.0}) {verdict}; {each:.0} ns a bad frame",
                kept * 100.0,
                BAR * 100.0
            );
        }
    }
}
