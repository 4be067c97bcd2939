//! What the data path hands back.

use std::sync::Arc;

use crate::base::ids::{PortId, UplinkId};
use crate::packet::{DropReason, PacketBuf};
use crate::stage::service::health::Verdict;
use crate::stage::sockets::SocketOutput;
use crate::stage::tunnel::TunnelOutput;
use crate::wire::addr::Addr;

/// A frame on its way out.
#[derive(Debug)]
pub struct OutFrame {
    /// Where it leaves.
    pub port: PortId,
    /// Where it lies.
    pub frame: FrameRef,
}

/// Where a frame to be sent lies.
#[derive(Debug)]
pub enum FrameRef {
    /// In the batch that was handed in, at this place.
    Batch(u16),
    /// In memory of its own.
    Owned(PacketBuf),
}

/// Something worth telling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// What an uplink's LAN gave it has changed; this is all of it.
    Configured(UplinkId, Lan),
    /// A packet of this port could begin no flow, for this reason; told at most once in ten seconds.
    Shortage(PortId, DropReason),
    /// A flow was not let begin.
    Denied(Box<Denied>),
    /// A service's backend was found to serve, or not to.
    Health(Verdict),
}

/// A flow that policy did not let begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// Where it would have come from.
    pub from: PortId,
    /// Where it would have gone.
    pub to: PortId,
    /// Its true source.
    pub src: (Addr, u16),
    /// Its destination after translation.
    pub dst: (Addr, u16),
    /// Protocol.
    pub proto: u8,
    /// Whether it was kept in (by its source's rules) or out (by its destination's).
    pub reason: DropReason,
    /// The rule.
    pub rule: Arc<str>,
    /// Further ones of the same port since the last that was told.
    pub untold: u64,
}

/// Addresses of an uplink as DHCP and router advertisements gave them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lan {
    /// Addresses and prefix lengths.
    pub addrs: Vec<(Addr, u8)>,
    /// Default routers, the preferred one of each family first.
    pub routers: Vec<Addr>,
    /// Name servers.
    pub dns: Vec<Addr>,
    /// MTU, if the LAN said one.
    pub mtu: Option<u16>,
}

/// Results of one call, in order. Reused between calls; the caller clears it.
#[derive(Debug, Default)]
pub struct Output {
    /// Frames to send.
    pub frames: Vec<OutFrame>,
    /// Things noticed.
    pub events: Vec<Event>,
    /// What the socket uplink wants of the operating system, and its frames for containers.
    pub sockets: SocketOutput,
    /// Datagrams for other nodes; [`Datapath::flush_tunnels`](super::Datapath::flush_tunnels) makes them.
    pub tunnels: TunnelOutput,
}

impl Output {
    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.frames.clear();
        self.events.clear();
        self.sockets.clear();
        self.tunnels.clear();
    }

    pub(super) fn owned(&mut self, port: PortId, frame: PacketBuf) {
        self.frames.push(OutFrame { port, frame: FrameRef::Owned(frame) });
    }

    #[inline]
    pub(super) fn batch(&mut self, port: PortId, index: usize) {
        self.frames.push(OutFrame { port, frame: FrameRef::Batch(index as u16) });
    }
}
