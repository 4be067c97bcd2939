//! Everything that is counted, gathered at one time. Workers are asked as for a listing and answer between two
//! batches; nothing is locked that they need.

use std::collections::BTreeMap;

use super::Control;
use super::error::ControlError;
use super::model::{EventKind, PeerView, StatusInfo};
use crate::base::ids::PortId;
use crate::datapath::inspect::{FlowCount, PortStats, WorkerStats};
use crate::io::own_process::Usage;
use crate::packet::DropReason;

/// All that is counted.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// How the daemon is.
    pub status: StatusInfo,
    /// What this process uses.
    pub usage: Usage,
    /// When this was, in milliseconds since 1970.
    pub now_ms: u64,
    /// How often what has happened.
    pub events: Vec<(EventKind, u64)>,
    /// By network (or nothing) and name of the port, so that each is there once.
    pub ports: BTreeMap<(String, String), PortStats>,
    /// Workers.
    pub workers: Vec<WorkerStats>,
    /// Flows by state.
    pub flows: Vec<FlowCount>,
    /// Uplinks, and whether they work.
    pub uplinks: Vec<(String, bool)>,
    /// Other nodes.
    pub peers: Vec<PeerView>,
    /// How many flows a worker may have.
    pub flows_limit: usize,
    /// How many endpoints there may be.
    pub endpoints_limit: usize,
}

impl Control {
    /// Gathers it.
    pub fn metrics(&self) -> Result<Metrics, ControlError> {
        let mut ports = BTreeMap::new();
        for (port, stats) in self.port_sums()? {
            let key = (self.port_network(port), self.port_name(port));
            super::queries::add(ports.entry(key).or_default(), self.with_ring_drops(port, stats));
        }
        let uplinks = self.state.uplinks.values();
        Ok(Metrics {
            status: self.status(),
            usage: Usage::now(),
            now_ms: self.now(),
            events: self.events.counts().collect(),
            ports,
            workers: self.worker_stats()?,
            flows: self.count_flows()?,
            uplinks: uplinks.map(|u| (u.record.spec.name.clone(), u.failure.is_none())).collect(),
            peers: if self.has_no_peers() { Vec::new() } else { self.peers()? },
            flows_limit: self.settings.config.limits.flows,
            endpoints_limit: self.settings.config.limits.endpoints,
        })
    }

    /// As of the last look: asking the kernel about each of a thousand containers would take longer than all
    /// the rest.
    fn with_ring_drops(&self, port: PortId, mut stats: PortStats) -> PortStats {
        let full = self.watched.ring_drops(port);
        if full > 0 {
            stats.drops.push((DropReason::RingFull.name().to_owned(), full));
        }
        stats
    }
}
