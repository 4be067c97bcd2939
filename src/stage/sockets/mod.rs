//! The socket uplink: flows of containers that end in sockets of the host, so that no privilege is needed.
//!
//! Pure like every stage: frames, events of host sockets and time come in; frames for containers and
//! [calls](SocketCall) of host sockets come out. Each protocol's file begins with its theory: `tcp/mod.rs`,
//! `udp.rs`, `ping.rs`.
//!
//! **How it is driven.** For a batch of frames: [`SocketFlows::frame`] for each, then
//! [`SocketFlows::flush`]. The output's calls are executed in order while the batch still stands, each
//! answer goes into [`SocketFlows::event`], then `flush` again, until no calls come out. Deliveries are
//! written in order. [`SocketFlows::tick`] when [`SocketFlows::next_deadline`] has come.
//!
//! **Forbidden destinations** are refused before a flow exists, so that no call about them can ever be
//! made (see `forbidden.rs`).

mod calls;
mod cutting;
mod events;
mod forbidden;
#[doc(hidden)]
pub mod fuzz;
mod headers;
mod output;
mod ping;
mod publish;
mod shared;
mod slab;
mod tcp;
mod udp;

#[cfg(test)]
mod testing;

pub use calls::{
    FrameSlot, ListenerId, NO_PART, Parts, Room, SendPart, SockAddr, SocketCall, SocketId,
    SocketKind, Via,
};
pub use cutting::Client;
pub use events::{SocketError, SocketEvent};
pub use forbidden::Forbidden;
pub use headers::Link;
pub use output::{Delivery, SmallFrame, SocketOutput};
pub use publish::{Published, Target};
pub use shared::{Inside, Stats};
pub use tcp::{TcpFlow, TcpState};
pub use udp::UdpFlow;

use std::sync::Arc;

use self::ping::PingFlows;
use self::shared::Shared;
use self::tcp::TcpFlows;
use self::udp::UdpFlows;
use crate::base::hash::Seed;
use crate::base::ids::PortId;
use crate::base::time::Time;
use crate::packet::{DropReason, FlowKey, FrameMut, L3, Parsed};
use crate::wire::{icmp, ipv6};

/// All flows of one worker's socket uplink.
#[derive(Debug)]
pub struct SocketFlows {
    shared: Shared,
    forbidden: Forbidden,
    tcp: TcpFlows,
    udp: UdpFlows,
    ping: PingFlows,
}

impl SocketFlows {
    /// No flows. `seed` must be the process's own and secret: sequence numbers come from it.
    pub fn new(seed: Seed) -> Self {
        Self {
            shared: Shared::new(seed),
            forbidden: Forbidden::default(),
            tcp: TcpFlows::new(),
            udp: UdpFlows::new(),
            ping: PingFlows::new(),
        }
    }

    /// The switch's own networks changed. Flows that exist stay.
    pub fn set_forbidden(&mut self, forbidden: Forbidden) {
        self.forbidden = forbidden;
    }

    /// Takes in a frame that leaves by the socket uplink.
    ///
    /// # Errors
    /// Why it was dropped. There may be an answer (a reset, an ICMP error) in `out` all the same.
    pub fn frame(
        &mut self,
        now: Time,
        inside: &Inside,
        parsed: &Parsed,
        frame: &FrameMut<'_>,
        slot: FrameSlot,
        out: &mut SocketOutput,
    ) -> Result<(), DropReason> {
        self.shared.now = now;
        let (of, at) = ((parsed, inside), (frame, slot));
        let (forbidden, shared) = (&self.forbidden, &mut self.shared);
        match (parsed.l3, parsed.proto) {
            (L3::V4 | L3::V6, ipv6::TCP) => self.tcp.frame(of, at, forbidden, shared, out),
            (L3::V4 | L3::V6, ipv6::UDP) => self.udp.frame(of, at, forbidden, shared, out),
            (L3::V4, ipv6::ICMP) if kind(parsed, frame) == Some(icmp::v4::ECHO_REQUEST) => {
                self.ping.frame(of, at, forbidden, shared, out)
            }
            (L3::V6, ipv6::ICMPV6) if kind(parsed, frame) == Some(icmp::v6::ECHO_REQUEST) => {
                self.ping.frame(of, at, forbidden, shared, out)
            }
            // Other protocols have no socket that an ordinary user may open.
            _ => Err(DropReason::NoRoute),
        }
    }

    /// Takes in something that happened to a host socket.
    pub fn event(&mut self, now: Time, event: SocketEvent<'_>, out: &mut SocketOutput) {
        self.shared.now = now;
        let shared = &mut self.shared;
        match event {
            SocketEvent::Incoming { listener } => {
                self.tcp.incoming(listener, shared, out);
                self.udp.clients.incoming(listener, out);
            }
            SocketEvent::Accepted { socket, client, local, room } => {
                self.tcp.accepted(socket, (client, local), room, shared, out);
            }
            SocketEvent::NotAccepted { socket, error } => {
                self.tcp.not_accepted(socket, error, shared, out);
            }
            SocketEvent::ListenerDrained { .. } => {}
            SocketEvent::Datagram {
                via: Via::Listener(listener),
                slot,
                frame,
                from,
                to,
                segment,
            } => {
                let datagram = udp::Datagram { slot, from, to, segment };
                self.udp.clients.received(listener, &datagram, frame, shared, out);
            }
            SocketEvent::ErrorsWaiting { via: via @ Via::Listener(_) } => {
                out.call(SocketCall::ReceiveError { via });
            }
            SocketEvent::DatagramError {
                via: via @ Via::Listener(listener),
                error,
                offender,
                to,
                ..
            } => {
                out.call(SocketCall::ReceiveError { via });
                self.udp.clients.failed(listener, (error, offender), to, shared, out);
            }
            SocketEvent::NotSent { via: Via::Listener(listener), frames } => {
                if let Some(published) = self.udp.clients.published(listener) {
                    out.not_sent(published.target.port, frames);
                }
            }
            event => {
                let Some(socket) = event.socket() else { return };
                match socket.kind() {
                    SocketKind::Tcp => self.tcp.event(socket, event, shared, out),
                    SocketKind::Udp => self.udp.event(socket, event, shared, out),
                    SocketKind::Ping => self.ping.event(socket, event, shared, out),
                    SocketKind::NameUdp | SocketKind::NameTcp => {}
                }
            }
        }
    }

    /// Ends a batch of frames or events: what could wait is said now.
    pub fn flush(&mut self, now: Time, out: &mut SocketOutput) {
        self.shared.now = now;
        self.tcp.flush(&mut self.shared, out);
    }

    /// When [`tick`](Self::tick) wants to be called.
    pub fn next_deadline(&self) -> Option<Time> {
        [self.shared.timers.next(), self.tcp.next_deadline()].into_iter().flatten().min()
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Time, out: &mut SocketOutput) {
        self.shared.now = now;
        while let Some(socket) = self.shared.timers.pop_due(now) {
            match socket.kind() {
                SocketKind::Tcp => self.tcp.woken(socket, &mut self.shared, out),
                SocketKind::Udp => self.udp.woken(socket, &mut self.shared, out),
                SocketKind::Ping => self.ping.woken(socket, &mut self.shared, out),
                SocketKind::NameUdp | SocketKind::NameTcp => {}
            }
        }
        self.tcp.tick(&mut self.shared, out);
        self.flush(now, out);
    }

    /// Connections of a TCP listener are for a container from now on.
    pub fn publish_tcp(&mut self, published: Published) {
        self.tcp.publish(published);
    }

    /// Datagrams of a bound UDP socket are for a container from now on.
    pub fn publish_udp(&mut self, published: Published) {
        self.udp.clients.publish(published);
    }

    /// The container behind a listener is seen otherwise by new clients.
    pub fn retarget(&mut self, listener: ListenerId, target: &Arc<Target>) {
        let known = self.tcp.published(listener).or_else(|| self.udp.clients.published(listener));
        if let Some(published) = known {
            published.target = Arc::clone(target);
        }
    }

    /// The listener is closed. TCP connections that stand stay; UDP clients are forgotten.
    pub fn unpublish(&mut self, listener: ListenerId) {
        self.tcp.unpublish(listener);
        self.udp.clients.unpublish(listener);
    }

    /// A container is gone: its sockets are closed, and peers of its connections are reset.
    pub fn remove_port(&mut self, now: Time, port: PortId, out: &mut SocketOutput) {
        self.shared.now = now;
        self.tcp.remove_port(port, &mut self.shared, out);
        self.udp.remove_port(port, &mut self.shared, out);
        self.ping.remove_port(port, &mut self.shared, out);
    }

    /// TCP flows, for showing.
    pub fn tcp_flows(&self) -> impl Iterator<Item = &TcpFlow> {
        self.tcp.iter()
    }

    /// UDP flows, for showing.
    pub fn udp_flows(&self) -> impl Iterator<Item = &UdpFlow> {
        self.udp.iter()
    }

    /// Whether a container's packet with this key answers a client of one of its published ports. Such
    /// a packet belongs here whatever its network's way out is.
    pub fn answers_client(&self, key: &FlowKey) -> bool {
        match key.proto {
            ipv6::TCP => self.tcp.knows(key, &self.shared),
            ipv6::UDP => self.udp.knows_client(key),
            _ => false,
        }
    }

    /// A router behind the container, or the container, cannot pass on a segment this large: `key` is
    /// that of the container's packets, `seq` is where the segment began. `None`: no connection of `port`
    /// has this key.
    pub fn path_mtu(
        &mut self,
        port: PortId,
        key: &FlowKey,
        (seq, mtu): (u32, u16),
    ) -> Option<Result<(), DropReason>> {
        self.tcp.path_mtu(port, key, (seq, mtu), &mut self.shared)
    }

    /// Number of TCP flows, UDP sockets and ping sockets.
    pub fn counts(&self) -> [usize; 3] {
        [self.tcp.len(), self.udp.len(), self.ping.len()]
    }

    /// Keys of the TCP connections that are over since this was asked last: whoever remembers something
    /// about their packets may forget it.
    pub fn take_ended(&mut self) -> Vec<FlowKey> {
        std::mem::take(&mut self.shared.ended)
    }

    /// Bytes of segments that wait for an earlier one.
    pub fn held_bytes(&self) -> usize {
        self.shared.held.bytes()
    }

    /// What happened so far.
    pub fn stats(&self) -> Stats {
        self.shared.stats
    }
}

fn kind(parsed: &Parsed, frame: &FrameMut<'_>) -> Option<u8> {
    parsed.l4_bytes(frame.bytes()).first().copied()
}
