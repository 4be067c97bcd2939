//! A masquerading uplink between two containers and a LAN, and the questions that requirements ask.

use std::net::IpAddr;

use wharf::base::ids::NetworkId;
use wharf::base::time::Span;
use wharf::stage::flow::Behaviour;
use wharf::wire::addr::Family;

use crate::world::*;

/// A socket as somebody sees it.
pub(crate) type Socket = (IpAddr, u16);

pub(crate) struct Nat {
    pub(crate) world: World,
    pub(crate) net: NetworkId,
    pub(crate) a: Host,
    pub(crate) b: Host,
    pub(crate) remote: Host,
    pub(crate) family: Family,
}

/// Runs a test in both families.
pub(crate) fn in_both(test: impl Fn(Nat)) {
    for family in FAMILIES {
        test(Nat::new(family));
    }
}

/// Runs a test of what only IPv4 has.
pub(crate) fn in_v4(test: impl Fn(Nat)) {
    test(Nat::new(Family::V4));
}

/// Seconds.
pub(crate) const fn secs(n: u64) -> Span {
    Span::from_secs(n)
}

impl Nat {
    pub(crate) fn new(family: Family) -> Self {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (a, b) = (world.endpoint(net), world.endpoint(net));
        let remote = world.uplink();
        Self { world, net, a, b, remote, family }
    }

    /// The uplink behaves otherwise from now on.
    pub(crate) fn behave(&mut self, change: impl FnOnce(&mut Behaviour)) {
        self.world.change_uplink(|uplink| change(&mut uplink.nat));
    }

    /// Another host of the LAN.
    pub(crate) fn other(&self, n: u8) -> Host {
        let mut v6 = self.remote.v6.octets();
        v6[15] = 100 + n;
        Host { v4: [192, 0, 2, 100 + n].into(), v6: v6.into(), ..self.remote }
    }

    pub(crate) fn at(&self, host: &Host, port: u16) -> Socket {
        (host.addr(self.family), port)
    }

    pub(crate) fn own(&self) -> IpAddr {
        own(self.family)
    }

    /// A datagram from a container's socket to one outside, and how it arrives there.
    pub(crate) fn out(&mut self, from: Host, sport: u16, to: Host, port: u16) -> Sent {
        let frame = udp(&from, from.router, sport, self.at(&to, port), b"out");
        let sent = self.world.pass_resolving(from.port, &frame, &to);
        assert_eq!(sent.port, UPLINK_PORT);
        sent.assert_checksums();
        sent
    }

    /// A datagram from outside to one of our outside sockets; what of it reaches a container.
    pub(crate) fn answer(&mut self, from: Host, sport: u16, to: Socket) -> Option<Sent> {
        let frame = udp(&from, UPLINK_MAC, sport, to, b"in");
        self.inside(&frame)
    }

    /// What of a frame from outside reaches a container.
    pub(crate) fn inside(&mut self, frame: &[u8]) -> Option<Sent> {
        let mut sent = self.world.send(UPLINK_PORT, frame);
        sent.retain(|sent| sent.port != UPLINK_PORT);
        assert!(sent.len() <= 1, "{sent:?}");
        sent.iter().for_each(Sent::assert_checksums);
        sent.pop()
    }

    /// Lets time pass as a worker does: whatever is due happens when it is due.
    pub(crate) fn wait(&mut self, span: Span) {
        let end = self.world.now + span;
        while let Some(at) = self.world.dp.next_deadline(self.world.now) {
            if at > end {
                break;
            }
            let step = at.since(self.world.now);
            self.world.advance(step);
        }
        let rest = end.since(self.world.now);
        self.world.advance(rest);
    }

    /// A TCP segment from a container, and how it arrives outside.
    pub(crate) fn tcp_out(
        &mut self,
        (from, sport): (Host, u16),
        (to, port): (Host, u16),
        flags: &str,
        numbers: (u32, u32),
    ) -> Sent {
        let frame = tcp(&from, from.router, sport, self.at(&to, port), flags, numbers, b"");
        let sent = self.world.pass_resolving(from.port, &frame, &to);
        sent.assert_checksums();
        sent
    }

    /// A TCP segment from outside; what of it reaches a container.
    pub(crate) fn tcp_in(
        &mut self,
        (from, sport): (Host, u16),
        to: Socket,
        flags: &str,
        numbers: (u32, u32),
    ) -> Option<Sent> {
        let frame = tcp(&from, UPLINK_MAC, sport, to, flags, numbers, b"");
        self.inside(&frame)
    }

    /// A whole handshake from `a`'s port 5000 to the remote's 80, sequence numbers 100 and 700; how `a`
    /// is seen.
    pub(crate) fn connected(&mut self) -> Socket {
        let (a, remote) = ((self.a, 5_000), (self.remote, 80));
        let seen = self.tcp_out(a, remote, "S", (100, 0)).src();
        assert!(self.tcp_in(remote, seen, "SA", (700, 101)).is_some());
        self.tcp_out(a, remote, "A", (101, 701));
        assert_eq!(self.state(), "established");
        seen
    }

    /// Whether data of that connection still pass in both directions.
    #[track_caller]
    pub(crate) fn assert_connected(&mut self, seen: Socket) {
        let remote = (self.remote, 80);
        assert!(self.tcp_in(remote, seen, "A", (701, 101)).is_some());
        assert_eq!(self.tcp_out((self.a, 5_000), remote, "A", (101, 701)).src(), seen);
        assert_eq!(self.state(), "established");
    }

    /// The state of the only TCP flow.
    pub(crate) fn state(&self) -> String {
        let flows = self.world.dp.list_flows(self.world.now, &Default::default());
        let mut tcp = flows.into_iter().filter(|flow| flow.proto == "tcp");
        let state = tcp.next().map(|flow| flow.state).unwrap_or_default();
        assert!(tcp.next().is_none(), "one flow");
        state
    }

    /// Identifier of an echo message.
    pub(crate) fn id(&self, sent: &Sent) -> u16 {
        let at = self.l4() + 4;
        u16::from_be_bytes([sent.bytes[at], sent.bytes[at + 1]])
    }

    /// Where the transport header begins.
    pub(crate) fn l4(&self) -> usize {
        14 + self.ip_len()
    }

    pub(crate) fn ip_len(&self) -> usize {
        if self.family == Family::V4 { 20 } else { 40 }
    }

    /// An echo request from a container, and how it arrives outside.
    pub(crate) fn ping_out(&mut self, from: Host, to: Host, id: u16) -> Sent {
        let frame = ping(&from, from.router, to.addr(self.family), id, b"hello");
        let sent = self.world.pass_resolving(from.port, &frame, &to);
        sent.assert_checksums();
        sent
    }

    /// An echo reply from outside to an identifier of ours; what of it reaches a container.
    pub(crate) fn pong(&mut self, from: Host, id: u16) -> Option<Sent> {
        let builder = ip(&from, UPLINK_MAC, from.addr(self.family), self.own(), 64);
        let mut frame = Vec::new();
        if self.family == Family::V4 {
            builder.icmpv4_echo_reply(id, 1).write(&mut frame, b"hello").unwrap();
        } else {
            builder.icmpv6_echo_reply(id, 1).write(&mut frame, b"hello").unwrap();
        }
        self.inside(&frame)
    }

    /// An ICMP error from outside about a packet that left, which it quotes. `kind` is that of IPv4 and
    /// of IPv6.
    pub(crate) fn error(&self, from: &Host, kind: Kind, quote: &[u8]) -> Vec<u8> {
        icmp_error(self.family, (from, UPLINK_MAC, self.own()), kind, quote)
    }
}

/// Type and code in both families, and the four bytes after the checksum.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) v4: (u8, u8),
    pub(crate) v6: (u8, u8),
    pub(crate) rest: [u8; 4],
}

impl Kind {
    pub(crate) fn of(self, family: Family) -> (u8, u8) {
        if family == Family::V4 { self.v4 } else { self.v6 }
    }
}

pub(crate) const HOST_UNREACHABLE: Kind = Kind { v4: (3, 1), v6: (1, 3), rest: [0; 4] };
pub(crate) const PORT_UNREACHABLE: Kind = Kind { v4: (3, 3), v6: (1, 4), rest: [0; 4] };
pub(crate) const PROHIBITED: Kind = Kind { v4: (3, 13), v6: (1, 1), rest: [0; 4] };
pub(crate) const TIME_EXCEEDED: Kind = Kind { v4: (11, 0), v6: (3, 0), rest: [0; 4] };
/// MTU 1280 in both families' places.
pub(crate) const TOO_BIG: Kind = Kind { v4: (3, 4), v6: (2, 0), rest: [0, 0, 5, 0] };

/// All that a requirement about "any ICMP message" is tried with.
pub(crate) const ERRORS: [Kind; 6] = [
    Kind { v4: (3, 0), v6: (1, 0), rest: [0; 4] },
    HOST_UNREACHABLE,
    Kind { v4: (3, 2), v6: (4, 1), rest: [0; 4] },
    PORT_UNREACHABLE,
    TOO_BIG,
    TIME_EXCEEDED,
];

/// An ICMP error `from` a host, by way of a MAC, `to` an address.
pub(crate) fn icmp_error(
    family: Family,
    (from, via, to): (&Host, wharf::wire::mac::Mac, IpAddr),
    kind: Kind,
    quote: &[u8],
) -> Vec<u8> {
    let builder = ip(from, via, from.addr(family), to, 60);
    let (icmp_type, code) = kind.of(family);
    let mut frame = Vec::new();
    if family == Family::V4 {
        builder.icmpv4_raw(icmp_type, code, kind.rest).write(&mut frame, quote).unwrap();
    } else {
        builder.icmpv6_raw(icmp_type, code, kind.rest).write(&mut frame, quote).unwrap();
    }
    frame
}
