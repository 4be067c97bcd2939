//! Network policy: applied from files, kept, compiled, told to the workers.
//!
//! An endpoint's namespace is a label of its own ([`NAMESPACE_LABELS`]), `default` without one. The labels
//! of a namespace come from `Namespace` documents in the same files.

mod file;
mod kubernetes;
mod native;
mod record;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

pub use self::file::{Document, FileError, read};
pub(super) use self::native::expression as selector;
pub use self::record::{Form, KUBERNETES_PRIORITY, NamespaceRecord, PolicyRecord, RuleRecord};
use super::Control;
use super::error::ControlError;
use super::model::{
    EventKind, PolicyApplied, PolicyInfo, PolicyTest, PolicyTestReport, PolicyVerdict, RuleView,
};
use super::networks::in_words;
use super::state::State;
use super::store::record::{EndpointRecord, Record};
use crate::base::limits::{POLICIES_MAX, POLICY_ENTRIES_MAX};
use crate::config::{Delta, PolicyTables};
use crate::datapath::Denied;
use crate::datapath::inspect::PolicyQuestion;
use crate::stage::policy::{
    Action, Compiled, Direction, Facts, Peer, PortMatch, Rule, Selector, Subject,
};
use crate::wire::ipv6;
use crate::worker::command::{Answer, Query};

/// The namespace of whoever names none.
pub const DEFAULT_NAMESPACE: &str = "default";
/// Labels that say an endpoint's namespace: what CRI runtimes set, and a short one.
pub const NAMESPACE_LABELS: [&str; 2] = ["io.kubernetes.pod.namespace", "namespace"];
/// The label that every namespace has (Kubernetes 1.21): its name.
pub const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
/// What every endpoint has beside its own labels: its name and its network's.
const NAME_LABEL: &str = "wharf/name";
const NETWORK_LABEL: &str = "wharf/network";

/// Policies and what they compile to.
#[derive(Debug, Default)]
pub(super) struct Policies {
    all: BTreeMap<(String, String), PolicyRecord>,
    namespaces: BTreeMap<String, NamespaceRecord>,
    compiled: Compiled,
}

impl Policies {
    /// What the rules know of an endpoint.
    fn facts(&self, endpoint: &EndpointRecord, network: &str) -> Facts {
        let mut facts = facts_of(endpoint, network);
        let known = self.namespaces.get(&facts.namespace);
        let labels = known.into_iter().flat_map(|n| &n.labels);
        for (key, value) in labels {
            facts.namespace_labels.entry(key.clone()).or_insert_with(|| value.clone());
        }
        facts
    }

    fn facts_of_all(&self, state: &State) -> Vec<Facts> {
        let facts = |e: &super::state::EndpointState| {
            self.facts(&e.record, state.network_name(e.record.network))
        };
        state.endpoints.values().map(facts).collect()
    }

    fn subject(&self, endpoint: &EndpointRecord, network: &str) -> Option<Arc<Subject>> {
        if self.compiled.is_empty() {
            return None;
        }
        Some(Arc::new(self.compiled.subject(&self.facts(endpoint, network))))
    }

    fn compile(&mut self) {
        self.compiled = Compiled::new(&in_order(self.all.values()));
    }
}

/// What an endpoint is by itself, without the labels that its namespace was given.
pub(super) fn facts_of(endpoint: &EndpointRecord, network: &str) -> Facts {
    let mut labels = endpoint.labels.clone();
    let named = NAMESPACE_LABELS.iter().find_map(|key| labels.get(*key));
    let namespace = named.map_or(DEFAULT_NAMESPACE, String::as_str).to_owned();
    let namespace_labels = BTreeMap::from([(NAMESPACE_NAME.to_owned(), namespace.clone())]);
    labels.insert(NAME_LABEL.to_owned(), endpoint.name.clone());
    labels.insert(NETWORK_LABEL.to_owned(), network.to_owned());
    Facts { namespace, namespace_labels, labels }
}

/// All rules in the order in which they decide: by priority; of one priority, what Kubernetes' policies
/// deny by selection comes last; then by policy and place.
pub fn in_order<'a>(policies: impl Iterator<Item = &'a PolicyRecord>) -> Vec<Rule> {
    let mut rules: Vec<((u32, bool), Rule)> = Vec::new();
    for policy in policies {
        let title = policy.title();
        let select = &policy.select;
        rules.extend(policy.rules.iter().map(|rule| {
            let compiled = Rule {
                name: format!("{title} {}", rule.place).into(),
                action: rule.action,
                direction: rule.direction,
                subject: select.clone(),
                peers: rule.peers.clone(),
                ports: rule.ports.clone(),
            };
            ((rule.priority, false), compiled)
        }));
        rules.extend(policy.isolates.iter().map(|direction| {
            let compiled = Rule {
                name: format!("{title}, which allows no such {}", direction.name()).into(),
                action: Action::Deny,
                direction: *direction,
                subject: select.clone(),
                peers: Vec::new(),
                ports: Vec::new(),
            };
            ((KUBERNETES_PRIORITY, true), compiled)
        }));
    }
    // Stable: those of one priority stay in the order of their policies and places.
    rules.sort_by_key(|(order, _)| *order);
    rules.into_iter().map(|(_, rule)| rule).collect()
}

impl Control {
    /// Takes in a file of policies: all of it, or nothing. One that exists under the same name is replaced.
    pub fn apply_policies(&mut self, text: &str) -> Result<PolicyApplied, ControlError> {
        let documents = read(text).map_err(ControlError::Policy)?;
        let (mut all, mut namespaces) =
            (self.policies.all.clone(), self.policies.namespaces.clone());
        let (mut changes, mut applied) = (Vec::new(), Vec::new());
        for document in documents {
            match document {
                Document::Policy(policy) => {
                    changes.push(policy.put());
                    applied.push((policy.namespace.clone(), policy.name.clone()));
                    all.insert((policy.namespace.clone(), policy.name.clone()), policy);
                }
                Document::Namespace(namespace) => {
                    changes.push(namespace.put());
                    namespaces.insert(namespace.name.clone(), namespace);
                }
            }
        }
        check_bounds(&all, namespaces.len())?;
        self.write(&changes)?;
        (self.policies.all, self.policies.namespaces) = (all, namespaces);
        self.policies_changed();
        let facts = self.policies.facts_of_all(&self.state);
        let records = applied.iter().filter_map(|key| self.policies.all.get(key));
        let policies: Vec<PolicyInfo> = records.map(|policy| info(policy, &facts)).collect();
        if !policies.is_empty() {
            let text =
                format!("policy {} applied", in_words(policies.iter().map(PolicyInfo::title)));
            self.event(EventKind::PolicyApplied, None, None, text);
        }
        Ok(PolicyApplied { policies })
    }

    /// All policies.
    pub fn policies(&self) -> Vec<PolicyInfo> {
        let facts = self.policies.facts_of_all(&self.state);
        self.policies.all.values().map(|policy| info(policy, &facts)).collect()
    }

    /// Removes a policy: `NAME` or `NAMESPACE/NAME`.
    pub fn remove_policy(&mut self, title: &str) -> Result<(), ControlError> {
        let record = self.find_policy(title)?.clone();
        self.write(&[record.remove()])?;
        self.policies.all.remove(&(record.namespace.clone(), record.name.clone()));
        self.policies_changed();
        let text = format!("policy {} removed", record.title());
        self.event(EventKind::PolicyRemoved, None, None, text);
        Ok(())
    }

    fn find_policy(&self, title: &str) -> Result<&PolicyRecord, ControlError> {
        let all = self.policies.all.values();
        let found: Vec<_> = all.filter(|p| p.title() == title || p.name == title).collect();
        match found.as_slice() {
            [one] => Ok(one),
            [] => Err(ControlError::not_found("policy", title)),
            several => {
                // One whose whole title it is has the name to itself.
                let whole = several.iter().find(|p| p.title() == title);
                let titles = in_words(several.iter().map(|p| p.title()));
                whole.copied().ok_or_else(|| {
                    ControlError::invalid(
                        format!("`{title}` fits several policies: {titles}"),
                        "write NAMESPACE/NAME",
                    )
                })
            }
        }
    }

    /// Which rules decide about a flow from one container to another, or to an address.
    pub fn test_policy(&self, test: &PolicyTest) -> Result<PolicyTestReport, ControlError> {
        let (from, src) = self.party(&test.from, &test.to)?;
        let (to, dst) = self.party(&test.to, &test.from)?;
        let (Some(src), Some(dst)) = (src, dst) else {
            return Err(ControlError::invalid(
                format!("`{}` and `{}` have no address of one family", test.from, test.to),
                "they cannot speak to each other",
            ));
        };
        let proto = match test.proto.as_deref().unwrap_or("tcp") {
            "tcp" => ipv6::TCP,
            "udp" => ipv6::UDP,
            "sctp" => ipv6::SCTP,
            "icmp" if dst.is_ipv6() => ipv6::ICMPV6,
            "icmp" => ipv6::ICMP,
            other => {
                return Err(ControlError::invalid(
                    format!("`{other}` is no protocol here"),
                    "use tcp, udp, sctp or icmp",
                ));
            }
        };
        let port = test.port.unwrap_or(0);
        let question = PolicyQuestion { from, to, src, dst: (dst, port), proto };
        let answers = self.outside.dataplane.query(Query::Policy(question))?;
        let Some(Answer::Policy(said)) = answers.into_iter().next() else {
            let why = "it gave no verdict".to_owned();
            return Err(super::outside::DataplaneError { worker: 0, why }.into());
        };
        let verdicts: Vec<PolicyVerdict> = said
            .into_iter()
            .map(|said| PolicyVerdict {
                endpoint: if said.direction == Direction::Egress { &test.from } else { &test.to }
                    .clone(),
                direction: said.direction,
                action: said.action,
                rule: said.rule,
            })
            .collect();
        let allowed = verdicts.iter().all(|v| v.action == Action::Allow);
        Ok(PolicyTestReport { allowed, verdicts })
    }

    /// An endpoint and its address, of a family that the other one has too, on a network of both if there
    /// is one; or an address, inside or outside.
    fn party(
        &self,
        name: &str,
        other: &str,
    ) -> Result<(Option<crate::base::ids::PortId>, Option<std::net::IpAddr>), ControlError> {
        if let Ok(addr) = name.parse::<std::net::IpAddr>() {
            let mut all = self.state.endpoints.values();
            let holder = all.find(|e| e.record.addrs.contains(&addr)).map(|e| e.record.port);
            return Ok((holder, Some(addr)));
        }
        let found = self.find(name, None)?;
        let other_addr = other.parse::<std::net::IpAddr>().ok();
        let others = if other_addr.is_some() { Vec::new() } else { self.find(other, None)? };
        let shared =
            found.iter().find(|e| others.iter().any(|o| o.record.network == e.record.network));
        let endpoint = shared.copied().unwrap_or(found[0]);
        let fits = |addr: &&std::net::IpAddr| match other_addr {
            Some(other) => addr.is_ipv4() == other.is_ipv4(),
            None => others.iter().any(|o| o.addr(addr.is_ipv6()).is_some()),
        };
        let addr = endpoint.record.addrs.iter().find(fits).copied();
        Ok((Some(endpoint.record.port), addr))
    }

    /// What the store had.
    pub(super) fn restore_policies(
        &mut self,
        policies: Vec<PolicyRecord>,
        namespaces: Vec<NamespaceRecord>,
    ) {
        let key = |p: &PolicyRecord| (p.namespace.clone(), p.name.clone());
        self.policies.all = policies.into_iter().map(|p| (key(&p), p)).collect();
        self.policies.namespaces = namespaces.into_iter().map(|n| (n.name.clone(), n)).collect();
        self.policies_changed();
    }

    /// Compiles everything anew and tells the workers.
    fn policies_changed(&mut self) {
        self.policies.compile();
        let endpoints = self.state.endpoints.values().map(|e| &e.record);
        let subjects = endpoints.filter_map(|record| {
            let network = self.state.network_name(record.network);
            Some((record.port, self.policies.subject(record, network)?))
        });
        let (policy, subjects) = (Arc::clone(self.policies.compiled.policy()), subjects.collect());
        self.send_deltas(vec![Delta::Policy(Arc::new(PolicyTables { policy, subjects }))]);
    }

    /// What an endpoint that comes is to the rules.
    pub(super) fn subject_delta(&self, record: &EndpointRecord) -> Option<Delta> {
        let subject = self.policies.subject(record, self.state.network_name(record.network))?;
        Some(Delta::Subject(record.port, Some(subject)))
    }

    /// A flow that was not let begin.
    pub(super) fn flow_denied(&mut self, denied: &Denied) {
        let said = |port| match self.state.at_port(port) {
            Some(endpoint) => {
                let labels = endpoint.record.labels.iter().map(|(k, v)| format!("{k}={v}"));
                let labels: Vec<String> = labels.take(8).collect();
                let labels = if labels.is_empty() {
                    String::new()
                } else {
                    format!(" ({})", labels.join(","))
                };
                format!("{}{labels}", endpoint.record.name)
            }
            None => self.port_name(port),
        };
        let proto = crate::datapath::inspect::proto_name(denied.proto);
        let (src, dst) = (denied.src, denied.dst);
        let mut text = format!(
            "{proto} from {} at {} to {} at {} denied ({}) by {}",
            said(denied.from),
            place(src),
            said(denied.to),
            place(dst),
            denied.reason,
            denied.rule
        );
        if denied.untold > 0 {
            let _ = write!(text, "; {} more of the former were not told", denied.untold);
        }
        let judged = if denied.reason == crate::packet::DropReason::PolicyIngress {
            denied.to
        } else {
            denied.from
        };
        let endpoint = self.state.at_port(judged).map(|e| e.record.clone());
        let network = endpoint.as_ref().map(|e| self.state.network_name(e.network).to_owned());
        let name = endpoint.map(|e| e.name);
        self.event(EventKind::FlowDenied, network.as_deref(), name.as_deref(), text);
    }
}

fn place((addr, port): (crate::wire::addr::Addr, u16)) -> String {
    match (port, addr.is_v4()) {
        (0, _) => addr.to_string(),
        (_, true) => format!("{addr}:{port}"),
        (_, false) => format!("[{addr}]:{port}"),
    }
}

fn check_bounds(
    all: &BTreeMap<(String, String), PolicyRecord>,
    namespaces: usize,
) -> Result<(), ControlError> {
    if all.len() > POLICIES_MAX || namespaces > POLICIES_MAX {
        return Err(ControlError::Exhausted { what: "policies", limit: POLICIES_MAX });
    }
    let entries: usize = all.values().map(PolicyRecord::size).sum();
    if entries > POLICY_ENTRIES_MAX {
        return Err(ControlError::invalid(
            format!(
                "the policies have {entries} pairs of a peer and a port, and {POLICY_ENTRIES_MAX} is the limit"
            ),
            "write ranges of ports and address blocks instead of lists",
        ));
    }
    Ok(())
}

/// A policy as it is shown, with what it selects now.
fn info(policy: &PolicyRecord, facts: &[Facts]) -> PolicyInfo {
    let count = |selector: &Selector| facts.iter().filter(|f| selector.matches(f)).count();
    let endpoints = count(&policy.select);
    let mut warnings = Vec::new();
    if endpoints == 0 {
        warnings.push(format!("{}: it selects no endpoint ({})", policy.title(), policy.select));
    }
    for rule in &policy.rules {
        for peer in &rule.peers {
            if let Peer::Endpoints(selector) = peer
                && count(selector) == 0
            {
                let place = &rule.place;
                warnings.push(format!("{} {place}: no endpoint is {selector}", policy.title()));
            }
        }
    }
    PolicyInfo {
        namespace: policy.namespace.clone(),
        name: policy.name.clone(),
        form: policy.form,
        select: policy.select.to_string(),
        endpoints,
        isolates: policy.isolates.clone(),
        rules: policy.rules.iter().map(rule_view).collect(),
        warnings,
    }
}

fn rule_view(rule: &RuleRecord) -> RuleView {
    let peers = rule.peers.iter().map(|peer| match peer {
        Peer::Endpoints(selector) => selector.to_string(),
        Peer::Name(pattern) => pattern.as_str().to_owned(),
        Peer::Block(block) => {
            let mut text = format!("{}/{}", block.prefix, block.len);
            let except = block.except.iter().map(|(prefix, len)| format!("{prefix}/{len}"));
            let except: Vec<String> = except.collect();
            if !except.is_empty() {
                let _ = write!(text, " except {}", except.join(", "));
            }
            text
        }
    });
    let ports = rule.ports.iter().map(|ports| {
        let proto = crate::datapath::inspect::proto_name;
        match ports {
            PortMatch::Range(p, 0, u16::MAX) => proto(*p),
            PortMatch::Range(p, first, last) if first == last => format!("{first}/{}", proto(*p)),
            PortMatch::Range(p, first, last) => format!("{first}-{last}/{}", proto(*p)),
            PortMatch::Named(p, name) => format!("{name}/{}", proto(*p)),
        }
    });
    RuleView {
        place: rule.place.clone(),
        priority: rule.priority,
        action: rule.action,
        direction: rule.direction,
        peers: peers.collect(),
        ports: ports.collect(),
    }
}
