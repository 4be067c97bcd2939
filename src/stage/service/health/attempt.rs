//! One attempt at a backend: a connection, and what was seen of it.

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};
use zerocopy::IntoBytes;

use super::{Check, Origin};
use crate::base::time::{Span, Time};
use crate::packet::ip_link::{self, IpLink};
use crate::packet::{FlowKey, Offload, PacketBuf};
use crate::wire::ethernet::{self, Ethernet};

const RECEIVE_BUFFER: usize = 2_048;
/// A request is a path and some words.
const SEND_BUFFER: usize = 1_024;
/// `HTTP/1.1 200` and the reason; more is no status line.
const STATUS_LINE_MAX: usize = 256;
/// Nothing an attempt does by itself is more urgent.
const TICK: Span = Span::from_millis(1);

/// What an attempt showed: that the backend serves, or why not.
pub(super) type Shown = Result<(), String>;

/// A connection to a backend.
pub(super) struct Attempt {
    /// The key of what comes back.
    pub(super) key: FlowKey,
    /// Until when it may take.
    until: Time,
    /// Whether it has shown what it had to.
    over: bool,
    request: Option<String>,
    head: Vec<u8>,
    link: Ethernet,
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    wire: IpLink,
}

impl std::fmt::Debug for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attempt").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Attempt {
    /// Begins to connect.
    pub(super) fn new(
        now: Time,
        until: Time,
        origin: &Origin,
        key: FlowKey,
        check: &Check,
        random: u64,
    ) -> Self {
        let mut wire = IpLink::new(origin.mtu);
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = random;
        let mut interface = Interface::new(config, &mut wire, ip_link::instant(now));
        let own = IpAddress::from(key.dst.ip());
        interface.update_ip_addrs(|addrs| {
            // Everybody is on this link; there is room for one address at least.
            let _ = addrs.push(IpCidr::new(own, 0));
        });
        let buffer = |len| SocketBuffer::new(vec![0; len]);
        let mut socket = Socket::new(buffer(RECEIVE_BUFFER), buffer(SEND_BUFFER));
        socket.set_nagle_enabled(false);
        let to = (IpAddress::from(key.src.ip()), key.src_port);
        let begun = socket.connect(interface.context(), to, (own, key.dst_port));
        debug_assert!(begun.is_ok(), "a new socket, an address and two ports");
        let mut sockets = SocketSet::new(Vec::new());
        let socket = sockets.add(socket);
        let ethertype = if key.src.is_v4() { ethernet::IPV4 } else { ethernet::IPV6 };
        Self {
            key,
            until,
            over: false,
            request: Some(request(check, &key)),
            head: Vec::new(),
            link: Ethernet {
                dst: origin.station,
                src: origin.gateway,
                ethertype: ethertype.into(),
            },
            interface,
            sockets,
            socket,
            wire,
        }
    }

    /// Takes in a packet of the backend's.
    pub(super) fn receive(&mut self, packet: Vec<u8>) {
        self.wire.receive(packet);
    }

    fn poll(&mut self, now: Time, frames: &mut Vec<PacketBuf>) {
        self.interface.poll(ip_link::instant(now), &mut self.wire, &mut self.sockets);
        for packet in self.wire.sent() {
            let frame = [self.link.as_bytes(), &packet].concat();
            frames.push(PacketBuf::new(&frame, Offload::NONE));
        }
    }

    /// Does what can be done now; what that showed, once.
    pub(super) fn work(&mut self, now: Time, frames: &mut Vec<PacketBuf>) -> Option<Shown> {
        self.poll(now, frames);
        let mut shown = self.look();
        if now >= self.until {
            // Also one that has shown what it had to, and whose other end does not close.
            self.sockets.get_mut::<Socket<'_>>(self.socket).abort();
            shown.get_or_insert_with(|| Err("no answer in time".to_owned()));
        }
        let first = shown.filter(|_| !self.over);
        self.over |= first.is_some();
        self.poll(now, frames);
        first
    }

    fn look(&mut self) -> Option<Shown> {
        let socket = self.sockets.get_mut::<Socket<'_>>(self.socket);
        match socket.state() {
            State::SynSent | State::SynReceived | State::Listen => return None,
            State::Closed if self.request.is_some() => {
                return Some(Err("refused the connection".to_owned()));
            }
            _ => {}
        }
        let Some(request) = &mut self.request else { return self.answer() };
        if request.is_empty() {
            // A connection is all that was wanted.
            socket.close();
            return Some(Ok(()));
        }
        if let Ok(sent) = socket.send_slice(request.as_bytes()) {
            request.drain(..sent);
        }
        if request.is_empty() {
            self.request = None;
        }
        None
    }

    /// Reads the answer: its first line says it, the rest is let pass so that the server can end in order.
    fn answer(&mut self) -> Option<Shown> {
        let socket = self.sockets.get_mut::<Socket<'_>>(self.socket);
        let head = &mut self.head;
        while socket.can_recv() {
            let taken = socket.recv(|bytes| {
                let room = STATUS_LINE_MAX.saturating_sub(head.len());
                head.extend_from_slice(&bytes[..bytes.len().min(room)]);
                (bytes.len(), ())
            });
            if taken.is_err() {
                break;
            }
        }
        let ended = !socket.may_recv();
        if ended {
            socket.close();
        }
        match status(&self.head) {
            Some(200..=399) => Some(Ok(())),
            Some(code) => Some(Err(format!("answers {code}"))),
            None if ended && self.head.is_empty() => {
                Some(Err("closed the connection without an answer".to_owned()))
            }
            None if ended || self.head.len() >= STATUS_LINE_MAX => {
                Some(Err("its answer is not HTTP".to_owned()))
            }
            None => None,
        }
    }

    /// When it wants to be looked at; `None`: nothing is left of it.
    pub(super) fn next_due(&mut self, now: Time) -> Option<Time> {
        let state = self.sockets.get::<Socket<'_>>(self.socket).state();
        if self.over && matches!(state, State::Closed | State::TimeWait) {
            return None;
        }
        let polled = self.interface.poll_at(ip_link::instant(now), &self.sockets);
        let due = polled.map_or(self.until, |at| ip_link::time(at).min(self.until));
        Some(due.max(now + TICK))
    }
}

/// What is asked; nothing if a connection is all that is wanted.
fn request(check: &Check, key: &FlowKey) -> String {
    let Check::Http(path) = check else { return String::new() };
    let host = std::net::SocketAddr::new(key.src.ip(), key.src_port);
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: wharf-health\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n"
    )
}

/// The code in a whole status line.
fn status(head: &[u8]) -> Option<u16> {
    let end = head.iter().position(|byte| *byte == b'\n')?;
    let line = std::str::from_utf8(&head[..end]).ok()?;
    let (version, rest) = line.split_once(' ')?;
    let code = rest.trim_end().split(' ').next()?;
    let known = version.starts_with("HTTP/1.") && code.len() == 3;
    known.then(|| code.parse().ok()).flatten()
}
