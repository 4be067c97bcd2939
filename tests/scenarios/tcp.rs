//! TCP connections as the switch follows them.

use wharf::base::time::Span;
use wharf::packet::DropReason;
use wharf::wire::addr::Family;

use crate::world::*;

/// A masqueraded connection, seen from both ends.
struct Connection {
    world: World,
    a: Host,
    remote: Host,
    family: Family,
    /// Where the remote host sees it come from.
    seen: (std::net::IpAddr, u16),
}

const CLIENT: u16 = 5_000;
const SERVER: u16 = 80;

impl Connection {
    fn new(family: Family) -> Self {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (a, remote) = (world.endpoint(net), world.uplink());
        let mut it = Self { world, a, remote, family, seen: (own(family), CLIENT) };
        it.handshake(100, 7);
        it
    }

    fn handshake(&mut self, client: u32, server: u32) {
        let syn = self.from_client("S", (client, 0), b"");
        let there = self.world.pass_resolving(self.a.port, &syn, &self.remote);
        self.seen = there.src();
        self.answer("SA", (server, client + 1), b"");
        self.ask("A", (client + 1, server + 1), b"");
    }

    fn from_client(&self, flags: &str, numbers: (u32, u32), payload: &[u8]) -> Vec<u8> {
        let to = (self.remote.addr(self.family), SERVER);
        tcp(&self.a, self.a.router, CLIENT, to, flags, numbers, payload)
    }

    fn from_server(&self, flags: &str, numbers: (u32, u32), payload: &[u8]) -> Vec<u8> {
        tcp(&self.remote, UPLINK_MAC, SERVER, self.seen, flags, numbers, payload)
    }

    fn ask(&mut self, flags: &str, numbers: (u32, u32), payload: &[u8]) -> Sent {
        let frame = self.from_client(flags, numbers, payload);
        let sent = self.world.pass(self.a.port, &frame);
        assert_eq!(sent.port, UPLINK_PORT);
        sent
    }

    fn answer(&mut self, flags: &str, numbers: (u32, u32), payload: &[u8]) -> Sent {
        let frame = self.from_server(flags, numbers, payload);
        let sent = self.world.pass(UPLINK_PORT, &frame);
        assert_eq!(sent.port, self.a.port);
        sent
    }

    fn state(&self) -> String {
        let flows = self.world.dp.list_flows(self.world.now, &Default::default());
        assert_eq!(flows.len(), 1);
        flows[0].state.clone()
    }
}

#[test]
fn a_blind_reset_does_not_end_a_connection() {
    for family in FAMILIES {
        let mut c = Connection::new(family);
        for seq in [100_000, 1_000_000, 3_000_000_000] {
            let forged = c.from_server("R", (seq, 0), b"");
            c.world.dropped(UPLINK_PORT, &forged, DropReason::TcpWindow);
        }
        c.answer("R", (8 + 30_000, 0), b""); // In the window: the container will challenge it (RFC 5961).
        assert_eq!(c.state(), "established");
        c.answer("A", (8, 101), b"data");
        c.ask("A", (101, 12), b"more");
    }
}

#[test]
fn a_true_reset_ends_it_and_the_same_ports_serve_a_new_connection() {
    for family in FAMILIES {
        let mut c = Connection::new(family);
        c.answer("RA", (8, 101), b"");
        assert_eq!(c.state(), "reset");
        let seen = c.seen;
        c.handshake(500_000, 900_000);
        assert_eq!((c.state().as_str(), c.seen), ("established", seen));
        c.ask("A", (500_001, 900_001), b"again");
    }
}

#[test]
fn after_a_graceful_end_the_same_ports_serve_a_new_connection() {
    for family in FAMILIES {
        let mut c = Connection::new(family);
        c.ask("FA", (101, 8), b"");
        assert_eq!(c.state(), "fin-initiator");
        c.answer("A", (8, 102), b"last words");
        c.answer("FA", (18, 102), b"");
        c.ask("A", (102, 19), b"");
        assert_eq!(c.state(), "closed");
        c.handshake(700_000, 30);
        assert_eq!(c.state(), "established");
        c.world.advance(Span::from_secs(1_000));
        assert_eq!(c.state(), "established");
    }
}

#[test]
fn a_segment_that_belongs_to_nothing_is_dropped_by_name() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (a, b) = (world.endpoint(net), world.endpoint(net));
        for (flags, reason) in [
            ("SA", DropReason::TcpNoFlow),
            ("R", DropReason::TcpNoFlow),
            ("SF", DropReason::TcpFlags),
            ("", DropReason::TcpFlags),
            ("SR", DropReason::TcpFlags),
        ] {
            let frame = tcp(&a, b.mac, 1, (b.addr(family), 2), flags, (1, 1), b"");
            world.dropped(a.port, &frame, reason);
        }
        assert_eq!(world.dp.worker_stats().flows, 0);
    }
}

#[test]
fn a_connection_older_than_the_daemon_goes_on() {
    for family in FAMILIES {
        let mut c = Connection::new(family);
        c.ask("A", (101, 8), b"before");
        // A daemon that was started again has the same configuration and no flows.
        c.world.dp.flush_flows(c.world.now, &Default::default());
        let sent = c.ask("A", (107, 8), b"after");
        assert_eq!(sent.src(), c.seen, "under the same port");
        c.answer("A", (8, 112), b"and back");
        assert_eq!(c.state(), "established");
    }
}

#[test]
fn a_connection_older_than_the_daemon_is_dropped_by_name_where_policy_says_so() {
    for family in FAMILIES {
        let mut c = Connection::new(family);
        c.world.dp.flush_flows(c.world.now, &Default::default());
        c.world.dp.set_pick_up(false);
        let frame = c.from_client("A", (101, 8), b"after");
        c.world.dropped(c.a.port, &frame, DropReason::TcpNoFlow);
        assert_eq!(c.world.dp.footprint().flows, 0);
        c.handshake(1_000, 77);
        assert_eq!(c.state(), "established", "and may begin anew");
    }
}

#[test]
fn a_syn_to_a_smaller_way_out_offers_smaller_segments() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (a, remote) = (world.endpoint(net), world.uplink_with_mtu(1_280));
        let headers = if family == Family::V4 { 40 } else { 60 };
        let offer = |from: &Host, via, sport, to: (std::net::IpAddr, u16), ack: bool| {
            let builder =
                ip(from, via, from.addr(family), to.0, 64).tcp(sport, to.1, 1, 64_000).syn();
            let builder = if ack { builder.ack(2) } else { builder };
            let options = [etherparse::TcpOptionElement::MaximumSegmentSize(1_460)];
            let mut frame = Vec::new();
            builder.options(&options).unwrap().write(&mut frame, &[]).unwrap();
            frame
        };
        let mss = |sent: &Sent| {
            let at = 14 + headers;
            assert_eq!(sent.bytes[at..at + 2], [2, 4]);
            u16::from_be_bytes([sent.bytes[at + 2], sent.bytes[at + 3]])
        };
        let syn = offer(&a, a.router, 9, (remote.addr(family), 80), false);
        let there = world.pass_resolving(a.port, &syn, &remote);
        assert_eq!(usize::from(mss(&there)), 1_280 - headers);
        there.assert_checksums();
        let reply = offer(&remote, UPLINK_MAC, 80, there.src(), true);
        let back = world.pass(UPLINK_PORT, &reply);
        assert_eq!(usize::from(mss(&back)), 1_280 - headers, "what comes back must fit, too");
        back.assert_checksums();
    }
}
