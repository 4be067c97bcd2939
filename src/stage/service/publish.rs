//! Published ports: which endpoint answers on a port of the host.
//!
//! A port is found in two steps, as in a processor's page table: 256 pages of 256 slots, pages made on
//! demand. So a look-up costs the same with one publication or twelve thousand, a range of any length
//! is one object, and a page of neighbouring ports takes 1 KiB. There is one such table for each
//! protocol and each host address that somebody named, and one for "any address"; the named one wins.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use hashbrown::HashMap;
use thiserror::Error;

use crate::base::ids::{DomainId, PortId, PublicationId};
use crate::base::limits::PUBLICATIONS_MAX;
use crate::wire::addr::{Addr, Family};

/// Ports of the host that lead to an endpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Publication {
    /// Its name.
    pub id: PublicationId,
    /// Protocol number.
    pub proto: u8,
    /// The host's address; `None` for any of either family, `0.0.0.0` or `::` for any of one.
    pub host_addr: Option<Addr>,
    /// Ports of the host.
    pub host_ports: RangeInclusive<u16>,
    /// Where IPv4 goes.
    pub target_v4: Option<Addr>,
    /// Where IPv6 goes.
    pub target_v6: Option<Addr>,
    /// The endpoint's port for the first of the host's; the others follow one to one.
    pub target_port: u16,
    /// Domain of the endpoint.
    pub domain: DomainId,
    /// Where the endpoint is plugged in.
    pub endpoint: PortId,
}

impl Publication {
    /// Where a packet of `family` to `host_port` goes; `None` if the endpoint has no such address.
    pub fn target(&self, family: Family, host_port: u16) -> Option<(Addr, u16)> {
        let addr = match family {
            Family::V4 => self.target_v4,
            Family::V6 => self.target_v6,
        }?;
        let offset = host_port.checked_sub(*self.host_ports.start())?;
        Some((addr, self.target_port.checked_add(offset)?))
    }
}

/// Why a publication was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum PublishError {
    /// A port is taken.
    #[error(
        "port {port} is already published on that address; unpublish it first or choose another"
    )]
    Conflict {
        /// By whom.
        with: PublicationId,
        /// The first such port.
        port: u16,
    },
    /// The name is taken.
    #[error("a publication with that number exists")]
    Exists,
    /// The range is empty or runs beyond port 65535 on the endpoint's side.
    #[error("the port range is empty or ends beyond port 65535")]
    Range,
    /// Too many.
    #[error("{PUBLICATIONS_MAX} publications exist, which is the bound; publish a range as one")]
    Full,
}

/// "Not published"; places of publications are far below.
const NONE: u32 = u32::MAX;

#[derive(Clone, Debug)]
struct Page {
    used: u16,
    slots: [u32; 256],
}

/// The ports of one protocol on one address.
#[derive(Clone, Debug)]
struct Ports {
    used: u32,
    pages: Box<[Option<Box<Page>>]>,
}

impl Ports {
    fn new() -> Self {
        Self { used: 0, pages: vec![None; 256].into() }
    }

    #[inline]
    fn get(&self, port: u16) -> Option<u32> {
        let page = self.pages[usize::from(port >> 8)].as_ref()?;
        Some(page.slots[usize::from(port & 0xff)]).filter(|place| *place != NONE)
    }

    fn set(&mut self, port: u16, place: u32) {
        let page = self.pages[usize::from(port >> 8)]
            .get_or_insert_with(|| Box::new(Page { used: 0, slots: [NONE; 256] }));
        page.slots[usize::from(port & 0xff)] = place;
        page.used += 1;
        self.used += 1;
    }

    fn clear(&mut self, port: u16) {
        let page = &mut self.pages[usize::from(port >> 8)];
        if let Some(inner) = page {
            inner.slots[usize::from(port & 0xff)] = NONE;
            inner.used -= 1;
            self.used -= 1;
            if inner.used == 0 {
                *page = None;
            }
        }
    }
}

/// Every published port of the host.
#[derive(Clone, Debug, Default)]
pub struct PublishTable {
    /// By place; a freed place is used again.
    publications: Vec<Option<Publication>>,
    free: Vec<u32>,
    places: HashMap<PublicationId, u32>,
    any: HashMap<u8, Ports>,
    named: HashMap<(u8, Addr), Ports>,
    /// The other way round: places by endpoint, protocol and first port of the endpoint.
    targets: BTreeMap<(PortId, u8, u16, PublicationId), u32>,
}

impl PublishTable {
    /// A table without publications.
    pub fn new() -> Self {
        Self::default()
    }

    /// Publishes ports.
    ///
    /// # Errors
    /// If any of them is taken on the same address (or lack of one), or a bound is reached; nothing has
    /// changed then.
    pub fn insert(&mut self, publication: Publication) -> Result<(), PublishError> {
        let (first, last) = publication.host_ports.clone().into_inner();
        let length = last.checked_sub(first).ok_or(PublishError::Range)?;
        publication.target_port.checked_add(length).ok_or(PublishError::Range)?;
        if self.places.contains_key(&publication.id) {
            return Err(PublishError::Exists);
        }
        if self.places.len() >= PUBLICATIONS_MAX {
            return Err(PublishError::Full);
        }
        let ports = match publication.host_addr {
            None => self.any.entry(publication.proto).or_insert_with(Ports::new),
            Some(addr) => self.named.entry((publication.proto, addr)).or_insert_with(Ports::new),
        };
        let taken = (first..=last).find_map(|port| Some((port, ports.get(port)?)));
        if let Some((port, place)) = taken {
            let with = self.publications[place as usize].as_ref().map(|p| p.id);
            return Err(PublishError::Conflict { with: with.unwrap_or(publication.id), port });
        }
        let place = self.free.pop().unwrap_or(self.publications.len() as u32);
        for port in first..=last {
            ports.set(port, place);
        }
        self.places.insert(publication.id, place);
        self.targets.insert(target_key(&publication), place);
        match self.publications.get_mut(place as usize) {
            Some(slot) => *slot = Some(publication),
            None => self.publications.push(Some(publication)),
        }
        Ok(())
    }

    /// Takes a publication back.
    pub fn remove(&mut self, id: PublicationId) -> Option<Publication> {
        let place = self.places.remove(&id)?;
        let publication = self.publications[place as usize].take()?;
        self.free.push(place);
        self.targets.remove(&target_key(&publication));
        let proto = publication.proto;
        let ports = match publication.host_addr {
            None => self.any.get_mut(&proto),
            Some(addr) => self.named.get_mut(&(proto, addr)),
        }?;
        for port in publication.host_ports.clone() {
            ports.clear(port);
        }
        if ports.used == 0 {
            match publication.host_addr {
                None => self.any.remove(&proto),
                Some(addr) => self.named.remove(&(proto, addr)),
            };
        }
        Some(publication)
    }

    /// Who answers on `port` of `addr`: whoever named the address, else whoever named its family, else
    /// whoever takes any.
    #[inline]
    pub fn lookup(&self, proto: u8, addr: Addr, port: u16) -> Option<&Publication> {
        let place = self.named_place(proto, addr, port).or_else(|| self.any.get(&proto)?.get(port));
        self.publications[place? as usize].as_ref()
    }

    fn named_place(&self, proto: u8, addr: Addr, port: u16) -> Option<u32> {
        if self.named.is_empty() {
            return None;
        }
        let place = |addr| self.named.get(&(proto, addr))?.get(port);
        let family = if addr.is_v4() { Addr::from_v4_bits(0) } else { Addr::UNSPECIFIED };
        place(addr).or_else(|| place(family))
    }

    /// The publication of an endpoint's own port, and the host's port for it. Of several that overlap,
    /// one that begins nearest is found.
    pub fn of_target(
        &self,
        endpoint: PortId,
        proto: u8,
        (addr, port): (Addr, u16),
    ) -> Option<(&Publication, u16)> {
        let (least, most) = (PublicationId(0), PublicationId(u32::MAX));
        let upto = (endpoint, proto, 0, least)..=(endpoint, proto, port, most);
        let (_, place) = self.targets.range(upto).next_back()?;
        let publication = self.publications[*place as usize].as_ref()?;
        let offset = port.checked_sub(publication.target_port)?;
        let host_port = publication.host_ports.start().checked_add(offset)?;
        let is_it = publication.host_ports.contains(&host_port)
            && publication.target(addr.family(), host_port) == Some((addr, port));
        is_it.then_some((publication, host_port))
    }

    /// A publication by its name.
    pub fn get(&self, id: PublicationId) -> Option<&Publication> {
        self.publications[*self.places.get(&id)? as usize].as_ref()
    }

    /// All publications, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = &Publication> {
        self.publications.iter().flatten()
    }

    /// Number of publications.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Bytes of the page tables.
    pub fn memory_bytes(&self) -> usize {
        let tables = self.any.values().chain(self.named.values());
        let pages = tables.map(|ports| {
            size_of_val(&*ports.pages) + ports.pages.iter().flatten().count() * size_of::<Page>()
        });
        pages.sum::<usize>() + self.publications.capacity() * size_of::<Publication>()
    }
}

fn target_key(publication: &Publication) -> (PortId, u8, u16, PublicationId) {
    (publication.endpoint, publication.proto, publication.target_port, publication.id)
}

#[cfg(test)]
mod tests;
