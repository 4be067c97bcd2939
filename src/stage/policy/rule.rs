//! Rules as they are written, before they are compiled.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::selector::Selector;
use crate::wire::addr::Addr;

/// What a rule says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Let it begin.
    Allow,
    /// Drop it.
    Deny,
}

/// From the subject's view.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Flows that others begin.
    Ingress = 0,
    /// Flows that it begins.
    Egress = 1,
}

impl Direction {
    /// Position in a pair.
    pub fn index(self) -> usize {
        self as usize
    }

    /// In one word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// Addresses: a prefix without some parts of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Block {
    /// Network address.
    pub prefix: Addr,
    /// Prefix length within the family.
    pub len: u8,
    /// Parts that are not meant.
    pub except: Vec<(Addr, u8)>,
}

impl Block {
    /// Whether it has `addr` in it.
    pub fn contains(&self, addr: Addr) -> bool {
        within(addr, self.prefix, self.len)
            && !self.except.iter().any(|(prefix, len)| within(addr, *prefix, *len))
    }
}

/// The first `len` bits of an address, counted within its family.
pub(super) fn masked(addr: Addr, len: u8) -> u128 {
    let bits = if addr.is_v4() { 96 + u32::from(len.min(32)) } else { u32::from(len.min(128)) };
    let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
    u128::from_be_bytes(addr.bytes()) & mask
}

fn within(addr: Addr, prefix: Addr, len: u8) -> bool {
    addr.is_v4() == prefix.is_v4() && masked(addr, len) == masked(prefix, len)
}

/// Names: `www.example.org`, everything below `*.example.org`, or all names, `*`. In lower case, without
/// the last dot.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct NamePattern(Arc<str>);

impl NamePattern {
    /// Reads a pattern; a star may only stand in place of all that is left of a dot.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim_end_matches('.').to_ascii_lowercase();
        let rest = text.strip_prefix("*.").unwrap_or(&text);
        let label = |l: &str| {
            let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            (1..=63).contains(&l.len()) && l.bytes().all(inner)
        };
        let fine = text == "*" || (text.len() <= 253 && rest.split('.').all(label));
        fine.then(|| Self(text.into()))
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a name, in lower case and without a last dot, is meant.
    pub fn matches(&self, name: &str) -> bool {
        match self.0.strip_prefix('*') {
            Some("") => true,
            Some(tail) => name.len() > tail.len() && name.ends_with(tail),
            None => *self.0 == *name,
        }
    }
}

/// Who is at the other end.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    /// Endpoints.
    Endpoints(Selector),
    /// Addresses, inside or outside.
    Block(Block),
    /// Addresses that our name server gave for such a name; of egress only.
    Name(NamePattern),
}

/// Which ports of the destination.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortMatch {
    /// From the first to the last.
    Range(u8, u16, u16),
    /// What the destination calls so, by a label of its own.
    Named(u8, Arc<str>),
}

/// One rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// For people: which policy, and where in it.
    pub name: Arc<str>,
    /// What it says.
    pub action: Action,
    /// Of which flows.
    pub direction: Direction,
    /// Whose.
    pub subject: Selector,
    /// With whom; nobody listed means everybody.
    pub peers: Vec<Peer>,
    /// To which ports; none listed means all, and protocols that have none.
    pub ports: Vec<PortMatch>,
}
