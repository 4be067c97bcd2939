//! An hour of mixed traffic through one data path, under virtual time: every kind of flow that begins,
//! goes wrong or ends, with bursts that fill the table. In the end nothing may be left, and every frame
//! must have left or been dropped by name.
use std::collections::BTreeSet;
use std::net::IpAddr;

use wharf::base::hash::Seed;
use wharf::base::limits::FLOWS_MAX;
use wharf::base::time::Span;
use wharf::datapath::inspect::Footprint;
use wharf::packet::DropReason;
use wharf::wire::addr::Family;

use crate::packets::fragments;
use crate::world::*;

const ENDPOINTS: usize = 200;
/// Sockets of each endpoint: 40,000 mappings of each protocol at most.
const SOCKETS: u64 = 200;
const DESTINATIONS: u64 = 250;
/// A burst of five seconds begins every ten minutes.
const BURST_EVERY: u32 = 600;
const BURST: u32 = 5;

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) seconds: u32,
    pub(crate) per_second: u32,
    pub(crate) burst_per_second: u32,
    pub(crate) flows_max: usize,
}

/// As issue 5 asks for.
pub(crate) const WHOLE: Load =
    Load { seconds: 3_600, per_second: 2_000, burst_per_second: 200_000, flows_max: FLOWS_MAX };

impl Load {
    /// The same hour with a part of the traffic and of the table.
    pub(crate) fn divided_by(n: u32) -> Self {
        Self {
            per_second: WHOLE.per_second / n,
            burst_per_second: WHOLE.burst_per_second / n,
            flows_max: WHOLE.flows_max / n as usize,
            ..WHOLE
        }
    }
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) flows: u64,
    pub(crate) frames_in: u64,
    pub(crate) frames_out: u64,
    pub(crate) errors: u64,
    pub(crate) dropped: u64,
    pub(crate) evicted: u64,
    pub(crate) most_flows: usize,
    pub(crate) most_mappings: usize,
}

struct Soak {
    world: World,
    hosts: Vec<Host>,
    remote: Host,
    seed: Seed,
    drawn: u64,
    report: Report,
}

/// Runs the hour and what time it takes until everything is over; fails if anything is left or lost.
pub(crate) fn soak(load: Load) -> Report {
    let mut world = World::with_flow_limit(load.flows_max);
    let net = world.network(NetworkOptions::default());
    let hosts = (0..ENDPOINTS).map(|_| world.endpoint(net)).collect();
    let remote = world.uplink();
    let mut it = Soak { world, hosts, remote, seed: Seed(5), drawn: 0, report: Report::default() };
    it.resolve();
    for second in 0..load.seconds {
        let bursts = second >= BURST && second % BURST_EVERY < BURST;
        let flows = if bursts { load.burst_per_second } else { load.per_second };
        for _ in 0..flows {
            it.flow();
        }
        it.pass_time(Span::from_secs(1));
        let now = it.world.dp.footprint();
        it.report.most_flows = it.report.most_flows.max(now.flows);
        it.report.most_mappings = it.report.most_mappings.max(now.mappings);
    }
    it.end()
}

impl Soak {
    /// Both routers are known before the first frame, so that none waits.
    fn resolve(&mut self) {
        for family in FAMILIES {
            let (host, to) = (self.hosts[0], destination(family, 0));
            let frame = udp(&host, host.router, 1, to, b"x");
            self.world.pass_resolving(host.port, &frame, &self.remote);
        }
        self.world.dp.flush_flows(self.world.now, &Default::default());
        self.report.frames_in = 2;
        self.report.frames_out = 2;
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.drawn += 1;
        self.seed.hash([self.drawn]) % below
    }

    /// Sends a frame and counts what came of it; the frame that went on, if one did.
    fn send(&mut self, from: wharf::base::ids::PortId, frame: &[u8]) -> Option<Sent> {
        let mut sent = self.world.send(from, frame);
        self.report.frames_in += 1;
        self.report.frames_out += sent.len() as u64;
        // An error goes back to where its reason came from.
        self.report.errors += sent.iter().filter(|sent| sent.port == from).count() as u64;
        sent.retain(|sent| sent.port != from);
        sent.pop()
    }

    fn flow(&mut self) {
        self.report.flows += 1;
        let family = FAMILIES[self.draw(2) as usize];
        let host = self.draw(ENDPOINTS as u64) as usize;
        let host = self.hosts[host];
        let sport = 10_000 + self.draw(SOCKETS) as u16;
        let to = destination(family, self.draw(DESTINATIONS) as u8);
        match self.draw(20) {
            0..=7 => self.udp(&host, sport, to, true),
            8 | 9 => self.udp(&host, sport, to, false),
            10 | 11 => self.udp(&host, sport, (to.0, 53), true),
            12..=14 => self.tcp(&host, sport, to, 4),
            15 => self.tcp(&host, sport, to, 1),
            16 => self.tcp(&host, sport, to, 3),
            17 | 18 => self.ping(&host, sport, to.0),
            _ => self.trouble(&host, sport, to, family),
        }
    }

    fn udp(&mut self, host: &Host, sport: u16, to: (IpAddr, u16), answered: bool) {
        let there = self.send(host.port, &udp(host, host.router, sport, to, b"question"));
        if let Some(there) = there.filter(|_| answered) {
            self.send(UPLINK_PORT, &reply(&self.remote, &there, to));
        }
    }

    /// As many of these as asked for: SYN, the handshake's rest, data, a close by both sides.
    fn tcp(&mut self, host: &Host, sport: u16, to: (IpAddr, u16), steps: u32) {
        let out = |flags, numbers| tcp(host, host.router, sport, to, flags, numbers, b"");
        let Some(there) = self.send(host.port, &out("S", (100, 0))) else { return };
        let server = at(&self.remote, to.0);
        let back =
            |flags, numbers| tcp(&server, UPLINK_MAC, to.1, there.src(), flags, numbers, b"");
        if steps > 1 {
            self.send(UPLINK_PORT, &back("SA", (700, 101)));
            self.send(host.port, &out("A", (101, 701)));
        }
        match steps {
            3 => {
                self.send(UPLINK_PORT, &back("RA", (701, 101)));
            }
            4 => {
                self.send(host.port, &out("FA", (101, 701)));
                self.send(UPLINK_PORT, &back("FA", (701, 102)));
                self.send(host.port, &out("A", (102, 702)));
            }
            _ => {}
        }
    }

    fn ping(&mut self, host: &Host, id: u16, to: IpAddr) {
        let Some(there) = self.send(host.port, &ping(host, host.router, to, id, b"hello")) else {
            return;
        };
        let l4 = if to.is_ipv4() { 34 } else { 54 };
        let id = u16::from_be_bytes([there.bytes[l4 + 4], there.bytes[l4 + 5]]);
        let server = at(&self.remote, to);
        let builder = ip(&server, UPLINK_MAC, to, there.src().0, 64);
        let mut frame = Vec::new();
        if to.is_ipv4() {
            builder.icmpv4_echo_reply(id, 1).write(&mut frame, b"hello").unwrap();
        } else {
            builder.icmpv6_echo_reply(id, 1).write(&mut frame, b"hello").unwrap();
        }
        self.send(UPLINK_PORT, &frame);
    }

    /// What nobody wants: scans, spoofed sources, fragments with and without a first one.
    fn trouble(&mut self, host: &Host, sport: u16, to: (IpAddr, u16), family: Family) {
        let scanner = at(&self.remote, to.0);
        let port = self.draw(60_000) as u16;
        match self.draw(5) {
            0 => {
                let syn = tcp(&scanner, UPLINK_MAC, port, (own(family), port), "S", (1, 0), b"");
                self.send(UPLINK_PORT, &syn);
            }
            1 => {
                let liar = Host { v4: host.v4, v6: host.v6, ..self.remote };
                self.send(UPLINK_PORT, &udp(&liar, UPLINK_MAC, port, (own(family), port), b"x"));
            }
            2 => {
                let whole = udp(host, host.router, sport, to, &[7; 1_500]);
                let mut pieces = fragments(&whole, self.drawn as u16, 800);
                pieces.reverse();
                for piece in pieces {
                    self.send(host.port, &piece);
                }
            }
            3 => {
                let whole = udp(&scanner, UPLINK_MAC, port, (own(family), port), &[7; 1_500]);
                let pieces = fragments(&whole, self.drawn as u16, 800);
                self.send(UPLINK_PORT, &pieces[1]);
            }
            _ => {
                self.send(UPLINK_PORT, &udp(&scanner, UPLINK_MAC, port, (own(family), port), b"x"));
            }
        }
    }

    /// Time passes as a worker lets it pass; the LAN's router answers when it is asked.
    fn pass_time(&mut self, span: Span) {
        let end = self.world.now + span;
        loop {
            let at = self.world.dp.next_deadline(self.world.now).filter(|at| *at <= end);
            let at = at.unwrap_or(end).max(self.world.now);
            let step = at.since(self.world.now);
            for sent in self.world.advance(step) {
                let question = sent.bytes[12..14] == [8, 6]
                    || sent.bytes[12..14] == [0x86, 0xdd] && sent.bytes[54] == 135;
                if question {
                    let answer = answer_to(&sent, &self.remote);
                    self.world.send(UPLINK_PORT, &answer);
                }
            }
            if at >= end {
                return;
            }
        }
    }

    /// Waits until the last flow is over, and adds up.
    fn end(mut self) -> Report {
        self.pass_time(Span::from_secs(3 * 3_600));
        let left = Footprint { neighbours: 0, ..self.world.dp.footprint() };
        assert_eq!(left, Footprint::default(), "nothing is left");
        let drops = |reason| {
            let inside = self.hosts.iter().map(|host| self.world.dp.drops(host.port, reason));
            inside.sum::<u64>() + self.world.dp.drops(UPLINK_PORT, reason)
        };
        let ignored = drops(DropReason::NeighbourIgnored);
        self.report.dropped = DropReason::all().map(drops).sum::<u64>() - ignored;
        let stats = self.world.dp.worker_stats();
        self.report.evicted = stats.evicted_unanswered + stats.evicted_idle;
        let Report { frames_in, frames_out, errors, dropped, .. } = self.report;
        assert_eq!(frames_in, frames_out - errors + dropped, "every frame: {:?}", self.report);
        self.every_port_is_there();
        self.report
    }

    /// Of the ports that were used most, each can be had again, in either protocol and family.
    fn every_port_is_there(&mut self) {
        let all = 10_000..=10_049;
        let ports = all.clone();
        self.world.change_uplink(|uplink| uplink.nat_ports = ports);
        for family in FAMILIES {
            let (host, to) = (self.hosts[0], destination(family, 0));
            let question = udp(&host, host.router, 1, to, b"x");
            self.world.pass_resolving(host.port, &question, &self.remote);
            self.world.dp.flush_flows(self.world.now, &Default::default());
            self.pass_time(Span::from_secs(3_600));
            for proto in ["udp", "tcp"] {
                let given = all.clone().map(|n| {
                    let sport = 20_000 + n;
                    let frame = match proto {
                        "udp" => udp(&host, host.router, sport, to, b"x"),
                        _ => tcp(&host, host.router, sport, to, "S", (1, 0), b""),
                    };
                    self.world.pass(host.port, &frame).src().1
                });
                let given: BTreeSet<u16> = given.collect();
                assert_eq!(given, all.clone().collect(), "{proto}, {family:?}");
            }
        }
    }
}

fn destination(family: Family, n: u8) -> (IpAddr, u16) {
    match family {
        Family::V4 => ([198, 51, 100, n].into(), 443),
        Family::V6 => {
            (std::net::Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, u16::from(n)).into(), 443)
        }
    }
}

/// Somebody behind the LAN's router.
fn at(router: &Host, addr: IpAddr) -> Host {
    match addr {
        IpAddr::V4(v4) => Host { v4, ..*router },
        IpAddr::V6(v6) => Host { v6, ..*router },
    }
}

fn reply(router: &Host, there: &Sent, to: (IpAddr, u16)) -> Vec<u8> {
    udp(&at(router, to.0), UPLINK_MAC, to.1, there.src(), b"answer")
}
