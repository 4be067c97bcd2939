//! A DHCP client (RFC 2131) without I/O: frames and time in, frames and events out.
//!
//! ```text
//!   Init ─ discover ─> Selecting ─ offer ─> Requesting ─ ack ─> Bound ─ T1 ─> Renewing ─ T2 ─> Rebinding
//!    ^                                        │ nak, silence      ^─── ack ───┴──── ack ─────────┘ │
//!    └────────────────────────────────────────┴──────── nak, or the lease ends ────────────────────┘
//! ```
//!
//! The codec is smoltcp's. Options are read one by one all the same, since its representation knows
//! only one router and none of RFC 3442.

use smoltcp::wire::{DHCP_CLIENT_PORT, DHCP_SERVER_PORT, DhcpMessageType, DhcpPacket, DhcpRepr};

use crate::base::time::{Span, Time};
use crate::packet::{PacketBuf, Parsed};
use crate::wire::addr::Addr;
use crate::wire::mac::Mac;

mod codec;
use codec::Answer;

/// RFC 2131 4.1: repeated after 4, 8, 16, 32, 64 seconds, each a second more or less.
const BACKOFF_FIRST: u64 = 4;
const BACKOFF_DOUBLINGS: u32 = 4;
/// Requests for one offer before starting anew.
const REQUESTS_MAX: u32 = 4;
/// RFC 2131 4.4.5: renewals are not repeated more often.
const RENEW_INTERVAL_MIN: Span = Span::from_secs(60);
/// No lease is taken for shorter, whatever the server says: it would make us a flood.
const LEASE_MIN: u64 = 60;
/// What an answer without lease time stands for.
const LEASE_DEFAULT: u64 = 3600;
/// After a refusal.
const NAK_PAUSE: Span = Span::from_secs(10);

/// What came of an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LeaseEvent {
    /// An address is ours: for the first time, or for longer.
    Bound {
        /// The address.
        addr: Addr,
        /// Length of the prefix that is on the link.
        prefix_len: u8,
        /// Default routers, the preferred one first.
        routers: Vec<Addr>,
        /// Name servers.
        dns: Vec<Addr>,
        /// MTU of the link.
        mtu: Option<u16>,
        /// When the address must no longer be used.
        expires: Time,
    },
    /// The address must no longer be used.
    Lost,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Init,
    Selecting,
    Requesting,
    Bound,
    Renewing,
    Rebinding,
}

/// What is agreed on with a server.
#[derive(Clone, Copy, Debug)]
struct Lease {
    addr: Addr,
    server: Addr,
    /// The server's MAC, or that of the router before it.
    server_mac: Mac,
    rebind: Time,
    expires: Time,
}

/// The client of one uplink.
#[derive(Debug)]
pub struct DhcpClient {
    mac: Mac,
    random: u64,
    state: State,
    xid: u32,
    began: Time,
    tries: u32,
    next: Time,
    lease: Option<Lease>,
    lost: bool,
}

impl DhcpClient {
    /// A client without an address, which asks at once. `seed` makes transaction numbers.
    pub fn new(mac: Mac, seed: u64) -> Self {
        Self {
            mac,
            random: seed,
            state: State::Init,
            xid: 0,
            began: Time::ZERO,
            tries: 0,
            next: Time::ZERO,
            lease: None,
            lost: false,
        }
    }

    /// Does what is due: the frame to send, if any. Afterwards ask whether the address was
    /// [lost](Self::take_lost).
    pub fn tick(&mut self, now: Time) -> Option<PacketBuf> {
        if now < self.next {
            return None;
        }
        match (self.state, self.lease) {
            (State::Requesting, Some(_)) if self.tries < REQUESTS_MAX => {
                self.back_off(now);
                Some(self.message(now, DhcpMessageType::Request))
            }
            (State::Bound | State::Renewing | State::Rebinding, Some(lease)) => {
                Some(self.renew(now, lease))
            }
            (State::Selecting, _) => {
                self.back_off(now);
                Some(self.message(now, DhcpMessageType::Discover))
            }
            _ => Some(self.discover(now)),
        }
    }

    /// Takes in a frame; `None` if it is nothing to us.
    pub fn handle(&mut self, now: Time, frame: &[u8], parsed: &Parsed) -> Option<LeaseEvent> {
        let payload = codec::payload(frame, parsed)?;
        let answer = Answer::read(payload, self.xid, self.mac)?;
        match (self.state, answer.kind) {
            (State::Selecting, DhcpMessageType::Offer) => {
                let server = answer.server?;
                let (addr, server_mac) = (answer.addr?, parsed.src_mac);
                self.lease = Some(Lease { addr, server, server_mac, rebind: now, expires: now });
                self.enter(State::Requesting, now);
                None
            }
            (State::Requesting | State::Renewing | State::Rebinding, DhcpMessageType::Ack) => {
                self.bind(now, &answer, parsed.src_mac)
            }
            (State::Requesting, DhcpMessageType::Nak) => {
                self.lease = None;
                self.enter(State::Init, now + NAK_PAUSE);
                None
            }
            (State::Renewing | State::Rebinding, DhcpMessageType::Nak) => {
                self.lease = None;
                self.enter(State::Init, now);
                Some(LeaseEvent::Lost)
            }
            _ => None,
        }
    }

    /// Whether the lease ended without an answer since the last call.
    pub fn take_lost(&mut self) -> Option<LeaseEvent> {
        std::mem::take(&mut self.lost).then_some(LeaseEvent::Lost)
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn next_deadline(&self) -> Time {
        self.next
    }

    /// Gives the address back; the client asks anew when ticked again.
    pub fn release(&mut self, now: Time) -> Option<PacketBuf> {
        let held = matches!(self.state, State::Bound | State::Renewing | State::Rebinding);
        let frame = held.then(|| self.message(now, DhcpMessageType::Release));
        self.lease = None;
        self.enter(State::Init, now);
        frame
    }

    fn enter(&mut self, state: State, next: Time) {
        self.state = state;
        self.tries = 0;
        self.next = next;
    }

    fn discover(&mut self, now: Time) -> PacketBuf {
        self.lease = None;
        self.xid = self.random() as u32;
        self.began = now;
        self.enter(State::Selecting, now);
        self.back_off(now);
        self.message(now, DhcpMessageType::Discover)
    }

    fn back_off(&mut self, now: Time) {
        let wait = BACKOFF_FIRST << self.tries.min(BACKOFF_DOUBLINGS);
        let jitter = self.random() % 2001;
        self.next = now + Span::from_millis(wait * 1000 - 1000 + jitter);
        self.tries += 1;
    }

    fn bind(&mut self, now: Time, answer: &Answer, server_mac: Mac) -> Option<LeaseEvent> {
        let before = self.lease?;
        let addr = answer.addr?;
        let server = answer.server.unwrap_or(before.server);
        let another = server != before.server || addr != before.addr;
        if self.state == State::Requesting && another {
            return None;
        }
        let secs = u64::from(answer.lease.unwrap_or(LEASE_DEFAULT as u32)).max(LEASE_MIN);
        let (renew, rebind) = match (answer.renew.map(u64::from), answer.rebind.map(u64::from)) {
            (Some(t1), Some(t2)) if LEASE_MIN / 2 <= t1 && t1 < t2 && t2 < secs => (t1, t2),
            // RFC 2131 4.4.5.
            _ => (secs / 2, secs * 7 / 8),
        };
        let at = |secs| now + Span::from_secs(secs);
        let (renew, rebind, expires) = (at(renew), at(rebind), at(secs));
        self.lease = Some(Lease { addr, server, server_mac, rebind, expires });
        self.enter(State::Bound, renew);
        Some(LeaseEvent::Bound {
            addr,
            prefix_len: answer.prefix_len,
            routers: answer.routers.clone(),
            dns: answer.dns.clone(),
            mtu: answer.mtu,
            expires,
        })
    }

    /// Asks for more time: the server until T2, anybody until the end, and then from the beginning.
    fn renew(&mut self, now: Time, lease: Lease) -> PacketBuf {
        if now >= lease.expires {
            self.lost = true;
            return self.discover(now);
        }
        if self.state == State::Bound {
            self.xid = self.random() as u32;
            self.began = now;
        }
        let (state, end) = if now >= lease.rebind {
            (State::Rebinding, lease.expires)
        } else {
            (State::Renewing, lease.rebind)
        };
        let half = Span(end.since(now).0 / 2).max(RENEW_INTERVAL_MIN);
        self.enter(state, end.min(now + half));
        self.message(now, DhcpMessageType::Request)
    }

    fn message(&self, now: Time, kind: DhcpMessageType) -> PacketBuf {
        let repr = DhcpRepr {
            message_type: kind,
            transaction_id: self.xid,
            secs: (now.since(self.began).as_millis() / 1000).min(u16::MAX.into()) as u16,
            ..codec::template(self.mac)
        };
        let Some(lease) = self.lease else { return codec::broadcast(self.mac, &repr) };
        let (addr, server) = (lease.addr.v4(), lease.server.v4());
        let bound = DhcpRepr { client_ip: addr.unwrap_or(repr.client_ip), ..repr.clone() };
        let (our, to) = ((self.mac, lease.addr), (lease.server_mac, lease.server));
        match self.state {
            State::Requesting => {
                let repr = DhcpRepr { requested_ip: addr, server_identifier: server, ..repr };
                codec::broadcast(self.mac, &repr)
            }
            State::Rebinding if kind == DhcpMessageType::Request => {
                codec::send(our, codec::EVERYBODY, &bound)
            }
            _ if kind == DhcpMessageType::Release => {
                let repr = DhcpRepr { server_identifier: server, ..bound };
                codec::send(our, to, &repr)
            }
            _ => codec::send(our, to, &bound),
        }
    }

    /// SplitMix64: transaction numbers need not be secret, only different.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests;
