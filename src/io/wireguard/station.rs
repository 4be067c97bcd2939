//! One peer: its session, where it is, and what waits for it.

use std::collections::VecDeque;
use std::sync::Arc;

use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;

use super::{HANDSHAKE_MAX, Identity, Lost};
use crate::base::ids::PortId;
use crate::base::key::PublicKey;
use crate::base::limits::WIREGUARD_WAITING_MAX;
use crate::base::time::{Span, Time};
use crate::config::Peer;
use crate::packet::DropReason;
use crate::stage::tunnel::{Link, TunnelOutput, Wrap};
use crate::wire::addr::Addr;

/// What encryption adds to a packet.
const OVERHEAD: usize = 32;

/// One peer.
pub(super) struct Station {
    pub(super) port: PortId,
    pub(super) key: PublicKey,
    pub(super) tunn: Tunn,
    /// The upper bits of its sessions' numbers.
    pub(super) index: u32,
    configured: (Addr, u16),
    /// Where it was last heard from.
    pub(super) endpoint: (Addr, u16),
    waiting: VecDeque<Box<[u8]>>,
    keep_alive: Option<Span>,
    /// No timer of its runs: it did not answer, or nobody has asked it anything for long.
    asleep: bool,
    /// When a peer that is kept alive and does not answer was last asked.
    asked: Time,
}

impl Station {
    pub(super) fn new(
        identity: &Identity,
        key: PublicKey,
        peer: &Peer,
        index: u32,
        limiter: &Arc<RateLimiter>,
    ) -> Self {
        let (secret, public) = (identity.secret.scalar().clone(), x25519::PublicKey::from(key.0));
        let limiter = Some(Arc::clone(limiter));
        let tunn = Tunn::new(secret, public, None, identity.keep_alive, index, limiter);
        Self {
            port: peer.port,
            key,
            tunn,
            index,
            configured: peer.endpoint,
            endpoint: peer.endpoint,
            waiting: VecDeque::new(),
            keep_alive: identity.keep_alive.map(|secs| Span::from_secs(secs.into())),
            asleep: true,
            asked: Time::ZERO,
        }
    }

    /// Where it is according to the configuration.
    pub(super) fn configure(&mut self, endpoint: (Addr, u16)) {
        if self.configured != endpoint {
            (self.configured, self.endpoint) = (endpoint, endpoint);
        }
    }

    /// Something that only the peer can have made came from there.
    pub(super) fn is_at(&mut self, from: (Addr, u16)) {
        self.endpoint = from;
    }

    /// Whether a packet can be encrypted now.
    pub(super) fn is_ready(&self) -> bool {
        self.tunn.time_since_last_handshake().is_some()
    }

    /// Whether timers run.
    pub(super) fn is_busy(&self) -> bool {
        !self.asleep || self.keep_alive.is_some()
    }

    fn link(&self) -> Link {
        Link { port: self.port, to: self.endpoint, wrap: Wrap::Sealed }
    }

    /// Encrypts a packet, or begins a handshake and keeps it until that has succeeded.
    pub(super) fn send(
        &mut self,
        packet: &[u8],
        ready: bool,
        out: &mut TunnelOutput,
        lost: &mut Vec<Lost>,
    ) {
        if ready {
            return self.encrypt(packet, out);
        }
        if self.waiting.len() == WIREGUARD_WAITING_MAX {
            self.waiting.pop_front();
            lost.push(self.unanswered());
        }
        self.waiting.push_back(packet.into());
        self.wake(out);
        self.begin(out);
    }

    fn encrypt(&mut self, packet: &[u8], out: &mut TunnelOutput) {
        let room = (packet.len() + OVERHEAD).max(HANDSHAKE_MAX);
        out.put(&self.link(), room, |room| written(self.tunn.encapsulate(packet, room)));
    }

    /// Begins a handshake, unless one is under way.
    fn begin(&mut self, out: &mut TunnelOutput) {
        let tunn = &mut self.tunn;
        let link = Link { port: self.port, to: self.endpoint, wrap: Wrap::Sealed };
        out.put(&link, HANDSHAKE_MAX, |room| {
            written(tunn.format_handshake_initiation(room, false))
        });
    }

    /// Sends what has waited, once that is possible.
    pub(super) fn send_waiting(&mut self, out: &mut TunnelOutput) {
        if self.waiting.is_empty() || !self.is_ready() {
            return;
        }
        for packet in std::mem::take(&mut self.waiting) {
            self.encrypt(&packet, out);
        }
    }

    /// Timers run again. They count from when they were last looked at, so that comes first.
    pub(super) fn wake(&mut self, out: &mut TunnelOutput) {
        if std::mem::replace(&mut self.asleep, false) {
            self.run_timers(out);
        }
    }

    pub(super) fn tick(&mut self, now: Time, out: &mut TunnelOutput, lost: &mut Vec<Lost>) {
        if !self.asleep && !self.run_timers(out) {
            let unanswered = self.unanswered();
            lost.extend(self.waiting.drain(..).map(|_| unanswered));
            self.asleep = true;
        }
        if self.asleep
            && let Some(every) = self.keep_alive
            && (self.asked == Time::ZERO || now - self.asked >= every)
        {
            self.asked = now;
            self.wake(out);
            self.begin(out);
        }
    }

    /// `false`: the peer does not answer, or there has been nothing to say for long.
    fn run_timers(&mut self, out: &mut TunnelOutput) -> bool {
        let mut runs = true;
        let link = self.link();
        out.put(&link, HANDSHAKE_MAX, |room| match self.tunn.update_timers(room) {
            TunnResult::Err(_) => {
                runs = false;
                0
            }
            result => written(result),
        });
        runs
    }

    fn unanswered(&self) -> Lost {
        Lost { port: Some(self.port), reason: DropReason::WireguardUnanswered }
    }
}

/// Bytes that are to be sent.
fn written(result: TunnResult<'_>) -> usize {
    match result {
        TunnResult::WriteToNetwork(bytes) => bytes.len(),
        _ => 0,
    }
}
