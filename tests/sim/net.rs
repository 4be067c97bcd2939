//! Wires, a LAN, and the order of events. Time passes only here.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use wharf::base::ids::PortId;
use wharf::base::time::{Span, Time};
use wharf::packet::PacketBuf;

use crate::host::Host;
use crate::node::{FOR_EVER, Node};
use crate::rng::Rng;

/// Events of one run; the longest of them takes a tenth of this.
const STEPS_MAX: u64 = 2_000_000;
/// Frames that a switch may find waiting at one port.
const READ_AT_ONCE: usize = 8;

/// How bad the wires are, in permille, and how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quality {
    pub(crate) loss: u64,
    pub(crate) duplicates: u64,
    pub(crate) reordered: u64,
    pub(crate) delay: Span,
}

impl Quality {
    pub(crate) const GOOD: Self =
        Self { loss: 0, duplicates: 0, reordered: 0, delay: Span::from_micros(100) };
    pub(crate) const BAD: Self =
        Self { loss: 10, duplicates: 10, reordered: 30, delay: Span::from_micros(300) };
}

/// Something a wire is plugged into.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Plug {
    Host(usize),
    Node(usize, PortId),
}

type Waiting = (Time, u64, Plug);

/// The whole world.
pub(crate) struct Net {
    pub(crate) now: Time,
    pub(crate) rng: Rng,
    pub(crate) hosts: Vec<Host>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) quality: Quality,
    wires: BTreeMap<Plug, Plug>,
    lan: Vec<Plug>,
    queue: BinaryHeap<Reverse<Waiting>>,
    frames: BTreeMap<u64, PacketBuf>,
    sequence: u64,
    steps: u64,
    /// The last frames that came to switches, for whoever wants to replay them.
    pub(crate) heard: Vec<PacketBuf>,
}

impl Net {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            now: Time(1_000_000_000),
            rng: Rng::new(seed),
            hosts: Vec::new(),
            nodes: Vec::new(),
            quality: Quality::GOOD,
            wires: BTreeMap::new(),
            lan: Vec::new(),
            queue: BinaryHeap::new(),
            frames: BTreeMap::new(),
            sequence: 0,
            steps: 0,
            heard: Vec::new(),
        }
    }

    pub(crate) fn wire(&mut self, one: Plug, two: Plug) {
        self.wires.insert(one, two);
        self.wires.insert(two, one);
    }

    pub(crate) fn on_lan(&mut self, plug: Plug) {
        self.lan.push(plug);
    }

    /// Sends a frame into the wire at `from`.
    pub(crate) fn send(&mut self, from: Plug, frame: &PacketBuf) {
        if let Some(to) = self.wires.get(&from).copied() {
            self.carry(to, frame);
        } else if self.lan.contains(&from) {
            for to in self.lan.clone().into_iter().filter(|to| *to != from) {
                self.carry(to, frame);
            }
        }
    }

    fn carry(&mut self, to: Plug, frame: &PacketBuf) {
        let quality = self.quality;
        if self.rng.permille(quality.loss) {
            return;
        }
        let copies = if self.rng.permille(quality.duplicates) { 2 } else { 1 };
        for _ in 0..copies {
            let mut delay = quality.delay.0;
            if self.rng.permille(quality.reordered) {
                delay += self.rng.below(5 * quality.delay.0);
            }
            self.sequence += 1;
            self.frames.insert(self.sequence, frame.clone());
            self.queue.push(Reverse((self.now + Span(delay), self.sequence, to)));
        }
    }

    /// Goes on until all programs have done what they should, or `limit` has passed.
    pub(crate) fn run(&mut self, limit: Span) {
        let end = self.now + limit;
        while !self.hosts.iter().all(Host::is_done) {
            assert!(self.now < end && self.step(), "not done in time: {:#?}", self.report());
        }
    }

    /// Goes on for so long, whatever happens.
    pub(crate) fn run_for(&mut self, span: Span) {
        let end = self.now + span;
        while self.next().is_some_and(|at| at < end) {
            self.step();
        }
        self.now = end;
    }

    /// Lets all that was remembered end, and sees that it has.
    pub(crate) fn settle(&mut self) {
        self.queue.clear();
        self.frames.clear();
        self.hosts.clear();
        let end = self.now + FOR_EVER;
        while let Some(at) = self.next().filter(|at| *at < end) {
            self.now = at.max(self.now);
            self.tick_nodes();
            self.count_step();
        }
        self.nodes.iter().for_each(Node::assert_empty);
    }

    fn next(&self) -> Option<Time> {
        let frame = self.queue.peek().map(|Reverse((at, ..))| *at);
        let hosts = self.hosts.iter().filter_map(Host::next_poll);
        let nodes = self.nodes.iter().filter_map(|node| node.deadline(self.now));
        frame.into_iter().chain(hosts).chain(nodes).min()
    }

    fn step(&mut self) -> bool {
        let Some(at) = self.next() else { return false };
        self.now = at.max(self.now);
        self.count_step();
        self.deliver();
        self.poll_hosts();
        self.tick_nodes();
        true
    }

    fn count_step(&mut self) {
        self.steps += 1;
        assert!(self.steps < STEPS_MAX, "it never ends: {:#?}", self.report());
    }

    fn deliver(&mut self) {
        let mut arrived: BTreeMap<Plug, Vec<PacketBuf>> = BTreeMap::new();
        while self.queue.peek().is_some_and(|Reverse((at, ..))| *at <= self.now) {
            let Some(Reverse((_, number, to))) = self.queue.pop() else { break };
            let frame = self.frames.remove(&number).expect("each is delivered once");
            arrived.entry(to).or_default().push(frame);
        }
        for (to, frames) in arrived {
            match to {
                Plug::Host(host) => {
                    for frame in frames {
                        self.hosts[host].receive(self.now, frame);
                    }
                }
                Plug::Node(node, port) => {
                    for some in frames.chunks(READ_AT_ONCE) {
                        self.heard.extend(some.first().cloned());
                        let sent = self.nodes[node].receive(self.now, port, some);
                        self.send_all(node, sent);
                    }
                    let old = self.heard.len().saturating_sub(32);
                    self.heard.drain(..old);
                }
            }
        }
    }

    pub(crate) fn send_all(&mut self, node: usize, sent: Vec<(PortId, PacketBuf)>) {
        for (port, frame) in sent {
            self.send(Plug::Node(node, port), &frame);
        }
    }

    fn poll_hosts(&mut self) {
        for host in 0..self.hosts.len() {
            if self.hosts[host].next_poll().is_some_and(|at| at <= self.now) {
                for frame in self.hosts[host].poll(self.now) {
                    self.send(Plug::Host(host), &frame);
                }
            }
        }
    }

    fn tick_nodes(&mut self) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].deadline(self.now).is_some_and(|at| at <= self.now) {
                let sent = self.nodes[node].tick(self.now);
                self.send_all(node, sent);
            }
        }
    }

    fn report(&self) -> Vec<String> {
        let hosts = self.hosts.iter().enumerate().flat_map(|(n, host)| {
            host.unfinished_programs().into_iter().map(move |p| format!("host {n}: {p}"))
        });
        let nodes =
            self.nodes.iter().map(|node| format!("node {}: {:?}", node.number, node.drops()));
        hosts.chain(nodes).chain([format!("{} steps, now {:?}", self.steps, self.now)]).collect()
    }
}
