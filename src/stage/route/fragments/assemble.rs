//! Putting datagrams together again, for ways out that take whole ones only: a socket of the host.
//!
//! Fragments come here after the [tracker](super::FragmentTracker) has said which flow they belong to, so
//! in almost every case in order and without holes. Memory is bounded for all and for one source; who is
//! over his bound loses his oldest datagram, not another's. A part that lies within what is there changes
//! nothing, whatever it holds; one that overlaps it ends the datagram (RFC 5722).

use std::collections::{BTreeMap, VecDeque};

use hashbrown::HashMap;
use zerocopy::FromBytes;

use super::pieces::Pieces;
use super::{Key, fragment_header, read};
use crate::base::ids::DomainId;
use crate::base::limits::{
    FRAGMENT_BYTES_MAX, FRAGMENT_BYTES_PER_SOURCE_MAX, FRAGMENT_TIMEOUT, FRAGMENT_TRAINS_MAX,
    FRAGMENT_TRAINS_PER_SOURCE_MAX, IP_PACKET_MAX,
};
use crate::base::time::Time;
use crate::packet::parse::L3_OFFSET;
use crate::packet::{DropReason, FrameMut, L3, Offload, PacketBuf, Parsed};
use crate::wire::addr::Addr;
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::ipv6;

/// A datagram of which something is missing.
#[derive(Debug)]
struct Assembly {
    key: Key,
    begun: Time,
    pieces: Pieces,
    /// The first fragment's headers, without what made it a fragment.
    head: Vec<u8>,
    payload: Vec<u8>,
}

#[derive(Debug, Default)]
struct Source {
    bytes: usize,
    /// Its datagrams, the oldest first.
    order: VecDeque<u64>,
}

/// All datagrams of a worker that are being put together.
#[derive(Debug, Default)]
pub struct Assembler {
    index: HashMap<Key, u64>,
    /// By number, and so by age.
    assemblies: BTreeMap<u64, Assembly>,
    sources: HashMap<(DomainId, Addr), Source>,
    bytes: usize,
    number: u64,
}

impl Assembler {
    /// Takes in a fragment; the whole datagram if it was the last that was missing.
    ///
    /// # Errors
    /// Why the fragment, or with it the datagram, goes nowhere.
    pub fn add(
        &mut self,
        now: Time,
        domain: DomainId,
        parsed: &Parsed,
        frame: &FrameMut<'_>,
    ) -> Result<Option<PacketBuf>, DropReason> {
        let (key, piece) = read(domain, parsed, frame.bytes()).ok_or(DropReason::Malformed)?;
        let end = L3_OFFSET + parsed.ip_len as usize;
        let start = end - (piece.end - piece.start) as usize;
        let payload = frame.bytes().get(start..end).ok_or(DropReason::Malformed)?;
        let number = self.number_of(now, key);
        self.make_room(number, piece.end as usize)?;
        let Some(assembly) = self.assemblies.get_mut(&number) else {
            return Err(DropReason::FragmentLimit);
        };
        let taken = assembly.pieces.take(piece);
        if assembly.pieces.is_poisoned() {
            self.release(number);
        }
        taken?;
        let Some(assembly) = self.assemblies.get_mut(&number) else {
            return Err(DropReason::FragmentLimit);
        };
        if let Some(place) = assembly.payload.get_mut(piece.start as usize..piece.end as usize) {
            place.copy_from_slice(payload);
        }
        if piece.start == 0 {
            assembly.head = head(parsed, frame.bytes()).ok_or(DropReason::Malformed)?;
        }
        let Some(whole) = assembly.pieces.whole() else { return Ok(None) };
        let Some(assembly) = self.forget(number) else { return Ok(None) };
        build(assembly, whole as usize, parsed.l3).map(Some).ok_or(DropReason::Malformed)
    }

    /// Forgets datagrams whose time is over.
    pub fn tick(&mut self, now: Time) {
        while self.next_deadline().is_some_and(|at| at <= now) {
            let Some((&oldest, _)) = self.assemblies.first_key_value() else { break };
            self.forget(oldest);
        }
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn next_deadline(&self) -> Option<Time> {
        self.assemblies.first_key_value().map(|(_, oldest)| oldest.begun + FRAGMENT_TIMEOUT)
    }

    /// Number of datagrams, and bytes held for them.
    pub fn held(&self) -> (usize, usize) {
        (self.assemblies.len(), self.bytes)
    }

    fn number_of(&mut self, now: Time, key: Key) -> u64 {
        if let Some(&number) = self.index.get(&key) {
            return number;
        }
        let own = self.sources.get(&(key.domain, key.src));
        if let Some(own) = own.filter(|own| own.order.len() >= FRAGMENT_TRAINS_PER_SOURCE_MAX)
            && let Some(&oldest) = own.order.front()
        {
            self.forget(oldest);
        }
        if self.assemblies.len() >= FRAGMENT_TRAINS_MAX
            && let Some((&oldest, _)) = self.assemblies.first_key_value()
        {
            self.forget(oldest);
        }
        self.number += 1;
        let number = self.number;
        self.index.insert(key, number);
        self.sources.entry((key.domain, key.src)).or_default().order.push_back(number);
        let (pieces, head, payload) = (Pieces::default(), Vec::new(), Vec::new());
        self.assemblies.insert(number, Assembly { key, begun: now, pieces, head, payload });
        number
    }

    /// Lets a datagram grow to `len` bytes, at the cost of older ones of the same source, or of the
    /// oldest of all.
    fn make_room(&mut self, number: u64, len: usize) -> Result<(), DropReason> {
        let assembly = self.assemblies.get(&number).ok_or(DropReason::FragmentLimit)?;
        let source = (assembly.key.domain, assembly.key.src);
        if assembly.pieces.is_poisoned() {
            return Err(DropReason::FragmentOverlap);
        }
        let more = len.saturating_sub(assembly.payload.len());
        loop {
            let own = self.sources.get(&source).map_or(0, |own| own.bytes);
            let victim = if own + more > FRAGMENT_BYTES_PER_SOURCE_MAX {
                self.sources.get(&source).and_then(|own| own.order.front()).copied()
            } else if self.bytes + more > FRAGMENT_BYTES_MAX {
                self.assemblies.first_key_value().map(|(&oldest, _)| oldest)
            } else {
                break;
            };
            let victim = victim.filter(|victim| *victim != number);
            self.forget(victim.ok_or(DropReason::FragmentLimit)?);
        }
        self.bytes += more;
        self.sources.entry(source).or_default().bytes += more;
        if let Some(assembly) = self.assemblies.get_mut(&number).filter(|_| more > 0) {
            assembly.payload.resize(len, 0);
        }
        Ok(())
    }

    /// Gives back a datagram's memory, but remembers the datagram.
    fn release(&mut self, number: u64) {
        let Some(assembly) = self.assemblies.get_mut(&number) else { return };
        let bytes = std::mem::take(&mut assembly.payload).len();
        self.bytes -= bytes;
        if let Some(source) = self.sources.get_mut(&(assembly.key.domain, assembly.key.src)) {
            source.bytes -= bytes;
        }
    }

    fn forget(&mut self, number: u64) -> Option<Assembly> {
        let assembly = self.assemblies.remove(&number)?;
        let key = assembly.key;
        self.index.remove(&key);
        self.bytes -= assembly.payload.len();
        if let Some(source) = self.sources.get_mut(&(key.domain, key.src)) {
            source.bytes -= assembly.payload.len();
            source.order.retain(|other| *other != number);
            if source.order.is_empty() {
                self.sources.remove(&(key.domain, key.src));
            }
        }
        Some(assembly)
    }
}

/// The headers of a first fragment up to its payload, without a fragment header.
fn head(parsed: &Parsed, frame: &[u8]) -> Option<Vec<u8>> {
    let packet = frame.get(L3_OFFSET..)?;
    if parsed.l3 == L3::V4 {
        let (ip, _) = Ipv4::ref_from_prefix(packet).ok()?;
        return Some(frame.get(..L3_OFFSET + ip.header_len())?.to_vec());
    }
    let (header, at, named_at) = fragment_header(packet)?;
    let mut head = frame.get(..L3_OFFSET + at)?.to_vec();
    *head.get_mut(L3_OFFSET + named_at)? = header.next_header;
    Some(head)
}

fn build(assembly: Assembly, len: usize, l3: L3) -> Option<PacketBuf> {
    let mut bytes = assembly.head;
    let at = L3_OFFSET;
    let headers = bytes.len().checked_sub(at)?;
    bytes.extend_from_slice(assembly.payload.get(..len)?);
    let total = headers + len;
    if total > IP_PACKET_MAX {
        return None;
    }
    if l3 == L3::V4 {
        bytes.get_mut(at + 2..at + 4)?.copy_from_slice(&(total as u16).to_be_bytes());
        bytes.get_mut(at + 6..at + 8)?.fill(0);
        bytes.get_mut(at + 10..at + 12)?.fill(0);
        let sum = !crate::wire::checksum::sum(bytes.get(at..at + headers.max(ipv4::HEADER_LEN))?);
        bytes.get_mut(at + 10..at + 12)?.copy_from_slice(&sum.to_be_bytes());
    } else {
        let payload = (total - ipv6::HEADER_LEN) as u16;
        bytes.get_mut(at + 4..at + 6)?.copy_from_slice(&payload.to_be_bytes());
    }
    Some(PacketBuf::new(&bytes, Offload::NONE))
}

#[cfg(test)]
mod tests;
