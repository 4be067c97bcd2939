//! Container, flow machines and host sockets under one clock.

use smoltcp::socket::tcp::State;
use smoltcp::wire::IpAddress;
use wharf::base::hash::Seed;
use wharf::base::ids::{DomainId, PortId};
use wharf::base::time::{Span, Time};
use wharf::packet::split::Segments;
use wharf::packet::{
    FlowKey, FrameBatch, FrameMut, Gso, L3, Offload, PacketBuf, Parsed, Scope, finish,
};
use wharf::stage::respond::{arp, ndp};
use wharf::stage::sockets::{
    Delivery, FrameSlot, Inside as Plug, Link as Macs, ListenerId, Published, SockAddr,
    SocketEvent, SocketFlows, SocketId, SocketOutput, Target, TcpState,
};
use wharf::wire::addr::Addr;
use wharf::wire::mac::Mac;

use crate::Dice;
use crate::host::{Host, Life};
use crate::inside::{INSIDE, Inside, Link};

const GATEWAY: Mac = Mac([2, 66, 172, 17, 0, 1]);
const SERVICE: u16 = 80;
/// First port of the peers: one each connection.
const PEERS: u16 = 20_000;
/// No scenario takes so long, in virtual time.
const PATIENCE: Time = Time(1_200_000_000_000);

/// How connections end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// Both send all they have and close their half.
    Close,
    /// The peer resets in the middle.
    PeerResets,
    /// The container does.
    ContainerResets,
}

/// What is tried.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is one thing that is tried")]
pub(crate) struct Scenario {
    pub v4: bool,
    /// Clients come to a published port, or the container connects.
    pub(crate) inbound: bool,
    pub(crate) connections: usize,
    /// Bytes from the container, and to it.
    pub(crate) bytes: [usize; 2],
    /// Per mille.
    pub(crate) loss: u64,
    pub(crate) duplication: u64,
    pub(crate) reordering: u64,
    /// The same, of what the container sends only.
    pub(crate) reordering_out: u64,
    pub(crate) host_buffers: [usize; 2],
    pub(crate) inside_buffers: usize,
    pub(crate) slow: bool,
    pub(crate) end: End,
    pub(crate) refuse: bool,
}

/// How far both applications of one connection are.
#[derive(Clone, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is one thing that has happened")]
struct Progress {
    inside_sent: usize,
    inside_got: usize,
    inside_ended: bool,
    inside_closed: bool,
    peer_sent: usize,
    peer_got: usize,
    peer_ended: bool,
    reset: bool,
}

pub(crate) struct World {
    dice: Dice,
    scenario: Scenario,
    now: Time,
    flows: SocketFlows,
    out: SocketOutput,
    host: Host,
    inside: Inside,
    to_inside: Link,
    from_inside: Link,
    progress: Vec<Progress>,
    /// Bytes of streams in all segments that the container has sent.
    payload: usize,
    batch: FrameBatch,
    received: FrameBatch,
}

fn byte(connection: usize, direction: usize, at: usize) -> u8 {
    let n =
        (at as u64).wrapping_add((connection as u64) << 40).wrapping_add((direction as u64) << 50);
    (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

fn stream(connection: usize, direction: usize, from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(|at| byte(connection, direction, at)).collect()
}

impl World {
    pub(crate) fn new(dice: Dice, scenario: Scenario) -> Self {
        let s = &scenario;
        let outside: Addr = if s.v4 { "192.0.2.7" } else { "2001:db8::7" }.parse().unwrap();
        let client = SockAddr { addr: outside, port: 0 };
        let mut host = Host::new(s.host_buffers, s.refuse, client);
        let mut inside = Inside::new(s.v4);
        let mut flows = SocketFlows::new(Seed(dice.0));
        for n in 0..s.connections {
            let peer = PEERS + n as u16;
            if s.inbound {
                inside.listen(s.inside_buffers, SERVICE);
                host.backlog.push_back(peer);
            } else {
                let to = IpAddress::from(outside.ip());
                inside.connect(s.inside_buffers, (to, peer), 50_000 + n as u16);
            }
        }
        let listener = ListenerId(1);
        flows.publish_tcp(Published { listener, target: target().into(), port: SERVICE });
        let link = |reordering| Link::new(s.loss, s.duplication, reordering);
        Self {
            now: Time(1_000_000_000),
            flows,
            out: SocketOutput::default(),
            host,
            inside,
            to_inside: link(s.reordering),
            from_inside: link(s.reordering + s.reordering_out),
            payload: 0,
            progress: vec![Progress::default(); s.connections],
            batch: FrameBatch::new(),
            received: FrameBatch::new(),
            dice,
            scenario,
        }
    }

    pub(crate) fn run(mut self) {
        if self.scenario.inbound {
            self.event(SocketEvent::Incoming { listener: ListenerId(1) });
        }
        while !self.done() {
            self.now = self.now + Span::from_millis(1);
            if self.now >= PATIENCE {
                self.stuck();
            }
            self.step();
        }
        self.check();
    }

    fn stuck(&mut self) -> ! {
        for n in 0..self.scenario.connections {
            let socket = self.inside.socket(n);
            println!("inside: {} to send {}", socket.state(), socket.send_queue());
        }
        for flow in self.flows.tcp_flows() {
            println!("{flow:?}");
        }
        panic!("stuck: {:?}\n{:?}", self.progress, self.scenario);
    }

    fn step(&mut self) {
        self.inside.poll(self.now);
        while let Some(frame) = self.inside.port.from_stack.pop_front() {
            self.from_inside.send(self.now, &mut self.dice, &frame);
        }
        self.frames();
        self.peers();
        while let Some(told) = self.host.told.pop_front() {
            self.event(self.host.event(told));
        }
        self.flows.tick(self.now, &mut self.out);
        self.work();
        while let Some(frame) = self.to_inside.arrive(self.now) {
            self.inside.port.to_stack.push_back(frame);
        }
        self.inside.poll(self.now);
        for n in 0..self.scenario.connections {
            self.application(n);
        }
    }

    fn event(&mut self, event: SocketEvent<'_>) {
        self.flows.event(self.now, event, &mut self.out);
        self.flows.flush(self.now, &mut self.out);
        self.work();
    }

    /// What the container sent goes into the flow machines, several frames a batch.
    fn frames(&mut self) {
        loop {
            self.batch.clear();
            while self.batch.len() < 16
                && let Some(frame) = self.from_inside.arrive(self.now)
            {
                if !self.answered(&frame) {
                    assert!(self.batch.push(&frame, Offload::NONE));
                }
            }
            if self.batch.is_empty() {
                return;
            }
            for n in 0..self.batch.len() {
                let parsed = Parsed::new(self.batch.bytes(n)).unwrap();
                let plug = Plug {
                    port: PortId(3),
                    key: FlowKey::new(&parsed, DomainId(1), Scope::Routed),
                    mtu: 1500,
                    gateway: None,
                    redirect: None,
                    assembled: false,
                };
                let (frame, slot) = (self.batch.frame(n), FrameSlot(n as u16));
                let l4 = parsed.l4_bytes(frame.bytes());
                self.payload += l4.len() - usize::from(l4[12] >> 4) * 4;
                let flows = &mut self.flows;
                let _ = flows.frame(self.now, &plug, &parsed, &frame, slot, &mut self.out);
            }
            self.flows.flush(self.now, &mut self.out);
            self.work();
        }
    }

    /// Whether the frame was a question about the gateway's MAC; answered without loss.
    fn answered(&mut self, frame: &[u8]) -> bool {
        let parsed = Parsed::new(frame).unwrap();
        let mut buf = PacketBuf::new(frame, Offload::NONE);
        if parsed.l3 == L3::Arp {
            if arp::question(frame).is_ok_and(|question| question.is_some()) {
                arp::answer(&mut buf.frame(), GATEWAY);
                self.inside.port.to_stack.push_back(buf.bytes().to_vec());
            }
            return true;
        }
        if !matches!(parsed.proto, 1 | 58) {
            return false;
        }
        if ndp::question(frame, &parsed).is_ok_and(|question| question.is_some()) {
            ndp::answer(&mut buf.frame(), GATEWAY, true);
            finish::finish_checksum(&mut buf.frame());
            self.inside.port.to_stack.push_back(buf.bytes().to_vec());
        }
        true
    }

    /// Executes calls until there are none.
    fn work(&mut self) {
        loop {
            let calls = std::mem::take(&mut self.out.calls);
            self.deliver();
            if calls.is_empty() {
                break;
            }
            for call in &calls {
                let event = self.host.execute(call, &self.out, &self.batch, &mut self.received);
                if let Some(event) = event {
                    self.flows.event(self.now, event, &mut self.out);
                }
                self.deliver();
            }
            self.flows.flush(self.now, &mut self.out);
        }
        self.out.clear();
    }

    fn deliver(&mut self) {
        for delivery in std::mem::take(&mut self.out.deliveries) {
            let mut owned = match delivery {
                Delivery::Slot { slot, .. } => self.received.frame(usize::from(slot.0)).to_owned(),
                Delivery::Made { frame, .. } => PacketBuf::new(frame.bytes(), frame.offload),
            };
            let parsed = Parsed::new(owned.bytes()).unwrap();
            let (link, dice, now) = (&mut self.to_inside, &mut self.dice, self.now);
            let mut send = |frame: &FrameMut<'_>| link.send(now, dice, frame.bytes());
            if owned.offload().gso == Gso::None {
                finish::finish_checksum(&mut owned.frame());
                send(&owned.frame());
            } else {
                let mut segments = Segments::new(owned.frame(), &parsed).unwrap();
                while let Some(segment) = segments.next() {
                    send(&segment);
                }
            }
        }
    }

    /// The peers write and read, and end as the scenario says.
    fn peers(&mut self) {
        let streams: Vec<_> = self.host.streams.iter().map(|(t, s)| (*t, s.port)).collect();
        for (token, port) in streams {
            let (socket, n) = (SocketId::from_token(token), usize::from(port - PEERS));
            let (slow, total) = (self.scenario.slow, self.scenario.bytes[1]);
            let progress = &mut self.progress[n];
            let left = total - progress.peer_sent;
            let most = self.dice.below(20_000) as usize;
            let bytes = stream(n, 1, progress.peer_sent, left.min(most));
            progress.peer_sent += self.host.peer_writes(socket, &bytes);
            if progress.peer_sent == total {
                self.host.peer_shuts_down(socket);
            }
            let most = if slow { self.dice.below(200) } else { self.dice.below(50_000) } as usize;
            let most = if slow && self.dice.chance(950) { 0 } else { most };
            let (got, ended) = self.host.peer_reads(socket, most);
            let wanted = stream(n, 0, progress.peer_got, got.len());
            assert!(got == wanted, "bytes to the peer differ near {}", progress.peer_got);
            progress.peer_got += got.len();
            progress.peer_ended |= ended;
            let middle = progress.peer_sent > total / 2 || progress.peer_got > 1000;
            if self.scenario.end == End::PeerResets && middle && self.dice.chance(100) {
                progress.reset = true;
                self.host.peer_resets(socket);
            }
        }
    }

    /// The application in the container writes and reads, and ends as the scenario says.
    fn application(&mut self, n: usize) {
        let (progress, total) = (&mut self.progress[n], self.scenario.bytes[0]);
        let socket = self.inside.socket(n);
        // With several listeners the kernel chooses which socket takes which client.
        let n = match socket.remote_endpoint() {
            Some(remote) => usize::from(remote.port.saturating_sub(PEERS)),
            None => n,
        };
        if socket.may_send() && !progress.inside_closed {
            let most = self.dice.below(20_000) as usize;
            let left = total - progress.inside_sent;
            let bytes = stream(n, 0, progress.inside_sent, left.min(most));
            progress.inside_sent += socket.send_slice(&bytes).unwrap();
            // Not before all is acknowledged: in LAST-ACK smoltcp 0.14 takes no window update any more.
            if progress.inside_sent == total && socket.send_queue() == 0 {
                progress.inside_closed = true;
                socket.close();
            }
        }
        let most = if self.scenario.slow { self.dice.below(200) } else { 100_000 } as usize;
        let mut buf = vec![0; if self.scenario.slow && self.dice.chance(950) { 0 } else { most }];
        if socket.can_recv()
            && let Ok(got) = socket.recv_slice(&mut buf)
        {
            let wanted = stream(n, 1, progress.inside_got, got);
            assert!(
                buf[..got] == wanted,
                "bytes to the container differ near {}",
                progress.inside_got
            );
            progress.inside_got += got;
        }
        let state = socket.state();
        let over =
            matches!(state, State::CloseWait | State::LastAck | State::Closing | State::TimeWait);
        progress.inside_ended |= over && !socket.can_recv();
        let middle = progress.inside_sent > total / 2 || progress.inside_got > 1000;
        let established = socket.remote_endpoint().is_some() && socket.may_send();
        if self.scenario.end == End::ContainerResets
            && established
            && middle
            && self.dice.chance(100)
        {
            progress.reset = true;
            socket.abort();
        }
    }

    fn done(&mut self) -> bool {
        if self.now < Time(1_050_000_000) {
            return false;
        }
        let flows = self.flows.tcp_flows().filter(|f| f.state() != TcpState::Closed).count();
        let over = |socket: &mut smoltcp::socket::tcp::Socket<'_>| {
            matches!(socket.state(), State::Closed | State::TimeWait | State::Listen)
        };
        let closed = (0..self.scenario.connections).all(|n| over(self.inside.socket(n)));
        // Bytes that the kernel still has for the peer are delivered after `close`.
        let delivered = self.progress.iter().all(|p| (p.peer_ended && p.inside_ended) || p.reset);
        flows == 0
            && closed
            && (delivered || self.scenario.end != End::Close || self.scenario.refuse)
    }

    fn check(&mut self) {
        assert_eq!(self.flows.counts(), [0, 0, 0]);
        assert_eq!(self.flows.next_deadline(), None, "a timer outlived its flow");
        if self.scenario.refuse {
            assert!(self.host.streams.is_empty());
            return;
        }
        assert_eq!(self.host.streams.len(), self.scenario.connections);
        for stream in self.host.streams.values() {
            let clean = stream.life == Life::Closed;
            assert!(
                clean || self.scenario.end != End::Close,
                "{:?} {:?}",
                stream.life,
                self.scenario
            );
        }
        let s = &self.scenario;
        if s.loss + s.duplication + s.reordering == 0 && s.end == End::Close {
            let stats = self.flows.stats();
            assert_eq!(self.payload, s.bytes[0] * s.connections, "sent again: {stats:?}");
            assert_eq!((stats.tcp_not_held, stats.tcp_gaps_lost, stats.tcp_not_taken), (0, 0, 0));
            assert!(s.reordering_out == 0 || stats.tcp_out_of_order > 0, "nothing was reordered");
        }
        assert_eq!(self.flows.held_bytes(), 0);
        if self.scenario.end == End::Close {
            for (n, p) in self.progress.iter().enumerate() {
                assert_eq!([p.peer_got, p.inside_got], self.scenario.bytes, "connection {n}");
                assert!(p.peer_ended && p.inside_ended, "connection {n}: {p:?}");
            }
        }
    }
}

fn target() -> Target {
    let addr = |text: &str| Some(text.parse().unwrap());
    Target {
        port: PortId(3),
        domain: DomainId(1),
        link: Macs { inside: INSIDE, gateway: GATEWAY },
        addrs: [addr("172.17.0.2"), addr("fd00::2")],
        gateways: [addr("172.17.0.1"), addr("fd00::1")],
        subnets: vec![],
        mtu: 1500,
    }
}
