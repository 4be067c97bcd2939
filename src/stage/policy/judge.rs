//! The compiled policy, and its question: which rule decides about a flow's first packet.

use std::sync::Arc;

use super::ports::{NONE, Number, PortTable};
use super::rule::{Action, Block, Direction, NamePattern, masked};
use crate::wire::addr::Addr;

/// What an endpoint is to the rules. Endpoints that are alike share one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Subject {
    /// Selectors that it is a member of, in order.
    pub(super) member: Box<[u32]>,
    /// Tables that apply to it, for each direction.
    pub(super) tables: [Box<[u32]>; 2],
    /// What it calls its ports: protocol, port, name.
    pub(super) named: Box<[(u8, u16, u32)]>,
}

impl Subject {
    /// Whether any rule is about its flows in this direction.
    pub fn is_subject(&self, direction: Direction) -> bool {
        !self.tables[direction.index()].is_empty()
    }
}

/// One end of a flow.
#[derive(Clone, Copy, Debug)]
pub struct Party<'a> {
    /// What it is, if it is an endpoint.
    pub subject: Option<&'a Subject>,
    /// Its true address.
    pub addr: Addr,
}

/// A rule, for whoever asks which one it was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RuleInfo {
    /// Which policy, and where in it.
    pub name: Arc<str>,
    /// What it says.
    pub action: Action,
}

/// What a flow's first packet was answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Judged {
    /// The number of the rule.
    pub rule: u32,
    /// What it says.
    pub action: Action,
}

/// All rules, compiled. Shared by all workers.
#[derive(Debug, Default)]
pub struct Policy {
    pub(super) rules: Vec<RuleInfo>,
    pub(super) tables: Vec<Table>,
    pub(super) has_names: bool,
}

/// Blocks of one prefix length.
#[derive(Debug)]
pub(super) struct Length {
    pub(super) len: u8,
    /// In order of the prefix.
    pub(super) blocks: Box<[(u128, Block, PortTable)]>,
}

/// The rules of one subject selector in one direction.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) any: Option<PortTable>,
    /// By number of the selector, in order.
    pub(super) endpoints: Box<[(u32, PortTable)]>,
    /// For each family.
    pub(super) blocks: [Box<[Length]>; 2],
    pub(super) names: Box<[(NamePattern, PortTable)]>,
}

/// The destination of a first packet.
#[derive(Clone, Copy, Debug)]
struct Towards<'a> {
    proto: u8,
    port: u16,
    named: &'a [(u8, u16, u32)],
}

impl Towards<'_> {
    #[inline]
    fn first(&self, table: &PortTable) -> Number {
        let is_called =
            |(proto, port, _): &&(u8, u16, u32)| (*proto, *port) == (self.proto, self.port);
        table.first(self.proto, self.port, self.named.iter().filter(is_called).map(|n| n.2))
    }
}

impl Policy {
    /// A rule.
    pub fn rule(&self, number: u32) -> Option<&RuleInfo> {
        self.rules.get(number as usize)
    }

    /// Number of rules.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether any rule is about names.
    pub fn has_names(&self) -> bool {
        self.has_names
    }

    /// The rule that decides whether `own` may begin a flow to `peer` (egress), or `peer` one to `own`
    /// (ingress); `None`: no rule is about it, and it may. `names` are those under which the peer's
    /// address was given to `own`.
    pub fn judge<'n>(
        &self,
        direction: Direction,
        own: &Subject,
        peer: &Party<'_>,
        (proto, port): (u8, u16),
        names: &(impl Iterator<Item = &'n str> + Clone),
    ) -> Option<Judged> {
        let named = match direction {
            Direction::Ingress => &own.named,
            Direction::Egress => peer.subject.map_or(&own.named[..0], |s| &s.named),
        };
        let towards = Towards { proto, port, named };
        let mut best = NONE;
        for number in &own.tables[direction.index()] {
            if let Some(table) = self.tables.get(*number as usize) {
                best = best.min(table.first(&towards, peer, names));
            }
        }
        let action = self.rules.get(best as usize)?.action;
        Some(Judged { rule: best, action })
    }
}

impl Table {
    fn first<'n>(
        &self,
        towards: &Towards<'_>,
        peer: &Party<'_>,
        names: &(impl Iterator<Item = &'n str> + Clone),
    ) -> Number {
        let mut best = self.any.as_ref().map_or(NONE, |table| towards.first(table));
        if let Some(subject) = peer.subject {
            best = best.min(self.by_endpoint(towards, &subject.member));
        }
        best = best.min(self.by_address(towards, peer.addr));
        for (pattern, table) in &self.names {
            if names.clone().any(|name| pattern.matches(name)) {
                best = best.min(towards.first(table));
            }
        }
        best
    }

    /// Walks the shorter side and searches the other.
    fn by_endpoint(&self, towards: &Towards<'_>, member: &[u32]) -> Number {
        let mut best = NONE;
        if self.endpoints.len() <= member.len() {
            for (selector, table) in &self.endpoints {
                if member.binary_search(selector).is_ok() {
                    best = best.min(towards.first(table));
                }
            }
            return best;
        }
        for selector in member {
            if let Ok(at) = self.endpoints.binary_search_by_key(selector, |(s, _)| *s) {
                best = best.min(towards.first(&self.endpoints[at].1));
            }
        }
        best
    }

    /// Not the longest prefix alone: every block that has the address counts.
    fn by_address(&self, towards: &Towards<'_>, addr: Addr) -> Number {
        let mut best = NONE;
        for length in &self.blocks[usize::from(!addr.is_v4())] {
            let prefix = masked(addr, length.len);
            let from = length.blocks.partition_point(|(p, ..)| *p < prefix);
            let same = length.blocks[from..].iter().take_while(|(p, ..)| *p == prefix);
            for (_, block, table) in same {
                if block.except.is_empty() || block.contains(addr) {
                    best = best.min(towards.first(table));
                }
            }
        }
        best
    }
}
