//! What nobody reports: queues that are full, stations that seem to be in two places, peers that are silent.
//!
//! The kernel drops what a full ring cannot take and tells nobody; a peer that is gone is one that does not
//! answer. Both show in counters only. A worker asks for a look ([`Notice::Busy`](crate::worker::Notice))
//! while frames pass, a few times a minute, and what has grown since the last one is told. What goes on is
//! told once, until a look has found it over.

use std::collections::BTreeMap;

use super::Control;
use super::error::ControlError;
use super::model::{EventKind, PeerView};
use crate::base::ids::PortId;
use crate::datapath::inspect::PortStats;
use crate::packet::DropReason;

/// Looks in a row at which a peer was sent something and gave nothing back.
const SILENT_LOOKS: u8 = 2;

/// What the last look has seen.
#[derive(Debug, Default)]
pub(super) struct Watched {
    ports: BTreeMap<PortId, SeenPort>,
    peers: BTreeMap<String, SeenPeer>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct SeenPort {
    /// Age of the endpoint: a port's number is used again.
    since_ms: u64,
    sent: u64,
    /// What the kernel dropped at the ring.
    ring: u64,
    /// What we dropped at our own queue.
    queue: u64,
    flapping: u64,
    /// Whether it was told that the queue is full.
    full: bool,
    /// And that a MAC is in two places.
    moved: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct SeenPeer {
    received: u64,
    sent: u64,
    silent: u8,
    up: Option<bool>,
}

impl Watched {
    /// What the kernel had dropped at a port's ring when it was last looked at.
    pub(super) fn ring_drops(&self, port: PortId) -> u64 {
        self.ports.get(&port).map_or(0, |seen| seen.ring)
    }
}

impl Control {
    /// What the kernel dropped before this daemon was there is no news.
    pub(super) fn watch_from_here(&mut self) {
        let restored: Vec<_> = self.state.endpoints.values().map(|e| e.record.port).collect();
        for port in restored {
            let (since_ms, ring) = (self.age(port), self.ring_drops(port).unwrap_or_default());
            self.watched.ports.insert(port, SeenPort { since_ms, ring, ..SeenPort::default() });
        }
    }

    /// Looks, and tells what is new.
    pub(super) fn look(&mut self) {
        let looked = self.look_at_ports().and_then(|()| self.look_at_peers());
        if let Err(error) = looked {
            tracing::debug!("{error}");
        }
    }

    fn look_at_ports(&mut self) -> Result<(), ControlError> {
        let ports = self.port_sums()?;
        for (port, stats) in &ports {
            self.look_at_port(*port, stats);
        }
        self.watched.ports.retain(|port, _| ports.contains_key(port));
        Ok(())
    }

    fn look_at_port(&mut self, port: PortId, stats: &PortStats) {
        let since_ms = self.age(port);
        let seen = self.watched.ports.get(&port).copied();
        let before = seen.filter(|seen| seen.since_ms == since_ms).unwrap_or_default();
        // Asking the kernel costs something for each container, so only those are asked about that were
        // sent something.
        let grown = stats.tx_frames != before.sent;
        let ring = if grown { self.ring_drops(port) } else { None };
        let mut now = SeenPort {
            since_ms,
            sent: stats.tx_frames,
            ring: ring.unwrap_or(before.ring),
            queue: drops(stats, DropReason::EgressFull),
            flapping: drops(stats, DropReason::MacFlapping),
            full: false,
            moved: false,
        };
        let lost = now.ring.saturating_sub(before.ring) + now.queue.saturating_sub(before.queue);
        (now.full, now.moved) = (lost > 0, now.flapping > before.flapping);
        self.watched.ports.insert(port, now);
        if now.full && !before.full {
            let text =
                format!("{} is too slow: {lost} frames to it found no room", self.port_name(port));
            self.tell_of(port, EventKind::QueueFull, text);
        }
        if now.moved && !before.moved {
            let name = self.port_name(port);
            let text = format!("a MAC address comes now from {name}, now from elsewhere");
            self.tell_of(port, EventKind::MacConflict, text);
        }
    }

    fn tell_of(&mut self, port: PortId, kind: EventKind, text: String) {
        let endpoint = self.state.at_port(port).map(|e| e.record.clone());
        let network = endpoint.as_ref().map(|r| self.state.network_name(r.network).to_owned());
        self.event(kind, network.as_deref(), endpoint.map(|r| r.name).as_deref(), text);
    }

    fn look_at_peers(&mut self) -> Result<(), ControlError> {
        if self.watched.peers.is_empty() && self.has_no_peers() {
            return Ok(());
        }
        let peers = self.peers()?;
        for peer in &peers {
            self.look_at_peer(peer);
        }
        self.watched.peers.retain(|name, _| peers.iter().any(|peer| peer.name == *name));
        Ok(())
    }

    fn look_at_peer(&mut self, peer: &PeerView) {
        let seen = self.watched.peers.entry(peer.name.clone()).or_default();
        let (received, sent) = (peer.info.stats.rx_frames, peer.info.stats.tx_frames);
        let answers = received > seen.received;
        let asked = sent > seen.sent;
        seen.silent = match (answers, asked) {
            (true, _) => 0,
            (false, true) => seen.silent.saturating_add(1),
            (false, false) => seen.silent,
        };
        (seen.received, seen.sent) = (received, sent);
        let up = match (answers, seen.silent >= SILENT_LOOKS) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => seen.up,
        };
        if up == seen.up {
            return;
        }
        seen.up = up;
        let (name, address) = (&peer.name, peer.address);
        let (kind, text) = if up == Some(true) {
            (EventKind::PeerUp, format!("node {name} at {address} answers through its tunnel"))
        } else {
            let silence =
                format!("node {name} at {address} gets our packets, or not, and sends none");
            (EventKind::PeerDown, silence)
        };
        self.event(kind, None, None, text);
    }

    fn age(&self, port: PortId) -> u64 {
        self.state.at_port(port).map_or(0, |e| e.record.since_ms)
    }
}

fn drops(stats: &PortStats, reason: DropReason) -> u64 {
    let counted = stats.drops.iter().find(|(name, _)| name == reason.name());
    counted.map_or(0, |(_, count)| *count)
}
