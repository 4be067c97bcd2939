//! One connection: an interface with one socket, and what is read of it and still to be written.

use std::collections::VecDeque;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};
use zerocopy::IntoBytes;

use super::StreamOutput;
use crate::base::ids::PortId;
use crate::base::limits::{
    NAMES_PIPELINED_MAX, NAMES_QUERY_BYTES_MAX, NAMES_STREAM_BACKLOG_MAX, NAMES_STREAM_IDLE,
};
use crate::base::time::{Span, Time};
use crate::packet::ip_link::{IpLink, instant, time};
use crate::packet::{FlowKey, Offload, PacketBuf, Parsed};
use crate::stage::dns::PORT;
use crate::wire::addr::Addr;
use crate::wire::ethernet::{self, Ethernet};

const RECEIVE_BUFFER: usize = 2_048;
const SEND_BUFFER: usize = 8_192;
/// Nothing a connection does by itself is more urgent.
const TICK: Span = Span::from_millis(1);

/// A connection.
pub(super) struct Connection {
    pub(super) port: PortId,
    pub(super) key: FlowKey,
    pub(super) epoch: u32,
    /// Its entry among the timers.
    pub(super) due: Option<Time>,
    /// Read, and not yet handed over.
    pub(super) queries: Vec<Vec<u8>>,
    header: Ethernet,
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: Option<SocketHandle>,
    link: IpLink,
    /// The bytes of a query that is not whole.
    input: Vec<u8>,
    output: VecDeque<u8>,
    in_flight: u32,
    /// When something last moved.
    moved: Time,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("key", &self.key).finish_non_exhaustive()
    }
}

fn ip(addr: Addr) -> IpAddress {
    addr.ip().into()
}

impl Connection {
    /// For the packets of who sent this one. It refuses them all until it listens.
    pub(super) fn new(now: Time, port: PortId, mtu: u16, parsed: &Parsed, random: u64) -> Self {
        let mut link = IpLink::new(mtu);
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = random;
        let mut interface = Interface::new(config, &mut link, instant(now));
        interface.update_ip_addrs(|addrs| {
            // Everybody is on this link; there is room for one address at least.
            let _ = addrs.push(IpCidr::new(ip(parsed.dst), 0));
        });
        let ethertype = if parsed.dst.is_v4() { ethernet::IPV4 } else { ethernet::IPV6 };
        Self {
            port,
            key: FlowKey::NOTHING,
            epoch: 0,
            due: None,
            queries: Vec::new(),
            header: Ethernet {
                dst: parsed.src_mac,
                src: parsed.dst_mac,
                ethertype: ethertype.into(),
            },
            interface,
            sockets: SocketSet::new(Vec::new()),
            socket: None,
            link,
            input: Vec::new(),
            output: VecDeque::new(),
            in_flight: 0,
            moved: now,
        }
    }

    /// Takes the connection that the next packet opens.
    pub(super) fn listen(&mut self, key: FlowKey, epoch: u32) {
        let buffer = |len| SocketBuffer::new(vec![0; len]);
        let mut socket = Socket::new(buffer(RECEIVE_BUFFER), buffer(SEND_BUFFER));
        socket.set_nagle_enabled(false);
        let listening = socket.listen((ip(key.dst), PORT));
        debug_assert!(listening.is_ok(), "a new socket and a port");
        self.socket = Some(self.sockets.add(socket));
        (self.key, self.epoch) = (key, epoch);
    }

    /// Puts a packet before the interface.
    pub(super) fn receive(&mut self, packet: Vec<u8>) {
        self.link.receive(packet);
    }

    /// Answers a packet of no connection by a reset.
    pub(super) fn refuse(&mut self, now: Time, packet: Vec<u8>, out: &mut StreamOutput) {
        self.receive(packet);
        self.poll(now, &mut out.frames);
    }

    pub(super) fn answer(&mut self, answer: &[u8]) {
        self.in_flight = self.in_flight.saturating_sub(1);
        // An answer has no more than 65,535 bytes: it came with such a length itself.
        self.output.extend((answer.len() as u16).to_be_bytes());
        self.output.extend(answer);
    }

    /// Bytes of answers that wait here.
    #[cfg(test)]
    pub(super) fn backlog(&self) -> usize {
        self.output.len()
    }

    /// Ends it, whatever is owed.
    pub(super) fn abort(&mut self) {
        self.output.clear();
        if let Some(handle) = self.socket {
            self.sockets.get_mut::<Socket<'_>>(handle).abort();
        }
    }

    fn poll(&mut self, now: Time, frames: &mut Vec<(PortId, PacketBuf)>) {
        self.interface.poll(instant(now), &mut self.link, &mut self.sockets);
        for packet in self.link.sent() {
            let frame = [self.header.as_bytes(), &packet].concat();
            frames.push((self.port, PacketBuf::new(&frame, Offload::NONE)));
        }
    }

    /// Reads, writes and sends as long as anything moves.
    pub(super) fn work(&mut self, now: Time, frames: &mut Vec<(PortId, PacketBuf)>) {
        loop {
            self.poll(now, frames);
            let (read, written) = (self.read(), self.write());
            if !read && !written {
                break;
            }
            self.moved = now;
        }
        self.close_when_done();
        self.poll(now, frames);
    }

    fn read(&mut self) -> bool {
        let Some(handle) = self.socket else { return false };
        let mut any = false;
        while self.in_flight < NAMES_PIPELINED_MAX && self.output.len() <= NAMES_STREAM_BACKLOG_MAX
        {
            if let Some(query) = self.next_query() {
                self.in_flight += 1;
                self.queries.push(query);
                continue;
            }
            let told = self.told();
            let socket = self.sockets.get_mut::<Socket<'_>>(handle);
            if told > NAMES_QUERY_BYTES_MAX {
                socket.abort();
                break;
            }
            let before = self.input.len();
            let input = &mut self.input;
            let taken = socket.recv(|bytes| {
                input.extend_from_slice(bytes);
                (bytes.len(), ())
            });
            if taken.is_err() || self.input.len() == before {
                break;
            }
            any = true;
        }
        any
    }

    /// The length that the next query will have, or zero.
    fn told(&self) -> usize {
        self.input.first_chunk().map_or(0, |len| usize::from(u16::from_be_bytes(*len)))
    }

    fn next_query(&mut self) -> Option<Vec<u8>> {
        let end = 2 + usize::from(u16::from_be_bytes(*self.input.first_chunk()?));
        let query = self.input.get(2..end)?.to_vec();
        self.input.drain(..end);
        Some(query)
    }

    fn write(&mut self) -> bool {
        let Some(handle) = self.socket else { return false };
        let socket = self.sockets.get_mut::<Socket<'_>>(handle);
        let mut any = false;
        while !self.output.is_empty() {
            let (bytes, _) = self.output.as_slices();
            match socket.send_slice(bytes) {
                Ok(sent) if sent > 0 => drop(self.output.drain(..sent)),
                _ => break,
            }
            any = true;
        }
        any
    }

    /// The client has said its last, and has its answers: so have we.
    fn close_when_done(&mut self) {
        let Some(handle) = self.socket else { return };
        let socket = self.sockets.get_mut::<Socket<'_>>(handle);
        if socket.state() == State::CloseWait && self.in_flight == 0 && self.output.is_empty() {
            socket.close();
        }
    }

    /// Ends a connection on which nothing moves: in order, if nothing is owed.
    pub(super) fn expire(&mut self, now: Time) {
        let Some(handle) = self.socket else { return };
        if now.since(self.moved) < NAMES_STREAM_IDLE {
            return;
        }
        let socket = self.sockets.get_mut::<Socket<'_>>(handle);
        if socket.state() == State::Established && self.output.is_empty() {
            socket.close();
            self.moved = now;
        } else {
            socket.abort();
        }
    }

    /// When it wants to be looked at; `None`: it is over.
    pub(super) fn next_due(&mut self, now: Time) -> Option<Time> {
        let state = self.sockets.get::<Socket<'_>>(self.socket?).state();
        if matches!(state, State::Closed | State::TimeWait | State::Listen) {
            return None;
        }
        let idle = self.moved + NAMES_STREAM_IDLE;
        let polled = self.interface.poll_at(instant(now), &self.sockets);
        let due = polled.map_or(idle, |at| time(at).min(idle));
        Some(due.max(now + TICK))
    }
}
