//! The native form: rules that allow or deny, in the order of their priorities.
//!
//! ```yaml
//! policy: office
//! priority: 100
//! select: app=web
//! rules:
//!   - allow: { from: "app in (front, cron)", ports: [80, 8000-8010/udp] }
//!   - deny: { from: "10.0.0.0/8 except 10.1.0.0/16" }
//!   - allow: { to: "*.example.org", ports: [443] }
//! ```

use std::fmt;

use ipnet::IpNet;
use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::file::FileError;
use super::record::{Form, KUBERNETES_PRIORITY, PolicyRecord, RuleRecord};
use crate::stage::policy::{
    Action, Block, Direction, NamePattern, Namespaces, Peer, PortMatch, Requirement, Selector,
};
use crate::wire::addr::Addr;
use crate::wire::ipv6;

/// The priority of rules that name none: before Kubernetes' policies.
const PRIORITY: u32 = 500;
/// The largest priority.
const PRIORITY_MAX: u32 = 1_000_000;

/// One rule.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NativeRule {
    allow: Option<Side>,
    deny: Option<Side>,
    priority: Option<Spanned<u32>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Side {
    from: Option<Spanned<Words>>,
    to: Option<Spanned<Words>>,
    ports: Option<Spanned<Words>>,
}

/// One word or several; numbers are words too.
struct Words(Vec<String>);

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Words;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one value or a list of them")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Words, E> {
                Ok(Words(vec![number.to_string()]))
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<Words, E> {
                Ok(Words(vec![word.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Words, A::Error> {
                let mut words = Vec::new();
                while let Some(word) = seq.next_element::<Words>()? {
                    words.extend(word.0);
                }
                Ok(Words(words))
            }
        }
        from.deserialize_any(OneOrMany)
    }
}

pub(super) fn policy(
    name: &Spanned<String>,
    priority: Option<&Spanned<u32>>,
    select: Option<&Spanned<String>>,
    rules: &[Spanned<NativeRule>],
) -> Result<PolicyRecord, FileError> {
    let select = match select {
        Some(text) => expression(&text.value).map_err(|why| FileError::at(text, why))?,
        None => Selector::ALL,
    };
    if rules.is_empty() {
        return Err(FileError::at(name, "a policy needs `rules`"));
    }
    let priority = priority.map(check_priority).transpose()?.unwrap_or(PRIORITY);
    let rules = rules.iter().enumerate().map(|(at, fields)| rule(at, priority, fields));
    Ok(PolicyRecord {
        namespace: String::new(),
        name: name.value.clone(),
        form: Form::Native,
        select,
        isolates: Vec::new(),
        rules: rules.collect::<Result<_, _>>()?,
    })
}

fn check_priority(priority: &Spanned<u32>) -> Result<u32, FileError> {
    if priority.value == KUBERNETES_PRIORITY || priority.value > PRIORITY_MAX {
        let message = format!(
            "a priority is 0 to {PRIORITY_MAX}, and {KUBERNETES_PRIORITY} is that of Kubernetes' policies"
        );
        return Err(FileError::at(priority, message));
    }
    Ok(priority.value)
}

fn rule(at: usize, priority: u32, fields: &Spanned<NativeRule>) -> Result<RuleRecord, FileError> {
    let (action, side) = match (&fields.value.allow, &fields.value.deny) {
        (Some(side), None) => (Action::Allow, side),
        (None, Some(side)) => (Action::Deny, side),
        _ => return Err(FileError::at(fields, "a rule has either `allow` or `deny`")),
    };
    let (direction, words) = match (&side.from, &side.to) {
        (Some(words), None) => (Direction::Ingress, words),
        (None, Some(words)) => (Direction::Egress, words),
        _ => {
            return Err(FileError::at(
                fields,
                "a rule has either `from` or `to`; `any` is everybody",
            ));
        }
    };
    let mut peers = Vec::new();
    for word in &words.value.0 {
        match peer(word, direction).map_err(|why| FileError::at(words, why))? {
            Some(peer) => peers.push(peer),
            None if words.value.0.len() == 1 => {}
            None => return Err(FileError::at(words, "`any` stands alone")),
        }
    }
    if words.value.0.is_empty() {
        return Err(FileError::at(words, "the list is empty; `any` is everybody"));
    }
    let priority =
        fields.value.priority.as_ref().map(check_priority).transpose()?.unwrap_or(priority);
    let mut ports = Vec::new();
    if let Some(words) = &side.ports {
        for word in &words.value.0 {
            ports.push(port(word).map_err(|why| FileError::at(words, why))?);
        }
        if ports.is_empty() {
            return Err(FileError::at(words, "the list is empty; leave it out for all ports"));
        }
    }
    Ok(RuleRecord { place: format!("rules[{at}]"), priority, action, direction, peers, ports })
}

/// Who is meant: `any` (which is `None`), addresses, a name, or labels.
fn peer(text: &str, direction: Direction) -> Result<Option<Peer>, String> {
    let text = text.trim();
    if text == "any" {
        return Ok(None);
    }
    let (net, except) = text.split_once(" except ").unwrap_or((text, ""));
    if let Some(net) = network(net) {
        return block(net, except).map(|block| Some(Peer::Block(block)));
    }
    if is_expression(text) {
        return expression(text).map(|selector| Some(Peer::Endpoints(selector)));
    }
    let is_name = text == "*" || text.contains('.');
    match (NamePattern::new(text).filter(|_| is_name), direction) {
        (Some(pattern), Direction::Egress) => Ok(Some(Peer::Name(pattern))),
        (Some(_), Direction::Ingress) => {
            Err(format!("`{text}` is a name, and names can only be gone `to`"))
        }
        (None, _) => Err(format!(
            "`{text}` is neither `any`, addresses, labels such as app=web, nor a name such as \
             *.example.org; an endpoint's own name is wharf/name=NAME"
        )),
    }
}

/// An address alone is a network of one.
fn network(text: &str) -> Option<IpNet> {
    let text = text.trim();
    text.parse().ok().or_else(|| text.parse().map(|addr: std::net::IpAddr| addr.into()).ok())
}

fn block(net: IpNet, except: &str) -> Result<Block, String> {
    let mut parts: Vec<(Addr, u8)> = Vec::new();
    for part in except.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let inner = network(part).ok_or_else(|| format!("`{part}` is no range of addresses"))?;
        if !net.trunc().contains(&inner.trunc()) {
            return Err(format!("`{part}` is no part of `{net}`"));
        }
        parts.push((inner.network().into(), inner.prefix_len()));
    }
    Ok(Block { prefix: net.network().into(), len: net.prefix_len(), except: parts })
}

fn is_expression(text: &str) -> bool {
    text.contains(['=', '(']) || text.starts_with('!')
}

/// `kubectl`'s selectors: `a=b,c!=d,e in (f,g),h notin (i),j,!k`; `namespace` is the endpoint's namespace.
pub(in crate::control) fn expression(text: &str) -> Result<Selector, String> {
    let (mut labels, mut namespaces) = (Vec::new(), Vec::new());
    for part in split(text)? {
        let required = requirement(part)?;
        let key = match &required {
            Requirement::In(key, _) | Requirement::NotIn(key, _) => key,
            Requirement::Exists(key) | Requirement::DoesNotExist(key) => key,
        };
        if key == "namespace" {
            namespaces.push(of_namespace(required)?);
        } else {
            labels.push(required);
        }
    }
    labels.sort();
    labels.dedup();
    let namespaces =
        if namespaces.is_empty() { Namespaces::All } else { Namespaces::Labelled(namespaces) };
    Ok(Selector { namespaces, labels })
}

fn of_namespace(required: Requirement) -> Result<Requirement, String> {
    let key = super::NAMESPACE_NAME.to_owned();
    match required {
        Requirement::In(_, values) => Ok(Requirement::In(key, values)),
        Requirement::NotIn(_, values) => Ok(Requirement::NotIn(key, values)),
        _ => Err("every endpoint has a `namespace`: compare it with a name".to_owned()),
    }
}

/// At commas that are in no parentheses.
fn split(text: &str) -> Result<Vec<&str>, String> {
    let (mut parts, mut depth, mut from) = (Vec::new(), 0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(text[from..at].trim());
                from = at + 1;
            }
            _ => {}
        }
        if !(0..=1).contains(&depth) {
            return Err(format!("the parentheses of `{text}` do not match"));
        }
    }
    if depth != 0 {
        return Err(format!("the parentheses of `{text}` do not match"));
    }
    parts.push(text[from..].trim());
    Ok(parts)
}

fn requirement(part: &str) -> Result<Requirement, String> {
    let key = |key: &str| {
        let key = key.trim();
        let inner = |b: u8| b.is_ascii_alphanumeric() || b"-_./".contains(&b);
        let fine = !key.is_empty() && key.bytes().all(inner);
        fine.then(|| key.to_owned()).ok_or_else(|| format!("`{key}` cannot be a label's key"))
    };
    for (word, is_in) in [(" notin ", false), (" in ", true)] {
        let Some((name, list)) = part.split_once(word) else { continue };
        let list = list.trim().strip_prefix('(').and_then(|list| list.strip_suffix(')'));
        let list = list.ok_or_else(|| format!("`{part}` needs a list such as (a,b)"))?;
        let mut values: Vec<String> = list.split(',').map(|v| v.trim().to_owned()).collect();
        values.sort();
        values.dedup();
        let key = key(name)?;
        return Ok(if is_in {
            Requirement::In(key, values)
        } else {
            Requirement::NotIn(key, values)
        });
    }
    if let Some((name, value)) = part.split_once("!=") {
        return Ok(Requirement::NotIn(key(name)?, vec![value.trim().to_owned()]));
    }
    if let Some((name, value)) = part.split_once('=') {
        // Both are equality to kubectl.
        let value = value.strip_prefix('=').unwrap_or(value);
        return Ok(Requirement::equals(key(name)?, value.trim()));
    }
    match part.strip_prefix('!') {
        Some(name) => key(name).map(Requirement::DoesNotExist),
        None => key(part).map(Requirement::Exists),
    }
}

/// `80`, `80/tcp`, `8000-8010/udp`, `udp`, `http`; TCP where it is not said.
fn port(text: &str) -> Result<PortMatch, String> {
    let proto = |name: &str| match name.to_ascii_lowercase().as_str() {
        "tcp" => Some(ipv6::TCP),
        "udp" => Some(ipv6::UDP),
        "sctp" => Some(ipv6::SCTP),
        _ => None,
    };
    if let Some(proto) = proto(text) {
        return Ok(PortMatch::Range(proto, 0, u16::MAX));
    }
    let wrong = || format!("`{text}` is no port: 80, 80/tcp, 8000-8010/udp, udp, or a port's name");
    let (ports, proto) = match text.split_once('/') {
        Some((ports, name)) => (ports, proto(name).ok_or_else(wrong)?),
        None => (text, ipv6::TCP),
    };
    if !ports.bytes().next().is_some_and(|b| b.is_ascii_digit()) {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        let fine = !ports.is_empty() && ports.bytes().all(inner);
        return fine.then(|| PortMatch::Named(proto, ports.into())).ok_or_else(wrong);
    }
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let number = |text: &str| text.parse().ok().filter(|n| *n > 0);
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => Ok(PortMatch::Range(proto, first, last)),
        _ => Err(wrong()),
    }
}
