//! From rules to tables, and from an endpoint's labels to what it is.

use std::sync::Arc;

use hashbrown::HashMap;

use super::PORT_LABEL;
use super::judge::{Length, Policy, RuleInfo, Subject, Table};
use super::ports::{Number, PortTable, Ports};
use super::rule::{Block, Direction, NamePattern, Peer, PortMatch, Rule, masked};
use super::selector::{Facts, Index};
use crate::wire::ipv6;

/// Compiled rules, and what is needed to tell what an endpoint is to them.
#[derive(Debug, Default)]
pub struct Compiled {
    policy: Arc<Policy>,
    selectors: Index,
    /// By number of the selector: its tables as a subject, and whether it is anybody's peer.
    roles: Vec<Role>,
    names: HashMap<Arc<str>, u32>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Role {
    tables: [Option<u32>; 2],
    is_peer: bool,
}

/// Whom a group of rules is about.
#[derive(PartialEq, Eq, Hash)]
enum Group<'a> {
    Any,
    Endpoints(u32),
    Block(&'a Block),
    Name(&'a NamePattern),
}

type Groups<'a> = HashMap<Group<'a>, Vec<(Ports, Number)>>;

impl Compiled {
    /// Compiles rules, which are in the order in which they decide.
    pub fn new(rules: &[Rule]) -> Self {
        let mut compiled = Self::default();
        let mut tables: Vec<Groups<'_>> = Vec::new();
        for (number, rule) in rules.iter().enumerate() {
            let table = compiled.table_of(rule, tables.len());
            if table == tables.len() {
                tables.push(Groups::new());
            }
            let ports = compiled.ports_of(rule);
            let groups = compiled.groups_of(rule);
            for group in groups {
                let entries = tables[table].entry(group).or_default();
                entries.extend(ports.iter().map(|ports| (*ports, number as Number)));
            }
        }
        let info = |rule: &Rule| RuleInfo { name: Arc::clone(&rule.name), action: rule.action };
        let has_names = rules.iter().any(|r| r.peers.iter().any(|p| matches!(p, Peer::Name(_))));
        compiled.policy = Arc::new(Policy {
            rules: rules.iter().map(info).collect(),
            tables: tables.into_iter().map(build).collect(),
            has_names,
        });
        compiled
    }

    /// What the data path reads.
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.policy.is_empty()
    }

    /// What an endpoint is to these rules.
    pub fn subject(&self, facts: &Facts) -> Subject {
        let all = self.selectors.members(facts);
        let roles = all.iter().map(|n| (*n, self.roles[*n as usize]));
        let tables = [Direction::Ingress, Direction::Egress].map(|direction| {
            roles.clone().filter_map(|(_, role)| role.tables[direction.index()]).collect()
        });
        let member = roles.clone().filter(|(_, role)| role.is_peer).map(|(n, _)| n).collect();
        Subject { member, tables, named: self.named_ports(facts).into() }
    }

    fn named_ports(&self, facts: &Facts) -> Vec<(u8, u16, u32)> {
        if self.names.is_empty() {
            return Vec::new();
        }
        let after = facts
            .labels
            .range::<str, _>((std::ops::Bound::Included(PORT_LABEL), std::ops::Bound::Unbounded));
        let labels = after.map_while(|(k, v)| Some((k.strip_prefix(PORT_LABEL)?, v)));
        let port = |(name, value): (&str, &String)| {
            let name = *self.names.get(name)?;
            let (port, proto) = named_port(value)?;
            Some((proto, port, name))
        };
        labels.filter_map(port).collect()
    }

    fn intern(&mut self, selector: &super::Selector) -> u32 {
        let number = self.selectors.intern(selector);
        self.roles.resize(self.selectors.len(), Role::default());
        number
    }

    /// The table of a rule's subject and direction; `next` is the number of a new one.
    fn table_of(&mut self, rule: &Rule, next: usize) -> usize {
        let subject = self.intern(&rule.subject);
        let table = &mut self.roles[subject as usize].tables[rule.direction.index()];
        *table.get_or_insert(next as u32) as usize
    }

    fn ports_of(&mut self, rule: &Rule) -> Vec<Ports> {
        if rule.ports.is_empty() {
            return vec![Ports::All];
        }
        let names = &mut self.names;
        let ports = rule.ports.iter().map(|ports| match ports {
            PortMatch::Range(proto, first, last) => Ports::Range(*proto, *first, *last),
            PortMatch::Named(proto, name) => {
                let next = names.len() as u32;
                Ports::Named(*proto, *names.entry(Arc::clone(name)).or_insert(next))
            }
        });
        ports.collect()
    }

    fn groups_of<'a>(&mut self, rule: &'a Rule) -> Vec<Group<'a>> {
        if rule.peers.is_empty() {
            return vec![Group::Any];
        }
        let groups = rule.peers.iter().map(|peer| match peer {
            Peer::Endpoints(selector) => {
                let number = self.intern(selector);
                self.roles[number as usize].is_peer = true;
                Group::Endpoints(number)
            }
            Peer::Block(block) => Group::Block(block),
            Peer::Name(pattern) => Group::Name(pattern),
        });
        groups.collect()
    }
}

/// `8080`, `53/udp`.
fn named_port(text: &str) -> Option<(u16, u8)> {
    let (port, proto) = text.split_once('/').unwrap_or((text, "tcp"));
    let proto = match proto {
        "tcp" => ipv6::TCP,
        "udp" => ipv6::UDP,
        "sctp" => ipv6::SCTP,
        _ => return None,
    };
    Some((port.parse().ok()?, proto))
}

fn build(groups: Groups<'_>) -> Table {
    let (mut endpoints, mut names) = (Vec::new(), Vec::new());
    let mut blocks: [Vec<(u8, u128, Block, PortTable)>; 2] = Default::default();
    let mut any = None;
    for (group, entries) in groups {
        let table = PortTable::new(&entries);
        match group {
            Group::Any => any = Some(table),
            Group::Endpoints(selector) => endpoints.push((selector, table)),
            Group::Block(block) => {
                let prefix = masked(block.prefix, block.len);
                let family = usize::from(!block.prefix.is_v4());
                blocks[family].push((block.len, prefix, block.clone(), table));
            }
            Group::Name(pattern) => names.push((pattern.clone(), table)),
        }
    }
    endpoints.sort_unstable_by_key(|(selector, _)| *selector);
    let blocks = blocks.map(by_length);
    Table { any, endpoints: endpoints.into(), blocks, names: names.into() }
}

/// A block and its prefix in bits.
type Prefixed = (u128, Block, PortTable);

fn by_length(mut blocks: Vec<(u8, u128, Block, PortTable)>) -> Box<[Length]> {
    blocks.sort_unstable_by_key(|(len, prefix, ..)| (*len, *prefix));
    let mut lengths: Vec<(u8, Vec<Prefixed>)> = Vec::new();
    for (len, prefix, block, table) in blocks {
        match lengths.last_mut() {
            Some((last, same)) if *last == len => same.push((prefix, block, table)),
            _ => lengths.push((len, vec![(prefix, block, table)])),
        }
    }
    lengths.into_iter().map(|(len, blocks)| Length { len, blocks: blocks.into() }).collect()
}
