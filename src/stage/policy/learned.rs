//! Addresses that our name server gave for names: what rules about names look at.
//!
//! Kept for each port by itself: one container's answers open nothing for another. Bounded for each port;
//! what would expire first makes room. An address may be gone to for as long as its record lives and a
//! while more, since programs keep addresses longer than they should; a flow that stands stays for longer.

use std::collections::BTreeSet;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::base::ids::PortId;
use crate::base::limits::{LEARNED_MAX, LEARNED_PER_PORT_MAX};
use crate::base::time::{Span, Time};
use crate::wire::addr::Addr;

/// How much longer than its record an address may be gone to.
const GRACE: Span = Span::from_secs(60);
/// How much longer than that a flow that stands may go on when the configuration changes.
const STANDING: Span = Span::from_secs(3_600);

#[derive(Debug)]
struct Known {
    name: Arc<str>,
    until: Time,
}

#[derive(Debug, Default)]
struct OfPort {
    addrs: HashMap<Addr, Vec<Known>>,
    expiry: BTreeSet<(Time, Addr, Arc<str>)>,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Learned {
    ports: HashMap<PortId, OfPort>,
    len: usize,
}

impl Learned {
    /// A port was given an address for a name, good for so many seconds.
    pub fn learn(&mut self, now: Time, port: PortId, name: &str, addr: Addr, ttl: u32) {
        let of_port = self.ports.entry(port).or_default();
        let until = now + Span::from_secs(ttl.into()) + GRACE;
        let known =
            of_port.addrs.get_mut(&addr).and_then(|all| all.iter_mut().find(|k| &*k.name == name));
        if let Some(known) = known {
            if known.until < until {
                of_port.expiry.remove(&(known.until, addr, Arc::clone(&known.name)));
                known.until = until;
                of_port.expiry.insert((until, addr, Arc::clone(&known.name)));
            }
            return;
        }
        if of_port.expiry.len() >= LEARNED_PER_PORT_MAX || self.len >= LEARNED_MAX {
            // Others' entries are never taken.
            if !of_port.remove_first() {
                return;
            }
            self.len -= 1;
        }
        let name: Arc<str> = name.into();
        of_port.expiry.insert((until, addr, Arc::clone(&name)));
        of_port.addrs.entry(addr).or_default().push(Known { name, until });
        self.len += 1;
    }

    /// Names under which a port knows an address; with `standing`, also those that were good not long ago.
    pub fn names(
        &self,
        now: Time,
        port: PortId,
        addr: Addr,
        standing: bool,
    ) -> impl Iterator<Item = &str> + Clone {
        let known = self.ports.get(&port).and_then(|of_port| of_port.addrs.get(&addr));
        let good = move |known: &&Known| standing || now <= known.until;
        known.into_iter().flatten().filter(good).map(|known| &*known.name)
    }

    /// Forgets what a port was given.
    pub fn remove_port(&mut self, port: PortId) {
        self.len -= self.ports.remove(&port).map_or(0, |of_port| of_port.expiry.len());
    }

    /// Forgets what is over.
    pub fn expire(&mut self, now: Time) {
        for of_port in self.ports.values_mut() {
            while of_port.expiry.first().is_some_and(|(until, ..)| *until + STANDING < now) {
                of_port.remove_first();
                self.len -= 1;
            }
        }
        self.ports.retain(|_, of_port| !of_port.expiry.is_empty());
    }

    /// Number of pairs of an address and a name.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl OfPort {
    /// Takes out what expires first.
    fn remove_first(&mut self) -> bool {
        let Some((_, addr, name)) = self.expiry.pop_first() else { return false };
        if let Some(all) = self.addrs.get_mut(&addr) {
            all.retain(|known| known.name != name);
            if all.is_empty() {
                self.addrs.remove(&addr);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: PortId = PortId(1);
    const DB: PortId = PortId(2);

    fn addr(n: u32) -> Addr {
        Addr::from_v4_bits(0x0a00_0000 | n)
    }

    fn at(seconds: u64) -> Time {
        Time::ZERO + Span::from_secs(seconds)
    }

    #[test]
    fn an_address_is_good_for_its_time_and_a_while_and_for_its_port_only() {
        let mut learned = Learned::default();
        learned.learn(at(0), WEB, "www.example.org", addr(1), 30);
        learned.learn(at(0), WEB, "example.org", addr(1), 300);
        let names = |learned: &Learned, now, port, standing| {
            learned.names(now, port, addr(1), standing).map(ToOwned::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(names(&learned, at(90), WEB, false), ["www.example.org", "example.org"]);
        assert_eq!(names(&learned, at(91), WEB, false), ["example.org"]);
        assert_eq!(names(&learned, at(91), WEB, true).len(), 2);
        assert!(names(&learned, at(0), DB, true).is_empty());
        learned.learn(at(91), WEB, "www.example.org", addr(1), 30);
        assert_eq!(names(&learned, at(181), WEB, false).len(), 2, "told again, good again");
        learned.expire(at(10_000));
        assert!(learned.is_empty());
    }

    #[test]
    fn who_asks_for_many_names_loses_its_own() {
        let mut learned = Learned::default();
        learned.learn(at(0), DB, "db.example.org", addr(1), 1);
        for n in 0..2 * LEARNED_PER_PORT_MAX as u32 {
            learned.learn(at(1), WEB, "many.example.org", addr(n), n);
        }
        assert_eq!(learned.len(), LEARNED_PER_PORT_MAX + 1);
        assert_eq!(learned.names(at(1), DB, addr(1), false).count(), 1);
        assert_eq!(learned.names(at(1), WEB, addr(0), true).count(), 0, "the first to expire went");
        learned.remove_port(WEB);
        assert_eq!(learned.len(), 1);
    }
}
