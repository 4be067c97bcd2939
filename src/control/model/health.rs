//! How backends of a service are asked whether they serve.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ServiceSpecError;
use crate::base::limits::HEALTH_PATH_MAX;

/// Kubernetes' `periodSeconds`.
const INTERVAL: u32 = 10;
/// Kubernetes' `timeoutSeconds`.
const TIMEOUT: u32 = 1;
/// Kubernetes' `successThreshold`.
const UP: u16 = 1;
/// Kubernetes' `failureThreshold`.
const DOWN: u16 = 3;

/// How backends are asked, and what follows from their answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthSpec {
    /// What they are asked.
    pub check: HealthCheck,
    /// At this port; the one that they serve at if none.
    #[serde(default)]
    pub port: Option<u16>,
    /// Seconds from one attempt to the next.
    #[serde(default = "interval")]
    pub interval: u32,
    /// Seconds that one may take.
    #[serde(default = "timeout")]
    pub timeout: u32,
    /// Successes in a row after which a backend is ready.
    #[serde(default = "up")]
    pub up: u16,
    /// Failures in a row after which it is not.
    #[serde(default = "down")]
    pub down: u16,
}

/// What a backend is asked: `tcp` or `http:PATH`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HealthCheck {
    /// To take a connection.
    Tcp,
    /// To answer a request for this path with a status from 200 to 399.
    Http(String),
}

impl HealthSpec {
    /// With Kubernetes' times and thresholds.
    pub fn new(check: HealthCheck) -> Self {
        Self { check, port: None, interval: INTERVAL, timeout: TIMEOUT, up: UP, down: DOWN }
    }
}

fn interval() -> u32 {
    INTERVAL
}

fn timeout() -> u32 {
    TIMEOUT
}

fn up() -> u16 {
    UP
}

fn down() -> u16 {
    DOWN
}

impl FromStr for HealthCheck {
    type Err = ServiceSpecError;
    fn from_str(text: &str) -> Result<Self, ServiceSpecError> {
        if text == "tcp" {
            return Ok(Self::Tcp);
        }
        let path = text.strip_prefix("http:").filter(|path| path.starts_with('/'));
        let plain = |path: &&str| {
            path.len() <= HEALTH_PATH_MAX && path.bytes().all(|b| b.is_ascii_graphic())
        };
        let path = path.filter(plain).ok_or_else(|| ServiceSpecError::Health(text.to_owned()))?;
        Ok(Self::Http(path.to_owned()))
    }
}

impl fmt::Display for HealthCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => f.write_str("tcp"),
            Self::Http(path) => write!(f, "http:{path}"),
        }
    }
}

impl TryFrom<String> for HealthCheck {
    type Error = ServiceSpecError;
    fn try_from(text: String) -> Result<Self, ServiceSpecError> {
        text.parse()
    }
}

impl From<HealthCheck> for String {
    fn from(check: HealthCheck) -> Self {
        check.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_read_and_written_alike_and_what_is_none_is_quoted() {
        for text in ["tcp", "http:/", "http:/healthz?full=1"] {
            assert_eq!(text.parse::<HealthCheck>().unwrap().to_string(), text);
        }
        let long = format!("http:/{}", "x".repeat(HEALTH_PATH_MAX));
        for text in ["", "udp", "http", "http:", "http:x", "http:/a b", "http:/\r\nX: y", &long] {
            assert!(text.parse::<HealthCheck>().unwrap_err().to_string().contains(text), "{text}");
        }
    }

    #[test]
    fn what_is_left_out_is_as_kubernetes_has_it() {
        let spec: HealthSpec = serde_json::from_str(r#"{"check":"tcp"}"#).unwrap();
        assert_eq!(spec, HealthSpec::new(HealthCheck::Tcp));
        assert_eq!((spec.interval, spec.timeout, spec.up, spec.down), (10, 1, 1, 3));
    }
}
