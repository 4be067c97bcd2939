//! Why a call fails. The text is what `docker` prints.

use crate::api::client::ClientError;
use crate::attach::client::AttachError;
use crate::control::ipam::IpamError;
use crate::control::model::ErrorCode;

/// Why a call fails.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    /// Not the JSON that the call wants.
    #[error("the request was not understood: {0}")]
    Json(#[from] serde_json::Error),
    /// A network that was never created here.
    #[error(
        "wharf does not know the network {0}: remove it with `docker network rm` and create it again"
    )]
    NoNetwork(String),
    /// An endpoint that was never created here.
    #[error("wharf does not know the endpoint {0}: CreateEndpoint comes first")]
    NoEndpoint(String),
    /// A network that is there already, as something else.
    #[error("the network {0} exists already, with other options")]
    NetworkExists(String),
    /// An endpoint that is there already, as something else.
    #[error("the endpoint {0} exists already, with other addresses")]
    EndpointExists(String),
    /// An endpoint that is a container's.
    #[error("the endpoint {endpoint} has joined the sandbox {sandbox} already")]
    JoinedAlready {
        /// Which.
        endpoint: String,
        /// Whose.
        sandbox: String,
    },
    /// An endpoint that is nobody's.
    #[error("the endpoint {0} has joined no sandbox: Join comes first")]
    NotJoined(String),
    /// An option that makes no sense.
    #[error("the option {key}={value} cannot be: {why}")]
    Option {
        /// Its name.
        key: String,
        /// Its value.
        value: String,
        /// What would be right.
        why: String,
    },
    /// Something that the network cannot be.
    #[error("{0}")]
    Unfit(String),
    /// A port that cannot be published.
    #[error("cannot publish {0}: {1}")]
    Port(String, String),
    /// Addresses.
    #[error(transparent)]
    Ipam(#[from] IpamError),
    /// Wharf's daemon refuses or is not there.
    #[error("{message}")]
    Wharf {
        /// The kind, if the daemon said one.
        code: Option<ErrorCode>,
        /// For people.
        message: String,
    },
    /// The own file.
    #[error("cannot write {path}: {source}")]
    Store {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Problem {
    /// Whether Wharf says that what was named is not there.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Wharf { code: Some(ErrorCode::NotFound), .. })
    }
}

impl From<ClientError> for Problem {
    fn from(error: ClientError) -> Self {
        let code = match &error {
            ClientError::Refused(body) => Some(body.code),
            _ => None,
        };
        let message = match error.hint() {
            Some(hint) => format!("{error}; {hint}"),
            None => error.to_string(),
        };
        Self::Wharf { code, message }
    }
}

impl From<AttachError> for Problem {
    fn from(error: AttachError) -> Self {
        use crate::attach::protocol::RefusalCode;
        let code = match &error {
            AttachError::Refused(refusal) if refusal.code == RefusalCode::NotFound => {
                Some(ErrorCode::NotFound)
            }
            _ => None,
        };
        Self::Wharf { code, message: error.to_string() }
    }
}
