//! WireGuard: who a peer is says its key, and where it is says the last packet that decrypted.
//!
//! The protocol is boringtun's: handshakes, session keys, counters, timers. It takes the time and random
//! numbers from the system by itself, which is why it is here. This file knows which peer a datagram is
//! for, what may wait for a handshake, and under which name what is refused is counted.
//!
//! **Whose is it?** A datagram has the number that its receiver gave the session: 24 bits of it say which
//! peer that is. The first message of a handshake has none, but the sender's key, encrypted for ours; to read
//! it costs a multiplication on the curve, so beyond [`WIREGUARD_HANDSHAKES_PER_SECOND`] a stranger must show
//! first that it is where it says (a "cookie", section 5.4.7 of the WireGuard paper).
//!
//! **Roaming.** What decrypts moves its peer to where it came from; what only looks like the peer's does not.
//!
//! **Waiting.** Without a session a packet begins a handshake and waits; a node that does not answer has a
//! bounded number of them, the newest.

mod key;
mod station;

use std::collections::HashMap;
use std::sync::Arc;

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};

use self::station::Station;
use crate::base::ids::{PeerId, PortId};
use crate::base::key::PublicKey;
use crate::base::limits::WIREGUARD_HANDSHAKES_PER_SECOND;
use crate::base::time::{Span, Time};
use crate::config::{Backend, Peer};
use crate::packet::{DropReason, FrameBatch};
use crate::stage::tunnel::{Link, TunnelOutput, Wrap};
use crate::wire::addr::Addr;
use crate::wire::ethernet::HEADER_LEN as L3_OFFSET;

pub use self::key::Secret;

/// The port that WireGuard usually has.
pub const PORT: u16 = 51820;

/// How often timers are looked at: they are due in seconds.
const TICK: Span = Span::from_millis(250);

/// Largest message of a handshake; whoever writes one is given as much room.
const HANDSHAKE_MAX: usize = 148;

/// First byte of a message that asks to show where one is. It is sent to strangers, too.
const COOKIE: u8 = 3;

/// This node, as WireGuard knows it.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its key.
    pub secret: Secret,
    /// Say something after so many seconds of silence: for a node behind a NAT or a firewall, which else
    /// would forget it. It also begins by itself.
    pub keep_alive: Option<u16>,
}

/// Packets that were not sent, or datagrams that were refused; without a port, nobody's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lost {
    /// The peer's port.
    pub port: Option<PortId>,
    /// Why.
    pub reason: DropReason,
}

/// All peers of this node.
pub struct WireGuard {
    identity: Identity,
    limiter: Arc<RateLimiter>,
    stations: HashMap<PeerId, Station>,
    by_port: HashMap<PortId, PeerId>,
    by_key: HashMap<PublicKey, PeerId>,
    /// Eight bits of the numbers of sessions, so that a daemon that starts anew has others.
    life: u32,
    /// Timers of a peer may run. It is asked for before each wait, too often to look at all peers.
    busy: bool,
    next_tick: Time,
    /// A packet while its pieces are put together.
    packet: Vec<u8>,
}

impl std::fmt::Debug for WireGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WireGuard").field("peers", &self.by_key).finish_non_exhaustive()
    }
}

impl WireGuard {
    /// A node without peers.
    pub fn new(identity: Identity) -> Self {
        let mut life = [0];
        // Should the kernel have no random numbers, boringtun says so by itself.
        let _ = crate::io::random::fill(&mut life);
        // A handshake is counted twice: before it is known whose it is, and by the peer.
        let limiter =
            RateLimiter::new(&identity.secret.public_point(), WIREGUARD_HANDSHAKES_PER_SECOND * 2);
        Self {
            identity,
            limiter: Arc::new(limiter),
            stations: HashMap::new(),
            by_port: HashMap::new(),
            by_key: HashMap::new(),
            life: u32::from(life[0]),
            busy: false,
            next_tick: Time::ZERO,
            packet: Vec::new(),
        }
    }

    /// A peer appears or changes. As long as it has its key, it keeps its session and the place it was last
    /// heard from; unless it was moved by hand.
    pub fn put(&mut self, peer: &Peer) {
        let Backend::Wireguard { key } = peer.backend else { return self.remove(peer.id) };
        if let Some(station) = self.stations.get_mut(&peer.id)
            && station.key == key
        {
            return station.configure(peer.endpoint);
        }
        self.remove(peer.id);
        let index = self.life << 16 | u32::from(peer.id.0);
        let station = Station::new(&self.identity, key, peer, index, &self.limiter);
        self.busy |= station.is_busy();
        self.by_port.insert(peer.port, peer.id);
        self.by_key.insert(key, peer.id);
        self.stations.insert(peer.id, station);
    }

    /// A peer goes.
    pub fn remove(&mut self, id: PeerId) {
        let Some(station) = self.stations.remove(&id) else { return };
        if self.by_port.get(&station.port) == Some(&id) {
            self.by_port.remove(&station.port);
        }
        if self.by_key.get(&station.key) == Some(&id) {
            self.by_key.remove(&station.key);
        }
    }

    /// Encrypts what is to be sent.
    pub fn seal(
        &mut self,
        bare: &TunnelOutput,
        batch: &FrameBatch,
        out: &mut TunnelOutput,
        lost: &mut Vec<Lost>,
    ) {
        let Self { stations, by_port, packet, busy, .. } = self;
        for train in bare.trains() {
            let id = (train.wrap == Wrap::Bare).then(|| by_port.get(&train.port)).flatten();
            let Some(station) = id.and_then(|id| stations.get_mut(id)) else {
                let gone = Lost { port: Some(train.port), reason: DropReason::PortGone };
                lost.extend((0..train.count).map(|_| gone));
                continue;
            };
            let ready = station.is_ready();
            let mut left = train.bytes as usize;
            packet.clear();
            for piece in bare.pieces(train, batch) {
                packet.extend_from_slice(piece);
                if packet.len() >= left.min(train.segment as usize) {
                    left -= packet.len();
                    station.send(packet, ready, out, lost);
                    packet.clear();
                }
            }
            *busy |= station.is_busy();
        }
    }

    /// Decrypts a datagram. An IP packet is put into `room` behind the place of an Ethernet header; the
    /// answer is whose it is and where it ends. What is to be said to the peer goes to `out`.
    ///
    /// # Errors
    /// Why it was refused.
    pub fn open(
        &mut self,
        from: (Addr, u16),
        datagram: &[u8],
        room: &mut [u8],
        out: &mut TunnelOutput,
    ) -> Result<Option<(PortId, usize)>, Lost> {
        // It may wake a peer's timers; if not, the next tick finds out.
        self.busy = true;
        let parsed = Tunn::parse_incoming_packet(datagram);
        let station = match parsed.map_err(|_| nobody(DropReason::TunnelHeader))? {
            Packet::HandshakeInit(_) => {
                let key = self.who_begins(from, datagram, out)?;
                let station = self.by_key.get(&key).and_then(|id| self.stations.get_mut(id));
                station.ok_or_else(|| nobody(DropReason::WireguardKey))?
            }
            Packet::HandshakeResponse(answer) => self.of_session(answer.receiver_idx)?,
            Packet::PacketCookieReply(cookie) => self.of_session(cookie.receiver_idx)?,
            Packet::PacketData(data) => self.of_session(data.receiver_idx)?,
        };
        station.wake(out);
        let port = station.port;
        let mut end = None;
        let packet_room = room.get_mut(L3_OFFSET..).unwrap_or_default();
        match station.tunn.decapsulate(Some(from.0.ip()), datagram, packet_room) {
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                end = Some(L3_OFFSET + packet.len());
                station.is_at(from);
            }
            TunnResult::WriteToNetwork(answer) => {
                if answer.first() == Some(&COOKIE) {
                    say(out, port, from, answer);
                    return Err(Lost { port: Some(port), reason: DropReason::WireguardBusy });
                }
                station.is_at(from);
                say(out, port, from, answer);
            }
            // Nothing but that the peer is there; a cookie does not even prove that.
            TunnResult::Done if datagram.first() != Some(&COOKIE) => station.is_at(from),
            TunnResult::Done => {}
            TunnResult::Err(error) => {
                return Err(Lost { port: Some(port), reason: reason(&error) });
            }
        }
        station.send_waiting(out);
        Ok(end.map(|end| (port, end)))
    }

    /// The key of who begins a handshake, which need not be a peer's.
    fn who_begins(
        &self,
        from: (Addr, u16),
        datagram: &[u8],
        out: &mut TunnelOutput,
    ) -> Result<PublicKey, Lost> {
        let mut room = [0; HANDSHAKE_MAX];
        let verified = self.limiter.verify_packet(Some(from.0.ip()), datagram, &mut room);
        let init = match verified {
            Ok(Packet::HandshakeInit(init)) => init,
            Err(TunnResult::WriteToNetwork(cookie)) => {
                say(out, PortId(0), from, cookie);
                return Err(nobody(DropReason::WireguardBusy));
            }
            _ => return Err(nobody(DropReason::WireguardKey)),
        };
        let (secret, public) = (self.identity.secret.scalar(), self.identity.secret.public_point());
        let half = parse_handshake_anon(secret, &public, &init);
        half.map(|half| PublicKey(half.peer_static_public))
            .map_err(|_| nobody(DropReason::WireguardKey))
    }

    /// The peer that has a session of this number, or had one.
    fn of_session(&mut self, number: u32) -> Result<&mut Station, Lost> {
        let index = number >> 8;
        let station = self.stations.get_mut(&PeerId(index as u16));
        let station = station.filter(|station| station.index == index);
        station.ok_or_else(|| nobody(DropReason::WireguardStale))
    }

    /// When [`tick`](Self::tick) has something to do next.
    pub fn next_deadline(&self) -> Option<Time> {
        self.busy.then_some(self.next_tick)
    }

    /// Handshakes that are due, keep-alives, and the end of what was not answered.
    pub fn tick(&mut self, now: Time, out: &mut TunnelOutput, lost: &mut Vec<Lost>) {
        if now < self.next_tick {
            return;
        }
        self.next_tick = now + TICK;
        self.limiter.reset_count();
        for station in self.stations.values_mut() {
            station.tick(now, out, lost);
        }
        self.busy = self.stations.values().any(Station::is_busy);
    }
}

/// A datagram for a place.
fn say(out: &mut TunnelOutput, port: PortId, to: (Addr, u16), datagram: &[u8]) {
    out.put(&Link { port, to, wrap: Wrap::Sealed }, datagram.len(), |room| {
        room.copy_from_slice(datagram);
        room.len()
    });
}

fn nobody(reason: DropReason) -> Lost {
    Lost { port: None, reason }
}

fn reason(error: &WireGuardError) -> DropReason {
    match error {
        WireGuardError::DuplicateCounter | WireGuardError::InvalidCounter => {
            DropReason::WireguardReplay
        }
        WireGuardError::WrongTai64nTimestamp
        | WireGuardError::InvalidTai64nTimestamp
        | WireGuardError::UnexpectedPacket
        | WireGuardError::WrongIndex
        | WireGuardError::ConnectionExpired
        | WireGuardError::NoCurrentSession => DropReason::WireguardStale,
        WireGuardError::WrongKey | WireGuardError::InvalidMac => DropReason::WireguardKey,
        WireGuardError::InvalidAeadTag => DropReason::WireguardForged,
        WireGuardError::UnderLoad => DropReason::WireguardBusy,
        WireGuardError::DestinationBufferTooSmall
        | WireGuardError::IncorrectPacketLength
        | WireGuardError::WrongPacketType
        | WireGuardError::InvalidPacket
        | WireGuardError::LockFailed => DropReason::TunnelHeader,
    }
}

#[cfg(test)]
mod tests;
