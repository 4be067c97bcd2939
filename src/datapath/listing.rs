//! Listings of what the data path holds.

use std::net::IpAddr;

use super::Datapath;
use super::inspect::{
    FdbInfo, FlowCount, FlowEnd, FlowEvent, FlowEvents, FlowFilter, FlowInfo, Footprint,
    NeighbourInfo, PortStats, RouteInfo, WorkerStats, proto_name,
};
use crate::base::ids::PortId;
use crate::base::time::Time;
use crate::config::{PortKind, RouteTarget};
use crate::packet::DropReason;
use crate::stage::bridge::fdb::Fdb;
use crate::stage::flow::tcp::Phase;
use crate::stage::flow::{Class, Direction, Flow, FlowIndex};
use crate::stage::route::neighbour::State;
use crate::wire::addr::Addr;

/// Flows one listing gives unless it asks for another number.
const LISTING_MAX: usize = 100_000;
const BOTH: [Direction; 2] = [Direction::Initiator, Direction::Responder];

impl Datapath {
    /// Flows that match.
    pub fn list_flows(&self, now: Time, filter: &FlowFilter) -> Vec<FlowInfo> {
        let limit = filter.limit.unwrap_or(LISTING_MAX);
        self.matching(filter).take(limit).map(|(_, flow)| self.describe(now, flow)).collect()
    }

    /// Forgets flows that match and says how many.
    pub fn flush_flows(&mut self, now: Time, filter: &FlowFilter) -> usize {
        self.end_flows(now, filter, FlowEnd::Flushed)
    }

    pub(super) fn end_flows(&mut self, now: Time, filter: &FlowFilter, why: FlowEnd) -> usize {
        let found: Vec<FlowIndex> = self.matching(filter).map(|(index, _)| index).collect();
        for index in &found {
            self.remove_flow(now, *index, why);
        }
        found.len()
    }

    /// Flows by class. Counted as they come and go, so nothing is scanned.
    pub fn count_flows(&self) -> Vec<FlowCount> {
        let count = |class: Class| FlowCount {
            state: class.name().to_owned(),
            flows: self.flows.count_of_class(class) as u64,
            timeout_ms: self.flows.timeouts().get(class).as_millis(),
        };
        Class::ALL.into_iter().map(count).collect()
    }

    /// Beginnings and ends of flows that match, from number `from` on; the first question (without a
    /// number) only begins to have them written down.
    pub fn flow_events(&mut self, now: Time, filter: &FlowFilter, from: Option<u64>) -> FlowEvents {
        let mut journal = std::mem::take(&mut self.journal);
        let events = journal.since(now, from, |record| {
            matches(filter, &record.flow).then(|| FlowEvent {
                what: record.what,
                ago_ms: now.since(record.at).as_millis(),
                duration_ms: record.flow.age(record.at).as_millis(),
                flow: self.describe(record.at, &record.flow),
            })
        });
        self.journal = journal;
        events
    }

    fn matching(&self, filter: &FlowFilter) -> impl Iterator<Item = (FlowIndex, &Flow)> {
        self.flows.iter().filter(move |(_, flow)| matches(filter, flow))
    }

    fn describe(&self, now: Time, flow: &Flow) -> FlowInfo {
        let [key, reply] = flow.keys();
        let idle = now.millis().since(flow.last_seen());
        let timeout = self.flows.timeouts().get(flow.class()).as_millis();
        FlowInfo {
            proto: proto_name(key.proto),
            state: state_name(flow).to_owned(),
            initiator_port: flow.port(Direction::Initiator),
            responder_port: flow.port(Direction::Responder),
            initiator: (key.src.ip(), key.src_port),
            target: (key.dst.ip(), key.dst_port),
            responder: (reply.src.ip(), reply.src_port),
            seen_as: (reply.dst.ip(), reply.dst_port),
            service: self.service_of(key).map(str::to_owned),
            packets: BOTH.map(|dir| u64::from(flow.packets(dir))),
            bytes: BOTH.map(|dir| flow.bytes(dir)),
            idle_ms: u64::from(idle),
            expires_ms: timeout.saturating_sub(u64::from(idle)),
        }
    }

    /// Known and learned MAC addresses.
    pub fn list_fdb(&self, now: Time) -> Vec<FdbInfo> {
        let fixed = self.tables.ports().filter(|p| p.kind == PortKind::Endpoint).map(|port| {
            let (domain, mac, port) = (port.domain.0, port.mac, port.id);
            FdbInfo { domain, mac, port, fixed: true, age_ms: 0 }
        });
        let learned = self.fdbs.iter().flat_map(|(domain, fdb)| {
            fdb.entries(now).map(|(mac, port, age)| FdbInfo {
                domain: domain.0,
                mac,
                port,
                fixed: false,
                age_ms: age.as_millis(),
            })
        });
        fixed.chain(learned).collect()
    }

    /// Endpoints and learned neighbours.
    pub fn list_neighbours(&self, now: Time) -> Vec<NeighbourInfo> {
        let fixed = self.tables.ports().filter(|p| p.kind == PortKind::Endpoint).flat_map(|port| {
            port.addrs.iter().map(|addr| NeighbourInfo {
                port: port.id,
                addr: addr.ip(),
                mac: Some(port.mac),
                state: "permanent".to_owned(),
            })
        });
        let learned = self.neighbours.entries(now).map(|entry| NeighbourInfo {
            port: entry.port,
            addr: entry.addr.ip(),
            mac: entry.mac,
            state: neighbour_state(entry.state).to_owned(),
        });
        fixed.chain(learned).collect()
    }

    /// Routes to networks, and each uplink's default.
    pub fn list_routes(&self) -> Vec<RouteInfo> {
        let networks = self.tables.routes().iter().filter_map(|(prefix, len, target)| {
            let (via, to) = match target {
                RouteTarget::Network(id) => (None, &self.tables.network(*id)?.name),
                RouteTarget::Peer(id) => {
                    let peer = self.tables.peer(*id)?;
                    (Some(peer.endpoint.0.ip()), &peer.name)
                }
            };
            Some(RouteInfo { dst: format!("{prefix}/{len}"), via, to: to.to_string() })
        });
        let defaults = self.tables.uplinks().flat_map(|uplink| {
            uplink.routers.iter().map(|router| RouteInfo {
                dst: if router.is_v4() { "0.0.0.0/0" } else { "::/0" }.to_owned(),
                via: Some(router.ip()),
                to: uplink.name.to_string(),
            })
        });
        networks.chain(defaults).collect()
    }

    /// Counters of every port that the configuration has.
    pub fn list_ports(&self) -> Vec<PortStats> {
        self.tables
            .ports()
            .map(|port| {
                let Some(counters) = self.counters.get(usize::from(port.id.0)) else {
                    return PortStats { port: Some(port.id), ..PortStats::default() };
                };
                PortStats {
                    port: Some(port.id),
                    rx_frames: counters.rx_frames,
                    rx_bytes: counters.rx_bytes,
                    tx_frames: counters.tx_frames,
                    tx_bytes: counters.tx_bytes,
                    drops: counters.drops().map(|(r, n)| (r.name().to_owned(), n)).collect(),
                }
            })
            .collect()
    }

    /// How many frames were processed.
    pub fn frames_processed(&self) -> u64 {
        self.totals.frames
    }

    /// The worker's own counters; the worker adds what it alone knows.
    pub fn worker_stats(&self) -> WorkerStats {
        WorkerStats {
            batches: self.totals.batches,
            frames: self.totals.frames,
            hits: self.totals.hits,
            misses: self.totals.misses,
            flows: self.flows.len() as u64,
            flow_bytes: self.flows.memory_bytes() as u64,
            evicted_unanswered: self.totals.evicted_unanswered,
            evicted_idle: self.totals.evicted_idle,
            batch_sizes: self.totals.batch_sizes.to_vec(),
            tunnel: self.inbound.stats,
            sockets: self.socket_stats(),
            ..WorkerStats::default()
        }
    }

    fn socket_stats(&self) -> Vec<(String, u64)> {
        let open = ["tcp-open", "udp-open", "ping-open"].into_iter().zip(self.sockets.counts());
        let open = open.map(|(name, n)| (name, n as u64));
        open.chain(self.sockets.stats().rows()).map(|(name, n)| (name.to_owned(), n)).collect()
    }

    /// How much is remembered.
    pub fn footprint(&self) -> Footprint {
        Footprint {
            flows: self.flows.len(),
            mappings: self.mappings.len(),
            hops: self.hops.len(),
            held_syns: self.held_syns.len(),
            stations: self.fdbs.values().map(Fdb::len).sum(),
            neighbours: self.neighbours.len(),
            trains: self.fragments.len(),
            held: self.fragments.held() + self.neighbours.held(),
        }
    }

    /// Counts a drop that happened outside: a full ring, a failed write.
    pub fn count_drop(&mut self, port: PortId, reason: DropReason) {
        self.drop_frame(port, reason);
    }

    /// How often a frame from (or for) this port was dropped for this reason.
    pub fn drops(&self, port: PortId, reason: DropReason) -> u64 {
        let counters = self.counters.get(usize::from(port.0));
        counters.and_then(|c| c.drops().find(|(r, _)| *r == reason)).map_or(0, |(_, n)| n)
    }
}

fn matches(filter: &FlowFilter, flow: &Flow) -> bool {
    let keys = flow.keys();
    let is = |wanted: IpAddr, addr: Addr| Addr::from(wanted) == addr;
    filter.port.is_none_or(|port| BOTH.iter().any(|dir| flow.port(*dir) == port))
        && filter.proto.as_ref().is_none_or(|p| *p == proto_name(keys[0].proto))
        && filter.state.as_ref().is_none_or(|s| s == state_name(flow) || s == flow.class().name())
        && filter.to.is_none_or(|to| is(to, keys[0].dst) || is(to, keys[1].src))
        && filter.addr.is_none_or(|a| keys.iter().any(|k| is(a, k.src) || is(a, k.dst)))
        && filter
            .l4_port
            .is_none_or(|port| keys.iter().any(|k| k.src_port == port || k.dst_port == port))
}

fn state_name(flow: &Flow) -> &'static str {
    match flow.tcp.phase() {
        Phase::None => flow.class().name(),
        phase => phase.name(),
    }
}

fn neighbour_state(state: State) -> &'static str {
    match state {
        State::Incomplete(_) => "incomplete",
        State::Reachable => "reachable",
        State::Stale => "stale",
        State::Delay => "delay",
        State::Probe(_) => "probe",
        State::Failed => "failed",
    }
}
