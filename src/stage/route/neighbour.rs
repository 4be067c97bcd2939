//! Neighbours of uplinks: the MACs of next hops, found by ARP or neighbour discovery.
//!
//! One state machine for both, RFC 4861 7.3.2:
//!
//! ```text
//!              ask ┌────────────┐ answer            30 s (at the next packet)
//!   (nothing) ────>│ Incomplete │────────> Reachable ────────────> Delay
//!                  └─────┬──────┘             ^  ^                   │ 5 s
//!                3 times │ 1 s                │  └── answer ── Probe <┘
//!                        v      hearsay:      │                  │ 3 times 1 s
//!                      Failed   Stale ── a packet ──> Delay      └──> Failed
//! ```
//!
//! A reachable neighbour that nobody talks to is left alone: `Stale` is entered in passing, when the
//! next packet finds that its time is over, so an idle switch has no timers. `Failed` is remembered
//! for a moment, so that a client that keeps trying is told at once and not after three seconds.

use hashbrown::HashMap;

use crate::base::ids::PortId;
use crate::base::limits::{
    HOLD_FRAMES_MAX, NEIGHBOUR_HOLD_FRAMES_MAX, NEIGHBOURS_MAX, NEIGHBOURS_UNRESOLVED_MAX,
};
use crate::base::lru::LruList;
use crate::base::slab::Slab;
use crate::base::time::{Span, Time};
use crate::base::timers::TimerQueue;
use crate::packet::PacketBuf;
use crate::wire::addr::Addr;
use crate::wire::mac::Mac;

/// RFC 4861 section 10.
const REACHABLE: Span = Span::from_secs(30);
const RETRANS: Span = Span::from_secs(1);
const DELAY_FIRST_PROBE: Span = Span::from_secs(5);
const SOLICITS_MAX: u8 = 3;
/// How long a failure is remembered, after `retrans_time` of the kernel.
const FAILED: Span = Span::from_secs(1);
/// Hearsay changes a MAC at most so often, after `locktime` of the kernel: two stations that claim
/// one address must not make it flap.
const LOCK: Span = Span::from_secs(1);
/// A neighbour unused for so long may be forgotten for a new one (`gc_stale_time` of the kernel).
const UNUSED: Span = Span::from_secs(60);
const GRANULARITY: Span = Span::from_secs(1);

/// What is known about a neighbour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// It is being asked for; so often until now.
    Incomplete(u8),
    /// It answered not long ago.
    Reachable,
    /// Hearsay, or long ago: good enough to send to, to be checked when that happens.
    Stale,
    /// Sent to, and soon to be checked.
    Delay,
    /// It is being checked; asked so often until now.
    Probe(u8),
    /// It does not answer.
    Failed,
}

/// What to do with a packet for a neighbour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resolution {
    /// Send it there.
    Reachable(Mac),
    /// Ask for the neighbour: everybody, or (`to`) the MAC it had. The frame given is held.
    Ask {
        /// Whom to ask.
        to: Option<Mac>,
    },
    /// It has been asked for. The frame given is held.
    Wait,
    /// No more frames can be held: the frame given is dropped.
    HoldFull,
    /// No room for another neighbour: the frame given is dropped.
    TableFull,
    /// It did not answer a moment ago: the frame given is dropped.
    Failed,
}

/// What came of something learned.
#[derive(Debug, Default)]
pub struct Learned {
    /// Frames that waited for it.
    pub released: Vec<PacketBuf>,
    /// Whether the MAC is another than before: what was compiled with the old one is stale.
    pub changed: bool,
}

/// What the passing of time asks for.
#[derive(Debug)]
pub enum Action {
    /// Ask again: everybody, or (`to`) the MAC it had.
    Ask {
        /// Where the neighbour is.
        port: PortId,
        /// Its address.
        addr: Addr,
        /// Whom to ask.
        to: Option<Mac>,
    },
    /// It does not answer.
    Failed {
        /// Where the neighbour is.
        port: PortId,
        /// Its address.
        addr: Addr,
        /// Frames that waited for it, to be answered with "host unreachable".
        held: Vec<PacketBuf>,
    },
}

#[derive(Debug)]
struct Neighbour {
    key: Key,
    state: State,
    mac: Mac,
    /// When the MAC was confirmed or changed.
    updated: Time,
    used: Time,
    /// When the state ends by itself.
    until: Option<Time>,
    held: Vec<PacketBuf>,
}

type Key = (PortId, Addr);

/// One neighbour, as `wharf neigh` shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Where it is.
    pub port: PortId,
    /// Its address.
    pub addr: Addr,
    /// Its MAC, if it is known.
    pub mac: Option<Mac>,
    /// What is known about it.
    pub state: State,
    /// When it was last sent to.
    pub used: Time,
}

/// The neighbours of all uplinks of a worker.
#[derive(Debug, Default)]
pub struct NeighbourTable {
    index: HashMap<Key, u32>,
    entries: Slab<Neighbour>,
    /// Those with a MAC, by the time they were last used.
    known: LruList,
    timers: TimerQueue<Key>,
    held: usize,
}

impl NeighbourTable {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where to send a packet for `addr`. The frame, if one is given, is kept when the answer is
    /// [`Resolution::Ask`] or [`Resolution::Wait`]; on the fast path give none, and call again with
    /// it when the answer is not `Reachable`.
    #[inline]
    pub fn resolve(
        &mut self,
        now: Time,
        port: PortId,
        addr: Addr,
        frame: Option<PacketBuf>,
    ) -> Resolution {
        let Some(&index) = self.index.get(&(port, addr)) else {
            return self.begin(now, (port, addr), frame);
        };
        let Some(entry) = self.entries.get_mut(index) else { return Resolution::TableFull };
        match entry.state {
            State::Incomplete(_) => return self.hold(index, frame),
            State::Failed if entry.until.is_some_and(|until| until > now) => {
                return Resolution::Failed;
            }
            State::Failed => {
                self.forget(index);
                return self.begin(now, (port, addr), frame);
            }
            State::Reachable if now.since(entry.updated) < REACHABLE => {}
            State::Reachable | State::Stale => {
                entry.state = State::Delay;
                entry.until = Some(now + DELAY_FIRST_PROBE);
                self.timers.arm(now + DELAY_FIRST_PROBE, (port, addr));
            }
            State::Delay | State::Probe(_) => {}
        }
        let mac = entry.mac;
        if now.since(entry.used) >= GRANULARITY {
            entry.used = now;
            self.known.touch(&mut self.entries, index);
        }
        Resolution::Reachable(mac)
    }

    /// Takes in what a neighbour said of itself. `solicited`: it answered a question of ours.
    ///
    /// Only neighbours that we know or ask for are listened to (RFC 4861 7.2.5): who talks a lot
    /// cannot fill the table.
    pub fn learned(
        &mut self,
        now: Time,
        port: PortId,
        addr: Addr,
        mac: Mac,
        solicited: bool,
    ) -> Learned {
        let Some(&index) = self.index.get(&(port, addr)) else { return Learned::default() };
        let Some(entry) = self.entries.get_mut(index) else { return Learned::default() };
        let known = !matches!(entry.state, State::Incomplete(_) | State::Failed);
        let same = known && entry.mac == mac;
        let locked = known && !solicited && now.since(entry.updated) < LOCK;
        if !mac.is_unicast() || (!same && locked) || (same && !solicited) {
            return Learned::default();
        }
        entry.mac = mac;
        entry.updated = now;
        entry.state = if solicited { State::Reachable } else { State::Stale };
        entry.until = None;
        let released = std::mem::take(&mut entry.held);
        if !known {
            entry.used = now;
            self.known.push(&mut self.entries, index);
        }
        self.held -= released.len();
        Learned { released, changed: known && !same }
    }

    /// Does what is due; the caller sends the questions and answers the frames that failed.
    pub fn tick(&mut self, now: Time) -> Vec<Action> {
        let mut actions = Vec::new();
        while let Some(key) = self.timers.pop_due(now) {
            let Some(&index) = self.index.get(&key) else { continue };
            let until = self.entries.get(index).and_then(|e| e.until);
            if until.is_some_and(|until| until <= now) {
                actions.extend(self.advance(now, index));
            }
        }
        actions
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn next_deadline(&self) -> Option<Time> {
        self.timers.next_deadline()
    }

    /// Forgets all neighbours behind a port.
    pub fn remove_port(&mut self, port: PortId) {
        let all = self.entries.iter();
        let gone: Vec<u32> = all.filter(|(_, e)| e.key.0 == port).map(|(index, _)| index).collect();
        for index in gone {
            self.forget(index);
        }
    }

    /// All neighbours.
    pub fn entries(&self, now: Time) -> impl Iterator<Item = Entry> {
        self.entries.iter().map(move |(_, e)| {
            let old = e.state == State::Reachable && now.since(e.updated) >= REACHABLE;
            Entry {
                port: e.key.0,
                addr: e.key.1,
                mac: (e.mac != Mac::ZERO).then_some(e.mac),
                state: if old { State::Stale } else { e.state },
                used: e.used,
            }
        })
    }

    /// Frames that wait.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Number of neighbours.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn begin(&mut self, now: Time, key: Key, frame: Option<PacketBuf>) -> Resolution {
        if self.len() - self.known.len() >= NEIGHBOURS_UNRESOLVED_MAX || !self.make_room(now) {
            return Resolution::TableFull;
        }
        if frame.is_some() && self.held >= HOLD_FRAMES_MAX {
            return Resolution::HoldFull;
        }
        let until = Some(now + RETRANS);
        let (state, mac, held) = (State::Incomplete(1), Mac::ZERO, Vec::new());
        let entry = Neighbour { key, state, mac, updated: now, used: now, until, held };
        let index = self.entries.insert(entry);
        self.index.insert(key, index);
        self.timers.arm(now + RETRANS, key);
        self.hold(index, frame);
        Resolution::Ask { to: None }
    }

    fn make_room(&mut self, now: Time) -> bool {
        if self.len() < NEIGHBOURS_MAX {
            return true;
        }
        let Some(oldest) = self.known.oldest() else { return false };
        let unused = self.entries.get(oldest).is_some_and(|e| now.since(e.used) >= UNUSED);
        if unused {
            self.forget(oldest);
        }
        unused
    }

    fn hold(&mut self, index: u32, frame: Option<PacketBuf>) -> Resolution {
        let Some(frame) = frame else { return Resolution::Wait };
        let Some(entry) = self.entries.get_mut(index) else { return Resolution::TableFull };
        if entry.held.len() >= NEIGHBOUR_HOLD_FRAMES_MAX || self.held >= HOLD_FRAMES_MAX {
            return Resolution::HoldFull;
        }
        entry.held.push(frame);
        self.held += 1;
        Resolution::Wait
    }

    /// What follows when a state's time is over.
    fn advance(&mut self, now: Time, index: u32) -> Option<Action> {
        let entry = self.entries.get_mut(index)?;
        let (key, mac) = (entry.key, entry.mac);
        let (state, to) = match entry.state {
            State::Incomplete(asked) if asked < SOLICITS_MAX => {
                (State::Incomplete(asked + 1), None)
            }
            State::Delay => (State::Probe(1), Some(mac)),
            State::Probe(asked) if asked < SOLICITS_MAX => (State::Probe(asked + 1), Some(mac)),
            State::Incomplete(_) | State::Probe(_) => return self.fail(now, index),
            State::Failed => {
                self.forget(index);
                return None;
            }
            State::Reachable | State::Stale => return None,
        };
        entry.state = state;
        entry.until = Some(now + RETRANS);
        self.timers.arm(now + RETRANS, key);
        Some(Action::Ask { port: key.0, addr: key.1, to })
    }

    fn fail(&mut self, now: Time, index: u32) -> Option<Action> {
        let entry = self.entries.get_mut(index)?;
        let was_known = matches!(entry.state, State::Probe(_));
        entry.state = State::Failed;
        entry.mac = Mac::ZERO;
        entry.until = Some(now + FAILED);
        let (key, held) = (entry.key, std::mem::take(&mut entry.held));
        if was_known {
            self.known.remove(&mut self.entries, index);
        }
        self.held -= held.len();
        self.timers.arm(now + FAILED, key);
        Some(Action::Failed { port: key.0, addr: key.1, held })
    }

    fn forget(&mut self, index: u32) {
        let Some(entry) = self.entries.get(index) else { return };
        if !matches!(entry.state, State::Incomplete(_) | State::Failed) {
            self.known.remove(&mut self.entries, index);
        }
        if let Some(entry) = self.entries.remove(index) {
            self.held -= entry.held.len();
            self.index.remove(&entry.key);
        }
    }
}

#[cfg(test)]
mod tests;
