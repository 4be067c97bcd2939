//! Policies as they are kept: what a file said, checked, with everything that it left out filled in.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::control::store::record::{Kind, Record};
use crate::stage::policy::{Action, Direction, Peer, PortMatch, Selector};

/// Where Kubernetes' policies stand among the native ones' priorities.
pub const KUBERNETES_PRIORITY: u32 = 1000;

/// Which form a policy was written in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// A Kubernetes NetworkPolicy.
    Kubernetes,
    /// The native one.
    Native,
}

/// A policy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PolicyRecord {
    /// Its namespace; empty for a native one, which belongs to none.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// How it was written.
    pub form: Form,
    /// Whose flows it is about.
    pub select: Selector,
    /// Directions in which whoever is selected is denied what no rule allows.
    pub isolates: Vec<Direction>,
    /// Its rules, in their order.
    pub rules: Vec<RuleRecord>,
}

/// A rule of a policy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RuleRecord {
    /// Where it stands: `ingress[0]`, `rules[2]`.
    pub place: String,
    /// Smaller ones decide first.
    pub priority: u32,
    /// What it says.
    pub action: Action,
    /// Of which flows.
    pub direction: Direction,
    /// With whom; nobody listed means everybody.
    pub peers: Vec<Peer>,
    /// To which ports; none listed means all.
    pub ports: Vec<PortMatch>,
}

/// The labels of a namespace.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NamespaceRecord {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl PolicyRecord {
    /// As people name it: `default/web`, or `web`.
    pub fn title(&self) -> String {
        if self.namespace.is_empty() {
            self.name.clone()
        } else {
            format!("{}/{}", self.namespace, self.name)
        }
    }

    /// How many pairs of a peer and a port it lists, which is what compiling it costs.
    pub(super) fn size(&self) -> usize {
        let pairs = |r: &RuleRecord| r.peers.len().max(1) * r.ports.len().max(1);
        self.rules.iter().map(pairs).sum::<usize>() + self.isolates.len()
    }
}

impl Record for PolicyRecord {
    const KIND: Kind = Kind::Policy;
    fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

impl Record for NamespaceRecord {
    const KIND: Kind = Kind::Namespace;
    fn key(&self) -> String {
        self.name.clone()
    }
}
