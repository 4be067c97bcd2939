//! The tunnels of a worker that are encrypted: WireGuard between the data path and the sockets.

use crate::base::ids::PortId;
use crate::base::limits::IP_PACKET_MAX;
use crate::base::time::Time;
use crate::config::Delta;
use crate::datapath::Datapath;
use crate::datapath::nodes::Arrived;
use crate::io::wireguard::{Identity, Lost, WireGuard};
use crate::packet::FrameBatch;
use crate::stage::tunnel::TunnelOutput;
use crate::wire::ethernet;

/// Encryption and the memory that goes with it.
pub(super) struct Sealing {
    wireguard: WireGuard,
    /// What is to be sent.
    sealed: TunnelOutput,
    lost: Vec<Lost>,
    /// A packet that was decrypted, with the place of an Ethernet header before it.
    room: Box<[u8]>,
    /// It waits until there is room for it: whose it is, and where it ends.
    opened: Option<(PortId, usize)>,
    /// Where what is nobody's is counted.
    port: PortId,
}

impl Sealing {
    pub(super) fn new(identity: Identity) -> Self {
        Self {
            wireguard: WireGuard::new(identity),
            sealed: TunnelOutput::default(),
            lost: Vec::new(),
            room: vec![0; ethernet::HEADER_LEN + IP_PACKET_MAX].into_boxed_slice(),
            opened: None,
            port: PortId(0),
        }
    }

    pub(super) fn follow(&mut self, delta: &Delta) {
        match delta {
            Delta::Tunnel(tunnel) => self.port = tunnel.port,
            Delta::Peer(peer) => self.wireguard.put(peer),
            Delta::RemovePeer(id) => self.wireguard.remove(*id),
            _ => {}
        }
    }

    /// Decrypts datagrams into the batch; `false` as for [`Datapath::unwrap_datagrams`].
    pub(super) fn unwrap(
        &mut self,
        datapath: &mut Datapath,
        arrived: &mut Arrived<'_>,
        batch: &mut FrameBatch,
    ) -> bool {
        loop {
            if let Some((port, end)) = self.opened {
                if !datapath.unwrap_packet(port, &mut self.room[..end], batch) {
                    return false;
                }
                self.opened = None;
            }
            if arrived.bytes.is_empty() {
                return true;
            }
            let len = arrived.segment.clamp(1, arrived.bytes.len());
            let (datagram, rest) = arrived.bytes.split_at(len);
            arrived.bytes = rest;
            let Self { wireguard, room, sealed, .. } = self;
            match wireguard.open(arrived.from, datagram, room, sealed) {
                Ok(opened) => self.opened = opened,
                Err(lost) => datapath.count_drop(lost.port.unwrap_or(self.port), lost.reason),
            }
        }
    }

    /// Encrypts what the data path wants to send.
    pub(super) fn seal(
        &mut self,
        datapath: &mut Datapath,
        bare: &TunnelOutput,
        batch: &FrameBatch,
    ) {
        self.wireguard.seal(bare, batch, &mut self.sealed, &mut self.lost);
        self.count(datapath);
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.wireguard.next_deadline()
    }

    pub(super) fn tick(&mut self, now: Time, datapath: &mut Datapath) {
        self.wireguard.tick(now, &mut self.sealed, &mut self.lost);
        self.count(datapath);
    }

    /// Hands over what is to be sent, if there is anything.
    pub(super) fn take(&mut self, send: impl FnOnce(&TunnelOutput)) {
        if !self.sealed.is_empty() {
            send(&self.sealed);
            self.sealed.clear();
        }
    }

    fn count(&mut self, datapath: &mut Datapath) {
        for lost in self.lost.drain(..) {
            datapath.count_drop(lost.port.unwrap_or(self.port), lost.reason);
        }
    }
}
