//! What control says to a worker, and what a worker tells control.

use std::ops::Range;
use std::sync::Arc;

use crossbeam_channel::Sender;

use super::capture::{CaptureRequest, Reader};
use crate::base::ids::{PortId, UplinkId};
use crate::config::Delta;
use crate::datapath::inspect::{
    FdbInfo, FlowCount, FlowEvents, FlowFilter, FlowInfo, NeighbourInfo, PeerInfo, PolicyQuestion,
    PolicySaid, PortStats, RouteInfo, TraceReport, TraceRequest, WorkerStats,
};
use crate::datapath::{Denied, Lan};
use crate::io::host_listen::Listener;
use crate::io::packet::PacketSocket;
use crate::io::tap::Tap;
use crate::io::tunnel::TunnelSockets;
use crate::io::wireguard::Identity;
use crate::packet::DropReason;
use crate::stage::flow::Timeouts;
use crate::stage::rate::Limits;
use crate::stage::service::health::Verdict;
use crate::stage::sockets::{ListenerId, Published, Target};

/// A message to a worker. Commands are handled in order, between batches.
#[derive(Debug)]
pub enum Command {
    /// Changes of the configuration.
    Deltas(Vec<Delta>),
    /// A TAP queue to serve for a port that the configuration has.
    AddTap(PortId, Tap),
    /// A packet socket to serve for an uplink's port.
    AddPacket(PortId, PacketSocket),
    /// The sockets of the tunnels to other nodes, in place of those there were.
    Tunnels(TunnelSockets),
    /// What is sent through them is encrypted from now on, or no longer. Peers come after it.
    Encrypt(Option<Identity>),
    /// How fast the station behind a served port may receive and send.
    Limit(PortId, Limits),
    /// Stop serving a port and close its descriptors.
    RemoveIo(PortId),
    /// Ask an uplink's port for an address by DHCP and router advertisements.
    Configure(UplinkId, PortId),
    /// Bounds and times of the flow table.
    Tune(Tuning),
    /// A listening or bound socket whose clients are for a container.
    AddListener(Listener, Published),
    /// The container behind such sockets is seen otherwise from now on.
    Retarget(Range<u32>, Arc<Target>),
    /// Close such a socket.
    RemoveListener(ListenerId),
    /// Copy frames to a reader, as long as there is one.
    Capture(Box<CaptureRequest>, Reader),
    /// A question.
    Query(Query, Sender<Answer>),
    /// End.
    Stop,
}

/// Bounds and times of the flow table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tuning {
    /// How long idle flows live.
    pub timeouts: Timeouts,
    /// Flows in all.
    pub flows_max: usize,
    /// Flows that one endpoint may begin.
    pub flows_per_endpoint: usize,
    /// Outside ports that one endpoint may have.
    pub ports_per_endpoint: usize,
    /// Whether TCP connections older than the daemon are followed.
    pub pick_up: bool,
}

/// A question to a worker.
#[derive(Clone, Debug)]
pub enum Query {
    /// Flows that match.
    Flows(FlowFilter),
    /// Forget flows that match; answers how many.
    FlushFlows(FlowFilter),
    /// Flows by state.
    CountFlows,
    /// Beginnings and ends of flows that match, from a number on.
    FlowEvents(FlowFilter, Option<u64>),
    /// MAC addresses.
    Fdb,
    /// Neighbours.
    Neighbours,
    /// Routes.
    Routes,
    /// Counters of all ports.
    Ports,
    /// Other nodes and what passes to and from them.
    Peers,
    /// Counters of the worker.
    Worker,
    /// Where a packet would go.
    Trace(TraceRequest),
    /// What the rules of both ends say.
    Policy(PolicyQuestion),
}

/// The answer to a [`Query`] of the same name.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Flows.
    Flows(Vec<FlowInfo>),
    /// Number of flows forgotten.
    Flushed(usize),
    /// Flows by state.
    Counts(Vec<FlowCount>),
    /// Beginnings and ends of flows.
    FlowEvents(FlowEvents),
    /// MAC addresses.
    Fdb(Vec<FdbInfo>),
    /// Neighbours.
    Neighbours(Vec<NeighbourInfo>),
    /// Routes.
    Routes(Vec<RouteInfo>),
    /// Counters of ports.
    Ports(Vec<PortStats>),
    /// Other nodes.
    Peers(Vec<PeerInfo>),
    /// Counters of the worker.
    Worker(WorkerStats),
    /// The way of a packet.
    Trace(TraceReport),
    /// What the rules say, the source's first.
    Policy(Vec<PolicySaid>),
}

/// Something a worker noticed.
#[derive(Clone, Debug)]
pub enum Notice {
    /// The namespace behind a port's TAP is gone: the endpoint has ended.
    PortDead(PortId),
    /// What an uplink's LAN gave it has changed; this is all of it.
    Configured(UplinkId, Lan),
    /// A packet of this port could begin no flow, for this reason.
    Shortage(PortId, DropReason),
    /// Policy did not let a flow begin.
    Denied(Box<Denied>),
    /// A service's backend was found to serve, or not to.
    Health(Verdict),
    /// Something about the host may have changed that an uplink which shares its address rests on; it is
    /// time to look for conflicts, too, if so.
    HostChanged(PortId, bool),
    /// Much has passed since this was said last: it is time to look at what nobody reports.
    Busy,
    /// A worker stopped on an error.
    Failed(String),
}
