//! Clients that stay with their backend.
//!
//! A client's backend follows from its address already; this remembers it, so that it stays when others
//! join. What is remembered ends when no new connection came for the service's time.

use std::collections::BTreeSet;

use hashbrown::HashMap;

use crate::base::ids::ServiceId;
use crate::base::limits::AFFINITIES_MAX;
use crate::base::time::Time;
use crate::wire::addr::Addr;

type Client = (ServiceId, Addr);

/// Who was served by whom, until when.
#[derive(Debug, Default)]
pub(super) struct Affinities {
    known: HashMap<Client, (u64, Time)>,
    ends: BTreeSet<(Time, ServiceId, Addr)>,
}

impl Affinities {
    /// Identity of the backend that a client stays with.
    pub(super) fn get(&self, service: ServiceId, client: Addr) -> Option<u64> {
        self.known.get(&(service, client)).map(|(backend, _)| *backend)
    }

    /// A client was served by this backend and stays with it until then.
    pub(super) fn put(&mut self, service: ServiceId, client: Addr, backend: u64, until: Time) {
        if let Some((_, end)) = self.known.insert((service, client), (backend, until)) {
            self.ends.remove(&(end, service, client));
        } else if self.known.len() > AFFINITIES_MAX
            && let Some((_, service, client)) = self.ends.pop_first()
        {
            self.known.remove(&(service, client));
        }
        self.ends.insert((until, service, client));
    }

    pub(super) fn forget(&mut self, service: ServiceId) {
        self.known.retain(|(of, _), _| *of != service);
        self.ends.retain(|(_, of, _)| *of != service);
    }

    pub(super) fn next_end(&self) -> Option<Time> {
        self.ends.first().map(|(end, ..)| *end)
    }

    pub(super) fn expire(&mut self, now: Time) {
        while self.next_end().is_some_and(|end| end <= now) {
            let Some((_, service, client)) = self.ends.pop_first() else { break };
            self.known.remove(&(service, client));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(n: u32) -> Addr {
        Addr::from_v4_bits(n)
    }

    #[test]
    fn a_client_is_forgotten_when_its_time_is_over_and_each_connection_starts_it_anew() {
        let mut known = Affinities::default();
        known.put(ServiceId(1), client(1), 7, Time(10));
        known.put(ServiceId(1), client(1), 7, Time(20));
        known.expire(Time(19));
        assert_eq!(known.get(ServiceId(1), client(1)), Some(7));
        assert_eq!(known.get(ServiceId(2), client(1)), None);
        known.expire(Time(20));
        assert_eq!((known.get(ServiceId(1), client(1)), known.next_end()), (None, None));
    }

    #[test]
    fn no_more_are_remembered_than_the_bound_and_the_one_that_ends_next_makes_room() {
        let mut known = Affinities::default();
        for n in 0..=AFFINITIES_MAX as u32 {
            known.put(ServiceId(1), client(n), 7, Time(u64::from(n)));
        }
        assert_eq!((known.known.len(), known.ends.len()), (AFFINITIES_MAX, AFFINITIES_MAX));
        assert_eq!(known.get(ServiceId(1), client(0)), None);
        assert_eq!(known.get(ServiceId(1), client(1)), Some(7));
        known.forget(ServiceId(1));
        assert_eq!((known.known.len(), known.next_end()), (0, None));
    }
}
