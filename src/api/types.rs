//! Bodies that only the API has; all others are [`crate::control::model`]'s.

use serde::{Deserialize, Serialize};

/// How the daemon is to end (`POST /v1/stop`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopRequest {
    /// Let go of the containers' interfaces too. Without it they are kept for the next daemon, and
    /// containers are merely cut off until it starts.
    #[serde(default)]
    pub release: bool,
}

/// Query of `GET /v1/events`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    /// Stay and tell what happens from now on.
    #[serde(default)]
    pub follow: bool,
}

/// Query of `DELETE /v1/networks/{name}`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForceQuery {
    /// Detach what is in the way.
    #[serde(default)]
    pub force: bool,
}

/// Query of `GET` and `DELETE /v1/containers/{id}`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InterfaceQuery {
    /// Only this interface.
    #[serde(default)]
    pub ifname: Option<String>,
}

/// Query of what concerns a container's endpoint on one network.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkQuery {
    /// Only on this network.
    #[serde(default)]
    pub network: Option<String>,
}

/// Query of `DELETE /v1/endpoints/{name}/publications`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnpublishQuery {
    /// What was published, in the words of `-p`.
    pub spec: String,
    /// Only on this network.
    #[serde(default)]
    pub network: Option<String>,
}

/// A thing by its name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NameQuery {
    /// The name.
    pub name: String,
}
