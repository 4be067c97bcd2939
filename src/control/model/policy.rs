//! Policies as they are applied and shown.

use serde::{Deserialize, Serialize};

use crate::control::policy::Form;
use crate::stage::policy::{Action, Direction};

/// A file of policies (`wharf policy apply`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    /// YAML, as it is.
    pub yaml: String,
}

/// What came of a file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PolicyApplied {
    /// Its policies as they are now.
    pub policies: Vec<PolicyInfo>,
}

/// A policy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PolicyInfo {
    /// Its namespace; empty for a native one.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// How it was written.
    pub form: Form,
    /// Whom it selects, in words.
    pub select: String,
    /// How many endpoints these are now.
    pub endpoints: usize,
    /// Directions in which they are denied what no rule allows.
    pub isolates: Vec<Direction>,
    /// Its rules.
    pub rules: Vec<RuleView>,
    /// What it names and is not there.
    pub warnings: Vec<String>,
}

/// A rule.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RuleView {
    /// Where it stands in its policy.
    pub place: String,
    /// Smaller ones decide first.
    pub priority: u32,
    /// What it says.
    pub action: Action,
    /// Of which flows.
    pub direction: Direction,
    /// With whom, in words; nobody listed means everybody.
    pub peers: Vec<String>,
    /// To which ports; none listed means all.
    pub ports: Vec<String>,
}

/// A question (`wharf policy test`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyTest {
    /// Who would begin: an endpoint or an address.
    pub from: String,
    /// Towards whom.
    pub to: String,
    /// The destination's own port.
    #[serde(default)]
    pub port: Option<u16>,
    /// `tcp` if not given.
    #[serde(default)]
    pub proto: Option<String>,
}

/// Its answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PolicyTestReport {
    /// Whether the flow may begin.
    pub allowed: bool,
    /// What both ends' rules say, the source's first; only of ends that are endpoints.
    pub verdicts: Vec<PolicyVerdict>,
}

/// What the rules of one end say.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PolicyVerdict {
    /// The end.
    pub endpoint: String,
    /// From its view.
    pub direction: Direction,
    /// What they say.
    pub action: Action,
    /// The rule; none where no rule is about it.
    pub rule: Option<String>,
}

impl PolicyInfo {
    /// As people name it: `default/web`, or `web`.
    pub fn title(&self) -> String {
        if self.namespace.is_empty() {
            self.name.clone()
        } else {
            format!("{}/{}", self.namespace, self.name)
        }
    }
}
