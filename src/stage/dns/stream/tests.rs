use std::collections::VecDeque;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpCidr};

use super::*;
use crate::base::ids::DomainId;
use crate::base::limits::{NAMES_PIPELINED_MAX, NAMES_STREAM_BACKLOG_MAX};
use crate::base::time::Span;
use crate::packet::ip_link::{Received, Sending};
use crate::packet::{Offload, Scope};
use crate::wire::addr::Addr;

const PORT: PortId = PortId(3);
const MTU: u16 = 1500;

#[derive(Default)]
struct Wire {
    received: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
}

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        Some((Received(self.received.pop_front()?), Sending(&mut self.sent)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU.into();
        capabilities
    }
}

/// A client, and the name server's connections.
struct Scene {
    now: Time,
    interface: Interface,
    sockets: SocketSet<'static>,
    wire: Wire,
    server: Addr,
    streams: Streams,
    queries: Vec<(StreamId, Vec<u8>)>,
    dropped: Vec<DropReason>,
}

impl Scene {
    fn new(v4: bool) -> Self {
        let (client, server) = if v4 { ("10.20.0.2", "10.20.0.1") } else { ("fd20::2", "fd20::1") };
        let [client, server] = [client, server].map(|text| text.parse::<Addr>().unwrap());
        let mut wire = Wire::default();
        let config = Config::new(HardwareAddress::Ip);
        let mut interface = Interface::new(config, &mut wire, Instant::ZERO);
        let net = IpCidr::new(client.ip().into(), 24);
        interface.update_ip_addrs(|addrs| addrs.push(net).unwrap());
        Self {
            now: Time(1_000_000),
            interface,
            sockets: SocketSet::new(Vec::new()),
            wire,
            server,
            streams: Streams::new(Seed(5)),
            queries: Vec::new(),
            dropped: Vec::new(),
        }
    }

    fn connect(&mut self, local: u16) -> SocketHandle {
        let buffer = || SocketBuffer::new(vec![0; 65_536]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        let to = (smoltcp::wire::IpAddress::from(self.server.ip()), 53);
        socket.connect(self.interface.context(), to, local).unwrap();
        let handle = self.sockets.add(socket);
        self.run();
        handle
    }

    fn socket(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut(handle)
    }

    fn send(&mut self, handle: SocketHandle, bytes: &[u8]) {
        assert_eq!(self.socket(handle).send_slice(bytes), Ok(bytes.len()));
        self.run();
    }

    /// Carries packets to and fro until nobody has anything to say.
    fn run(&mut self) {
        loop {
            let at = Instant::from_micros((self.now.0 / 1_000) as i64);
            self.interface.poll(at, &mut self.wire, &mut self.sockets);
            let mut out = StreamOutput::default();
            for packet in std::mem::take(&mut self.wire.sent) {
                self.to_server(&packet, &mut out);
            }
            if !self.take(out) {
                break;
            }
        }
    }

    fn to_server(&mut self, packet: &[u8], out: &mut StreamOutput) {
        let ethertype: u16 = if self.server.is_v4() { 0x0800 } else { 0x86dd };
        let macs = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        let mut frame = [&macs, &ethertype.to_be_bytes()[..], packet].concat();
        // The padding that a short frame has on Ethernet.
        frame.resize(frame.len().max(60), 0xee);
        let mut frame = PacketBuf::new(&frame, Offload::NONE);
        let parsed = Parsed::new(frame.bytes()).unwrap();
        let key = FlowKey::new(&parsed, DomainId(1), Scope::Routed);
        let view = frame.frame();
        let result = self.streams.segment(self.now, (PORT, MTU), (&parsed, &key), &view, out);
        self.dropped.extend(result.err());
    }

    fn take(&mut self, out: StreamOutput) -> bool {
        let any = !out.frames.is_empty();
        self.queries.extend(out.queries.into_iter().map(|(_, id, query)| (id, query)));
        for (port, frame) in out.frames {
            assert_eq!(
                (port, &frame.bytes()[..12]),
                (PORT, &[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1][..])
            );
            self.wire.received.push_back(frame.bytes()[14..].to_vec());
        }
        any
    }

    fn answer(&mut self, id: StreamId, answer: &[u8]) {
        let mut out = StreamOutput::default();
        self.streams.answer(self.now, id, answer, &mut out);
        self.take(out);
        self.run();
    }

    fn received(&mut self, handle: SocketHandle) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let mut buf = [0; 16_384];
            match self.socket(handle).recv_slice(&mut buf) {
                Ok(n) if n > 0 => all.extend_from_slice(&buf[..n]),
                _ => break all,
            }
            self.run();
        }
    }

    fn pass(&mut self, span: Span) {
        let end = self.now + span;
        while let Some(at) = self.streams.next_deadline().filter(|at| *at <= end) {
            self.now = at.max(self.now);
            let mut out = StreamOutput::default();
            self.streams.tick(self.now, &mut out);
            self.take(out);
            self.run();
        }
        self.now = end;
        self.run();
    }
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes(), message].concat()
}

#[test]
fn queries_on_a_connection_are_read_however_they_are_cut_and_answered_in_any_order() {
    for v4 in [true, false] {
        let mut scene = Scene::new(v4);
        let handle = scene.connect(40_000);
        assert_eq!(scene.socket(handle).state(), State::Established);
        let both = [framed(b"first query"), framed(b"second")].concat();
        for piece in both.chunks(3) {
            scene.send(handle, piece);
        }
        let read: Vec<_> = scene.queries.iter().map(|(_, query)| query.clone()).collect();
        assert_eq!(read, [b"first query".to_vec(), b"second".to_vec()]);
        let id = scene.queries[0].0;
        scene.answer(id, b"of the second");
        scene.answer(id, b"of the first");
        let expected = [framed(b"of the second"), framed(b"of the first")].concat();
        assert_eq!(scene.received(handle), expected);
        scene.socket(handle).close();
        scene.run();
        scene.pass(Span::from_secs(1));
        assert!(scene.streams.is_empty(), "v4 {v4}");
        assert!(scene.streams.timers.is_empty() && scene.streams.of_port.is_empty());
        assert_eq!(scene.dropped, []);
    }
}

#[test]
fn the_largest_answer_arrives_whole() {
    let mut scene = Scene::new(true);
    let handle = scene.connect(40_000);
    scene.send(handle, &framed(b"query"));
    let answer: Vec<u8> = (0..u16::MAX).map(|n| (n % 251) as u8).collect();
    let id = scene.queries[0].0;
    scene.answer(id, &answer);
    let mut received = scene.received(handle);
    for _ in 0..100 {
        scene.pass(Span::from_millis(20));
        received.extend(scene.received(handle));
    }
    assert!(received == framed(&answer), "{} bytes", received.len());
}

#[test]
fn a_client_that_closes_its_half_still_gets_its_answer() {
    let mut scene = Scene::new(false);
    let handle = scene.connect(40_000);
    scene.send(handle, &framed(b"query"));
    scene.socket(handle).close();
    scene.run();
    let id = scene.queries[0].0;
    scene.answer(id, b"answer");
    assert_eq!(scene.received(handle), framed(b"answer"));
    scene.pass(Span::from_millis(100));
    assert!(scene.streams.is_empty());
}

#[test]
fn a_slow_reader_stops_itself_and_is_reset() {
    let mut scene = Scene::new(true);
    let handle = scene.connect(40_000);
    for _ in 0..200 {
        let _ = scene.socket(handle).send_slice(&framed(&[7; 300]));
        scene.run();
        while let Some((id, _)) = scene.queries.pop() {
            scene.answer(id, &[9; 4_000]);
        }
    }
    let owed = scene.streams.slab.get(0).unwrap().backlog();
    let most = NAMES_STREAM_BACKLOG_MAX + NAMES_PIPELINED_MAX as usize * 4_002;
    assert!(owed <= most, "{owed} bytes wait for the client");
    assert!(scene.socket(handle).send_queue() > 0, "its queries wait at its own side");
    scene.pass(Span::from_secs(30));
    assert!(scene.streams.is_empty());
}

#[test]
fn only_so_many_queries_of_a_connection_are_under_way() {
    let mut scene = Scene::new(true);
    let handle = scene.connect(40_000);
    for _ in 0..100 {
        scene.send(handle, &framed(b"query"));
    }
    assert_eq!(scene.queries.len(), NAMES_PIPELINED_MAX as usize);
    let id = scene.queries[0].0;
    (0..100).for_each(|_| scene.answer(id, b"answer"));
    assert_eq!(scene.queries.len(), 100);
}

#[test]
fn a_query_that_is_too_long_ends_its_connection() {
    let mut scene = Scene::new(true);
    let handle = scene.connect(40_000);
    scene.send(handle, &[0xff, 0xff, 1, 2, 3]);
    scene.pass(Span::from_millis(100));
    assert!(!scene.socket(handle).is_open());
    assert!(scene.streams.is_empty());
}

#[test]
fn an_idle_connection_is_closed_and_a_half_open_one_forgotten() {
    let mut scene = Scene::new(true);
    let handle = scene.connect(40_000);
    scene.pass(Span::from_secs(11));
    assert_eq!(scene.socket(handle).state(), State::CloseWait);
    scene.pass(Span::from_secs(11));
    assert!(scene.streams.is_empty(), "also if the client does not close its half");
}

#[test]
fn one_port_has_its_share_of_connections() {
    let mut scene = Scene::new(true);
    for n in 0..NAMES_STREAMS_PER_PORT_MAX as u16 {
        let handle = scene.connect(40_000 + n);
        assert_eq!(scene.socket(handle).state(), State::Established);
    }
    scene.connect(50_000);
    assert_eq!(scene.dropped, [DropReason::NameLimit]);
    scene.streams.remove_port(PORT);
    assert!(scene.streams.is_empty() && scene.streams.by_key.is_empty());
    assert!(scene.streams.timers.is_empty() && scene.streams.of_port.is_empty());
}

#[test]
fn a_segment_of_no_connection_is_answered_by_a_reset() {
    for v4 in [true, false] {
        let mut scene = Scene::new(v4);
        let handle = scene.connect(40_000);
        scene.streams.remove_port(PORT);
        scene.send(handle, &framed(b"query"));
        assert!(!scene.socket(handle).is_open());
        assert_eq!(scene.dropped, [DropReason::TcpNoFlow]);
    }
}
