//! What runs on a host: each sends what can be foretold, and fails at the first byte that is another.

use std::net::IpAddr;

use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::{icmp, tcp, udp};
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpAddress};
use wharf::base::time::{Span, Time};
use wharf::wire::addr::Family;

use crate::host::{Identity, endpoint};
use crate::rng::pattern;

/// Between two questions of one that asks.
const PAUSE: Span = Span::from_millis(50);
const BUFFER: usize = 32 * 1024;
/// Bytes of a question by datagram or echo.
const QUESTION: u64 = 300;

/// A program.
#[derive(Debug)]
pub(crate) enum Program {
    /// One end of a connection.
    Stream(Stream),
    /// Answers datagrams with their own bytes.
    Echo(SocketHandle),
    /// Asks by datagram until so many answers have come.
    Ask(Ask),
}

/// One end of a TCP connection.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: SocketHandle,
    /// To whom, and from which port of ours; none for the end that waits.
    connect: Option<(IpAddr, u16, u16)>,
    listen: u16,
    begun: bool,
    /// Numbers of the streams we send and expect.
    numbers: (u64, u64),
    length: u64,
    sent: u64,
    received: u64,
    closed: bool,
}

/// Who asks by datagram, or by echo request.
#[derive(Debug)]
pub(crate) struct Ask {
    socket: SocketHandle,
    to: IpAddr,
    /// The other side's port; none for an echo request.
    port: Option<u16>,
    ident: u16,
    wanted: u64,
    asked: u64,
    answered: u64,
    next: Time,
}

fn tcp_socket() -> tcp::Socket<'static> {
    let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER]);
    tcp::Socket::new(buffer(), buffer())
}

fn udp_socket(port: u16) -> udp::Socket<'static> {
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 32], vec![0; BUFFER]);
    let mut socket = udp::Socket::new(buffer(), buffer());
    socket.bind(port).expect("the port is free");
    socket
}

fn icmp_socket(ident: u16) -> icmp::Socket<'static> {
    let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 32], vec![0; BUFFER]);
    let mut socket = icmp::Socket::new(buffer(), buffer());
    socket.bind(icmp::Endpoint::Ident(ident)).expect("the identifier is free");
    socket
}

/// Waits on `port`, sends and expects `length` bytes.
pub(crate) fn serve(
    port: u16,
    numbers: (u64, u64),
    length: u64,
) -> impl FnOnce(&mut SocketSet<'static>) -> Program {
    stream(None, port, numbers, length)
}

/// Connects, sends and expects `length` bytes.
pub(crate) fn connect(
    to: (IpAddr, u16),
    from: u16,
    numbers: (u64, u64),
    length: u64,
) -> impl FnOnce(&mut SocketSet<'static>) -> Program {
    stream(Some((to.0, to.1, from)), 0, numbers, length)
}

fn stream(
    connect: Option<(IpAddr, u16, u16)>,
    listen: u16,
    numbers: (u64, u64),
    length: u64,
) -> impl FnOnce(&mut SocketSet<'static>) -> Program {
    move |sockets| {
        Program::Stream(Stream {
            socket: sockets.add(tcp_socket()),
            connect,
            listen,
            begun: false,
            numbers,
            length,
            sent: 0,
            received: 0,
            closed: false,
        })
    }
}

/// Answers datagrams on `port`.
pub(crate) fn echo(port: u16) -> impl FnOnce(&mut SocketSet<'static>) -> Program {
    move |sockets| Program::Echo(sockets.add(udp_socket(port)))
}

/// Asks by datagram until `wanted` answers have come.
pub(crate) fn ask(
    to: (IpAddr, u16),
    from: u16,
    wanted: u64,
) -> impl FnOnce(&mut SocketSet<'static>) -> Program {
    move |sockets| {
        let socket = sockets.add(udp_socket(from));
        Program::Ask(Ask::new(socket, to.0, Some(to.1), from, wanted))
    }
}

/// Asks by echo request until `wanted` answers have come.
pub(crate) fn ping(
    to: IpAddr,
    ident: u16,
    wanted: u64,
) -> impl FnOnce(&mut SocketSet<'static>) -> Program {
    move |sockets| {
        let socket = sockets.add(icmp_socket(ident));
        Program::Ask(Ask::new(socket, to, None, ident, wanted))
    }
}

impl Program {
    pub(crate) fn is_done(&self) -> bool {
        match self {
            Self::Stream(stream) => stream.is_done(),
            Self::Echo(_) => true,
            Self::Ask(ask) => ask.answered >= ask.wanted,
        }
    }

    pub(crate) fn describe(&self, sockets: &SocketSet<'static>) -> String {
        match self {
            Self::Stream(stream) => {
                let state = sockets.get::<tcp::Socket<'_>>(stream.socket).state();
                format!("{state:?} {stream:?}")
            }
            other => format!("{other:?}"),
        }
    }

    /// When it wants to work though nothing came.
    pub(crate) fn alarm(&self, now: Time) -> Option<Time> {
        match self {
            Self::Ask(ask) if !self.is_done() => Some(ask.next.max(now)),
            _ => None,
        }
    }

    /// Works; whether there is something to send now.
    pub(crate) fn work(
        &mut self,
        now: Time,
        id: &Identity,
        iface: &mut Interface,
        sockets: &mut SocketSet<'static>,
    ) -> bool {
        match self {
            Self::Stream(stream) => stream.work(iface, sockets),
            Self::Echo(socket) => echo_back(sockets.get_mut(*socket)),
            Self::Ask(ask) if ask.port.is_some() => ask.by_datagram(now, sockets),
            Self::Ask(ask) => ask.by_echo(now, id, sockets),
        }
    }
}

impl Stream {
    fn is_done(&self) -> bool {
        self.closed && self.received == self.length
    }

    fn work(&mut self, iface: &mut Interface, sockets: &mut SocketSet<'static>) -> bool {
        let socket = sockets.get_mut::<tcp::Socket<'_>>(self.socket);
        if !self.begun {
            self.begun = true;
            match self.connect {
                Some((to, port, from)) => {
                    socket
                        .connect(iface.context(), endpoint(to, port), from)
                        .expect("a new socket");
                }
                None => socket.listen(self.listen).expect("a new socket"),
            }
            return true;
        }
        self.read(socket);
        let busy = self.write(socket);
        if self.sent == self.length && self.received == self.length && socket.may_send() {
            socket.close();
            return true;
        }
        let over = matches!(socket.state(), tcp::State::Closed | tcp::State::TimeWait);
        assert!(!over || self.received == self.length, "cut off: {self:?}");
        // All we sent is acknowledged, our end too. (Two of smoltcp's that close at the same time and
        // lose a segment wait for each other for ever: one has no timer any more in `Closing`.)
        let ended = matches!(socket.state(), tcp::State::FinWait2 | tcp::State::Closing);
        self.closed = over || ended && socket.send_queue() == 0;
        busy
    }

    fn read(&mut self, socket: &mut tcp::Socket<'static>) {
        while socket.can_recv() {
            let expected = (self.numbers.1, self.received);
            let taken = socket.recv(|bytes| {
                for (n, byte) in bytes.iter().enumerate() {
                    let right = pattern(expected.0, expected.1 + n as u64);
                    assert_eq!(
                        *byte,
                        right,
                        "byte {} of stream {}",
                        expected.1 + n as u64,
                        expected.0
                    );
                }
                (bytes.len(), bytes.len())
            });
            self.received += taken.expect("the connection is open") as u64;
            assert!(self.received <= self.length, "more than was sent");
        }
    }

    fn write(&mut self, socket: &mut tcp::Socket<'static>) -> bool {
        let before = self.sent;
        while socket.can_send() && self.sent < self.length {
            let (number, at, left) = (self.numbers.0, self.sent, self.length - self.sent);
            let put = socket.send(|room| {
                let len = room.len().min(left as usize);
                for (n, byte) in room[..len].iter_mut().enumerate() {
                    *byte = pattern(number, at + n as u64);
                }
                (len, len)
            });
            self.sent += put.expect("the connection is open") as u64;
        }
        self.sent > before
    }
}

fn echo_back(socket: &mut udp::Socket<'static>) -> bool {
    let mut busy = false;
    while socket.can_recv() && socket.can_send() {
        let (bytes, from) =
            socket.recv().map(|(b, m)| (b.to_vec(), m)).expect("something is there");
        // The answer comes from the address that was asked.
        let mut to = from;
        to.local_address = from.local_address;
        socket.send_slice(&bytes, to).expect("there is room");
        busy = true;
    }
    busy
}

impl Ask {
    fn new(socket: SocketHandle, to: IpAddr, port: Option<u16>, ident: u16, wanted: u64) -> Self {
        Self { socket, to, port, ident, wanted, asked: 0, answered: 0, next: Time::ZERO }
    }

    /// The question of number `n`.
    fn question(&self, n: u64) -> Vec<u8> {
        let stream = u64::from(self.ident) << 32 | n;
        let mut bytes = n.to_be_bytes().to_vec();
        bytes.extend((0..QUESTION).map(|at| pattern(stream, at)));
        bytes
    }

    fn check(&mut self, bytes: &[u8]) {
        let n = u64::from_be_bytes(bytes[..8].try_into().expect("a number"));
        assert!(n < self.asked, "an answer to a question that was never asked");
        assert!(bytes == self.question(n), "the answer differs from question {n} of {self:?}");
        self.answered += 1;
    }

    fn is_due(&mut self, now: Time) -> bool {
        let due = self.answered < self.wanted && now >= self.next;
        if due {
            self.next = now + PAUSE;
        }
        due
    }

    fn by_datagram(&mut self, now: Time, sockets: &mut SocketSet<'static>) -> bool {
        let socket = sockets.get_mut::<udp::Socket<'_>>(self.socket);
        while let Ok((bytes, from)) = socket.recv() {
            assert_eq!(IpAddr::from(from.endpoint.addr), self.to, "who was asked answers");
            assert_eq!(Some(from.endpoint.port), self.port);
            let bytes = bytes.to_vec();
            self.check(&bytes);
        }
        if !self.is_due(now) {
            return false;
        }
        let question = self.question(self.asked);
        self.asked += 1;
        let to = endpoint(self.to, self.port.unwrap_or(0));
        socket.send_slice(&question, to).is_ok()
    }

    fn by_echo(&mut self, now: Time, id: &Identity, sockets: &mut SocketSet<'static>) -> bool {
        let socket = sockets.get_mut::<icmp::Socket<'_>>(self.socket);
        while let Ok((bytes, from)) = socket.recv() {
            assert_eq!(IpAddr::from(from), self.to, "who was asked answers");
            // Behind kind, code, sum, identifier and sequence number.
            let is_reply = matches!(bytes[0], 0 | 129);
            assert!(is_reply, "no error: {bytes:?}");
            assert_eq!(bytes[4..6], self.ident.to_be_bytes());
            let bytes = bytes[8..].to_vec();
            self.check(&bytes);
        }
        if !self.is_due(now) {
            return false;
        }
        let (question, seq_no) = (self.question(self.asked), self.asked as u16);
        self.asked += 1;
        let (ident, data, sums) = (self.ident, &question[..], ChecksumCapabilities::default());
        let to = IpAddress::from(self.to);
        match (self.to, id.addr(Family::V6)) {
            (IpAddr::V6(dst), IpAddr::V6(src)) => {
                let repr = Icmpv6Repr::EchoRequest { ident, seq_no, data };
                let Ok(room) = socket.send(repr.buffer_len(), to) else { return false };
                repr.emit(&src, &dst, &mut Icmpv6Packet::new_unchecked(room), &sums);
            }
            _ => {
                let repr = Icmpv4Repr::EchoRequest { ident, seq_no, data };
                let Ok(room) = socket.send(repr.buffer_len(), to) else { return false };
                repr.emit(&mut Icmpv4Packet::new_unchecked(room), &sums);
            }
        }
        true
    }
}
