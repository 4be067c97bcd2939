//! What people and programs read and write: the bodies of the REST API, its answers, the config
//! file's networks and uplinks, and what the store keeps. One set of types for all four, so that what
//! is asked for, kept and shown cannot drift apart. Requests refuse fields they do not know.

mod capture;
mod cluster;
mod endpoint;
mod health;
mod network;
mod node;
mod policy;
mod service;
mod status;
mod uplink;
mod views;

pub use super::publish_spec::{PortRange, Proto, PublishSpec, PublishSpecError};
pub use capture::{CaptureSide, CaptureSpec};
pub use cluster::{NodeEndpoint, NodeInfo, NodeRemoved, NodeState};
pub use endpoint::{
    EndpointInfo, EndpointState, EndpointUpdate, NamespaceId, PublicationInfo, PublishRequest,
};
pub use health::{HealthCheck, HealthSpec};
pub use network::{NetworkInfo, NetworkSpec, NetworkUpdate, SubnetInfo};
pub use node::{NodeSpec, PeerSpec, PeerView};
pub use policy::{
    PolicyApplied, PolicyFile, PolicyInfo, PolicyTest, PolicyTestReport, PolicyVerdict, RuleView,
};
pub use service::{
    Affinity, BackendHost, BackendInfo, BackendSpec, Policy, ServiceInfo, ServicePort, ServiceSpec,
    ServiceSpecError, ServiceUpdate, node_port_range,
};
pub use status::{ErrorBody, ErrorCode, EventInfo, EventKind, StatusInfo};
pub use uplink::{PacketSpec, SharedInfo, UplinkInfo, UplinkKind, UplinkSpec};
pub use views::{
    Deleted, FdbView, FlowEventView, FlowEventsView, FlowQuery, FlowView, NeighbourView, PortView,
    StatsInfo, TraceQuery,
};

pub(super) const fn yes() -> bool {
    true
}
