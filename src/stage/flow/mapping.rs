//! Inside endpoints and the outside ports that stand for them.
//!
//! Mapping is endpoint-independent (RFC 4787 REQ-1, RFC 5382 REQ-1, RFC 5508 REQ-1): whatever an inside
//! socket speaks to through an uplink, it is seen under one outside address and port. So a mapping
//! belongs to the inside endpoint, and all its flows hold a reference to it. No two share an outside
//! port (REQ-3). A mapping whose last flow has ended keeps its port for a while: the same inside socket
//! finds it again, and nobody else receives what was meant for it (RFC 6888 REQ-8); it is given up
//! early when ports run out.

use std::ops::RangeInclusive;

use hashbrown::HashMap;

use crate::base::hash::Seed;
use crate::base::ids::{DomainId, PortId};
use crate::base::limits::{
    MAPPING_CONTACTS_MAX, MAPPINGS_MAX, MAPPINGS_PER_PORT_MAX, PORT_SPACES_MAX,
};
use crate::base::lru::Links;
use crate::base::time::{Millis, Span, Time};
use crate::packet::DropReason;
use crate::wire::addr::Addr;

use super::index::Index;
pub use super::ports::PortPolicy;
use super::ports::Ports;
use super::share::Shares;
use super::slab::{Linked, Slab};

/// Names a mapping for as long as somebody holds a reference to it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MappingId(pub u32);

/// One end of a mapping.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Endpoint {
    /// Address.
    pub addr: Addr,
    /// Where the address means something.
    pub domain: DomainId,
    /// Port or ICMP identifier; zero for protocols without.
    pub port: u16,
    /// Protocol number.
    pub proto: u8,
}

/// What [`MappingTable::acquire`] needs to know.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// The inside socket.
    pub inside: Endpoint,
    /// Where it is plugged in: that port's share is used.
    pub payer: PortId,
    /// Domain of the uplink.
    pub domain: DomainId,
    /// Outside address; of several, the caller pairs each inside host with one (RFC 4787 REQ-2).
    pub addr: Addr,
}

/// An inside endpoint and what stands for it outside.
#[derive(Clone, Debug)]
pub struct Mapping {
    /// The socket in a container.
    pub inside: Endpoint,
    /// As the world sees it.
    pub outside: Endpoint,
    /// Whose share it uses.
    pub payer: PortId,
    space: u16,
    flows: u32,
    released: Millis,
    links: Links,
    contacts: Vec<u32>,
}

impl Mapping {
    /// Flows that hold a reference.
    pub fn flows(&self) -> u32 {
        self.flows
    }
}

impl Linked for Mapping {
    fn links(&mut self) -> &mut Links {
        &mut self.links
    }
}

/// Mappings of a chunk of slots.
const CHUNK: usize = 1_024;

/// How long a mapping without flows keeps its port: no less than 2 minutes (RFC 6888 REQ-8), and so long
/// that one whose only flow was never answered lives for five in all (RFC 4787 REQ-5 c).
const LINGER: Span = Span::from_secs(180);

/// Idle mappings given up at once to find a port: each frees one, though perhaps in the wrong class.
const RECLAIM_MAX: usize = 8;

/// All mappings of one worker.
#[derive(Debug)]
pub struct MappingTable {
    seed: Seed,
    slots: Slab<Mapping, CHUNK>,
    by_inside: Index,
    spaces: Vec<Ports>,
    space_of: HashMap<Endpoint, u16>,
    /// Reservations of one port beyond the first.
    reserved_again: HashMap<(u16, u16), u32>,
    policies: HashMap<DomainId, PortPolicy>,
    shares: Shares,
    linger: Span,
    drawn: u64,
}

impl MappingTable {
    /// An empty table.
    pub fn new(seed: Seed) -> Self {
        Self {
            seed,
            slots: Slab::default(),
            by_inside: Index::new(8),
            spaces: Vec::new(),
            space_of: HashMap::new(),
            reserved_again: HashMap::new(),
            policies: HashMap::new(),
            shares: Shares::new(MAPPINGS_PER_PORT_MAX),
            linger: LINGER,
            drawn: 0,
        }
    }

    /// How outside ports are chosen on an uplink from now on.
    pub fn set_policy(&mut self, domain: DomainId, policy: PortPolicy) {
        self.policies.insert(domain, policy);
    }

    /// What a port may use that [`set_share`](Self::set_share) does not speak of.
    pub fn set_default_share(&mut self, max: usize) {
        self.shares.set_default(max);
    }

    /// Allows `port` to have `max` mappings.
    pub fn set_share(&mut self, port: PortId, max: usize) {
        self.shares.set_max(port, max);
    }

    /// How long a mapping without flows keeps its port from now on.
    pub fn set_linger(&mut self, linger: Span) {
        self.linger = linger;
    }

    /// The mapping of an inside endpoint on an uplink, made if there is none, with one reference more.
    ///
    /// # Errors
    /// `PortsExhausted`, `PortShare` when the payer has more than its part of the address's ports and others
    /// may need the rest, or `FlowShare` when it has as many mappings as it may.
    pub fn acquire(&mut self, wanted: &Wanted) -> Result<MappingId, DropReason> {
        let hash = self.inside_hash(&wanted.inside, wanted.domain);
        let found = self.find(wanted, hash);
        if let Some(slot) = found
            && self.slots.get(slot).outside.addr == wanted.addr
        {
            let mapping = self.slots.get_mut(slot);
            mapping.flows += 1;
            if mapping.flows == 1 {
                let space = usize::from(mapping.space);
                self.spaces[space].idle.remove(&mut self.slots, slot);
            }
            return Ok(MappingId(slot));
        }
        let slot = self.create(wanted)?;
        if let Some(old) = found {
            // The uplink's address has changed: flows keep the old mapping, new ones get the new.
            self.by_inside.remove(hash, old);
        }
        let (slots, seed) = (&self.slots, self.seed);
        self.by_inside.insert(hash, slot, |slot| {
            let mapping = slots.get(slot);
            hash_of(seed, &mapping.inside, mapping.outside.domain)
        });
        Ok(MappingId(slot))
    }

    fn find(&self, wanted: &Wanted, hash: u64) -> Option<u32> {
        self.by_inside.find(hash, |slot| {
            let mapping = self.slots.get(slot);
            mapping.inside == wanted.inside && mapping.outside.domain == wanted.domain
        })
    }

    fn create(&mut self, wanted: &Wanted) -> Result<u32, DropReason> {
        if !self.shares.has_room(wanted.payer) {
            return Err(DropReason::FlowShare);
        }
        let outside = Endpoint { addr: wanted.addr, domain: wanted.domain, ..wanted.inside };
        let space = self.space(&outside).ok_or(DropReason::PortsExhausted)?;
        if self.slots.len() >= MAPPINGS_MAX && !self.reclaim_anywhere() {
            return Err(DropReason::PortsExhausted);
        }
        let port = self.choose(space, wanted)?;
        let slot = self.slots.place(Mapping {
            inside: wanted.inside,
            outside: Endpoint { port, ..outside },
            payer: wanted.payer,
            space,
            flows: 1,
            released: Millis(0),
            links: Links::default(),
            contacts: Vec::new(),
        });
        self.spaces[usize::from(space)].occupy(port, slot, wanted.payer);
        self.shares.take(wanted.payer);
        Ok(slot)
    }

    fn choose(&mut self, space: u16, wanted: &Wanted) -> Result<u16, DropReason> {
        let policy = self.policies.get(&wanted.domain).cloned().unwrap_or_default();
        let Endpoint { proto, port, .. } = wanted.inside;
        if self.spaces[usize::from(space)].is_over_share(proto, wanted.payer, &policy.range) {
            return Err(DropReason::PortShare);
        }
        for _ in 0..=RECLAIM_MAX {
            self.drawn += 1;
            let random = self.seed.hash([self.drawn]);
            let found = self.spaces[usize::from(space)].choose(proto, port, &policy, random);
            if let Some(port) = found {
                return Ok(port);
            }
            let idle = self.spaces[usize::from(space)].idle.oldest();
            self.remove(idle.ok_or(DropReason::PortsExhausted)?);
        }
        Err(DropReason::PortsExhausted)
    }

    fn reclaim_anywhere(&mut self) -> bool {
        let idle = self.spaces.iter().find_map(|ports| ports.idle.oldest());
        if let Some(slot) = idle {
            self.remove(slot);
        }
        idle.is_some()
    }

    /// One flow less. After the last one the mapping lingers.
    pub fn release(&mut self, now: Time, id: MappingId) {
        let mapping = self.slots.get_mut(id.0);
        debug_assert!(mapping.flows > 0, "a reference is released once");
        mapping.flows -= 1;
        if mapping.flows > 0 {
            return;
        }
        mapping.released = now.millis();
        let space = usize::from(mapping.space);
        self.spaces[space].idle.push(&mut self.slots, id.0);
        if self.linger == Span::ZERO {
            self.remove(id.0);
        }
    }

    /// Ends an idle mapping.
    fn remove(&mut self, slot: u32) -> Mapping {
        let mapping = self.slots.get(slot);
        let hash = self.inside_hash(&mapping.inside, mapping.outside.domain);
        let (space, port, payer) =
            (usize::from(mapping.space), mapping.outside.port, mapping.payer);
        self.by_inside.remove(hash, slot);
        self.spaces[space].idle.remove(&mut self.slots, slot);
        self.spaces[space].vacate(port, payer);
        self.shares.give(payer);
        let mapping = self.slots.get_mut(slot);
        mapping.contacts = Vec::new();
        let copy = mapping.clone();
        self.slots.release(slot);
        copy
    }

    /// Ends mappings that have been without flows for long enough, at most `budget`, and hands each to
    /// `ended`. Returns how many.
    pub fn expire(&mut self, now: Time, budget: usize, mut ended: impl FnMut(Mapping)) -> usize {
        let mut count = 0;
        for space in 0..self.spaces.len() {
            while count < budget {
                let Some(slot) = self.spaces[space].idle.oldest() else { break };
                if self.time_left(now, slot) > Span::ZERO {
                    break;
                }
                ended(self.remove(slot));
                count += 1;
            }
        }
        count
    }

    /// When [`expire`](Self::expire) will next have something to do.
    pub fn next_deadline(&self, now: Time) -> Option<Time> {
        let oldest = self.spaces.iter().filter_map(|ports| ports.idle.oldest());
        oldest.map(|slot| self.time_left(now, slot)).min().map(|left| now + left)
    }

    fn time_left(&self, now: Time, slot: u32) -> Span {
        let idle = u64::from(now.millis().since(self.slots.get(slot).released));
        Span::from_millis(self.linger.as_millis().saturating_sub(idle))
    }

    /// A mapping by its name.
    #[inline]
    pub fn get(&self, id: MappingId) -> &Mapping {
        self.slots.get(id.0)
    }

    /// The mapping of an outside endpoint, lingering ones included: whoever takes a packet to one must
    /// [`retain`](Self::retain) it for the flow.
    #[inline]
    pub fn by_outside(&self, outside: &Endpoint) -> Option<(MappingId, &Mapping)> {
        let space = *self.space_of.get(&Endpoint { port: 0, ..*outside })?;
        let slot = self.spaces[usize::from(space)].owner(outside.port)?;
        Some((MappingId(slot), self.slots.get(slot)))
    }

    /// One reference more for a flow that came in from outside.
    pub fn retain(&mut self, id: MappingId) {
        let mapping = self.slots.get_mut(id.0);
        mapping.flows += 1;
        if mapping.flows == 1 {
            let space = usize::from(mapping.space);
            self.spaces[space].idle.remove(&mut self.slots, id.0);
        }
    }

    /// Remembers that the inside has sent to an address, for address-dependent filtering (RFC 4787
    /// REQ-8). Addresses are kept as 32 bits of a seeded hash: a stranger passes for a known one in one
    /// of 2³² / [`MAPPING_CONTACTS_MAX`] cases, and cannot find out which.
    ///
    /// With a port, the remote socket is remembered instead of the host.
    pub fn add_contact(&mut self, id: MappingId, remote: Addr, port: Option<u16>) {
        let mark = self.mark(remote, port);
        let contacts = &mut self.slots.get_mut(id.0).contacts;
        if contacts.contains(&mark) {
            return;
        }
        if contacts.len() >= MAPPING_CONTACTS_MAX {
            contacts.remove(0);
        }
        if contacts.len() == contacts.capacity() {
            // By a quarter, since doubling would cost more than the marks.
            contacts.reserve_exact((contacts.len() / 4).max(4));
        }
        contacts.push(mark);
    }

    /// Whether the inside has sent to this host, or to this socket of it, since the mapping was made.
    pub fn has_contact(&self, id: MappingId, remote: Addr, port: Option<u16>) -> bool {
        self.slots.get(id.0).contacts.contains(&self.mark(remote, port))
    }

    fn mark(&self, remote: Addr, port: Option<u16>) -> u32 {
        let [hi, lo] = remote.words();
        // No port is another number than any port, zero included.
        let port = port.map_or(u64::MAX, u64::from);
        self.seed.hash([hi, lo, port]) as u32
    }

    /// An outside port for a flow whose mapping depends on its destination (RFC 7857 3): none that is
    /// bound or reserved for everybody, and none that `is_taken` towards this destination.
    pub fn overlapping(
        &mut self,
        wanted: &Wanted,
        is_taken: impl Fn(u16) -> bool,
    ) -> Result<u16, DropReason> {
        let outside = Endpoint { addr: wanted.addr, domain: wanted.domain, ..wanted.inside };
        let space = self.space(&outside).ok_or(DropReason::PortsExhausted)?;
        let policy = self.policies.get(&wanted.domain).cloned().unwrap_or_default();
        self.drawn += 1;
        let random = self.seed.hash([self.drawn]);
        let Endpoint { proto, port, .. } = wanted.inside;
        self.spaces[usize::from(space)]
            .choose_shared(proto, port, &policy, random, is_taken)
            .ok_or(DropReason::PortsExhausted)
    }

    /// Keeps ports of `outside` (whose own port is of no account) from being chosen, as published ones
    /// must be. Reservations of one port add up; a mapping that has the port keeps it until it ends.
    ///
    /// # Errors
    /// `PortsExhausted` when there are too many outside addresses.
    pub fn reserve(
        &mut self,
        outside: &Endpoint,
        range: RangeInclusive<u16>,
    ) -> Result<(), DropReason> {
        let space = self.space(outside).ok_or(DropReason::PortsExhausted)?;
        for port in range {
            let ports = &mut self.spaces[usize::from(space)];
            if ports.is_reserved(port) {
                *self.reserved_again.entry((space, port)).or_default() += 1;
            } else {
                ports.set_reserved(port, true);
            }
        }
        Ok(())
    }

    /// Takes one reservation of each port back.
    pub fn unreserve(&mut self, outside: &Endpoint, range: RangeInclusive<u16>) {
        let Some(&space) = self.space_of.get(&Endpoint { port: 0, ..*outside }) else { return };
        for port in range {
            if let Some(again) = self.reserved_again.get_mut(&(space, port)) {
                *again -= 1;
                if *again == 0 {
                    self.reserved_again.remove(&(space, port));
                }
            } else if self.spaces[usize::from(space)].is_reserved(port) {
                self.spaces[usize::from(space)].set_reserved(port, false);
            }
        }
    }

    /// The ports of an outside address and protocol; an unused space is given to another address.
    fn space(&mut self, outside: &Endpoint) -> Option<u16> {
        let key = Endpoint { port: 0, ..*outside };
        if let Some(space) = self.space_of.get(&key) {
            return Some(*space);
        }
        let space = if self.spaces.len() < PORT_SPACES_MAX {
            self.spaces.push(Ports::new());
            self.spaces.len() - 1
        } else {
            let unused = self.spaces.iter().position(Ports::is_unused)?;
            self.space_of.retain(|_, space| usize::from(*space) != unused);
            self.spaces[unused] = Ports::new();
            unused
        } as u16;
        self.space_of.insert(key, space);
        Some(space)
    }

    fn inside_hash(&self, inside: &Endpoint, domain: DomainId) -> u64 {
        hash_of(self.seed, inside, domain)
    }

    /// Number of mappings, lingering ones included.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Mappings that `port` pays for.
    pub fn count_of_port(&self, port: PortId) -> usize {
        self.shares.used(port)
    }

    /// All mappings, for listings.
    pub fn iter(&self) -> impl Iterator<Item = (MappingId, &Mapping)> {
        (0..self.slots.high()).filter_map(|slot| {
            let mapping = self.slots.get(slot);
            let owner = self.spaces[usize::from(mapping.space)].owner(mapping.outside.port);
            (owner == Some(slot)).then_some((MappingId(slot), mapping))
        })
    }

    /// Bytes allocated.
    pub fn memory_bytes(&self) -> usize {
        let contacts: usize = self.iter().map(|(_, mapping)| mapping.contacts.capacity() * 4).sum();
        let spaces: usize = self.spaces.iter().map(Ports::memory_bytes).sum();
        self.slots.memory_bytes()
            + self.by_inside.memory_bytes()
            + self.shares.memory_bytes()
            + contacts
            + spaces
    }
}

fn hash_of(seed: Seed, inside: &Endpoint, domain: DomainId) -> u64 {
    let [hi, lo] = inside.addr.words();
    let rest = u64::from(inside.port) << 48
        | u64::from(inside.domain.0) << 32
        | u64::from(domain.0) << 16
        | u64::from(inside.proto);
    seed.hash([hi, lo, rest])
}

#[cfg(test)]
mod tests;
