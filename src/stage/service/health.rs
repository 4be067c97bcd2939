//! Health: backends are asked whether they serve.
//!
//! The switch asks them itself, from their gateway's address, so that nothing of the host takes part and
//! no rule stands between. Each attempt is a TCP connection of its own (`attempt`, served by smoltcp) from
//! one of the ports below [`PORTS`]' end, which no container's system uses for itself; what comes back to
//! one of them while an attempt is under way is the attempt's. A backend that has served is given up
//! after some failures in a row, and taken back after some successes.
//!
//! **Bounds.** Attempts at one time; what is due beyond them waits. An attempt ends with its timeout,
//! whatever the backend sends.

mod attempt;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Arc;

use hashbrown::HashMap;

use self::attempt::{Attempt, Shown};
use super::Service;
use crate::base::hash::Seed;
use crate::base::ids::{DomainId, PortId, ServiceId};
use crate::base::limits::HEALTH_ATTEMPTS_MAX;
use crate::base::slab::Slab;
use crate::base::time::{Span, Time};
use crate::packet::{DropReason, FlowKey, FrameMut, PacketBuf, Parsed, Scope, ip_link};
use crate::wire::addr::Addr;
use crate::wire::ipv6;
use crate::wire::mac::Mac;

/// Where attempts come from.
const PORTS: RangeInclusive<u16> = 512..=1_023;
/// One that has never served is asked this often: it has just begun.
const EAGER: Span = Span::from_secs(1);
/// Those that wait for a place come before one whose attempt has just ended.
const LAST: Span = Span::from_millis(1);

/// How backends are asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Health {
    /// What.
    pub check: Check,
    /// From the beginning of one attempt to that of the next.
    pub interval: Span,
    /// How long an attempt may take.
    pub timeout: Span,
    /// Successes in a row that make one ready.
    pub up: u16,
    /// Failures in a row after which it is not.
    pub down: u16,
}

/// What a backend is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Check {
    /// To take a connection.
    Tcp,
    /// To answer a request for this path with a status from 200 to 399.
    Http(Arc<str>),
}

/// Who is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checked {
    /// Where it is plugged in.
    pub plug: PortId,
    /// Its address.
    pub addr: Addr,
    /// Its port.
    pub port: u16,
    /// Whether it is believed to serve before it was asked.
    pub ready: bool,
}

/// What was found out about a backend.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// Of this service.
    pub service: ServiceId,
    /// At this address.
    pub addr: Addr,
    /// And port.
    pub port: u16,
    /// Nothing if it serves, else why not.
    pub failure: Option<String>,
}

/// From where an attempt is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The backend's domain.
    pub domain: DomainId,
    /// The gateway's address.
    pub addr: Addr,
    /// The gateway's MAC.
    pub gateway: Mac,
    /// The backend's.
    pub station: Mac,
    /// The largest packet.
    pub mtu: u16,
}

/// What the prober cannot know itself.
pub trait Surroundings {
    /// From where a backend is asked; `None`: it is not there.
    fn origin(&self, checked: &Checked) -> Option<Origin>;
    /// Whether packets with this key are somebody else's.
    fn is_taken(&self, key: &FlowKey) -> bool;
}

/// What comes of it. Reused; the caller empties it.
#[derive(Debug, Default)]
pub struct ProbeOutput {
    /// Segments for backends.
    pub frames: Vec<(PortId, Vec<PacketBuf>)>,
    /// What was found out.
    pub verdicts: Vec<Verdict>,
}

/// A backend that is asked again and again.
#[derive(Debug)]
struct Probe {
    target: Target,
    checked: Checked,
    health: Arc<Health>,
    ready: bool,
    /// Whether it has been ready at any time.
    served: bool,
    /// What was told last: why it does not serve.
    told: Option<String>,
    /// Attempts in a row that show the contrary.
    streak: u16,
    attempts: u16,
    attempt: Option<Attempt>,
    /// Whether it waits for a place.
    waits: bool,
    /// When the next attempt is to begin.
    next: Time,
    /// Its entry among the timers.
    due: Time,
}

type Target = (ServiceId, Addr, u16);

/// All backends that are asked.
#[derive(Debug)]
pub struct Prober {
    seed: Seed,
    probes: Slab<Probe>,
    by_target: BTreeMap<Target, u32>,
    /// Attempts under way, by the key of what comes back.
    running: HashMap<FlowKey, u32>,
    timers: BTreeSet<(Time, u32)>,
    /// Backends whose turn it is, and for which there is no place.
    waiting: VecDeque<u32>,
}

impl Prober {
    /// Asks nobody yet.
    pub fn new(seed: Seed) -> Self {
        Self {
            seed,
            probes: Slab::default(),
            by_target: BTreeMap::new(),
            running: HashMap::new(),
            timers: BTreeSet::new(),
            waiting: VecDeque::new(),
        }
    }

    /// A service is like this from now on. Backends that it had before are asked as they were.
    pub fn put(&mut self, now: Time, service: &Service) {
        let (health, wanted) = match &service.health {
            Some((health, wanted)) => (Some(health), wanted.as_slice()),
            None => (None, &[][..]),
        };
        let plugs: HashMap<_, _> = wanted.iter().map(|c| ((c.addr, c.port), c.plug)).collect();
        for (target, at) in self.of_service(service.id) {
            let stays = self.probes.get(at).is_some_and(|probe| {
                let (_, addr, port) = target;
                health == Some(&probe.health)
                    && plugs.get(&(addr, port)) == Some(&probe.checked.plug)
            });
            if !stays {
                self.forget(&target, at);
            }
        }
        let Some(health) = health else { return };
        for checked in wanted {
            let target = (service.id, checked.addr, checked.port);
            if self.by_target.contains_key(&target) {
                continue;
            }
            let at = self.probes.insert(Probe::new(now, target, *checked, Arc::clone(health)));
            self.by_target.insert(target, at);
            self.timers.insert((now, at));
        }
    }

    /// A service is gone.
    pub fn remove(&mut self, id: ServiceId) {
        for (target, at) in self.of_service(id) {
            self.forget(&target, at);
        }
    }

    fn of_service(&self, id: ServiceId) -> Vec<(Target, u32)> {
        let of = self.by_target.range((id, Addr::UNSPECIFIED, 0)..);
        of.take_while(|((service, ..), _)| *service == id).map(|(t, at)| (*t, *at)).collect()
    }

    fn forget(&mut self, target: &Target, at: u32) {
        self.by_target.remove(target);
        let Some(probe) = self.probes.remove(at) else { return };
        self.timers.remove(&(probe.due, at));
        if let Some(attempt) = probe.attempt {
            self.running.remove(&attempt.key);
            self.wake();
        }
    }

    /// Gives a place to who has waited longest.
    fn wake(&mut self) {
        while let Some(at) = self.waiting.pop_front() {
            // Others may be gone, and their numbers another's.
            if let Some(probe) = self.probes.get_mut(at).filter(|probe| probe.waits) {
                (probe.waits, probe.due) = (false, Time::ZERO);
                self.timers.insert((probe.due, at));
                return;
            }
        }
    }

    /// Backends that are asked.
    pub fn len(&self) -> usize {
        self.probes.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.probes.is_empty()
    }

    /// When [`tick`](Self::tick) wants to be called.
    pub fn next_deadline(&self) -> Option<Time> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Time, around: &impl Surroundings, out: &mut ProbeOutput) {
        while let Some(&(due, at)) = self.timers.first()
            && due <= now
        {
            self.timers.pop_first();
            let begins = self.probes.get(at).is_some_and(|probe| probe.attempt.is_none());
            if begins && !self.begin(now, at, around, out) {
                continue;
            }
            self.work(now, at, out);
        }
    }

    /// Takes in a segment that is an attempt's; `None`: it is none's.
    pub fn segment(
        &mut self,
        now: Time,
        (parsed, key): (&Parsed, &FlowKey),
        frame: &FrameMut<'_>,
        out: &mut ProbeOutput,
    ) -> Option<Result<(), DropReason>> {
        if self.running.is_empty() {
            return None;
        }
        let at = *self.running.get(key)?;
        let packet = match ip_link::segment(parsed, frame) {
            Ok(packet) => packet,
            Err(reason) => return Some(Err(reason)),
        };
        let probe = self.probes.get_mut(at)?;
        self.timers.remove(&(probe.due, at));
        if let Some(attempt) = &mut probe.attempt {
            attempt.receive(packet);
        }
        self.work(now, at, out);
        Some(Ok(()))
    }

    /// Begins an attempt; `false`: there is none, and it is known when there will be.
    fn begin(
        &mut self,
        now: Time,
        at: u32,
        around: &impl Surroundings,
        out: &mut ProbeOutput,
    ) -> bool {
        let Some(probe) = self.probes.get_mut(at) else { return false };
        if self.running.len() >= HEALTH_ATTEMPTS_MAX {
            probe.waits = true;
            self.waiting.push_back(at);
            return false;
        }
        let random = self.seed.hash([now.0, at.into(), probe.attempts.into()]);
        probe.next = now + probe.pause(random);
        let running = &self.running;
        let free = |key: &FlowKey| !running.contains_key(key) && !around.is_taken(key);
        let origin = around.origin(&probe.checked);
        let way = origin.and_then(|origin| Some((origin, probe.way(&origin, free)?)));
        let Some((origin, key)) = way else {
            out.verdicts.extend(probe.note(Err("there is no way to it".to_owned())));
            probe.due = probe.next;
            self.timers.insert((probe.due, at));
            return false;
        };
        let (until, check) = (now + probe.health.timeout, &probe.health.check);
        probe.attempt = Some(Attempt::new(now, until, &origin, key, check, random));
        self.running.insert(key, at);
        true
    }

    /// Lets an attempt do what it can, and notes when its backend is to be looked at again.
    fn work(&mut self, now: Time, at: u32, out: &mut ProbeOutput) {
        let Some(probe) = self.probes.get_mut(at) else { return };
        let Some(attempt) = &mut probe.attempt else { return };
        let mut frames = Vec::new();
        let shown = attempt.work(now, &mut frames);
        let due = attempt.next_due(now);
        if !frames.is_empty() {
            out.frames.push((probe.checked.plug, frames));
        }
        if due.is_none()
            && let Some(attempt) = probe.attempt.take()
        {
            self.running.remove(&attempt.key);
        }
        if let Some(shown) = shown {
            out.verdicts.extend(probe.note(shown));
        }
        probe.due = due.unwrap_or(probe.next.max(now + LAST));
        self.timers.insert((probe.due, at));
        if due.is_none() {
            self.wake();
        }
    }
}

impl Probe {
    fn new(now: Time, target: Target, checked: Checked, health: Arc<Health>) -> Self {
        Self {
            target,
            checked,
            health,
            ready: checked.ready,
            served: checked.ready,
            told: None,
            streak: 0,
            attempts: 0,
            attempt: None,
            waits: false,
            next: now,
            due: now,
        }
    }

    /// Up to an eighth less than the interval, so that those that began together do not go on together.
    fn pause(&self, random: u64) -> Span {
        let interval = self.health.interval.0;
        let pause = Span(interval - random % (interval / 8).max(1));
        if self.served { pause } else { pause.min(EAGER) }
    }

    /// The key of what will come back: another port than the last times, since a server remembers those.
    fn way(&mut self, origin: &Origin, free: impl Fn(&FlowKey) -> bool) -> Option<FlowKey> {
        for _ in PORTS {
            let port = PORTS.start() + self.attempts % PORTS.len() as u16;
            self.attempts = self.attempts.wrapping_add(1);
            let key = FlowKey {
                src: self.checked.addr,
                dst: origin.addr,
                src_port: self.checked.port,
                dst_port: port,
                domain: origin.domain,
                proto: ipv6::TCP,
                scope: Scope::Routed,
            };
            if free(&key) {
                return Some(key);
            }
        }
        None
    }

    /// Counts what an attempt showed; what is to be told, if that changes anything.
    fn note(&mut self, shown: Shown) -> Option<Verdict> {
        let (passed, failure) = (shown.is_ok(), shown.err());
        if passed == self.ready {
            self.streak = 0;
            // Why it is not ready is worth knowing, and whether it is for another reason now.
            if passed || self.told == failure {
                return None;
            }
        } else {
            self.streak += 1;
            let enough = if passed { self.health.up } else { self.health.down };
            if self.streak < enough {
                return None;
            }
            (self.ready, self.streak) = (passed, 0);
            self.served |= passed;
        }
        self.told.clone_from(&failure);
        let (service, addr, port) = self.target;
        Some(Verdict { service, addr, port, failure })
    }
}
