//! Answers of others, kept as long as they say.
//!
//! Bounded in number and bytes, over all and for each port: an entry is on the account of the port that
//! asked first. Who fills its share loses its own oldest entries and nobody else's; when all is full,
//! the port with the most loses one.

use std::sync::Arc;

use hashbrown::HashMap;

use super::message::Stored;
use crate::base::ids::PortId;
use crate::base::limits::{
    NAMES_CACHED_BYTES_MAX, NAMES_CACHED_BYTES_PER_PORT_MAX, NAMES_CACHED_MAX,
    NAMES_CACHED_PER_PORT_MAX,
};
use crate::base::lru::LruList;
use crate::base::slab::Slab;
use crate::base::time::{Span, Time};

/// What was asked: the question in lower case, and the flags that make a difference.
pub(super) type Key = Arc<[u8]>;

#[derive(Debug)]
struct Entry {
    key: Key,
    owner: PortId,
    answer: Stored,
    stored: Time,
    expires: Time,
}

impl Entry {
    fn size(&self) -> usize {
        self.answer.size() + self.key.len() + size_of::<Self>()
    }
}

#[derive(Debug, Default)]
struct Account {
    /// Oldest first.
    list: LruList,
    bytes: usize,
}

/// The cache.
#[derive(Debug, Default)]
pub(super) struct Cache {
    index: HashMap<Key, u32>,
    slab: Slab<Entry>,
    accounts: HashMap<PortId, Account>,
    bytes: usize,
}

impl Cache {
    /// The answer to a question and its age in seconds.
    pub(super) fn get(&mut self, now: Time, key: &[u8]) -> Option<(&Stored, u32)> {
        let at = *self.index.get(key)?;
        let entry = self.slab.get(at)?;
        if entry.expires <= now {
            self.remove(at);
            return None;
        }
        let age = (now.since(entry.stored).as_millis() / 1000) as u32;
        if let Some(account) = self.accounts.get_mut(&entry.owner) {
            account.list.touch(&mut self.slab, at);
        }
        self.slab.get(at).map(|entry| (&entry.answer, age))
    }

    /// Keeps an answer.
    pub(super) fn insert(
        &mut self,
        now: Time,
        key: Key,
        owner: PortId,
        answer: Stored,
        life: Span,
    ) {
        if let Some(&old) = self.index.get(&key) {
            self.remove(old);
        }
        let entry =
            Entry { key: Arc::clone(&key), owner, answer, stored: now, expires: now + life };
        let size = entry.size();
        if size > NAMES_CACHED_BYTES_PER_PORT_MAX {
            return;
        }
        self.make_room(owner, size);
        let at = self.slab.insert(entry);
        self.index.insert(key, at);
        let account = self.accounts.entry(owner).or_default();
        account.list.push(&mut self.slab, at);
        account.bytes += size;
        self.bytes += size;
    }

    fn make_room(&mut self, owner: PortId, size: usize) {
        while let Some(account) = self.accounts.get(&owner)
            && (account.list.len() >= NAMES_CACHED_PER_PORT_MAX
                || account.bytes + size > NAMES_CACHED_BYTES_PER_PORT_MAX)
            && let Some(oldest) = account.list.oldest()
        {
            self.remove(oldest);
        }
        while self.slab.len() >= NAMES_CACHED_MAX || self.bytes + size > NAMES_CACHED_BYTES_MAX {
            let largest = self.accounts.values().max_by_key(|account| account.bytes);
            let Some(oldest) = largest.and_then(|account| account.list.oldest()) else { return };
            self.remove(oldest);
        }
    }

    fn remove(&mut self, at: u32) {
        let Some(owner) = self.slab.get(at).map(|entry| entry.owner) else { return };
        if let Some(account) = self.accounts.get_mut(&owner) {
            account.list.remove(&mut self.slab, at);
        }
        let Some(entry) = self.slab.remove(at) else { return };
        self.index.remove(&entry.key);
        let size = entry.size();
        self.bytes -= size;
        if let Some(account) = self.accounts.get_mut(&owner) {
            account.bytes -= size;
            if account.list.is_empty() {
                self.accounts.remove(&owner);
            }
        }
    }

    /// Number of answers, and bytes that they take.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.slab.len(), self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> Key {
        n.to_be_bytes().to_vec().into()
    }

    fn answer() -> Stored {
        Stored::empty(b"\x01a\0\0\x01\0\x01", 0, 0)
    }

    const LIFE: Span = Span::from_secs(60);

    #[test]
    fn an_answer_is_kept_as_long_as_it_says_and_ages() {
        let mut cache = Cache::default();
        cache.insert(Time::ZERO, key(1), PortId(1), answer(), LIFE);
        let late = Time::ZERO + Span::from_secs(59);
        assert_eq!(cache.get(late, &key(1)).map(|(_, age)| age), Some(59));
        assert!(cache.get(late + Span::from_secs(1), &key(1)).is_none());
        assert_eq!(cache.size(), (0, 0));
        assert!(cache.accounts.is_empty());
    }

    #[test]
    fn who_fills_its_share_loses_its_own_answers_only() {
        let mut cache = Cache::default();
        cache.insert(Time::ZERO, key(0), PortId(1), answer(), LIFE);
        for n in 1..=2 * NAMES_CACHED_MAX as u32 {
            cache.insert(Time::ZERO, key(n), PortId(2), answer(), LIFE);
        }
        assert!(cache.get(Time::ZERO, &key(0)).is_some(), "the neighbour's");
        assert_eq!(cache.size().0, 1 + NAMES_CACHED_PER_PORT_MAX);
        assert!(cache.get(Time::ZERO, &key(2 * NAMES_CACHED_MAX as u32)).is_some(), "the newest");
    }

    #[test]
    fn when_all_is_full_the_largest_account_pays() {
        let mut cache = Cache::default();
        let share = NAMES_CACHED_PER_PORT_MAX as u32;
        let ports = (NAMES_CACHED_MAX / NAMES_CACHED_PER_PORT_MAX) as u16;
        for port in 0..ports {
            for n in 0..share {
                cache.insert(
                    Time::ZERO,
                    key(u32::from(port) * share + n),
                    PortId(port),
                    answer(),
                    LIFE,
                );
            }
        }
        cache.insert(Time::ZERO, key(u32::MAX), PortId(ports), answer(), LIFE);
        assert_eq!(cache.size().0, NAMES_CACHED_MAX);
        assert!(cache.get(Time::ZERO, &key(u32::MAX)).is_some());
        assert!(cache.size().1 <= NAMES_CACHED_BYTES_MAX);
    }
}
