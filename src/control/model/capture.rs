//! What a capture is asked for with.

use serde::{Deserialize, Serialize};

use crate::observe::capture::Form;

/// A request for copies of frames (`POST /v1/capture`).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptureSpec {
    /// Containers, uplinks or interfaces of the host whose frames are wanted; all, if none is named.
    #[serde(default)]
    pub ports: Vec<String>,
    /// Only frames that were dropped.
    #[serde(default)]
    pub drops: bool,
    /// Only as they came in, or as they left.
    #[serde(default)]
    pub side: Option<CaptureSide>,
    /// Bytes of each frame; all of them if not given.
    #[serde(default)]
    pub snap: Option<u32>,
    /// Frames after which it ends.
    #[serde(default)]
    pub count: Option<u64>,
    /// Cut super-frames into what a network card would send.
    #[serde(default)]
    pub segments: bool,
    /// Instructions of a classic packet filter: operation, jump if true, jump if false, constant.
    #[serde(default)]
    pub filter: Vec<(u16, u8, u8, u32)>,
    /// Form of the answer.
    #[serde(default)]
    pub form: Form,
}

/// Where frames are copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CaptureSide {
    /// As they came in from a port.
    Ingress,
    /// As they left by one.
    Egress,
}
