//! What the data path tells about itself: plain records for listings, metrics and traces.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::base::ids::{PeerId, PortId};
use crate::stage::policy::{Action, Direction};
use crate::wire::ipv6;
use crate::wire::mac::Mac;

/// One flow, as listings show it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowInfo {
    /// `tcp`, `udp`, `icmp` … or the protocol's number.
    pub proto: String,
    /// State in words: `established`, `syn-sent`, `stream` …
    pub state: String,
    /// Port of the side that began.
    pub initiator_port: PortId,
    /// Port of the other side.
    pub responder_port: PortId,
    /// Address and port the initiator speaks from.
    pub initiator: (IpAddr, u16),
    /// Address and port the initiator speaks to.
    pub target: (IpAddr, u16),
    /// Where its packets really go: differs from `target` after DNAT.
    pub responder: (IpAddr, u16),
    /// Who the responder sees: differs from `initiator` after SNAT.
    pub seen_as: (IpAddr, u16),
    /// The service that the initiator speaks to, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Packets by the initiator and by the responder.
    pub packets: [u64; 2],
    /// Bytes by the initiator and by the responder.
    pub bytes: [u64; 2],
    /// Milliseconds since the last packet.
    pub idle_ms: u64,
    /// Milliseconds until it is forgotten if nothing comes.
    pub expires_ms: u64,
}

/// What happened to a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event", content = "why")]
pub enum FlowHappening {
    /// It began.
    Begin,
    /// It ended.
    End(FlowEnd),
}

/// Why a flow ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlowEnd {
    /// It was idle for its time.
    Idle,
    /// The table was full, and it had no answer.
    EvictedUnanswered,
    /// The table was full, and it was idle; or the ports were all in use, and it was over.
    EvictedIdle,
    /// What it was made by was changed or removed.
    Changed,
    /// Its ports serve a new connection.
    Replaced,
    /// Somebody asked for it.
    Flushed,
    /// The connection is over: the host's socket is closed.
    Closed,
}

/// The beginning or the end of a flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowEvent {
    /// What happened.
    #[serde(flatten)]
    pub what: FlowHappening,
    /// Milliseconds since it happened.
    pub ago_ms: u64,
    /// How long the flow has lived.
    pub duration_ms: u64,
    /// The flow, as it was then.
    pub flow: FlowInfo,
}

/// Beginnings and ends since the last question.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FlowEvents {
    /// In order.
    pub events: Vec<FlowEvent>,
    /// Where to go on.
    pub next: u64,
    /// How many there were that are not known any more.
    pub lost: u64,
}

/// How many flows there are of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowCount {
    /// Their protocol and state, such as `tcp-established`.
    pub state: String,
    /// So many.
    pub flows: u64,
    /// Milliseconds that one of them may be idle.
    pub timeout_ms: u64,
}

/// Which flows are meant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FlowFilter {
    /// On this port, at either end.
    pub port: Option<PortId>,
    /// Of this protocol, by name or number.
    pub proto: Option<String>,
    /// In this state.
    pub state: Option<String>,
    /// To this address, before or after translation.
    pub to: Option<IpAddr>,
    /// With this address at either end, before or after translation.
    #[serde(default)]
    pub addr: Option<IpAddr>,
    /// With this port (or ICMP identifier) at either end, before or after translation.
    #[serde(default)]
    pub l4_port: Option<u16>,
    /// At most so many.
    pub limit: Option<usize>,
}

/// One learned or configured MAC address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FdbInfo {
    /// Domain's number: a network's, or an uplink's with the top bit set.
    pub domain: u16,
    /// The address.
    pub mac: Mac,
    /// Where it is.
    pub port: PortId,
    /// From the configuration, not learned.
    pub fixed: bool,
    /// Milliseconds since it was last seen; zero when fixed.
    pub age_ms: u64,
}

/// One neighbour.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NeighbourInfo {
    /// Port it is behind.
    pub port: PortId,
    /// Its address.
    pub addr: IpAddr,
    /// Its MAC, when known.
    pub mac: Option<Mac>,
    /// `permanent` for endpoints, else RFC 4861's state.
    pub state: String,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteInfo {
    /// Destination in CIDR form.
    pub dst: String,
    /// Next hop, if it is not on the link.
    pub via: Option<IpAddr>,
    /// Name of the network or uplink it leads to.
    pub to: String,
}

/// Counters of one port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PortStats {
    /// The port.
    pub port: Option<PortId>,
    /// Frames that came from it.
    pub rx_frames: u64,
    /// Bytes that came from it.
    pub rx_bytes: u64,
    /// Frames handed to it.
    pub tx_frames: u64,
    /// Bytes handed to it.
    pub tx_bytes: u64,
    /// Drops of frames that came from it (or, for egress reasons, were meant for it), by reason.
    pub drops: Vec<(String, u64)>,
}

/// Another node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerInfo {
    /// Its number.
    pub id: PeerId,
    /// Largest IP packet that is sent through the tunnel now.
    pub mtu: u16,
    /// How long ago something came from it; nothing ever has without it.
    pub heard_ms: Option<u64>,
    /// What passed: frames and bytes without the tunnel's own headers.
    pub stats: PortStats,
}

/// Counters of one worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerStats {
    /// Its number.
    pub worker: usize,
    /// Times it was woken.
    pub wakeups: u64,
    /// Batches processed.
    pub batches: u64,
    /// Frames processed.
    pub frames: u64,
    /// Of these, answered from the flow table.
    pub hits: u64,
    /// Of these, decided anew.
    pub misses: u64,
    /// Flows in the table.
    pub flows: u64,
    /// Bytes of the flow table.
    pub flow_bytes: u64,
    /// Flows without an answer that ended early, since the table was full.
    pub evicted_unanswered: u64,
    /// Idle flows that ended early.
    pub evicted_idle: u64,
    /// Frames per batch, summed by power of two: 1, 2–3, 4–7 …
    pub batch_sizes: Vec<u64>,
    /// The tunnels to other nodes.
    pub tunnel: TunnelStats,
    /// The socket uplink: its open flows by protocol, and what happened to it, by name.
    pub sockets: Vec<(String, u64)>,
}

/// What passed through the tunnels of a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelStats {
    /// Trains and single datagrams received.
    pub receives: u64,
    /// Datagrams in them.
    pub received: u64,
    /// Of these, joined to the one before as a segment of a super-frame.
    pub merged: u64,
    /// Trains and single datagrams sent.
    pub trains: u64,
    /// Datagrams in them.
    pub sent: u64,
}

/// How much the data path remembers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Flows in the table.
    pub flows: usize,
    /// Outside ports in use or lingering.
    pub mappings: usize,
    /// Ways out that flows share.
    pub hops: usize,
    /// Learned MAC addresses.
    pub stations: usize,
    /// Neighbours on uplinks.
    pub neighbours: usize,
    /// SYNs that wait for their connection.
    pub held_syns: usize,
    /// Fragment trains.
    pub trains: usize,
    /// Frames that wait for a neighbour or for their first fragment.
    pub held: usize,
}

/// A question to `trace`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceRequest {
    /// Port the packet would come from.
    pub from: PortId,
    /// Where to.
    pub to: IpAddr,
    /// Destination port; an echo request without it.
    pub port: Option<u16>,
    /// Protocol name: `tcp`, `udp`, `icmp`.
    pub proto: String,
}

/// A question to the rules of both ends of an imagined flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyQuestion {
    /// The source's port; `None`: outside.
    pub from: Option<PortId>,
    /// The destination's.
    pub to: Option<PortId>,
    /// The source's address.
    pub src: IpAddr,
    /// The destination's own address and port.
    pub dst: (IpAddr, u16),
    /// Protocol number.
    pub proto: u8,
}

/// What the rules of one end say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicySaid {
    /// From that end's view.
    pub direction: Direction,
    /// What they say.
    pub action: Action,
    /// The rule; `None`: none is about it.
    pub rule: Option<String>,
}

/// A protocol's name, or its number.
pub fn proto_name(proto: u8) -> String {
    match proto {
        ipv6::ICMP => "icmp".to_owned(),
        ipv6::TCP => "tcp".to_owned(),
        ipv6::UDP => "udp".to_owned(),
        ipv6::ICMPV6 => "icmpv6".to_owned(),
        ipv6::SCTP => "sctp".to_owned(),
        other => other.to_string(),
    }
}

/// One step of a traced packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceStep {
    /// Stage: `guard`, `bridge`, `route`, `publish`, `policy`, `nat`, `neighbour`, `egress`.
    pub stage: String,
    /// What it said.
    pub text: String,
}

/// Where a packet would go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceReport {
    /// Stage by stage.
    pub steps: Vec<TraceStep>,
    /// The verdict in words.
    pub verdict: String,
    /// Whether it would arrive.
    pub delivered: bool,
    /// The drop reason's name, if it would be dropped.
    pub drop: Option<String>,
}
