//! What is asked of the store: etcd's transactions and leases, as values. Whoever carries them out does so
//! one at a time and in order; one whose answer is lost may have been carried out or not, or be so later.

use std::collections::BTreeMap;

/// A key's value, as the store has it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Entry {
    /// The value.
    pub value: Vec<u8>,
    /// The store's revision at which it was written.
    pub revision: u64,
    /// The lease with whose end it goes; 0 for none.
    pub lease: u64,
}

/// Keys below the prefix, as they are at one revision.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Listing {
    /// The store's revision.
    pub revision: u64,
    /// All keys, without the prefix.
    pub entries: BTreeMap<String, Entry>,
}

/// A key that changed.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Change {
    /// Without the prefix.
    pub key: String,
    /// The revision of the change.
    pub revision: u64,
    /// What it is now; none if it is gone.
    pub now: Option<Entry>,
}

/// A condition of a transaction.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Compare {
    /// There is no such key.
    Absent(String),
    /// The key was last written at this revision.
    At(String, u64),
}

/// A change that a transaction makes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Op {
    /// Write a key, under a lease unless it is 0.
    Put {
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// Its lease.
        lease: u64,
    },
    /// Remove a key.
    Delete(String),
    /// Remove all keys that begin so.
    DeleteAll(String),
}

/// A question.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Request {
    /// Make a lease of so many seconds.
    Grant(u32),
    /// Keep a lease.
    Keep(u64),
    /// If all of these, do all of those; else say how the compared keys are.
    Txn(Vec<Compare>, Vec<Op>),
}

/// An answer.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Response {
    /// The lease.
    Granted(u64),
    /// The lease is kept.
    Kept,
    /// There is no such lease (any more): also of a transaction that wanted to write under it.
    LeaseGone,
    /// It was done, at this revision.
    Done(u64),
    /// A condition did not hold; the compared keys as they are.
    Otherwise(u64, Vec<(String, Option<Entry>)>),
}

impl Compare {
    /// The key it is about.
    pub fn key(&self) -> &str {
        match self {
            Self::Absent(key) | Self::At(key, _) => key,
        }
    }
}
