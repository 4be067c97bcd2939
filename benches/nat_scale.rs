//! NAT at a million flows, through the whole data path: 50,000 inside sockets, 20 destinations each.
//!
//! `cargo bench --bench nat_scale` prints one line for each bar, with what was measured and whether it
//! holds; `cargo test` runs it with a hundredth of the flows to see that it works. What is measured is
//! processor time of this thread. Frames are made outside the clock.

#![allow(clippy::pedantic, reason = "a bench reads as a list of cases")]
#![allow(missing_docs, reason = "a bench is its own user")]

#[path = "pipeline/cpu_time.rs"]
#[allow(dead_code, reason = "only its clock is used")]
mod cpu_time;
#[allow(clippy::unwrap_used, reason = "what scenarios need is more than benches do")]
#[path = "../tests/common/world.rs"]
mod world;

use std::time::Duration;

use cpu_time::{now, since};
use wharf::base::hash::Seed;
use wharf::base::ids::PortId;
use wharf::base::time::Span;
use wharf::datapath::Output;
use wharf::packet::{FrameBatch, Offload};
use wharf::wire::addr::Family;
use world::{FAMILIES, Host, NetworkOptions, UPLINK_PORT, World, udp};

const HOSTS: u32 = 50;
const DESTINATIONS: u32 = 20;
const BATCH: u32 = 64;

struct Scale {
    world: World,
    hosts: Vec<Host>,
    remote: Host,
    family: Family,
    /// Ports of each host.
    sockets: u32,
    batch: FrameBatch,
    out: Output,
    templates: Vec<Vec<u8>>,
}

impl Scale {
    fn new(family: Family, flows: u32) -> Self {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let hosts: Vec<Host> = (0..HOSTS).map(|_| world.endpoint(net)).collect();
        let remote = world.uplink();
        let to = destination(family, 0);
        let templates: Vec<_> =
            hosts.iter().map(|host| udp(host, host.router, 1, to, &[7; 22])).collect();
        world.pass_resolving(hosts[0].port, &templates[0], &remote);
        world.dp.flush_flows(world.now, &Default::default());
        let sockets = flows / HOSTS / DESTINATIONS;
        let (batch, out) = (FrameBatch::new(), Output::default());
        Self { world, hosts, remote, family, sockets, batch, out, templates }
    }

    /// Fills the batch with frames of one host: those that `pick` names by socket and destination.
    fn fill(&mut self, host: u32, mut pick: impl FnMut(u32) -> (u32, u32)) {
        self.batch.clear();
        let (src, dst) = if self.family == Family::V4 { (34, 30) } else { (54, 38) };
        for n in 0..BATCH {
            let (socket, to) = pick(n);
            let frame = &mut self.templates[host as usize];
            let port = (2_000 + host * 1_000 + socket) as u16;
            frame[src..src + 2].copy_from_slice(&port.to_be_bytes());
            let addr = 4 - 1;
            let last = if self.family == Family::V4 { dst + addr } else { dst + 15 };
            frame[last] = to as u8 + 1;
            if self.family == Family::V4 {
                frame[24..26].fill(0);
                let sum = !wharf::wire::checksum::sum(&frame[14..34]);
                frame[24..26].copy_from_slice(&sum.to_be_bytes());
            }
            assert!(self.batch.push(frame, Offload::NONE));
        }
    }

    /// Processor time of one batch from a host.
    fn run(&mut self, host: u32) -> Duration {
        let port = self.hosts[host as usize].port;
        self.process(port)
    }

    fn process(&mut self, port: PortId) -> Duration {
        self.out.clear();
        let begun = now();
        self.world.dp.frames(self.world.now, port, &mut self.batch, &mut self.out);
        let spent = since(begun);
        let left = self.out.frames.iter().filter(|sent| sent.port == UPLINK_PORT).count();
        assert_eq!(left, BATCH as usize, "every frame leaves");
        spent
    }

    /// Every flow's first packet. Time of each batch.
    fn set_up(&mut self) -> Vec<Duration> {
        let per_host = self.sockets * DESTINATIONS;
        let mut spent = Vec::new();
        // Hosts take turns, as they do in life.
        for batch in 0..per_host.div_ceil(BATCH) {
            for host in 0..HOSTS {
                self.fill(host, |n| {
                    let flow = (batch * BATCH + n) % per_host;
                    (flow / DESTINATIONS, flow % DESTINATIONS)
                });
                spent.push(self.run(host));
            }
        }
        spent
    }

    /// Frames of random flows; time of each batch.
    fn hits(&mut self, batches: u32) -> Vec<Duration> {
        let mut draw = 0;
        let mut random = move |below: u32| {
            draw += 1;
            (Seed(9).hash([draw]) >> 16) as u32 % below
        };
        let sockets = self.sockets;
        (0..batches)
            .map(|_| {
                let host = random(HOSTS);
                self.fill(host, |_| (random(sockets), random(DESTINATIONS)));
                self.run(host)
            })
            .collect()
    }
}

fn destination(family: Family, n: u8) -> (std::net::IpAddr, u16) {
    match family {
        Family::V4 => ([198, 51, 100, n + 1].into(), 443),
        Family::V6 => {
            (std::net::Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, n as u16 + 1).into(), 443)
        }
    }
}

fn resident_bytes() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<f64>().ok());
    pages.unwrap_or_default() * 4_096.0
}

fn bar(what: &str, family: Family, measured: f64, unit: &str, limit: f64, at_most: bool) {
    let holds = if at_most { measured <= limit } else { measured >= limit };
    let (word, verdict) =
        (if at_most { "at most" } else { "at least" }, if holds { "holds" } else { "MISSED" });
    println!("{what:<44} {family:?}  {measured:>12.1} {unit:<12} ({word} {limit}) {verdict}");
}

fn histogram(what: &str, spent: &[Duration]) {
    let mut by_power = [0_u32; 24];
    for batch in spent {
        let micros = batch.as_micros().max(1) as u32;
        by_power[micros.ilog2() as usize] += 1;
    }
    let lines = by_power.iter().enumerate().filter(|(_, count)| **count > 0);
    let text: Vec<String> = lines.map(|(power, n)| format!("<{} µs: {n}", 2 << power)).collect();
    println!("{what:<44} {}", text.join(", "));
}

fn total(spent: &[Duration]) -> f64 {
    spent.iter().sum::<Duration>().as_secs_f64()
}

fn measure(family: Family, flows: u32) {
    let mut scale = Scale::new(family, flows);
    let before = resident_bytes();
    let set_up = scale.set_up();
    let made = scale.world.dp.worker_stats().flows as f64;
    assert_eq!(made as u32, scale.sockets * HOSTS * DESTINATIONS, "every flow is there");
    bar("set-up of flows", family, made / total(&set_up), "flows/s", 1e6, false);
    let longest = set_up.iter().max().map_or(0.0, |it| it.as_secs_f64() * 1e6);
    bar("longest batch of 64 while the table grows", family, longest, "µs", 1_000.0, true);
    histogram("  batches of 64 new flows", &set_up);
    bar("memory all-in", family, (resident_bytes() - before) / made, "bytes/flow", 192.0, true);

    let warm = scale.hits(2_000);
    let hits = scale.hits(20_000);
    assert!(warm.len() < hits.len());
    let each = total(&hits) * 1e9 / (hits.len() as f64 * f64::from(BATCH));
    bar("frame of a random flow", family, each, "ns", 150.0, true);
    histogram("  batches of 64 frames", &hits);
    idle_and_expire(&mut scale, made);
}

fn idle_and_expire(scale: &mut Scale, made: f64) {
    // What the worker asks after each batch, and what a tick costs while nothing is due.
    let world = &mut scale.world;
    let begun = now();
    const ASKED: u32 = 10_000;
    for _ in 0..ASKED {
        std::hint::black_box(world.dp.next_deadline(world.now));
    }
    let asking = since(begun).as_secs_f64() * 1e9 / f64::from(ASKED);
    bar("asking when something is due", scale.family, asking, "ns", 2_000.0, true);
    // Everything is idle; they all end, as the deadlines say.
    let (mut spent, mut longest) = (Duration::ZERO, Duration::ZERO);
    let mut ticks = 0;
    while world.dp.footprint().flows > 0 {
        let Some(at) = world.dp.next_deadline(world.now) else { break };
        world.now = at.max(world.now + Span::from_micros(1));
        scale.out.clear();
        let begun = now();
        world.dp.tick(world.now, &mut scale.out);
        let tick = since(begun);
        (spent, longest, ticks) = (spent + tick, longest.max(tick), ticks + 1);
    }
    // A million flows that live for two minutes of silence end within two minutes, again and again.
    let share = spent.as_secs_f64() / 120.0 * 100.0;
    bar("expiry of all flows in two minutes", scale.family, share, "% of a core", 1.0, true);
    let micros = longest.as_secs_f64() * 1e6;
    bar("longest tick", scale.family, micros, "µs", 1_000.0, true);
    let each = spent.as_secs_f64() * 1e9 / made;
    println!("  {ticks} ticks, {each:.0} ns for a flow's end; remote {}", scale.remote.v4);
}

fn main() {
    // `cargo bench` says so, `cargo test` says nothing.
    let test = !std::env::args().any(|argument| argument == "--bench");
    for family in FAMILIES {
        measure(family, if test { 10_000 } else { 1_000_000 });
    }
}
