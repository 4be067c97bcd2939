//! Network policy: who may begin a flow towards whom.
//!
//! # Theory
//!
//! A [`Rule`] says, for the endpoints that its subject selects and one direction, which peers and ports are
//! allowed or denied. All rules stand in one order, the first that fits decides, and a rule's place in that
//! order is its number: to combine tables is to take the least number. Kubernetes' "whoever is selected is
//! denied the rest" is a rule too, behind all that allow.
//!
//! **What is compiled.** Selectors are interned. The rules of one subject selector and one direction make
//! one table: rules grouped by peer (any, a selector, an address block, a name), and the ports of one group
//! cut into segments of which each knows its first rule. Tables know nothing of endpoints, so their size is
//! that of the rules, whatever the number of endpoints.
//!
//! **What an endpoint is.** Its [`Subject`]: which selectors it is a member of, and which tables apply to
//! it. An endpoint that comes or changes costs the evaluation of the selectors that mention one of its
//! labels, and touches no table.
//!
//! **What a decision costs.** For each table of the subject (as many as there are different selectors that
//! select it), one walk over the shorter of "groups of the table" and "selectors the peer is a member of",
//! with a binary search in the other, and a binary search among the ports. It is made for the first packet
//! of a flow only.

mod compile;
mod judge;
mod learned;
mod ports;
mod rule;
mod selector;

pub use compile::Compiled;
pub use judge::{Judged, Party, Policy, RuleInfo, Subject};
pub use learned::Learned;
pub use rule::{Action, Block, Direction, NamePattern, Peer, PortMatch, Rule};
pub use selector::{Facts, Namespaces, Requirement, Selector};

/// Endpoint labels that name ports: `port/http=8080`, `port/dns=53/udp`.
pub const PORT_LABEL: &str = "port/";
