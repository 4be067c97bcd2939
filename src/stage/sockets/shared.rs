//! What the flows of all kinds share: deadlines, shares of ports, counts.

use std::collections::BTreeSet;

use hashbrown::HashMap;

use super::calls::SocketId;
use super::tcp::reorder::Held;
use crate::base::hash::Seed;
use crate::base::ids::PortId;
use crate::base::limits::{
    SOCKET_EMBRYONIC_PER_PORT_MAX, SOCKET_FLOWS_PER_PORT_MAX, SOCKET_REFUSALS_PER_SECOND,
};
use crate::base::rate::TokenBucket;
use crate::base::time::Time;
use crate::packet::{DropReason, FlowKey};
use crate::wire::addr::Addr;

/// What a flow must know of the plug through which its container's frames come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inside {
    /// The plug.
    pub port: PortId,
    /// The packet's key.
    pub key: FlowKey,
    /// The network's MTU.
    pub mtu: u16,
    /// The gateway's address in the frame's family: ICMP errors come from it.
    pub gateway: Option<Addr>,
    /// Where a new flow really goes, when the packet's destination only stands for it: the gateway's
    /// address for the host's loopback. It was asked for, so it is not checked against what is forbidden.
    pub redirect: Option<Addr>,
    /// The packet came in fragments.
    pub assembled: bool,
}

/// What happened, in numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// TCP flows opened by containers.
    pub tcp_opened: u64,
    /// TCP flows opened by clients of published ports.
    pub tcp_accepted: u64,
    /// TCP flows ended by a reset of either side.
    pub tcp_resets: u64,
    /// Connection attempts that failed on the host's side.
    pub tcp_refused: u64,
    /// Segments of containers that came before an earlier one.
    pub tcp_out_of_order: u64,
    /// Of these, segments that found no room to wait in, and were left to be sent again.
    pub tcp_not_held: u64,
    /// Gaps that lasted, so that the container was asked to send again.
    pub tcp_gaps_lost: u64,
    /// Bytes of containers that the host's socket could not take at once.
    pub tcp_not_taken: u64,
    /// Retransmissions towards containers.
    pub tcp_resent: u64,
    /// UDP sockets opened.
    pub udp_opened: u64,
    /// Datagrams from strangers.
    pub udp_filtered: u64,
    /// Ping sockets opened.
    pub ping_opened: u64,
    /// New flows refused because sockets or descriptors ran out.
    pub limits_met: u64,
}

impl Stats {
    /// Each with its name, as `wharf stats --sockets` shows it.
    pub fn rows(&self) -> [(&'static str, u64); 13] {
        [
            ("tcp-opened", self.tcp_opened),
            ("tcp-accepted", self.tcp_accepted),
            ("tcp-resets", self.tcp_resets),
            ("tcp-refused", self.tcp_refused),
            ("tcp-out-of-order", self.tcp_out_of_order),
            ("tcp-not-held", self.tcp_not_held),
            ("tcp-gaps-lost", self.tcp_gaps_lost),
            ("tcp-bytes-not-taken", self.tcp_not_taken),
            ("tcp-resent", self.tcp_resent),
            ("udp-opened", self.udp_opened),
            ("udp-filtered", self.udp_filtered),
            ("ping-opened", self.ping_opened),
            ("limits-met", self.limits_met),
        ]
    }
}

/// Deadlines, one entry a flow. An entry may be early: the flow then arms itself again. Moving a
/// deadline out costs nothing, moving it forward replaces the entry.
#[derive(Debug, Default)]
pub(super) struct Timers {
    entries: BTreeSet<(Time, SocketId)>,
}

impl Timers {
    /// Sees to it that `id` is woken at `at` or before. `armed` is the flow's note of its entry.
    pub(super) fn arm(&mut self, id: SocketId, armed: &mut Option<Time>, at: Time) {
        if armed.is_some_and(|entry| entry <= at) {
            return;
        }
        self.disarm(id, armed);
        self.entries.insert((at, id));
        *armed = Some(at);
    }

    /// Removes the entry of a flow that is gone.
    pub(super) fn disarm(&mut self, id: SocketId, armed: &mut Option<Time>) {
        if let Some(entry) = armed.take() {
            self.entries.remove(&(entry, id));
        }
    }

    pub(super) fn next(&self) -> Option<Time> {
        self.entries.first().map(|(at, _)| *at)
    }

    pub(super) fn pop_due(&mut self, now: Time) -> Option<SocketId> {
        if self.next()? > now {
            return None;
        }
        self.entries.pop_first().map(|(_, id)| id)
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Share {
    flows: u32,
    embryonic: u32,
}

/// How much of the tables each port uses.
#[derive(Debug, Default)]
pub(super) struct Shares {
    ports: HashMap<PortId, Share>,
}

impl Shares {
    /// Counts a new flow of `port`, or says that it has had its share.
    pub(super) fn open(&mut self, port: PortId, embryonic: bool) -> Result<(), DropReason> {
        let share = self.ports.entry(port).or_default();
        let early = embryonic && share.embryonic >= SOCKET_EMBRYONIC_PER_PORT_MAX;
        if early || share.flows >= SOCKET_FLOWS_PER_PORT_MAX {
            return Err(DropReason::FlowShare);
        }
        share.flows += 1;
        share.embryonic += u32::from(embryonic);
        Ok(())
    }

    pub(super) fn established(&mut self, port: PortId) {
        if let Some(share) = self.ports.get_mut(&port) {
            share.embryonic = share.embryonic.saturating_sub(1);
        }
    }

    pub(super) fn close(&mut self, port: PortId, embryonic: bool) {
        let Some(share) = self.ports.get_mut(&port) else { return };
        share.flows = share.flows.saturating_sub(1);
        share.embryonic = share.embryonic.saturating_sub(u32::from(embryonic));
        if share.flows == 0 {
            self.ports.remove(&port);
        }
    }
}

#[derive(Debug)]
pub(super) struct Shared {
    /// The time of the input at hand.
    pub(super) now: Time,
    pub(super) seed: Seed,
    pub(super) timers: Timers,
    pub(super) shares: Shares,
    pub(super) stats: Stats,
    pub(super) refusals: TokenBucket,
    /// Segments that wait for an earlier one.
    pub(super) held: Held,
    /// Connections that are over, and have not been told of.
    pub(super) ended: Vec<FlowKey>,
}

impl Shared {
    pub(super) fn new(seed: Seed) -> Self {
        let per_second = SOCKET_REFUSALS_PER_SECOND;
        Self {
            now: Time::ZERO,
            seed,
            timers: Timers::default(),
            shares: Shares::default(),
            stats: Stats::default(),
            refusals: TokenBucket::new(per_second, per_second),
            held: Held::default(),
            ended: Vec::new(),
        }
    }

    /// Whether one more reset or ICMP error that no flow asked for may be sent.
    pub(super) fn may_refuse(&mut self) -> bool {
        self.refusals.take(self.now, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::sockets::calls::SocketKind;

    #[test]
    fn a_deadline_moves_out_for_nothing_and_forward_by_replacing_its_entry() {
        let mut timers = Timers::default();
        let id = SocketId::new(SocketKind::Tcp, 1, 0);
        let mut armed = None;
        for at in [100, 200, 50, 60] {
            timers.arm(id, &mut armed, Time(at));
        }
        assert_eq!((timers.entries.len(), timers.next()), (1, Some(Time(50))));
        assert_eq!(timers.pop_due(Time(49)), None);
        assert_eq!(timers.pop_due(Time(50)), Some(id));
    }

    #[test]
    fn a_syn_flood_uses_up_its_own_port_s_share_only() {
        let mut shares = Shares::default();
        let flood = std::iter::from_fn(|| shares.open(PortId(1), true).ok()).count();
        assert_eq!(flood, SOCKET_EMBRYONIC_PER_PORT_MAX as usize);
        assert!(shares.open(PortId(2), true).is_ok());
        shares.established(PortId(1));
        assert!(shares.open(PortId(1), true).is_ok());
        assert_eq!(shares.open(PortId(1), true), Err(DropReason::FlowShare));
    }
}
