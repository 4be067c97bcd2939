//! Which endpoints are meant: by labels and by namespace.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Labels by key.
pub(super) type Labels = BTreeMap<String, String>;

/// One requirement on labels, as Kubernetes' `matchExpressions` has it. Values are in order, each once.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Requirement {
    /// The label is there with one of these values.
    In(String, Vec<String>),
    /// The label has none of these values; one that is missing has none.
    NotIn(String, Vec<String>),
    /// The label is there.
    Exists(String),
    /// The label is not there.
    DoesNotExist(String),
}

impl Requirement {
    /// `key` is there and is `value`.
    pub fn equals(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self::In(key.into(), vec![value.into()])
    }

    fn matches(&self, labels: &Labels) -> bool {
        match self {
            Self::In(key, values) => labels.get(key).is_some_and(|v| values.contains(v)),
            Self::NotIn(key, values) => labels.get(key).is_none_or(|v| !values.contains(v)),
            Self::Exists(key) => labels.contains_key(key),
            Self::DoesNotExist(key) => !labels.contains_key(key),
        }
    }
}

/// Endpoints of which namespaces.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Namespaces {
    /// Of all.
    All,
    /// Of the one of this name.
    Named(String),
    /// Of those whose own labels fit.
    Labelled(Vec<Requirement>),
}

/// A set of endpoints; all that is required must hold.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Selector {
    /// The namespace.
    pub namespaces: Namespaces,
    /// The endpoint's own labels.
    pub labels: Vec<Requirement>,
}

/// What is known of an endpoint.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    /// Its namespace.
    pub namespace: String,
    /// The namespace's labels.
    pub namespace_labels: Labels,
    /// Its own.
    pub labels: Labels,
}

impl std::fmt::Display for Requirement {
    /// As `kubectl --selector` has it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::In(key, values) => match values.as_slice() {
                [value] => write!(f, "{key}={value}"),
                _ => write!(f, "{key} in ({})", values.join(",")),
            },
            Self::NotIn(key, values) => match values.as_slice() {
                [value] => write!(f, "{key}!={value}"),
                _ => write!(f, "{key} notin ({})", values.join(",")),
            },
            Self::Exists(key) => f.write_str(key),
            Self::DoesNotExist(key) => write!(f, "!{key}"),
        }
    }
}

impl std::fmt::Display for Selector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all = |required: &[Requirement]| {
            required.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        };
        let labels = all(&self.labels);
        let labels = if labels.is_empty() { "all endpoints" } else { &labels };
        match &self.namespaces {
            Namespaces::All => f.write_str(labels),
            Namespaces::Named(name) => write!(f, "{labels} in namespace {name}"),
            Namespaces::Labelled(required) => {
                write!(f, "{labels} in namespaces with {}", all(required))
            }
        }
    }
}

impl Selector {
    /// Every endpoint.
    pub const ALL: Self = Self { namespaces: Namespaces::All, labels: Vec::new() };

    /// Whether an endpoint is in the set.
    pub fn matches(&self, facts: &Facts) -> bool {
        let namespace = match &self.namespaces {
            Namespaces::All => true,
            Namespaces::Named(name) => *name == facts.namespace,
            Namespaces::Labelled(required) => {
                required.iter().all(|r| r.matches(&facts.namespace_labels))
            }
        };
        namespace && self.labels.iter().all(|r| r.matches(&facts.labels))
    }
}

/// Selectors by a label that their members must have, so that an endpoint is only compared with those
/// that may fit.
#[derive(Debug, Default)]
pub(super) struct Index {
    selectors: Vec<Selector>,
    by_label: hashbrown::HashMap<String, hashbrown::HashMap<String, Vec<u32>>>,
    by_namespace: hashbrown::HashMap<String, Vec<u32>>,
    rest: Vec<u32>,
    numbers: hashbrown::HashMap<Selector, u32>,
}

impl Index {
    /// The number of a selector, a new one if it was not seen before.
    pub(super) fn intern(&mut self, selector: &Selector) -> u32 {
        if let Some(number) = self.numbers.get(selector) {
            return *number;
        }
        let number = self.selectors.len() as u32;
        self.selectors.push(selector.clone());
        self.numbers.insert(selector.clone(), number);
        let required = selector.labels.iter().filter_map(|r| match r {
            Requirement::In(key, values) => Some((key, values)),
            _ => None,
        });
        if let Some((key, values)) = required.min_by_key(|(_, values)| values.len()) {
            let by_value = self.by_label.entry_ref(key.as_str()).or_default();
            for value in values {
                by_value.entry_ref(value.as_str()).or_default().push(number);
            }
        } else if let Namespaces::Named(name) = &selector.namespaces {
            self.by_namespace.entry_ref(name.as_str()).or_default().push(number);
        } else {
            self.rest.push(number);
        }
        number
    }

    pub(super) fn len(&self) -> usize {
        self.selectors.len()
    }

    /// Numbers of the selectors that an endpoint is a member of, in order.
    pub(super) fn members(&self, facts: &Facts) -> Vec<u32> {
        let labelled = facts.labels.iter().filter_map(|(k, v)| self.by_label.get(k)?.get(v));
        let spaced = self.by_namespace.get(&facts.namespace);
        let candidates = labelled.chain(spaced).chain([&self.rest]).flatten().copied();
        let fits = |n: &u32| self.selectors[*n as usize].matches(facts);
        let mut members: Vec<u32> = candidates.filter(fits).collect();
        members.sort_unstable();
        // An `In` with several values stands once for each, but an endpoint has one value.
        members.dedup();
        members
    }
}
