//! A plug of the switch, as configured.

use std::sync::Arc;

use crate::base::ids::{DomainId, PortId};
use crate::wire::addr::Addr;
use crate::wire::mac::Mac;

/// What is plugged in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PortKind {
    /// A container's interface.
    Endpoint,
    /// The host's own TAP on a network (`wharf0` …): carries the gateway's address and MAC.
    Host,
    /// A packet socket on a NIC: we are a station of that LAN.
    PacketUplink,
    /// Sockets of the host.
    SocketUplink,
    /// The tunnel to another node.
    Tunnel,
}

/// One port. Facts about an endpoint's addresses come from its attachment, not from learning.
#[derive(Clone, Debug)]
pub struct Port {
    /// Its number.
    pub id: PortId,
    /// Name that people gave it, for traces and listings.
    pub name: Arc<str>,
    /// What is plugged in.
    pub kind: PortKind,
    /// Layer-2 domain it belongs to.
    pub domain: DomainId,
    /// MAC of the station behind it; of ourselves on an uplink.
    pub mac: Mac,
    /// Addresses of the station behind it, at most one per subnet; our own on an uplink.
    pub addrs: Vec<Addr>,
    /// Anti-spoofing: only `mac` and `addrs` may speak here.
    pub guard: bool,
    /// May talk to the gateway and beyond, not to other isolated ports of its network.
    pub isolated: bool,
    /// Largest IP packet.
    pub mtu: u16,
    /// Whether the device takes UDP super-frames (USO, Linux 6.2).
    pub uso: bool,
}
