//! Connections from outside: from a listener's readiness to the SYN towards the container.
//!
//! A slot is taken *before* a connection is accepted, so that the bounds hold: when a container has its
//! share of half-open connections, clients wait in the kernel's backlog, which is bounded too.

use hashbrown::HashMap;

use super::TcpFlows;
use super::flow::{Birth, TcpFlow, TcpState};
use super::segment::Segment;
use super::seq::Seq;
use crate::base::ids::DomainId;
use crate::base::time::{Span, Time};
use crate::packet::{DropReason, FlowKey, Scope};
use crate::stage::sockets::calls::{ListenerId, Room, SockAddr, SocketCall, SocketId};
use crate::stage::sockets::events::SocketError;
use crate::stage::sockets::output::SocketOutput;
use crate::stage::sockets::publish::{self, Ends, Published};
use crate::stage::sockets::shared::Shared;
use crate::wire::addr::Addr;
use crate::wire::{ipv6, tcp};

/// When a listener that met a bound is asked again.
const AGAIN: Span = Span::from_millis(50);

#[derive(Debug)]
struct Listener {
    published: Published,
    /// Connections may be waiting.
    ready: bool,
    /// An `Accept` is outstanding.
    asking: bool,
}

/// The listeners of TCP publications.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    known: HashMap<ListenerId, Listener>,
    /// Listeners that met a bound, and when they are asked again.
    waiting: Vec<ListenerId>,
    pub(super) again_at: Option<Time>,
}

/// How a container is asked once more, if it refuses a client.
#[derive(Clone, Copy, Debug)]
pub(super) struct SecondTry {
    ends: Ends,
    client: SockAddr,
}

impl Listeners {
    fn wait(&mut self, listener: ListenerId, now: Time) {
        if !self.waiting.contains(&listener) {
            self.waiting.push(listener);
        }
        self.again_at.get_or_insert(now + AGAIN);
    }
}

impl TcpFlows {
    /// Connections of this listener are for a container from now on.
    pub(in crate::stage::sockets) fn publish(&mut self, published: Published) {
        let listener = Listener { published, ready: false, asking: false };
        self.listeners.known.insert(listener.published.listener, listener);
    }

    pub(in crate::stage::sockets) fn published(
        &mut self,
        id: ListenerId,
    ) -> Option<&mut Published> {
        self.listeners.known.get_mut(&id).map(|listener| &mut listener.published)
    }

    /// No more connections are taken from this listener; those that stand stay.
    pub(in crate::stage::sockets) fn unpublish(&mut self, id: ListenerId) -> bool {
        self.listeners.waiting.retain(|waiting| *waiting != id);
        self.listeners.known.remove(&id).is_some()
    }

    /// Connections are waiting.
    pub(in crate::stage::sockets) fn incoming(
        &mut self,
        id: ListenerId,
        shared: &mut Shared,
        out: &mut SocketOutput,
    ) {
        if let Some(listener) = self.listeners.known.get_mut(&id) {
            listener.ready = true;
        }
        self.ask(id, shared, out);
    }

    /// Asks those again that met a bound.
    pub(super) fn ask_again(&mut self, shared: &mut Shared, out: &mut SocketOutput) {
        if self.listeners.again_at.is_none_or(|at| at > shared.now) {
            return;
        }
        self.listeners.again_at = None;
        for id in std::mem::take(&mut self.listeners.waiting) {
            self.ask(id, shared, out);
        }
    }

    pub(in crate::stage::sockets) fn ask(
        &mut self,
        id: ListenerId,
        shared: &mut Shared,
        out: &mut SocketOutput,
    ) {
        let Some(listener) = self.listeners.known.get_mut(&id) else { return };
        if !listener.ready || listener.asking {
            return;
        }
        let port = listener.published.target.port;
        if shared.shares.open(port, true).is_err() {
            self.listeners.wait(id, shared.now);
            return;
        }
        listener.asking = true;
        let birth = birth_of(&listener.published);
        let Some(socket) = self.insert(birth) else {
            self.stop_asking(id);
            shared.shares.close(port, true);
            shared.stats.limits_met += 1;
            self.listeners.wait(id, shared.now);
            return;
        };
        self.accepting.insert(socket, id);
        out.call(SocketCall::Accept { listener: id, socket });
    }

    /// What a connection that is about to be taken in came to.
    pub(in crate::stage::sockets) fn awaited(&self, socket: SocketId) -> Option<&Published> {
        let listener = self.listeners.known.get(self.accepting.get(&socket)?)?;
        Some(&listener.published)
    }

    /// Whose `Accept` this was.
    pub(in crate::stage::sockets) fn asked_by(&mut self, socket: SocketId) -> Option<ListenerId> {
        let found = self.accepting.remove(&socket)?;
        self.stop_asking(found);
        Some(found)
    }

    fn stop_asking(&mut self, id: ListenerId) {
        if let Some(listener) = self.listeners.known.get_mut(&id) {
            listener.asking = false;
        }
    }

    /// A client was taken in: now the container is asked.
    pub(in crate::stage::sockets) fn accepted(
        &mut self,
        socket: SocketId,
        (client, local): (SockAddr, SockAddr),
        room: Room,
        shared: &mut Shared,
        out: &mut SocketOutput,
    ) {
        let listener = self.asked_by(socket);
        // The container may have gone since it was asked for.
        let published = listener
            .filter(|_| self.slab.get_mut(socket).is_some())
            .and_then(|id| self.listeners.known.get(&id))
            .map(|listener| listener.published.clone());
        let key = published.as_ref().and_then(|published| {
            let ends = published.target.ends(client.addr, local.addr)?;
            let again = published.target.other_family(ends.inside.is_v4());
            if let Some(ends) = again {
                self.second_tries.insert(socket, SecondTry { ends, client });
            }
            self.key_for(ends, published.port, published.target.domain, client, shared)
        });
        if let Some(flow) = self.slab.get_mut(socket) {
            if let Some((key, gateway)) = key {
                flow.room = room;
                flow.ask_container(key, gateway, shared, out);
                shared.stats.tcp_accepted += 1;
                self.index_insert(socket.slot(), &key, shared);
            } else {
                // Unpublished meanwhile, or no address to show the client under.
                flow.abort(shared, out);
            }
        } else {
            out.call(SocketCall::Close { socket, reset: true });
        }
        self.touch(socket, shared);
        if let Some(id) = listener {
            self.ask(id, shared, out);
        }
    }

    /// No client was there, or there was no descriptor for one.
    pub(in crate::stage::sockets) fn not_accepted(
        &mut self,
        socket: SocketId,
        error: Option<SocketError>,
        shared: &mut Shared,
        out: &mut SocketOutput,
    ) {
        let listener = self.asked_by(socket);
        if let Some(flow) = self.slab.get_mut(socket).filter(|f| f.state == TcpState::Accepting) {
            flow.finish(TcpState::Closed, shared);
        }
        self.touch(socket, shared);
        let Some(id) = listener else { return };
        match (error, self.listeners.known.get_mut(&id)) {
            (None, Some(listener)) => listener.ready = false,
            (Some(_), Some(listener)) => {
                shared.stats.limits_met += 1;
                out.dropped(listener.published.target.port, DropReason::SocketLimit);
                self.listeners.wait(id, shared.now);
            }
            (_, None) => {}
        }
    }

    /// A container refuses a client in one family, and may listen in the other: a program that listens on
    /// `0.0.0.0` answers whoever asks for `localhost`, also if that was `::1`. `true`: it is asked again.
    pub(super) fn try_other_family(
        &mut self,
        at: u32,
        segment: &Segment,
        shared: &mut Shared,
        out: &mut SocketOutput,
    ) -> bool {
        let Some(flow) = self.slab.at(at).filter(|flow| flow.state == TcpState::SynSent) else {
            return false;
        };
        let (id, old) = (flow.id, flow.key);
        let Some(second) = self.second_tries.remove(&id) else { return false };
        if !segment.has(tcp::RST | tcp::ACK) || segment.ack != flow.snd_nxt {
            return false;
        }
        let Some((key, gateway)) =
            self.key_for(second.ends, old.src_port, old.domain, second.client, shared)
        else {
            return false;
        };
        self.index_remove(at, &old, shared);
        if let Some(flow) = self.slab.at_mut(at) {
            flow.ask_container(key, gateway, shared, out);
        }
        self.index_insert(at, &key, shared);
        self.touch(id, shared);
        true
    }

    /// The key under which the container will know this client, and the gateway of that family.
    fn key_for(
        &self,
        ends: Ends,
        port: u16,
        domain: DomainId,
        client: SockAddr,
        shared: &Shared,
    ) -> Option<(FlowKey, Addr)> {
        let key = FlowKey {
            src: ends.inside,
            dst: ends.client,
            src_port: port,
            dst_port: client.port,
            domain,
            proto: ipv6::TCP,
            scope: Scope::Routed,
        };
        let mut keys = publish::ports_to_show(client).map(|dst_port| FlowKey { dst_port, ..key });
        let free = keys.find(|key| self.find(key, shared).is_none())?;
        Some((free, ends.gateway))
    }
}

impl TcpFlow {
    /// Asks the container whether it takes the client in.
    fn ask_container(
        &mut self,
        key: FlowKey,
        gateway: Addr,
        shared: &Shared,
        out: &mut SocketOutput,
    ) {
        let iss = super::initial_sequence(&key, shared);
        (self.key, self.gateway) = (key, gateway);
        (self.snd_una, self.snd_nxt, self.snd_max) = (iss, iss, iss);
        self.state = TcpState::SynSent;
        self.send_syn(out);
    }
}

fn birth_of(published: &Published) -> Birth {
    let target = &published.target;
    let unknown = Addr::UNSPECIFIED;
    Birth {
        key: FlowKey {
            src: unknown,
            dst: unknown,
            src_port: published.port,
            dst_port: 0,
            domain: target.domain,
            proto: ipv6::TCP,
            scope: Scope::Routed,
        },
        link: target.link,
        port: target.port,
        gateway: unknown,
        mtu: target.mtu,
        state: TcpState::Accepting,
        iss: Seq(0),
    }
}
