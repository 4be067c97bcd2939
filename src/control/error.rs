//! Every way in which control says no: a code for programs, a sentence, and what to do.

use super::ipam::IpamError;
use super::model::{ErrorBody, ErrorCode, Proto, PublishSpecError, ServiceSpecError};
use super::outside::{DataplaneError, HostError};
use super::policy::FileError;
use super::store::StoreError;
use crate::attach::protocol::{Refusal, RefusalCode};
use crate::io::host_listen::ListenError;

/// Why a request was refused. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// It makes no sense.
    #[error("{message}")]
    Invalid {
        /// What is wrong.
        message: String,
        /// What would be right.
        hint: String,
    },
    /// Something it names is not there.
    #[error("there is no {kind} `{name}`")]
    NotFound {
        /// `network`, `endpoint`, `uplink`, `publication`.
        kind: &'static str,
        /// As asked for.
        name: String,
    },
    /// A short identity that fits several.
    #[error("`{name}` fits several endpoints: {candidates}")]
    Ambiguous {
        /// As asked for.
        name: String,
        /// Whom it fits.
        candidates: String,
    },
    /// The name is taken.
    #[error("the {kind} `{name}` exists already{holder}")]
    Exists {
        /// What kind of thing.
        kind: &'static str,
        /// The name.
        name: String,
        /// More about who has it, beginning with a comma; may be empty.
        holder: String,
    },
    /// Something else needs it.
    #[error("the {kind} `{name}` is in use by {users}")]
    InUse {
        /// What kind of thing.
        kind: &'static str,
        /// Its name.
        name: String,
        /// By whom.
        users: String,
        /// What to do.
        hint: &'static str,
    },
    /// A range or an address cannot be had.
    #[error("{0}")]
    Address(#[from] IpamError),
    /// The MAC address is taken.
    #[error("the MAC address {mac} is taken by {holder}")]
    MacTaken {
        /// The address.
        mac: crate::wire::mac::Mac,
        /// Who has it.
        holder: String,
    },
    /// A host port is taken.
    #[error("port {ports}/{proto} of {host} is taken: `{holder}` publishes {published} there")]
    PortTaken {
        /// The host's ports that were asked for.
        ports: String,
        /// Protocol.
        proto: Proto,
        /// The host's address in words.
        host: String,
        /// Name of the endpoint that has it.
        holder: String,
        /// What it publishes.
        published: String,
    },
    /// A publication that cannot be read.
    #[error("{0}")]
    Spec(#[from] PublishSpecError),
    /// A service that cannot be read.
    #[error("{0}")]
    Service(#[from] ServiceSpecError),
    /// A file of policies that cannot be read.
    #[error("{0}")]
    Policy(FileError),
    /// A bound.
    #[error("there are {limit} {what} already, which is the limit")]
    Exhausted {
        /// Of what.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
    /// No port of the host is free to choose.
    #[error("no port is free among {from}/{proto}")]
    NoPortFree {
        /// The range to choose from.
        from: String,
        /// Protocol.
        proto: Proto,
    },
    /// This version cannot.
    #[error("{message}")]
    Unsupported {
        /// What it cannot do.
        message: String,
        /// What to do instead.
        hint: String,
    },
    /// The host refused.
    #[error("{0}")]
    Host(#[from] HostError),
    /// A port of the host cannot be listened on.
    #[error("{0}")]
    Listen(#[from] ListenError),
    /// The store cannot be used.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The workers do not answer.
    #[error("{0}")]
    Dataplane(#[from] DataplaneError),
    /// The cluster's store does not answer.
    #[error("{0}")]
    Cluster(String),
    /// The kernel gives no randomness, or the like.
    #[error("{0}")]
    System(#[from] std::io::Error),
}

impl ControlError {
    pub(super) fn invalid(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Invalid { message: message.into(), hint: hint.into() }
    }

    pub(super) fn not_found(kind: &'static str, name: &str) -> Self {
        Self::NotFound { kind, name: name.to_owned() }
    }

    pub(super) fn unsupported(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Unsupported { message: message.into(), hint: hint.into() }
    }

    /// What kind of error it is.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Invalid { .. }
            | Self::Ambiguous { .. }
            | Self::Spec(_)
            | Self::Service(_)
            | Self::Policy(_) => ErrorCode::Invalid,
            Self::NotFound { .. } => ErrorCode::NotFound,
            Self::Exists { .. } => ErrorCode::Exists,
            Self::InUse { .. } => ErrorCode::InUse,
            Self::Address(e) => address_code(e),
            Self::MacTaken { .. } | Self::PortTaken { .. } => ErrorCode::Conflict,
            Self::Exhausted { .. } | Self::NoPortFree { .. } => ErrorCode::Exhausted,
            Self::Unsupported { .. } => ErrorCode::Unsupported,
            Self::Host(HostError::Denied(_)) => ErrorCode::Denied,
            Self::Host(HostError::Failed(_)) | Self::System(_) => ErrorCode::System,
            Self::Listen(error) => listen_code(error),
            Self::Store(_) => ErrorCode::Store,
            Self::Dataplane(_) | Self::Cluster(_) => ErrorCode::Unavailable,
        }
    }

    /// What to do, where the message does not say it.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Invalid { hint, .. } | Self::Unsupported { hint, .. } => {
                return Some(hint.clone());
            }
            Self::NotFound { kind, .. } => match *kind {
                "network" => "`wharf network ls` lists them",
                "service" => "`wharf service ls` lists them",
                "uplink" => "`wharf uplink ls` lists them",
                "node" => "`wharf node ls` lists them",
                "policy" => "`wharf policy ls` lists them",
                "publication" => "`wharf port` lists them",
                _ => "`wharf ps` lists them",
            },
            Self::Ambiguous { .. } => "give more of the identity, or name the network",
            Self::Exists { .. } => "choose another name, or remove that one first",
            Self::InUse { hint, .. } => hint,
            Self::Address(e) => return address_hint(e).map(str::to_owned),
            Self::MacTaken { .. } => "choose another one, or leave it to the daemon",
            Self::PortTaken { .. } => {
                "choose another host port, or leave it out to have one chosen"
            }
            Self::Exhausted { .. } => "remove some, or raise the limit in the config file",
            Self::NoPortFree { .. } => {
                "unpublish some, or widen `publish_ports` in the config file"
            }
            Self::Cluster(_) => "`wharf status` says how the cluster's store is",
            _ => return None,
        };
        Some(text.to_owned())
    }

    /// As an answer's body.
    pub fn body(&self) -> ErrorBody {
        ErrorBody { code: self.code(), message: self.to_string(), hint: self.hint() }
    }
}

impl From<&ControlError> for Refusal {
    fn from(error: &ControlError) -> Self {
        let code = match error.code() {
            ErrorCode::Invalid | ErrorCode::Unsupported => RefusalCode::Invalid,
            ErrorCode::NotFound => RefusalCode::NotFound,
            ErrorCode::Exists | ErrorCode::Conflict | ErrorCode::InUse => RefusalCode::Conflict,
            ErrorCode::Exhausted => RefusalCode::Exhausted,
            ErrorCode::Denied => RefusalCode::NotPermitted,
            ErrorCode::Store | ErrorCode::Unavailable | ErrorCode::System => RefusalCode::Internal,
        };
        match error.hint() {
            Some(hint) => Self::new(code, format!("{error}; {hint}")),
            None => Self::new(code, error.to_string()),
        }
    }
}

fn listen_code(error: &ListenError) -> ErrorCode {
    match error {
        ListenError::InUse { .. } => ErrorCode::Conflict,
        ListenError::Privileged { .. } => ErrorCode::Denied,
        ListenError::NoSuchAddress { .. } => ErrorCode::Invalid,
        ListenError::Descriptors { .. } => ErrorCode::Exhausted,
        ListenError::Other { .. } => ErrorCode::System,
    }
}

fn address_code(error: &IpamError) -> ErrorCode {
    match error {
        IpamError::Taken { .. } | IpamError::Overlap { .. } => ErrorCode::Conflict,
        IpamError::Full { .. } | IpamError::PoolsExhausted { .. } => ErrorCode::Exhausted,
        _ => ErrorCode::Invalid,
    }
}

fn address_hint(error: &IpamError) -> Option<&'static str> {
    Some(match error {
        IpamError::Taken { .. } => "choose another address, or leave it to the daemon",
        IpamError::Full { .. } => "detach something, or make a network with a larger subnet",
        IpamError::Overlap { .. } => "choose another subnet, or leave it to the daemon",
        IpamError::PoolsExhausted { .. } => "give a subnet, or add a `[[pool]]` to the config file",
        IpamError::Unusable { .. } => "take a private range such as 10.20.0.0/24 or fd20::/64",
        IpamError::TooSmall(_) => "take a larger one",
        IpamError::Outside { .. } | IpamError::Reserved { .. } => {
            "give another address of the subnet, or leave it to the daemon"
        }
        _ => return None,
    })
}
