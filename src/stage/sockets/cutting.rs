//! Flows that policy ends or does not let begin.

use super::SocketFlows;
use super::calls::{SocketCall, SocketId, Via};
use super::events::SocketEvent;
use super::output::SocketOutput;
use super::publish::Published;
use super::shared::Shared;
use super::tcp::TcpFlows;
use super::udp::UdpFlows;
use crate::base::time::Time;
use crate::packet::FlowKey;
use crate::wire::addr::Addr;
use crate::wire::ipv6;

/// A client of a published port that is about to be taken in, or that sent something.
#[derive(Debug)]
pub struct Client<'a> {
    /// What it came to.
    pub published: &'a Published,
    /// Its own address and port.
    pub from: (Addr, u16),
    /// The container's address that answers its family.
    pub inside: Addr,
    /// Protocol number.
    pub proto: u8,
}

impl SocketFlows {
    /// The client that an event is about, if it is one of a published port.
    pub fn client_of(&self, event: &SocketEvent<'_>) -> Option<Client<'_>> {
        let (published, from, proto) = match event {
            SocketEvent::Accepted { socket, client, .. } => {
                (self.tcp.awaited(*socket)?, *client, ipv6::TCP)
            }
            SocketEvent::Datagram { via: Via::Listener(listener), from, .. } => {
                (self.udp.clients.behind(*listener)?, *from, ipv6::UDP)
            }
            _ => return None,
        };
        let family = usize::from(!from.addr.is_v4());
        let addrs = &published.target.addrs;
        let inside = addrs[family].or(addrs[1 - family])?;
        Some(Client { published, from: (from.addr, from.port), inside, proto })
    }

    /// Whether packets with this key answer a client of a published port, and not what the container began.
    pub fn is_client(&self, key: &FlowKey) -> bool {
        match key.proto {
            ipv6::TCP => {
                let slot = self.tcp.find(key, &self.shared);
                slot.and_then(|slot| self.tcp.slab.at(slot)).is_some_and(|flow| flow.by_client)
            }
            _ => self.answers_client(key),
        }
    }

    /// The connection is not for the container after all: its client is reset.
    pub fn turn_away(&mut self, now: Time, socket: SocketId, out: &mut SocketOutput) {
        self.shared.now = now;
        self.tcp.turn_away(socket, &mut self.shared, out);
    }

    /// Ends what packets with this key belong to. Of UDP all of the inside socket ends; what else it speaks
    /// to is reached by a new one.
    pub fn cut(&mut self, now: Time, key: &FlowKey, out: &mut SocketOutput) {
        self.shared.now = now;
        match key.proto {
            ipv6::TCP => self.tcp.cut(key, &mut self.shared, out),
            ipv6::UDP => self.udp.cut(key, &mut self.shared, out),
            _ => {}
        }
    }
}

impl TcpFlows {
    fn turn_away(&mut self, socket: SocketId, shared: &mut Shared, out: &mut SocketOutput) {
        let listener = self.asked_by(socket);
        match self.slab.get_mut(socket) {
            Some(flow) => flow.abort(shared, out),
            None => out.call(SocketCall::Close { socket, reset: true }),
        }
        self.touch(socket, shared);
        if let Some(id) = listener {
            self.ask(id, shared, out);
        }
    }

    fn cut(&mut self, key: &FlowKey, shared: &mut Shared, out: &mut SocketOutput) {
        let Some(flow) = self.find(key, shared).and_then(|slot| self.slab.at_mut(slot)) else {
            return;
        };
        let id = flow.id;
        flow.abort(shared, out);
        self.touch(id, shared);
    }
}

impl UdpFlows {
    fn cut(&mut self, key: &FlowKey, shared: &mut Shared, out: &mut SocketOutput) {
        if self.clients.forget(key) {
            return;
        }
        let inside = (key.src, key.src_port);
        let of = self.iter().find(|flow| flow.inside() == inside && flow.is_on(key.domain));
        if let Some(id) = of.map(super::udp::UdpFlow::id) {
            self.close(id, shared, out);
        }
    }
}
