//! The host sockets of a worker: what the data path wants of them, done in order.
//!
//! The data path's calls name frames of the batch at hand, so they are executed before it is cleared.
//! What arrives is received into a batch of its own, behind room for the headers; the data path writes
//! them, and the frame goes out with one write: no copy of ours between socket and TAP.

use std::io;

use super::ports::Written;
use crate::base::ids::PortId;
use crate::base::time::Time;
use crate::datapath::{Datapath, Output};
use crate::io::host_listen::Listener;
use crate::io::host_sockets::{Executed, Features, HostSockets};
use crate::io::poller::{Poller, Ready};
use crate::packet::{DropReason, FrameBatch, PacketBuf};
use crate::stage::sockets::{Delivery, ListenerId, SocketEvent};

/// Sockets, and the batch that they receive into.
pub(super) struct Sockets {
    host: HostSockets,
    received: FrameBatch,
}

impl Sockets {
    pub(super) fn new() -> Self {
        Self { host: HostSockets::new(Features::probe()), received: FrameBatch::new() }
    }

    pub(super) fn add(
        &mut self,
        poller: &Poller,
        id: ListenerId,
        listener: Listener,
    ) -> io::Result<()> {
        self.host.add_listener(poller, id, listener)
    }

    pub(super) fn remove(&mut self, poller: &Poller, id: ListenerId) {
        self.host.remove_listener(poller, id);
    }

    pub(super) fn ready(&mut self, ready: &Ready) -> [Option<SocketEvent<'static>>; 2] {
        self.host.ready(ready)
    }

    pub(super) fn has_unread(&self) -> bool {
        self.host.has_unread()
    }

    pub(super) fn take_unread(&mut self) -> Vec<SocketEvent<'static>> {
        self.host.take_unread()
    }

    /// Executes calls and writes deliveries until the data path wants nothing more.
    pub(super) fn work(
        &mut self,
        now: Time,
        datapath: &mut Datapath,
        poller: &Poller,
        sent: &FrameBatch,
        out: &mut Output,
        mut write: impl FnMut(PortId, &[u8]) -> Written,
    ) {
        let mut calls = Vec::new();
        loop {
            self.deliver(datapath, out, &mut write);
            std::mem::swap(&mut calls, &mut out.sockets.calls);
            if calls.is_empty() {
                break;
            }
            let mut next = 0;
            while let Some(call) = calls.get(next) {
                let sent_at_once = self.host.send_run((&calls[next..], &out.sockets), sent);
                if sent_at_once > 0 {
                    next += sent_at_once;
                    continue;
                }
                next += 1;
                loop {
                    let named = (call, &out.sockets);
                    match self.host.execute(poller, named, sent, &mut self.received) {
                        Executed::Done => break,
                        Executed::Event(event) => {
                            datapath.socket_event(now, event, out);
                            break;
                        }
                        Executed::More(event) => {
                            datapath.socket_event(now, event, out);
                            continue;
                        }
                        Executed::NoRoom => {}
                    }
                    self.deliver(datapath, out, &mut write);
                }
            }
            calls.clear();
            for event in self.host.take_not_sent() {
                datapath.socket_event(now, event, out);
            }
            datapath.flush_sockets(now, out);
        }
        out.sockets.clear();
    }

    fn deliver(
        &mut self,
        datapath: &mut Datapath,
        out: &mut Output,
        write: &mut impl FnMut(PortId, &[u8]) -> Written,
    ) {
        for delivery in out.sockets.deliveries.drain(..) {
            match delivery {
                Delivery::Slot { port, slot } => {
                    let at = usize::from(slot.0);
                    let pieces = datapath.cut_delivery(port, self.received.frame(at));
                    if pieces.is_empty() {
                        let frame = self.received.with_vnet_header(at);
                        count(datapath, port, frame.len(), write(port, frame));
                    }
                    for mut piece in pieces {
                        let frame = piece.with_vnet_header();
                        count(datapath, port, frame.len(), write(port, frame));
                    }
                }
                Delivery::Made { port, frame } => {
                    let mut owned = PacketBuf::new(frame.bytes(), frame.offload);
                    let frame = owned.with_vnet_header();
                    count(datapath, port, frame.len(), write(port, frame));
                }
            }
        }
        self.received.clear();
    }
}

fn count(datapath: &mut Datapath, port: PortId, bytes: usize, written: Written) {
    match written {
        Written::Sent | Written::Full => datapath.count_delivered(port, bytes),
        Written::Refused(reason) => datapath.count_drop(port, reason),
        Written::Dead => datapath.count_drop(port, DropReason::PortGone),
    }
}
