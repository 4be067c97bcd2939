//! A way out of the switch, as configured.

use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::base::ids::{PortId, UplinkId};
use crate::stage::flow::Behaviour;
use crate::wire::addr::{Addr, Family};

/// How frames leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UplinkKind {
    /// A packet socket on a NIC: the switch is a router on that LAN and translates.
    Packet,
    /// Flows end in sockets of the host, which choose address and port themselves.
    Sockets,
}

/// One way out.
#[derive(Clone, Debug)]
pub struct Uplink {
    /// Its number.
    pub id: UplinkId,
    /// Its name.
    pub name: Arc<str>,
    /// How frames leave.
    pub kind: UplinkKind,
    /// Its port.
    pub port: PortId,
    /// Our addresses there, with prefix lengths within the family.
    pub addrs: Vec<(Addr, u8)>,
    /// Routers to everything else, one per family.
    pub routers: Vec<Addr>,
    /// Outside ports that masquerade may take.
    pub nat_ports: RangeInclusive<u16>,
    /// How it translates.
    pub nat: Behaviour,
    /// Its addresses are the host's own: only `nat_ports` and published ports there are ours, and all
    /// else is the kernel's to answer.
    pub shared: bool,
    /// Largest IP packet.
    pub mtu: u16,
}

impl Uplink {
    /// Our address of a family; the first is used for masquerade.
    pub fn addr(&self, family: Family) -> Option<Addr> {
        self.addrs.iter().map(|(a, _)| *a).find(|a| a.family() == family && !a.is_link_local())
    }

    /// Whether `addr` is ours.
    pub fn is_ours(&self, addr: Addr) -> bool {
        self.addrs.iter().any(|(a, _)| *a == addr)
    }

    /// Where a packet to `dst` is sent next: itself if it is on the LAN, else the family's router.
    pub fn next_hop(&self, dst: Addr) -> Option<Addr> {
        let on_link = |(prefix, len): &(Addr, u8)| {
            super::Subnet { prefix: *prefix, len: *len, gateway: *prefix }.contains(dst)
        };
        if self.addrs.iter().any(on_link) {
            return Some(dst);
        }
        self.routers.iter().copied().find(|r| r.family() == dst.family())
    }
}
