//! Where a flow's packets go next: egress port and MAC addresses, shared by all flows that go there.
//!
//! A flow holds two indices into this table instead of MACs, so that a neighbour that changes its
//! MAC is corrected in one place, and a flow stays small. Entries are counted by their flows.

use hashbrown::HashMap;

use crate::base::ids::PortId;
use crate::base::time::Time;
use crate::stage::flow::flow::HopId;
use crate::wire::addr::Addr;
use crate::wire::mac::Mac;

/// What a hop is found by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum HopKey {
    /// Inside a domain: the frame keeps its MACs, and this is whom it is addressed to.
    Bridge(PortId, Mac),
    /// Routed to a station whose MAC the configuration knows.
    Station(PortId, Mac),
    /// Routed to a neighbour whose MAC is asked for.
    Neighbour(PortId, Addr),
    /// To the flows of the socket uplink, which want the packet as it came.
    Sockets(PortId),
}

/// One next hop.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hop {
    pub(super) key: HopKey,
    /// Whom the frame is addressed to; zero until a neighbour is resolved.
    pub(super) dst_mac: Mac,
    /// Whom it comes from, when routed.
    pub(super) src_mac: Mac,
    pub(super) mtu: u16,
    /// Until when it may be used without asking; a configured or learned MAC until it changes.
    pub(super) fresh_until: Time,
    refs: u32,
}

impl Hop {
    #[inline]
    pub(super) fn port(&self) -> PortId {
        match self.key {
            HopKey::Bridge(port, _)
            | HopKey::Station(port, _)
            | HopKey::Neighbour(port, _)
            | HopKey::Sockets(port) => port,
        }
    }

    #[inline]
    pub(super) fn is_sockets(&self) -> bool {
        matches!(self.key, HopKey::Sockets(_))
    }

    #[inline]
    pub(super) fn is_routed(&self) -> bool {
        !matches!(self.key, HopKey::Bridge(..))
    }
}

/// All hops in use.
#[derive(Debug, Default)]
pub(super) struct HopTable {
    hops: Vec<Hop>,
    free: Vec<u32>,
    index: HashMap<HopKey, u32>,
}

impl HopTable {
    #[inline]
    pub(super) fn get(&self, id: HopId) -> Option<&Hop> {
        self.hops.get(id.0 as usize)
    }

    /// Counts one more user of the hop `key`, making it if it is new.
    pub(super) fn acquire(&mut self, key: HopKey, src_mac: Mac, mtu: u16) -> HopId {
        if let Some(&id) = self.index.get(&key) {
            let hop = &mut self.hops[id as usize];
            hop.refs += 1;
            hop.src_mac = src_mac;
            hop.mtu = mtu;
            self.settled(HopId(id));
            return HopId(id);
        }
        let (dst_mac, fresh_until) = match key {
            HopKey::Bridge(_, mac) | HopKey::Station(_, mac) => (mac, Time(u64::MAX)),
            HopKey::Neighbour(..) => (Mac::ZERO, Time::ZERO),
            HopKey::Sockets(_) => (Mac::ZERO, Time(u64::MAX)),
        };
        let hop = Hop { key, dst_mac, src_mac, mtu, fresh_until, refs: 1 };
        let id = if let Some(id) = self.free.pop() {
            self.hops[id as usize] = hop;
            id
        } else {
            self.hops.push(hop);
            (self.hops.len() - 1) as u32
        };
        self.index.insert(key, id);
        HopId(id)
    }

    /// Hops in use.
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Counts one more user of a hop in use.
    pub(super) fn again(&mut self, id: HopId) -> HopId {
        if let Some(hop) = self.hops.get_mut(id.0 as usize) {
            hop.refs += 1;
        }
        id
    }

    /// Counts one user less.
    pub(super) fn release(&mut self, id: HopId) {
        let Some(hop) = self.hops.get_mut(id.0 as usize) else { return };
        hop.refs = hop.refs.saturating_sub(1);
        if hop.refs == 0 {
            self.index.remove(&hop.key);
            hop.fresh_until = Time::ZERO;
            self.free.push(id.0);
        }
    }

    /// A neighbour's MAC may be used until `fresh_until` without asking the neighbour table.
    pub(super) fn confirm(&mut self, port: PortId, addr: Addr, mac: Mac, fresh_until: Time) {
        if let Some(&id) = self.index.get(&HopKey::Neighbour(port, addr)) {
            let hop = &mut self.hops[id as usize];
            hop.dst_mac = mac;
            hop.fresh_until = fresh_until;
        }
    }

    /// A neighbour's MAC is in doubt: the next packet asks the neighbour table.
    pub(super) fn doubt(&mut self, port: PortId, addr: Addr) {
        if let Some(&id) = self.index.get(&HopKey::Neighbour(port, addr)) {
            self.hops[id as usize].fresh_until = Time::ZERO;
        }
    }

    /// A station of a domain moved from `port`: flows that go there look for it again.
    pub(super) fn moved(&mut self, port: PortId, mac: Mac) {
        if let Some(&id) = self.index.get(&HopKey::Bridge(port, mac)) {
            self.hops[id as usize].fresh_until = Time::ZERO;
        }
    }

    /// The station of a hop inside a domain is where it was.
    pub(super) fn settled(&mut self, id: HopId) {
        if let Some(hop) = self.hops.get_mut(id.0 as usize).filter(|hop| !hop.is_routed()) {
            hop.fresh_until = Time(u64::MAX);
        }
    }

    /// A port's MTU changed.
    pub(super) fn set_mtu(&mut self, port: PortId, mtu: u16) {
        for hop in self.hops.iter_mut().filter(|hop| hop.port() == port) {
            hop.mtu = mtu;
        }
    }
}
