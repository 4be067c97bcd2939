//! Queries to the host's resolvers, as calls of host sockets: one socket for each.

use super::{Datapath, Output};
use crate::base::time::Time;
use crate::stage::dns::{self, Exchange};
use crate::stage::sockets::{SockAddr, SocketCall, SocketEvent, SocketId, SocketKind, Via};
use crate::wire::addr::Addr;

/// Room before what is received: the least a frame has. Nothing is written there.
const HEADERS: u16 = 42;
/// A message and the length before it.
const MESSAGE_MAX: u32 = u16::MAX as u32 + 2;
/// What is read of a connection at once.
const PIECE: u32 = 32 * 1024;

/// A connection to a resolver.
#[derive(Debug)]
pub(super) struct Upstream {
    server: Addr,
    /// The query with its length, until it is sent.
    query: Vec<u8>,
    received: Vec<u8>,
}

fn socket_of(exchange: Exchange) -> SocketId {
    let kind = if exchange.stream { SocketKind::NameTcp } else { SocketKind::NameUdp };
    SocketId::new(kind, exchange.slot, exchange.epoch)
}

fn exchange_of(socket: SocketId) -> Option<Exchange> {
    let stream = match socket.kind() {
        SocketKind::NameUdp => false,
        SocketKind::NameTcp => true,
        SocketKind::Tcp | SocketKind::Udp | SocketKind::Ping => return None,
    };
    Some(Exchange { slot: socket.slot(), epoch: socket.epoch(), stream })
}

impl Datapath {
    pub(super) fn ask_upstream(
        &mut self,
        exchange: Exchange,
        server: Addr,
        message: &[u8],
        out: &mut Output,
    ) {
        let (socket, to) = (socket_of(exchange), SockAddr { addr: server, port: dns::PORT });
        if exchange.stream {
            let query = [&(message.len() as u16).to_be_bytes(), message].concat();
            self.names.upstream.insert(socket, Upstream { server, query, received: Vec::new() });
            out.sockets.calls.push(SocketCall::Connect { socket, to });
        } else {
            out.sockets.calls.push(SocketCall::Open { socket, v4: server.is_v4() });
            out.sockets.send_made(socket, to, message);
        }
    }

    pub(super) fn close_upstream(&mut self, exchange: Exchange, out: &mut Output) {
        let socket = socket_of(exchange);
        self.names.upstream.remove(&socket);
        out.sockets.calls.push(SocketCall::Close { socket, reset: false });
    }

    /// Takes in an event of the name server's own sockets; gives back that of another.
    pub(super) fn upstream_event<'a>(
        &mut self,
        now: Time,
        event: SocketEvent<'a>,
        out: &mut Output,
    ) -> Option<SocketEvent<'a>> {
        let about = event.socket().and_then(|socket| Some((exchange_of(socket)?, socket)));
        let Some((exchange, socket)) = about else { return Some(event) };
        if !self.names.resolver.is_open(exchange) {
            return None;
        }
        if exchange.stream {
            self.upstream_stream(now, (exchange, socket), event, out);
        } else {
            self.upstream_datagram(now, (exchange, socket), event, out);
        }
        self.settle_names(now, out);
        None
    }

    fn upstream_datagram(
        &mut self,
        now: Time,
        (exchange, socket): (Exchange, SocketId),
        event: SocketEvent<'_>,
        out: &mut Output,
    ) {
        let names = &mut self.names;
        match event {
            SocketEvent::Readable { .. } => receive(socket, out),
            SocketEvent::Datagram { frame, from, segment, .. } => {
                let bytes = frame.bytes().get(usize::from(HEADERS)..).unwrap_or_default();
                let from = (from.addr, from.port);
                let size = segment.map_or(bytes.len(), usize::from).max(1);
                for reply in bytes.chunks(size) {
                    names.resolver.reply(now, exchange, from, reply, &mut names.actions);
                }
            }
            SocketEvent::ErrorsWaiting { via } => {
                out.sockets.calls.push(SocketCall::ReceiveError { via });
            }
            SocketEvent::DatagramError { .. } | SocketEvent::Failed { .. } => {
                names.resolver.failed(now, exchange, &mut names.actions);
            }
            _ => {}
        }
    }

    fn upstream_stream(
        &mut self,
        now: Time,
        (exchange, socket): (Exchange, SocketId),
        event: SocketEvent<'_>,
        out: &mut Output,
    ) {
        let names = &mut self.names;
        let Some(stream) = names.upstream.get_mut(&socket) else { return };
        let to = SockAddr { addr: stream.server, port: dns::PORT };
        match event {
            SocketEvent::Connected { .. } => {
                out.sockets.send_made(socket, to, &std::mem::take(&mut stream.query));
            }
            SocketEvent::Readable { .. } => peek(socket, out),
            SocketEvent::Data { frame, .. } => {
                let bytes = frame.bytes().get(usize::from(HEADERS)..).unwrap_or_default();
                let len = bytes.len() as u32;
                stream.received.extend_from_slice(bytes);
                if let Some(message) = message(&stream.received) {
                    let (message, from) = (message.to_vec(), (to.addr, to.port));
                    names.resolver.reply(now, exchange, from, &message, &mut names.actions);
                    if names.resolver.is_open(exchange) {
                        // The one answer that this connection is for was none.
                        names.resolver.failed(now, exchange, &mut names.actions);
                    }
                } else if stream.received.len() as u32 > MESSAGE_MAX || len == 0 {
                    names.resolver.failed(now, exchange, &mut names.actions);
                } else {
                    out.sockets.calls.push(SocketCall::Discard { socket, len });
                    peek(socket, out);
                }
            }
            SocketEvent::Drained { eof: true, .. } | SocketEvent::Failed { .. } => {
                names.resolver.failed(now, exchange, &mut names.actions);
            }
            // A query has some hundred bytes and goes into an empty buffer as a whole.
            SocketEvent::Sent { accepted: 0, .. } => {
                names.resolver.failed(now, exchange, &mut names.actions);
            }
            _ => {}
        }
    }
}

fn receive(socket: SocketId, out: &mut Output) {
    let via = Via::Socket(socket);
    out.sockets.calls.push(SocketCall::Receive { via, headers: HEADERS });
}

fn peek(socket: SocketId, out: &mut Output) {
    let call = SocketCall::Peek { socket, offset: 0, len: PIECE, headers: HEADERS };
    out.sockets.calls.push(call);
}

/// The message in what has been received, once it is whole.
fn message(received: &[u8]) -> Option<&[u8]> {
    let len = usize::from(u16::from_be_bytes(*received.first_chunk()?));
    received.get(2..2 + len)
}
