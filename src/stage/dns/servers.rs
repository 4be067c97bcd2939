//! The host's resolvers: in which order they are asked, and how long each is waited for.
//!
//! The order of `resolv.conf` is the administrator's word: the first may know names that the second
//! does not (a company's own). So the first that answers is asked first, not the fastest. One that was
//! silent or unreachable goes to the end for a while, which doubles with each time and is over at its
//! first answer.

use crate::base::limits::NAMES_RESOLVERS_MAX;
use crate::base::time::{Span, Time};
use crate::wire::addr::Addr;

/// How long the first is waited for that nothing is known of.
const PATIENCE: Span = Span::from_millis(400);
const PATIENCE_MIN: Span = Span::from_millis(100);
const PATIENCE_MAX: Span = Span::from_millis(800);
/// How long a silent one is asked last, the first time and at most.
const PENALTY: Span = Span::from_secs(2);
const PENALTY_DOUBLINGS_MAX: u32 = 5;
/// How long one that does not keep the case of a question is asked in plain case.
const PLAIN: Span = Span::from_secs(600);

/// One resolver.
#[derive(Clone, Copy, Debug)]
pub(super) struct Server {
    pub(super) addr: Addr,
    /// Smoothed time to an answer.
    round_trip: Option<Span>,
    failures: u32,
    shunned_until: Time,
    plain_until: Time,
}

/// All of them, as configured.
#[derive(Debug, Default)]
pub(super) struct Servers {
    all: Vec<Server>,
}

impl Servers {
    /// Replaces them. What is known of those that stay, stays.
    pub(super) fn set(&mut self, addrs: &[Addr]) {
        let known = |addr: Addr| self.all.iter().find(|server| server.addr == addr).copied();
        let new = |addr: Addr| Server {
            addr,
            round_trip: None,
            failures: 0,
            shunned_until: Time::ZERO,
            plain_until: Time::ZERO,
        };
        let first = addrs.iter().take(NAMES_RESOLVERS_MAX);
        self.all = first.map(|addr| known(*addr).unwrap_or_else(|| new(*addr))).collect();
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn get(&self, addr: Addr) -> Option<&Server> {
        self.all.iter().find(|server| server.addr == addr)
    }

    fn get_mut(&mut self, addr: Addr) -> Option<&mut Server> {
        self.all.iter_mut().find(|server| server.addr == addr)
    }

    /// In the order in which they shall be asked.
    pub(super) fn order(&self, now: Time) -> Vec<Addr> {
        let mut order: Vec<_> = self.all.iter().collect();
        order.sort_by_key(|server| server.shunned_until.max(now));
        order.into_iter().map(|server| server.addr).collect()
    }

    /// How long this one is waited for before another is asked as well.
    pub(super) fn patience(&self, addr: Addr) -> Span {
        let known = self.get(addr).and_then(|server| server.round_trip);
        let twice = known.map(|trip| Span(trip.0 * 2).clamp(PATIENCE_MIN, PATIENCE_MAX));
        twice.unwrap_or(PATIENCE)
    }

    /// It answered, after so long.
    pub(super) fn answered(&mut self, addr: Addr, after: Span) {
        let Some(server) = self.get_mut(addr) else { return };
        let smoothed = server.round_trip.map_or(after, |old| Span(old.0 / 8 * 7 + after.0 / 8));
        server.round_trip = Some(smoothed);
        server.failures = 0;
        server.shunned_until = Time::ZERO;
    }

    /// It did not answer although another did, or cannot be reached.
    pub(super) fn failed(&mut self, addr: Addr, now: Time) {
        let Some(server) = self.get_mut(addr) else { return };
        let doublings = server.failures.min(PENALTY_DOUBLINGS_MAX);
        server.failures += 1;
        server.shunned_until = now + Span(PENALTY.0 << doublings);
    }

    /// It does not keep the case of a question.
    pub(super) fn changes_case(&mut self, addr: Addr, now: Time) {
        if let Some(server) = self.get_mut(addr) {
            server.plain_until = now + PLAIN;
        }
    }

    /// Whether a question's case is checked.
    pub(super) fn keeps_case(&self, addr: Addr, now: Time) -> bool {
        self.get(addr).is_some_and(|server| server.plain_until <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addrs() -> Vec<Addr> {
        ["192.0.2.1", "2001:db8::1", "192.0.2.3"].iter().map(|a| a.parse().unwrap()).collect()
    }

    #[test]
    fn a_silent_one_goes_to_the_end_for_a_while_that_doubles() {
        let (mut servers, all) = (Servers::default(), addrs());
        servers.set(&all);
        let mut now = Time(1);
        assert_eq!(servers.order(now), all);
        for seconds in [2, 4, 8, 16, 32, 64, 64] {
            servers.failed(all[0], now);
            let early = now + Span(Span::from_secs(seconds).0 - 1);
            assert_eq!(servers.order(early), [all[1], all[2], all[0]], "{seconds}");
            now = now + Span::from_secs(seconds);
            assert_eq!(servers.order(now), all, "{seconds}");
        }
        servers.failed(all[0], now);
        servers.answered(all[0], Span::from_millis(3));
        assert_eq!(servers.order(now), all, "it is back");
    }

    #[test]
    fn when_all_are_silent_the_order_is_that_of_their_return() {
        let (mut servers, all) = (Servers::default(), addrs());
        servers.set(&all);
        for addr in &all {
            servers.failed(*addr, Time(1));
        }
        assert_eq!(servers.order(Time(2)), all);
    }

    #[test]
    fn patience_follows_the_round_trip_within_bounds() {
        let (mut servers, all) = (Servers::default(), addrs());
        servers.set(&all);
        assert_eq!(servers.patience(all[0]), PATIENCE);
        for (trip, patience) in [(1, 100), (150, 300), (5_000, 800)] {
            servers.set(&[]);
            servers.set(&all);
            servers.answered(all[0], Span::from_millis(trip));
            assert_eq!(servers.patience(all[0]), Span::from_millis(patience));
        }
    }

    #[test]
    fn what_is_known_of_a_resolver_outlives_a_change_of_the_others() {
        let (mut servers, all) = (Servers::default(), addrs());
        servers.set(&all);
        servers.changes_case(all[1], Time(1));
        servers.set(&all[1..]);
        assert!(!servers.keeps_case(all[1], Time(2)) && servers.keeps_case(all[2], Time(2)));
        assert!(servers.keeps_case(all[1], Time(1) + PLAIN), "it is tried again");
    }
}
