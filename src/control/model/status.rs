//! The daemon itself: status, events, errors.

use serde::{Deserialize, Serialize};

/// How the daemon is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StatusInfo {
    /// Version of the daemon.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// The user it runs as.
    pub uid: u32,
    /// When it started, in milliseconds since 1970.
    pub started_ms: u64,
    /// Where its state is.
    pub state_dir: String,
    /// Where its sockets are.
    pub runtime_dir: String,
    /// Name of the uplink that networks take if they name none; none if there is none.
    pub default_uplink: Option<String>,
    /// Number of workers.
    pub workers: usize,
    /// Number of networks.
    pub networks: usize,
    /// Number of uplinks.
    pub uplinks: usize,
    /// Number of endpoints.
    pub endpoints: usize,
    /// Number of published ports.
    pub published_ports: u64,
    /// What a person should know, one sentence each.
    pub notes: Vec<String>,
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the names say it")]
pub enum EventKind {
    DaemonStarted,
    ConfigRead,
    ConfigRefused,
    NetworkCreated,
    NetworkUpdated,
    NetworkRemoved,
    UplinkCreated,
    UplinkRemoved,
    UplinkLeased,
    UplinkLost,
    UplinkConflict,
    EndpointAttached,
    EndpointDetached,
    EndpointRestored,
    EndpointLost,
    PortPublished,
    PortUnpublished,
    PortLost,
    WorkerFailed,
    FlowsRefused,
    QueueFull,
    MacConflict,
    PeerUp,
    PeerDown,
    NodeJoined,
    NodeLost,
    NodeRemoved,
    ClusterTrouble,
    FlowDenied,
    PolicyApplied,
    PolicyRemoved,
    ServiceCreated,
    ServiceRemoved,
    ServiceUpdated,
    BackendReady,
    BackendUnready,
}

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EventInfo {
    /// Counts up by one; a gap means that the reader was too slow.
    pub seq: u64,
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
    /// What.
    pub kind: EventKind,
    /// Network or uplink it is about.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub network: Option<String>,
    /// Endpoint it is about.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub endpoint: Option<String>,
    /// For people.
    pub text: String,
    /// What to do, if anything can be done.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hint: Option<String>,
}

impl EventKind {
    /// The word for it, as JSON has it.
    pub fn name(self) -> String {
        let value = serde_json::to_value(self).ok();
        value.as_ref().and_then(|value| value.as_str()).unwrap_or_default().to_owned()
    }
}

/// What kind of error it is: stable, for programs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// The request makes no sense.
    Invalid,
    /// Something it names is not there.
    NotFound,
    /// The name is taken.
    Exists,
    /// An address, range or port is taken.
    Conflict,
    /// Something else needs it.
    InUse,
    /// No more of it.
    Exhausted,
    /// The daemon may not do that.
    Denied,
    /// This daemon or kernel cannot do that.
    Unsupported,
    /// The store cannot be written.
    Store,
    /// A worker does not answer.
    Unavailable,
    /// A failure of the operating system.
    System,
}

/// The body of every answer that is an error.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ErrorBody {
    /// For programs.
    pub code: ErrorCode,
    /// What is wrong and why.
    pub message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hint: Option<String>,
}

impl ErrorCode {
    /// The status of an HTTP answer that says so.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::Denied => 403,
            Self::NotFound => 404,
            Self::Exists | Self::Conflict | Self::InUse | Self::Exhausted => 409,
            Self::Unsupported => 501,
            Self::Unavailable => 503,
            Self::Store | Self::System => 500,
        }
    }
}
