//! Errors in the protocol's form, and which error of ours is which of theirs.

use serde_json::{Value, json};

use crate::adapters::attaching::{Failure, Trouble};
use crate::api::client::ClientError;
use crate::attach::protocol::RefusalCode;
use crate::control::model::ErrorCode;

/// The protocol's codes, and from 100 on our own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(super) enum Code {
    IncompatibleVersion = 1,
    UnsupportedField = 2,
    UnknownContainer = 3,
    InvalidEnvironment = 4,
    Io = 5,
    Decode = 6,
    InvalidConfiguration = 7,
    InvalidNamespace = 8,
    TryAgainLater = 11,
    NotAvailable = 50,
    LimitedConnectivity = 51,
    /// The daemon does not want to speak to this user.
    NotPermitted = 100,
    /// No address, port or the like is left.
    Exhausted = 101,
    /// An address, MAC or host port is somebody else's.
    Conflict = 102,
    /// The container's interface could not be made or configured.
    Interface = 103,
    /// CHECK: something is not as ADD left it.
    Differs = 104,
    /// The daemon could not.
    Daemon = 105,
}

/// An error as a runtime reads it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CniError {
    /// Its number.
    pub code: u32,
    /// What is wrong, and what to do.
    pub msg: String,
    /// More about it; may be empty.
    pub details: String,
}

impl CniError {
    pub(super) fn new(code: Code, msg: impl Into<String>) -> Self {
        Self { code: code as u32, msg: msg.into(), details: String::new() }
    }

    pub(super) fn details(self, details: impl Into<String>) -> Self {
        Self { details: details.into(), ..self }
    }

    pub(super) fn io(msg: impl Into<String>) -> Self {
        Self::new(Code::Io, msg)
    }

    pub(super) fn decode(error: &serde_json::Error) -> Self {
        Self::new(Code::Decode, format!("the configuration is not what it should be: {error}"))
    }

    pub(super) fn configuration(msg: impl Into<String>) -> Self {
        Self::new(Code::InvalidConfiguration, msg)
    }

    /// As the protocol wants it on standard output.
    pub fn to_json(&self, version: &str) -> Value {
        let mut object = json!({ "cniVersion": version, "code": self.code, "msg": self.msg });
        if !self.details.is_empty() {
            object["details"] = json!(self.details);
        }
        object
    }
}

fn of_refusal(code: RefusalCode) -> Code {
    match code {
        RefusalCode::Invalid | RefusalCode::NotFound => Code::InvalidConfiguration,
        RefusalCode::Version | RefusalCode::Internal => Code::Daemon,
        RefusalCode::NotPermitted => Code::NotPermitted,
        RefusalCode::Conflict => Code::Conflict,
        RefusalCode::Exhausted => Code::Exhausted,
    }
}

impl From<Failure> for CniError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Network(error) => error.into(),
            Failure::Attach(trouble) => trouble.into(),
        }
    }
}

impl From<Trouble> for CniError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Refused(code, message) => Self::new(of_refusal(code), message),
            Trouble::NoDaemon(text) => Self::new(Code::TryAgainLater, text),
            Trouble::Protocol(text) => Self::new(Code::Daemon, text),
            Trouble::Interface(text) => Self::new(Code::Interface, text),
            Trouble::NameTaken(name) => Self::new(
                Code::InvalidEnvironment,
                format!("CNI_IFNAME={name}: the container has such an interface already"),
            ),
        }
    }
}

impl From<ClientError> for CniError {
    fn from(error: ClientError) -> Self {
        let code = match &error {
            ClientError::Http(_) => Code::TryAgainLater,
            ClientError::NotUnderstood { .. } => Code::Daemon,
            ClientError::Refused(body) => match body.code {
                ErrorCode::Invalid | ErrorCode::Unsupported | ErrorCode::NotFound => {
                    Code::InvalidConfiguration
                }
                ErrorCode::Exists | ErrorCode::Conflict | ErrorCode::InUse => Code::Conflict,
                ErrorCode::Exhausted => Code::Exhausted,
                ErrorCode::Denied => Code::NotPermitted,
                ErrorCode::Store | ErrorCode::Unavailable | ErrorCode::System => Code::Daemon,
            },
        };
        let hint = error.hint();
        let error = Self::new(code, error.to_string());
        match hint {
            Some(hint) => error.details(hint),
            None => error,
        }
    }
}
