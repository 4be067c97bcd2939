//! Kubernetes' NetworkPolicy, `networking.k8s.io/v1`, to the letter: what is left out means what it means
//! there.

use std::collections::BTreeMap;
use std::fmt;

use ipnet::IpNet;
use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};
use serde_saphyr::Spanned;

use super::file::FileError;
use super::record::{Form, KUBERNETES_PRIORITY, PolicyRecord, RuleRecord};
use crate::stage::policy::{
    Action, Block, Direction, Namespaces, Peer, PortMatch, Requirement, Selector,
};
use crate::wire::ipv6;

/// A NetworkPolicy's `spec`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Spec {
    pod_selector: Option<LabelSelector>,
    policy_types: Option<Vec<Spanned<String>>>,
    ingress: Option<Vec<Ingress>>,
    egress: Option<Vec<Egress>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ingress {
    from: Option<Vec<Spanned<PeerFields>>>,
    ports: Option<Vec<Spanned<PortFields>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Egress {
    to: Option<Vec<Spanned<PeerFields>>>,
    ports: Option<Vec<Spanned<PortFields>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PeerFields {
    pod_selector: Option<LabelSelector>,
    namespace_selector: Option<LabelSelector>,
    ip_block: Option<IpBlock>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IpBlock {
    cidr: Spanned<String>,
    except: Option<Vec<Spanned<String>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PortFields {
    protocol: Option<Spanned<String>>,
    port: Option<Spanned<PortName>>,
    end_port: Option<Spanned<u16>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct LabelSelector {
    match_labels: Option<BTreeMap<String, String>>,
    match_expressions: Option<Vec<Spanned<Expression>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expression {
    key: String,
    operator: Spanned<String>,
    values: Option<Vec<String>>,
}

/// A port by number or by name.
enum PortName {
    Number(u16),
    Name(String),
}

impl<'de> Deserialize<'de> for PortName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = PortName;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port's number or name")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<PortName, E> {
                let number = u16::try_from(number).ok().filter(|n| *n > 0);
                number.map(PortName::Number).ok_or_else(|| E::custom("a port is 1 to 65535"))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<PortName, E> {
                self.visit_u64(number.try_into().unwrap_or(0))
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<PortName, E> {
                Ok(PortName::Name(name.to_owned()))
            }
        }
        from.deserialize_any(Either)
    }
}

pub(super) fn policy(
    namespace: String,
    name: String,
    spec: &Spec,
) -> Result<PolicyRecord, FileError> {
    let select = spec.pod_selector.as_ref().map(requirements).transpose()?.unwrap_or_default();
    let select = Selector { namespaces: Namespaces::Named(namespace.clone()), labels: select };
    let isolates = directions(spec)?;
    let mut rules = Vec::new();
    if isolates.contains(&Direction::Ingress) {
        for (at, rule) in spec.ingress.iter().flatten().enumerate() {
            let (peers, ports) = (rule.from.as_deref(), rule.ports.as_deref());
            rules.push(allow(Direction::Ingress, at, &namespace, peers, ports)?);
        }
    }
    if isolates.contains(&Direction::Egress) {
        for (at, rule) in spec.egress.iter().flatten().enumerate() {
            let (peers, ports) = (rule.to.as_deref(), rule.ports.as_deref());
            rules.push(allow(Direction::Egress, at, &namespace, peers, ports)?);
        }
    }
    Ok(PolicyRecord { namespace, name, form: Form::Kubernetes, select, isolates, rules })
}

/// Left out: ingress always, egress if there are rules of it.
fn directions(spec: &Spec) -> Result<Vec<Direction>, FileError> {
    let Some(types) = spec.policy_types.as_deref().filter(|types| !types.is_empty()) else {
        let egress = spec.egress.as_ref().is_some_and(|rules| !rules.is_empty());
        let all = [Some(Direction::Ingress), egress.then_some(Direction::Egress)];
        return Ok(all.into_iter().flatten().collect());
    };
    let mut directions = Vec::new();
    for kind in types {
        let direction = match kind.value.as_str() {
            "Ingress" => Direction::Ingress,
            "Egress" => Direction::Egress,
            other => {
                let message = format!("`{other}` is no policy type; Ingress and Egress are");
                return Err(FileError::at(kind, message));
            }
        };
        if !directions.contains(&direction) {
            directions.push(direction);
        }
    }
    Ok(directions)
}

fn allow(
    direction: Direction,
    at: usize,
    namespace: &str,
    peers: Option<&[Spanned<PeerFields>]>,
    ports: Option<&[Spanned<PortFields>]>,
) -> Result<RuleRecord, FileError> {
    let peers = peers.unwrap_or_default().iter().map(|fields| peer(namespace, fields));
    let ports = ports.unwrap_or_default().iter().map(port);
    Ok(RuleRecord {
        place: format!("{}[{at}]", direction.name()),
        priority: KUBERNETES_PRIORITY,
        action: Action::Allow,
        direction,
        peers: peers.collect::<Result<_, _>>()?,
        ports: ports.collect::<Result<_, _>>()?,
    })
}

fn peer(namespace: &str, fields: &Spanned<PeerFields>) -> Result<Peer, FileError> {
    let PeerFields { pod_selector, namespace_selector, ip_block } = &fields.value;
    let labels = pod_selector.as_ref().map(requirements).transpose()?;
    let namespaces = namespace_selector.as_ref().map(requirements).transpose()?;
    let namespaces = match (ip_block, labels.is_some(), namespaces) {
        (Some(block), false, None) => return block_of(block).map(Peer::Block),
        (Some(_), ..) => {
            return Err(FileError::at(fields, "`ipBlock` cannot stand beside a selector"));
        }
        (None, false, None) => {
            let message = "a peer needs `podSelector`, `namespaceSelector` or `ipBlock`";
            return Err(FileError::at(fields, message));
        }
        (None, true, None) => Namespaces::Named(namespace.to_owned()),
        (None, _, Some(required)) if required.is_empty() => Namespaces::All,
        (None, _, Some(required)) => Namespaces::Labelled(required),
    };
    Ok(Peer::Endpoints(Selector { namespaces, labels: labels.unwrap_or_default() }))
}

fn requirements(selector: &LabelSelector) -> Result<Vec<Requirement>, FileError> {
    let labels = selector.match_labels.iter().flatten();
    let mut all: Vec<Requirement> =
        labels.map(|(key, value)| Requirement::equals(key, value)).collect();
    for expression in selector.match_expressions.iter().flatten() {
        all.push(requirement(expression)?);
    }
    all.sort();
    all.dedup();
    Ok(all)
}

fn requirement(expression: &Spanned<Expression>) -> Result<Requirement, FileError> {
    let Expression { key, operator, values } = &expression.value;
    let key = key.clone();
    let mut values = values.clone().unwrap_or_default();
    values.sort();
    values.dedup();
    let needs_values = matches!(operator.value.as_str(), "In" | "NotIn");
    let has_values = !values.is_empty();
    let requirement = match operator.value.as_str() {
        "In" => Requirement::In(key, values),
        "NotIn" => Requirement::NotIn(key, values),
        "Exists" => Requirement::Exists(key),
        "DoesNotExist" => Requirement::DoesNotExist(key),
        other => {
            let message =
                format!("`{other}` is no operator; In, NotIn, Exists and DoesNotExist are");
            return Err(FileError::at(operator, message));
        }
    };
    if needs_values != has_values {
        let number = if needs_values { "at least one of" } else { "no" };
        let message = format!("`{}` takes {number} `values`", operator.value);
        return Err(FileError::at(operator, message));
    }
    Ok(requirement)
}

pub(super) fn cidr(text: &Spanned<String>) -> Result<IpNet, FileError> {
    text.value.parse().map_err(|_| {
        let message =
            format!("`{}` is no range of addresses, such as 10.0.0.0/8 or fd00::/8", text.value);
        FileError::at(text, message)
    })
}

fn block_of(block: &IpBlock) -> Result<Block, FileError> {
    let net = cidr(&block.cidr)?;
    let mut except = Vec::new();
    for part in block.except.iter().flatten() {
        let inner = cidr(part)?;
        if !net.trunc().contains(&inner.trunc()) || inner.prefix_len() == net.prefix_len() {
            let message = format!("`{inner}` is no part of `{net}`");
            return Err(FileError::at(part, message));
        }
        except.push((inner.network().into(), inner.prefix_len()));
    }
    Ok(Block { prefix: net.network().into(), len: net.prefix_len(), except })
}

fn port(fields: &Spanned<PortFields>) -> Result<PortMatch, FileError> {
    let PortFields { protocol, port, end_port } = &fields.value;
    let proto = match protocol.as_ref().map(|p| (p, p.value.as_str())) {
        None | Some((_, "TCP")) => ipv6::TCP,
        Some((_, "UDP")) => ipv6::UDP,
        Some((_, "SCTP")) => ipv6::SCTP,
        Some((place, other)) => {
            let message = format!("`{other}` is no protocol here; TCP, UDP and SCTP are");
            return Err(FileError::at(place, message));
        }
    };
    match (port.as_ref().map(|p| &p.value), end_port) {
        (None, None) => Ok(PortMatch::Range(proto, 0, u16::MAX)),
        (Some(PortName::Number(first)), None) => Ok(PortMatch::Range(proto, *first, *first)),
        (Some(PortName::Number(first)), Some(last)) if first <= &last.value => {
            Ok(PortMatch::Range(proto, *first, last.value))
        }
        (Some(PortName::Name(name)), None) if !name.is_empty() => {
            Ok(PortMatch::Named(proto, name.as_str().into()))
        }
        (Some(PortName::Number(_)), Some(last)) => {
            Err(FileError::at(last, "`endPort` is before `port`"))
        }
        (_, Some(last)) => Err(FileError::at(last, "`endPort` needs a `port` that is a number")),
        (Some(PortName::Name(_)), None) => Err(FileError::at(fields, "a port's name is empty")),
    }
}
