//! What the data path tells, with names in place of numbers.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::datapath::inspect::{FlowHappening, FlowInfo, PortStats, WorkerStats};
use crate::wire::mac::Mac;

/// Which flows are meant.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowQuery {
    /// Of this endpoint, at either end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Of this protocol, by name or number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proto: Option<String>,
    /// In this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// To this address, before or after translation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<IpAddr>,
    /// With this address at either end, before or after translation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addr: Option<IpAddr>,
    /// With this port at either end, before or after translation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// At most so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// A flow and the names of its ends.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct FlowView {
    /// Who began.
    pub from: String,
    /// The other side.
    pub to: String,
    /// The flow.
    #[serde(flatten)]
    pub flow: FlowInfo,
}

/// The beginning or the end of a flow, and the names of its ends.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct FlowEventView {
    /// What happened.
    #[serde(flatten)]
    pub what: FlowHappening,
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
    /// How long the flow had lived, in milliseconds.
    pub duration_ms: u64,
    /// The flow as it was then, with its packets and bytes.
    #[serde(flatten)]
    pub flow: FlowView,
}

/// Beginnings and ends since the last question.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct FlowEventsView {
    /// In order.
    pub events: Vec<FlowEventView>,
    /// Where to go on.
    pub next: u64,
    /// How many more there were than are remembered.
    pub lost: u64,
}

/// How many things went.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Deleted {
    /// So many.
    pub count: usize,
}

/// A MAC address and where it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FdbView {
    /// Network or uplink.
    pub network: String,
    /// The address.
    pub mac: Mac,
    /// Name of the port.
    pub port: String,
    /// From the configuration, not learned.
    pub fixed: bool,
    /// Milliseconds since it was last seen; zero when fixed.
    pub age_ms: u64,
}

/// A neighbour and where it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NeighbourView {
    /// Name of the port.
    pub port: String,
    /// Its address.
    pub addr: IpAddr,
    /// Its MAC, when known.
    pub mac: Option<Mac>,
    /// `permanent` for endpoints, else RFC 4861's state.
    pub state: String,
}

/// A port's counters and its name.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PortView {
    /// Name of the port.
    pub name: String,
    /// Network or uplink.
    pub network: String,
    /// Counters.
    #[serde(flatten)]
    pub stats: PortStats,
}

/// All counters.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct StatsInfo {
    /// Of ports.
    pub ports: Vec<PortView>,
    /// Of workers.
    pub workers: Vec<WorkerStats>,
}

/// A question to `wharf trace`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceQuery {
    /// Name of the endpoint the packet would come from.
    pub from: String,
    /// Where to.
    pub to: IpAddr,
    /// Destination port; an echo request without it.
    #[serde(default)]
    pub port: Option<u16>,
    /// `tcp`, `udp`, `sctp` or `icmp`; TCP with a port and ICMP without one if not given.
    #[serde(default)]
    pub proto: Option<String>,
}
