//! Published UDP ports: clients that share a listener's one socket.

use hashbrown::HashMap;

use super::{Payload, TIMEOUT, deliver, receive, send};
use crate::base::limits::SOCKET_UDP_CLIENTS_MAX;
use crate::base::time::{Span, Time};
use crate::packet::{FlowKey, FrameMut, Scope};
use crate::stage::sockets::calls::{FrameSlot, ListenerId, SockAddr, Via};
use crate::stage::sockets::events::SocketError;
use crate::stage::sockets::headers::{self, Quote};
use crate::stage::sockets::output::SocketOutput;
use crate::stage::sockets::publish::{self, Published};
use crate::stage::sockets::shared::Shared;
use crate::wire::addr::Addr;
use crate::wire::ipv6;

/// One client of a published port.
#[derive(Clone, Copy, Debug)]
struct Client {
    listener: ListenerId,
    /// The client's own address and port.
    real: SockAddr,
    /// The address it asked.
    local: Option<Addr>,
    used: Time,
}

/// A datagram, or a train, that a listener received.
pub(in crate::stage::sockets) struct Datagram {
    pub(in crate::stage::sockets) slot: FrameSlot,
    pub(in crate::stage::sockets) from: SockAddr,
    pub(in crate::stage::sockets) to: Option<Addr>,
    pub(in crate::stage::sockets) segment: Option<u16>,
}

/// Listeners and their clients.
#[derive(Debug, Default)]
pub(in crate::stage::sockets) struct Clients {
    listeners: HashMap<ListenerId, Published>,
    /// Clients by the key under which the container answers them.
    by_key: HashMap<FlowKey, Client>,
    /// Keys by listener and client, for what arrives.
    keys: HashMap<(ListenerId, Addr, u16), FlowKey>,
    /// When idle clients were last looked for.
    swept: Time,
}

impl Clients {
    pub(in crate::stage::sockets) fn publish(&mut self, published: Published) {
        self.listeners.insert(published.listener, published);
    }

    /// What a listener leads to.
    pub(in crate::stage::sockets) fn behind(&self, id: ListenerId) -> Option<&Published> {
        self.listeners.get(&id)
    }

    /// Forgets a client; `false` if there is none of that key.
    pub(in crate::stage::sockets) fn forget(&mut self, key: &FlowKey) -> bool {
        let Some(client) = self.by_key.remove(key) else { return false };
        self.keys.remove(&(client.listener, client.real.addr, client.real.port));
        true
    }

    pub(in crate::stage::sockets) fn published(
        &mut self,
        id: ListenerId,
    ) -> Option<&mut Published> {
        self.listeners.get_mut(&id)
    }

    pub(in crate::stage::sockets) fn unpublish(&mut self, listener: ListenerId) {
        if self.listeners.remove(&listener).is_some() {
            self.by_key.retain(|_, client| client.listener != listener);
            self.keys.retain(|(of, ..), _| *of != listener);
        }
    }

    /// Whether that key is a client's.
    pub(super) fn knows(&self, key: &FlowKey) -> bool {
        self.by_key.contains_key(key)
    }

    /// Sends a container's datagram to the client of that key; `false` if there is none.
    pub(super) fn answer(
        &mut self,
        key: &FlowKey,
        payload: Payload,
        now: Time,
        out: &mut SocketOutput,
    ) -> bool {
        let Some(client) = self.by_key.get_mut(key) else { return false };
        client.used = now;
        // Answers to one client in a row make a train, if nothing came between.
        let mut hint = (out.calls.len() as u32).wrapping_sub(1);
        send(Via::Listener(client.listener), client.local, client.real, payload, &mut hint, out);
        true
    }

    /// Datagrams wait at a listener.
    pub(in crate::stage::sockets) fn incoming(
        &mut self,
        listener: ListenerId,
        out: &mut SocketOutput,
    ) {
        if let Some(published) = self.listeners.get(&listener) {
            out.call(receive(Via::Listener(listener), published.target.addrs[0].is_some()));
        }
    }

    /// Takes in a datagram, or a train, from a client of a published port.
    pub(in crate::stage::sockets) fn received(
        &mut self,
        listener: ListenerId,
        datagram: &Datagram,
        mut frame: FrameMut<'_>,
        shared: &mut Shared,
        out: &mut SocketOutput,
    ) {
        let Some(key) = self.client(listener, datagram, shared) else { return };
        let Some(published) = self.listeners.get(&listener) else { return };
        let target = &published.target;
        // The room left in front is an IPv4 header's or an IPv6 header's, after the target's families.
        let left = headers::udp_headers(target.addrs[0].is_some());
        let needed = headers::udp_headers(key.src.is_v4());
        let fits = if left < needed { frame.prepend(needed - left).is_some() } else { true };
        if fits {
            let at = (&mut frame, datagram.slot);
            deliver(&key, target.link, target.port, at, datagram.segment, out);
        }
    }

    /// Tells the container what became of its answer to a client.
    pub(in crate::stage::sockets) fn failed(
        &self,
        listener: ListenerId,
        (error, offender): (SocketError, Addr),
        client: SockAddr,
        shared: &mut Shared,
        out: &mut SocketOutput,
    ) {
        let Some(key) = self.keys.get(&(listener, client.addr, client.port)) else { return };
        let Some(target) = self.listeners.get(&listener).map(|published| &published.target) else {
            return;
        };
        let v4 = key.src.is_v4();
        let known = !offender.is_unspecified() && offender.is_v4() == v4;
        let from = match target.gateways[usize::from(!v4)] {
            // What the client says itself is said by whom the container takes for it.
            _ if offender == client.addr => key.dst,
            Some(gateway) if !known => gateway,
            _ if known => offender,
            _ => return,
        };
        if shared.may_refuse() {
            let frame = headers::icmp_error(target.link, key, &Quote::Udp, error, from);
            out.made(target.port, frame);
        }
    }

    /// The key under which the container knows this client; a new one if need be.
    fn client(
        &mut self,
        listener: ListenerId,
        datagram: &Datagram,
        shared: &mut Shared,
    ) -> Option<FlowKey> {
        let from = datagram.from;
        if let Some(key) = self.keys.get(&(listener, from.addr, from.port)) {
            if let Some(client) = self.by_key.get_mut(key) {
                client.used = shared.now;
                client.local = datagram.to;
            }
            return Some(*key);
        }
        self.sweep(shared);
        if self.by_key.len() >= SOCKET_UDP_CLIENTS_MAX {
            shared.stats.limits_met += 1;
            return None;
        }
        let published = self.listeners.get(&listener)?;
        let target = &published.target;
        let ends = target.ends(from.addr, datagram.to.unwrap_or(Addr::UNSPECIFIED))?;
        let key = FlowKey {
            src: ends.inside,
            dst: ends.client,
            src_port: published.port,
            dst_port: from.port,
            domain: target.domain,
            proto: ipv6::UDP,
            scope: Scope::Routed,
        };
        let mut keys = publish::ports_to_show(from).map(|dst_port| FlowKey { dst_port, ..key });
        let key = keys.find(|key| !self.by_key.contains_key(key))?;
        let (real, local, used) = (from, datagram.to, shared.now);
        self.by_key.insert(key, Client { listener, real, local, used });
        self.keys.insert((listener, from.addr, from.port), key);
        Some(key)
    }

    /// Forgets idle clients: when the table is full, and once a timeout while new ones come.
    fn sweep(&mut self, shared: &Shared) {
        let full = self.by_key.len() >= SOCKET_UDP_CLIENTS_MAX;
        let often = if full { Span::from_secs(1) } else { TIMEOUT };
        if shared.now.since(self.swept) < often {
            return;
        }
        self.swept = shared.now;
        let idle = |client: &Client| shared.now.since(client.used) >= TIMEOUT;
        let keys = &mut self.keys;
        self.by_key.retain(|_, client| {
            let stays = !idle(client);
            if !stays {
                keys.remove(&(client.listener, client.real.addr, client.real.port));
            }
            stays
        });
    }
}
