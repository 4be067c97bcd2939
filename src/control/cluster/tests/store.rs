//! A store as etcd is one: revisions, transactions, leases; and what it tells those who watch.

use std::collections::BTreeMap;

use crate::control::cluster::ask::{Change, Compare, Entry, Listing, Op, Request, Response};

/// The store.
#[derive(Clone, Hash, Debug, Default)]
pub(in crate::control::cluster) struct Store {
    pub(in crate::control::cluster) revision: u64,
    pub(in crate::control::cluster) entries: BTreeMap<String, Entry>,
    /// Leases and when they end, in milliseconds of the store's own clock.
    pub(in crate::control::cluster) leases: BTreeMap<u64, Lease>,
    pub(in crate::control::cluster) log: Vec<Change>,
    next_lease: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(in crate::control::cluster) struct Lease {
    pub(in crate::control::cluster) seconds: u32,
    pub(in crate::control::cluster) ends_ms: u64,
}

impl Store {
    pub(in crate::control::cluster) fn list(&self) -> Listing {
        Listing { revision: self.revision, entries: self.entries.clone() }
    }

    /// Carries a question out.
    pub(in crate::control::cluster) fn ask(&mut self, now_ms: u64, request: &Request) -> Response {
        match request {
            Request::Grant(seconds) => {
                self.next_lease += 1;
                let ends_ms = now_ms + u64::from(*seconds) * 1_000;
                self.leases.insert(self.next_lease, Lease { seconds: *seconds, ends_ms });
                Response::Granted(self.next_lease)
            }
            Request::Keep(id) => match self.leases.get_mut(id) {
                Some(lease) => {
                    lease.ends_ms = now_ms + u64::from(lease.seconds) * 1_000;
                    Response::Kept
                }
                None => Response::LeaseGone,
            },
            Request::Txn(compare, ops) => self.transact(compare, ops),
        }
    }

    fn transact(&mut self, compare: &[Compare], ops: &[Op]) -> Response {
        let holds = |c: &Compare| match c {
            Compare::Absent(key) => !self.entries.contains_key(key),
            Compare::At(key, revision) => {
                self.entries.get(key).is_some_and(|e| e.revision == *revision)
            }
        };
        if !compare.iter().all(holds) {
            let found =
                compare.iter().map(|c| (c.key().to_owned(), self.entries.get(c.key()).cloned()));
            return Response::Otherwise(self.revision, found.collect());
        }
        let leased = |op: &Op| matches!(op, Op::Put { lease, .. } if *lease != 0 && !self.leases.contains_key(lease));
        if ops.iter().any(leased) {
            return Response::LeaseGone;
        }
        self.revision += 1;
        for op in ops {
            match op {
                Op::Put { key, value, lease } => {
                    let entry = Entry {
                        value: value.clone().into_bytes(),
                        revision: self.revision,
                        lease: *lease,
                    };
                    self.tell(key, Some(entry));
                }
                Op::Delete(key) => self.tell(key, None),
                Op::DeleteAll(start) => {
                    let keys: Vec<String> =
                        self.entries.keys().filter(|k| k.starts_with(start)).cloned().collect();
                    for key in keys {
                        self.tell(&key, None);
                    }
                }
            }
        }
        Response::Done(self.revision)
    }

    fn tell(&mut self, key: &str, now: Option<Entry>) {
        match &now {
            Some(entry) => drop(self.entries.insert(key.to_owned(), entry.clone())),
            None if self.entries.remove(key).is_none() => return,
            None => {}
        }
        self.log.push(Change { key: key.to_owned(), revision: self.revision, now });
    }

    /// A lease ends, and its keys with it.
    pub(in crate::control::cluster) fn expire(&mut self, lease: u64) {
        self.leases.remove(&lease);
        let keys: Vec<String> =
            self.entries.iter().filter(|(_, e)| e.lease == lease).map(|(k, _)| k.clone()).collect();
        if !keys.is_empty() {
            self.revision += 1;
        }
        for key in keys {
            self.tell(&key, None);
        }
    }

    /// All leases that have ended by now.
    pub(in crate::control::cluster) fn expire_due(&mut self, now_ms: u64) {
        let due: Vec<u64> =
            self.leases.iter().filter(|(_, l)| l.ends_ms <= now_ms).map(|(id, _)| *id).collect();
        for id in due {
            self.expire(id);
        }
    }

    /// What happened after a revision.
    pub(in crate::control::cluster) fn since(&self, revision: u64) -> &[Change] {
        let from = self.log.partition_point(|change| change.revision <= revision);
        &self.log[from..]
    }
}
