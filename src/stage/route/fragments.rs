//! Fragments: following them without reassembly, and making them.
//!
//! Only the first fragment of a datagram has ports, so a train of fragments is followed by its
//! (source, destination, identification): the first one says which flow the others belong to. Those
//! that overtake it are held, within bounds, until it comes (RFC 4787 REQ-14). The ranges that
//! passed are remembered, for two reasons: a datagram whose fragments overlap is an attack on
//! whoever looked at its first one only, and is dropped as a whole (RFC 1858, RFC 5722); and a
//! train that is complete can be forgotten, so that an identification may be used again.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use zerocopy::FromBytes;

use crate::base::ids::{DomainId, PortId};
use crate::base::limits::{
    FRAGMENT_BYTES_MAX, FRAGMENT_TIMEOUT, FRAGMENT_TRAINS_MAX, FRAGMENT_TRAINS_PER_SOURCE_MAX,
    FRAGMENTS_PER_TRAIN_MAX,
};
use crate::base::lru::LruList;
use crate::base::slab::Slab;
use crate::base::time::Time;
use crate::packet::parse::L3_OFFSET;
use crate::packet::{DropReason, Fragment, FrameMut, L3, PacketBuf, Parsed};
use crate::wire::addr::Addr;
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::ipv6::{self, Ipv6};

mod assemble;
mod cut;
mod pieces;

pub use assemble::Assembler;
pub use cut::{fragment_own, fragment_v4};
use pieces::{Piece, Pieces};

/// What the first fragment of a train said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ports {
    /// Protocol after all headers. In IPv6 a later fragment may name an extension header instead.
    pub proto: u8,
    /// Source port, as in [`Parsed`].
    pub src_port: u16,
    /// Destination port, as in [`Parsed`].
    pub dst_port: u16,
    /// What IPv4 fragments of this train are numbered with where their source is translated.
    pub id: u16,
}

/// What to do with a fragment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admitted {
    /// It belongs to the flow with these ports. After a first fragment ask for what it
    /// [released](FragmentTracker::first).
    Key(Ports),
    /// It came before the first one, and a copy is held.
    Held,
    /// It goes nowhere.
    Drop(DropReason),
}

/// RFC 791: source, destination, protocol, identification. RFC 8200: without the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Key {
    src: Addr,
    dst: Addr,
    id: u32,
    proto: u8,
    domain: DomainId,
}

#[derive(Debug)]
struct Train {
    key: Key,
    begun: Time,
    ports: Option<Ports>,
    /// What passed.
    pieces: Pieces,
    held: Vec<(PortId, PacketBuf)>,
}

/// The fragment trains of a worker.
#[derive(Debug, Default)]
pub struct FragmentTracker {
    index: HashMap<Key, u32>,
    trains: Slab<Train>,
    /// By the time they began; all live equally long.
    ages: LruList,
    per_source: BTreeMap<(DomainId, Addr), u32>,
    held: usize,
    held_bytes: usize,
    /// One for each held fragment that was given up; at most as many as were held.
    lost: Vec<PortId>,
}

impl FragmentTracker {
    /// No trains.
    pub fn new() -> Self {
        Self::default()
    }

    /// Judges a fragment, first or later, that arrived at a port of a domain. A train that begins is
    /// numbered by `fresh`.
    pub fn admit(
        &mut self,
        now: Time,
        (port, domain): (PortId, DomainId),
        parsed: &Parsed,
        frame: &FrameMut<'_>,
        fresh: impl FnOnce() -> u16,
    ) -> Admitted {
        let Some((key, piece)) = read(domain, parsed, frame.bytes()) else {
            return Admitted::Drop(DropReason::Malformed);
        };
        let index = match self.train(now, key) {
            Ok(index) => index,
            Err(reason) => return Admitted::Drop(reason),
        };
        let Some(train) = self.trains.get_mut(index) else {
            return Admitted::Drop(DropReason::FragmentLimit);
        };
        if parsed.fragment == Fragment::First && train.ports.is_none() {
            let (src_port, dst_port) = (parsed.src_port, parsed.dst_port);
            train.ports = Some(Ports { proto: parsed.proto, src_port, dst_port, id: fresh() });
        }
        match train.ports {
            _ if train.pieces.is_poisoned() => Admitted::Drop(DropReason::FragmentOverlap),
            Some(ports) => self.pass(index, piece, ports),
            None => self.hold(index, port, frame),
        }
    }

    /// The fragments that waited for this first one, in the order they came; [admit](Self::admit)
    /// each as if it came now.
    pub fn first(
        &mut self,
        domain: DomainId,
        parsed: &Parsed,
        frame: &FrameMut<'_>,
    ) -> Vec<PacketBuf> {
        let found = read(domain, parsed, frame.bytes());
        let Some(&index) = found.and_then(|(key, _)| self.index.get(&key)) else {
            return Vec::new();
        };
        self.release(index).into_iter().map(|(_, frame)| frame).collect()
    }

    /// Forgets trains whose time is over.
    pub fn tick(&mut self, now: Time) {
        while self.next_deadline().is_some_and(|at| at <= now) {
            let Some(index) = self.ages.oldest() else { break };
            self.forget(index);
        }
    }

    /// For each held fragment that went with a forgotten train since the last call, the port it came
    /// from.
    pub fn take_lost(&mut self) -> Vec<PortId> {
        std::mem::take(&mut self.lost)
    }

    /// Fragments that wait.
    pub fn held(&self) -> usize {
        self.held
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn next_deadline(&self) -> Option<Time> {
        let train = self.trains.get(self.ages.oldest()?)?;
        Some(train.begun + FRAGMENT_TIMEOUT)
    }

    /// Number of trains.
    pub fn len(&self) -> usize {
        self.trains.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.trains.is_empty()
    }

    fn train(&mut self, now: Time, key: Key) -> Result<u32, DropReason> {
        if let Some(&index) = self.index.get(&key) {
            return Ok(index);
        }
        let share = self.per_source.entry((key.domain, key.src)).or_default();
        if *share as usize >= FRAGMENT_TRAINS_PER_SOURCE_MAX {
            return Err(DropReason::FragmentLimit);
        }
        *share += 1;
        if self.len() >= FRAGMENT_TRAINS_MAX
            && let Some(oldest) = self.ages.oldest()
        {
            self.forget(oldest);
        }
        let index = self.trains.insert(Train {
            key,
            begun: now,
            ports: None,
            pieces: Pieces::default(),
            held: Vec::new(),
        });
        self.ages.push(&mut self.trains, index);
        self.index.insert(key, index);
        Ok(index)
    }

    fn pass(&mut self, index: u32, piece: Piece, ports: Ports) -> Admitted {
        let Some(train) = self.trains.get_mut(index) else {
            return Admitted::Drop(DropReason::FragmentLimit);
        };
        match train.pieces.take(piece) {
            Ok(()) => {
                if train.is_complete() {
                    self.forget(index);
                }
                Admitted::Key(ports)
            }
            Err(reason) => Admitted::Drop(reason),
        }
    }

    fn hold(&mut self, index: u32, port: PortId, frame: &FrameMut<'_>) -> Admitted {
        let Some(train) = self.trains.get_mut(index) else {
            return Admitted::Drop(DropReason::FragmentLimit);
        };
        if self.held_bytes + frame.len() > FRAGMENT_BYTES_MAX
            || train.held.len() >= FRAGMENTS_PER_TRAIN_MAX
        {
            return Admitted::Drop(DropReason::FragmentLimit);
        }
        self.held += 1;
        self.held_bytes += frame.len();
        train.held.push((port, frame.to_owned()));
        Admitted::Held
    }

    fn release(&mut self, index: u32) -> Vec<(PortId, PacketBuf)> {
        let Some(train) = self.trains.get_mut(index) else { return Vec::new() };
        let held = std::mem::take(&mut train.held);
        self.held -= held.len();
        self.held_bytes -= held.iter().map(|(_, frame)| frame.len()).sum::<usize>();
        held
    }

    fn forget(&mut self, index: u32) {
        let lost = self.release(index);
        self.lost.extend(lost.iter().map(|(port, _)| *port));
        self.ages.remove(&mut self.trains, index);
        if let Some(train) = self.trains.remove(index) {
            self.index.remove(&train.key);
            let source = (train.key.domain, train.key.src);
            if let Some(share) = self.per_source.get_mut(&source) {
                *share -= 1;
                if *share == 0 {
                    self.per_source.remove(&source);
                }
            }
        }
    }
}

impl Train {
    fn is_complete(&self) -> bool {
        self.held.is_empty() && self.pieces.whole().is_some()
    }
}

/// The key and the range of a fragment; `None` if they are impossible.
fn read(domain: DomainId, parsed: &Parsed, frame: &[u8]) -> Option<(Key, Piece)> {
    if parsed.fragment == Fragment::Whole {
        return None;
    }
    let packet = frame.get(L3_OFFSET..)?;
    let (id, proto, start, more, len) = match parsed.l3 {
        L3::V4 => {
            let (ip, _) = Ipv4::ref_from_prefix(packet).ok()?;
            let more = ip.flags_offset.get() & ipv4::MF != 0;
            let len = (parsed.ip_len as usize).checked_sub(ip.header_len())?;
            (u32::from(ip.id.get()), ip.protocol, ip.fragment_offset(), more, len)
        }
        L3::V6 => {
            let (header, at, _) = fragment_header(packet)?;
            let len = (parsed.ip_len as usize).checked_sub(at + 8)?;
            (header.id.get(), 0, header.offset(), header.more(), len)
        }
        L3::Arp | L3::Other(_) => return None,
    };
    // The parser has seen that lengths are multiples of eight and no end lies beyond a datagram.
    let end = start + len;
    let key = Key { src: parsed.src, dst: parsed.dst, id, proto, domain };
    (len > 0).then_some((key, Piece { start: start as u32, end: end as u32, last: !more }))
}

/// The fragment header of an IPv6 packet, its offset, and that of the field that names it.
fn fragment_header(packet: &[u8]) -> Option<(&ipv6::Fragment, usize, usize)> {
    let (ip, _) = Ipv6::ref_from_prefix(packet).ok()?;
    let (mut kind, mut at) = (ip.next_header, ipv6::HEADER_LEN);
    let mut named_at = std::mem::offset_of!(Ipv6, next_header);
    loop {
        let header = packet.get(at..)?;
        match kind {
            ipv6::FRAGMENT => {
                return Some((ipv6::Fragment::ref_from_prefix(header).ok()?.0, at, named_at));
            }
            ipv6::HOP_BY_HOP | ipv6::ROUTING | ipv6::DEST_OPTIONS => {
                let [next, len] = *header.first_chunk()?;
                named_at = at;
                (kind, at) = (next, at + 8 + usize::from(len) * 8);
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests;
