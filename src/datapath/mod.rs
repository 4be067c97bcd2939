//! Layer 5: the joiner. Frames, changes and time in; frames, events and deadlines out. Still pure.
//!
//! [`Datapath`] owns everything one worker knows: its [`Tables`], flows, mappings, learned addresses,
//! neighbours. The order in which a frame meets the stages is in `pipeline.rs`, on one page. What is
//! decided about a packet is a value ([`decide::Decision`]) that the slow path and `trace` share;
//! `commit` turns it into a flow, and `fast` replays that flow for every later packet.
//!
//! Calls, in the order a worker makes them: [`apply`](Datapath::apply) for changes,
//! [`frames`](Datapath::frames) for a batch from one port, [`tick`](Datapath::tick) when
//! [`next_deadline`](Datapath::next_deadline) has come. Each fills an [`Output`].

mod balance;
mod commit;
mod configure;
mod counters;
pub mod decide;
mod discovery;
mod drops;
mod egress;
mod errors;
mod fast;
mod fragment;
pub mod fuzz;
mod guests;
mod hops;
pub mod inspect;
mod journal;
mod judge;
mod listing;
mod names;
pub mod nodes;
mod output;
mod pipeline;
mod policy;
mod probes;
mod send;
mod slow;
mod sockets;
mod trace;
mod upstream;

use hashbrown::HashMap;

use crate::base::hash::Seed;
use crate::base::ids::{DomainId, PortId, UplinkId};
use crate::base::limits::FLOWS_MAX;
use crate::base::time::{Span, Time};
use crate::config::{Delta, PortKind, Tables};
use crate::packet::{DropReason, FlowKey, PacketBuf};
use crate::stage::bridge::fdb::Fdb;
use crate::stage::flow::{FlowIndex, FlowTable, HeldSyns, MappingTable, Timeouts};
use crate::stage::policy::Learned;
use crate::stage::route::fragments::{Assembler, FragmentTracker};
use crate::stage::route::ip_id::Identifications;
use crate::stage::route::neighbour::NeighbourTable;
use crate::stage::service::health::Prober;
use crate::stage::sockets::SocketFlows;

use self::configure::Lease;
use self::counters::PortCounters;
use self::egress::Tally;
use self::guests::Advertised;
use self::hops::HopTable;
use self::inspect::{FlowEnd, FlowFilter};
use self::journal::Journal;
use self::names::Names;
pub use self::output::{Denied, Event, FrameRef, Lan, OutFrame, Output};
use self::pipeline::Scratch;
use self::policy::Denials;

/// How often learned addresses and flows are looked at for expiry when nothing else happens.
const HOUSEKEEPING: Span = Span::from_secs(1);
/// How soon they are looked at again when more were over than one pass may remove.
const BACKLOG: Span = Span::from_millis(1);
/// Flows that one expiry pass may remove, so that a pause stays under a millisecond.
const EXPIRY_BUDGET: usize = 1_024;

/// The switch of one worker.
#[derive(Debug)]
pub struct Datapath {
    tables: Tables,
    flows: FlowTable,
    mappings: MappingTable,
    hops: HopTable,
    fdbs: HashMap<DomainId, Fdb>,
    neighbours: NeighbourTable,
    fragments: FragmentTracker,
    assembler: Assembler,
    /// Datagrams that have become whole, and where they came from; sent when their batch is done.
    whole: Vec<(PortId, PacketBuf)>,
    /// Identification of the next datagram that we cut.
    next_cut: u32,
    leases: HashMap<UplinkId, Lease>,
    counters: Vec<PortCounters>,
    batch_drops: drops::BatchDrops,
    totals: counters::Totals,
    sockets: SocketFlows,
    names: Names,
    prober: Prober,
    advertised: Advertised,
    seed: Seed,
    scratch: Scratch,
    tally: Tally,
    housekeeping: Time,
    /// From where on flows are still to be judged again.
    sweep: Option<FlowIndex>,
    held_syns: HeldSyns,
    ip_ids: Identifications,
    journal: Journal,
    inbound: nodes::Inbound,
    /// Whether TCP connections that began before this daemon are followed from their middle on.
    pick_up: bool,
    /// When somebody was last told that something has run out.
    shortage_told: Option<Time>,
    denials: Denials,
    learned: Learned,
    /// Flows that end in sockets and that policy forbids now; these are closed when there is somebody to say
    /// it to.
    cut_off: Vec<FlowKey>,
}

impl Datapath {
    /// An empty switch. `seed` must be random in a daemon: it salts hashes and port choices.
    pub fn new(seed: Seed) -> Self {
        Self::with_flow_limit(seed, FLOWS_MAX)
    }

    /// An empty switch with room for so many flows.
    pub fn with_flow_limit(seed: Seed, flows_max: usize) -> Self {
        Self {
            tables: Tables::default(),
            flows: FlowTable::new(seed, flows_max),
            mappings: MappingTable::new(seed),
            hops: HopTable::default(),
            fdbs: HashMap::new(),
            neighbours: NeighbourTable::default(),
            fragments: FragmentTracker::default(),
            assembler: Assembler::default(),
            whole: Vec::new(),
            next_cut: seed.hash([0x6375_7421]) as u32,
            leases: HashMap::new(),
            counters: Vec::new(),
            batch_drops: drops::BatchDrops::default(),
            totals: counters::Totals::default(),
            sockets: SocketFlows::new(seed),
            names: Names::new(seed),
            prober: Prober::new(seed),
            advertised: Advertised::default(),
            seed,
            scratch: Scratch::default(),
            tally: Tally::NOTHING,
            housekeeping: Time::ZERO,
            sweep: None,
            held_syns: HeldSyns::default(),
            ip_ids: Identifications::new(seed),
            journal: Journal::default(),
            inbound: nodes::Inbound::default(),
            pick_up: true,
            shortage_told: None,
            denials: Denials::default(),
            learned: Learned::default(),
            cut_off: Vec::new(),
        }
    }

    /// The configuration as this worker has it.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Applies one change of the configuration.
    pub fn apply(&mut self, now: Time, delta: &Delta, out: &mut Output) {
        match delta {
            Delta::RemovePort(id) => self.forget_port(now, *id, out),
            Delta::RemoveUplink(id) => {
                self.leases.remove(id);
            }
            Delta::RemovePeer(id) => {
                if let Some(port) = self.tables.peer(*id).map(|peer| peer.port) {
                    self.inbound.forget(port);
                    self.forget_port(now, port, out);
                }
            }
            Delta::Publish(publication) => self.reserve(publication, true),
            Delta::Uplink(uplink) => self.uplink_changes(uplink),
            Delta::Resolvers(servers) => self.names.set_servers(servers),
            Delta::Service(service, _) => {
                self.prober.put(now, service);
                if let Some(old) = self.tables.services().get(service.id).cloned() {
                    self.reserve_node_ports(&old, false);
                }
                self.reserve_node_ports(service, true);
            }
            Delta::RemoveService(id) => {
                self.prober.remove(*id);
                if let Some(old) = self.tables.services().get(*id).cloned() {
                    self.reserve_node_ports(&old, false);
                }
            }
            Delta::Unpublish(id) => {
                if let Some(publication) = self.tables.publications().get(*id).cloned() {
                    self.reserve(&publication, false);
                }
            }
            _ => {}
        }
        self.tables.apply(delta);
        if let Delta::Port(port) = delta {
            self.hops.set_mtu(port.id, port.mtu);
            if port.kind == PortKind::PacketUplink {
                // Everybody outside shares this port; its bound is the table's.
                self.flows.set_share(port.id, FLOWS_MAX);
            }
        }
        if let Delta::Peer(peer) = delta {
            self.hops.set_mtu(peer.port, peer.mtu);
            // Everybody behind it shares this port.
            self.flows.set_share(peer.port, FLOWS_MAX);
        }
        if matches!(delta, Delta::Network(_) | Delta::RemoveNetwork(_)) {
            self.forbid_own_networks();
        }
        self.sweep = Some(FlowIndex(0));
    }

    /// Lets `port` begin at most so many flows.
    pub fn set_flow_share(&mut self, port: PortId, max: usize) {
        self.flows.set_share(port, max);
    }

    /// Allows so many flows in all from now on.
    pub fn set_flow_limit(&mut self, max: usize) {
        self.flows.set_max(max);
    }

    /// Lets each endpoint begin so many flows and have so many outside ports, if nothing else was said.
    pub fn set_default_shares(&mut self, flows: usize, ports: usize) {
        self.flows.set_default_share(flows);
        self.mappings.set_default_share(ports);
    }

    /// Changes how long idle flows live.
    pub fn set_timeouts(&mut self, timeouts: Timeouts) {
        self.flows.set_timeouts(timeouts);
    }

    /// Whether TCP connections that this daemon did not see begin are followed, or their segments
    /// dropped.
    pub fn set_pick_up(&mut self, pick_up: bool) {
        self.pick_up = pick_up;
    }

    /// Does what time demands: expiry, retries, leases.
    pub fn tick(&mut self, now: Time, out: &mut Output) {
        self.neighbour_timers(now, out);
        self.lease_timers(now, out);
        self.sockets.tick(now, &mut out.sockets);
        self.name_timers(now, out);
        self.probe_timers(now, out);
        self.advertise_again(now, out);
        self.settle_sockets(now, out);
        self.fragments.tick(now);
        self.assembler.tick(now);
        for port in self.fragments.take_lost() {
            // On a shared address they may have been the host's.
            if !self.shares_host(port) {
                self.drop_frame(port, DropReason::FragmentTimeout);
            }
        }
        self.refuse_syns(now, out);
        self.journal.tick(now);
        self.sweep(now);
        if !self.cut_off.is_empty() {
            self.flush_sockets(now, out);
        }
        if now < self.housekeeping {
            return;
        }
        self.tables.services_mut().expire(now);
        let backlog = self.expire_flows(now);
        self.learned.expire(now);
        for fdb in self.fdbs.values_mut() {
            fdb.expire(now);
        }
        self.housekeeping = now + if backlog { BACKLOG } else { HOUSEKEEPING };
    }

    /// When [`tick`](Self::tick) wants to be called next; `None` when nothing is pending.
    pub fn next_deadline(&self, now: Time) -> Option<Time> {
        let housekeeping = |at: Time| at.max(self.housekeeping);
        let fdb = self.fdbs.values().filter_map(Fdb::next_expiry).min().map(housekeeping);
        let flows = self.flows.next_deadline(now).map(housekeeping);
        let mappings = self.mappings.next_deadline(now).map(housekeeping);
        let clients = self.tables.services().next_deadline().map(housekeeping);
        let sweep = self.sweep.map(|_| now);
        let leases = self.leases.values().map(Lease::next_deadline).min();
        [
            fdb,
            flows,
            mappings,
            clients,
            sweep,
            leases,
            self.neighbours.next_deadline(),
            self.fragments.next_deadline(),
            self.assembler.next_deadline(),
            self.sockets.next_deadline(),
            self.held_syns.next_deadline(),
            self.names.next_deadline(),
            self.prober.next_deadline(),
            self.advertised.next_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Ends what has been idle for too long; whether more is waiting for its end.
    fn expire_flows(&mut self, now: Time) -> bool {
        let (mappings, hops, journal) = (&mut self.mappings, &mut self.hops, &mut self.journal);
        let flows = self.flows.expire(now, EXPIRY_BUDGET, |flow| {
            journal.ended(now, &flow, FlowEnd::Idle);
            commit::release(mappings, hops, now, &flow);
        });
        let idle = mappings.expire(now, EXPIRY_BUDGET, |_| {});
        flows == EXPIRY_BUDGET || idle == EXPIRY_BUDGET
    }

    fn forget_port(&mut self, now: Time, id: PortId, out: &mut Output) {
        self.sockets.remove_port(now, id, &mut out.sockets);
        self.names.remove_port(id);
        self.denials.remove_port(id);
        self.learned.remove_port(id);
        self.advertised.remove_port(id);
        let of_port = FlowFilter { port: Some(id), ..FlowFilter::default() };
        self.end_flows(now, &of_port, FlowEnd::Changed);
        for fdb in self.fdbs.values_mut() {
            fdb.remove_port(id);
        }
        self.neighbours.remove_port(id);
        if let Some(counters) = self.counters.get_mut(usize::from(id.0)) {
            *counters = PortCounters::default();
        }
    }

    /// Whether a port's address is the host's as well.
    fn shares_host(&self, port: PortId) -> bool {
        let domain = self.tables.port(port).map(|port| port.domain);
        domain.and_then(|id| self.tables.uplink_of(id)).is_some_and(|uplink| uplink.shared)
    }

    fn drop_frame(&mut self, port: PortId, reason: DropReason) {
        self.port_counters(port).drop(reason);
        self.batch_drops.note(reason);
    }

    fn port_counters(&mut self, port: PortId) -> &mut PortCounters {
        let at = usize::from(port.0);
        if self.counters.len() <= at {
            self.counters.resize_with(at + 1, PortCounters::default);
        }
        &mut self.counters[at]
    }
}
