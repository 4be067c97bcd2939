//! The tunnels of a worker: sockets, what they have received, and what could not be sent.

use std::io;

use super::WAKER;
use super::sealing::Sealing;
use crate::base::time::Time;
use crate::config::Delta;
use crate::datapath::nodes::Arrived;
use crate::datapath::{Datapath, Output};
use crate::io::poller::{Poller, Token, Wish};
use crate::io::tunnel::{Problem, TunnelInbox, TunnelOutbox, TunnelSockets};
use crate::io::wireguard::Identity;
use crate::packet::FrameBatch;
use crate::stage::tunnel::TunnelOutput;

/// The token of the first receiving socket; the other family's is one below it.
const FIRST: u64 = WAKER.0 - 1;
/// Receiving sockets: one for each family.
const SIDES: usize = 2;

/// Sockets and the memory that goes with them; without tunnels there is none.
#[derive(Default)]
pub(super) struct Tunnels {
    open: Option<Open>,
    /// Something may be readable: the poller says so once, and it stays true until a read says no.
    ready: [bool; SIDES],
    /// Encryption, if there is any.
    sealing: Option<Sealing>,
}

struct Open {
    sockets: TunnelSockets,
    outbox: TunnelOutbox,
    /// Not here while it is being read.
    inbox: Option<TunnelInbox>,
    /// Who was served last, so that both have their turn.
    turn: usize,
}

impl Tunnels {
    /// Serves these sockets from now on, and no others.
    pub(super) fn replace(&mut self, poller: &Poller, sockets: TunnelSockets) -> io::Result<()> {
        if let Some(open) = self.open.take() {
            for fd in open.sockets.receiving() {
                poller.remove(&fd)?;
            }
        }
        for (side, fd) in sockets.receiving().enumerate() {
            poller.add(&fd, Token(FIRST - side as u64), Wish::Read)?;
        }
        self.ready = [true; SIDES];
        let inbox = Some(TunnelInbox::new());
        self.open = Some(Open { sockets, outbox: TunnelOutbox::default(), inbox, turn: 0 });
        Ok(())
    }

    /// Takes note that a socket became readable; `false`: it is none of ours.
    pub(super) fn note(&mut self, token: Token) -> bool {
        let side = FIRST.wrapping_sub(token.0) as usize;
        let Some(ready) = self.ready.get_mut(side) else { return false };
        *ready = true;
        true
    }

    /// Whether more may be there.
    pub(super) fn is_ready(&self) -> bool {
        self.open.is_some() && self.ready.contains(&true)
    }

    /// One call's worth of datagrams of a socket that may have some; to be [given
    /// back](Self::give_back). A socket that has more waits for the next turn.
    pub(super) fn receive(&mut self) -> Option<TunnelInbox> {
        let open = self.open.as_mut()?;
        let mut inbox = open.inbox.take()?;
        for _ in 0..SIDES {
            open.turn = (open.turn + 1) % SIDES;
            let ready = &mut self.ready[open.turn];
            if *ready {
                *ready = inbox.receive(&open.sockets, open.turn);
            }
            if *ready || !inbox.is_empty() {
                return Some(inbox);
            }
        }
        open.inbox = Some(inbox);
        None
    }

    pub(super) fn give_back(&mut self, mut inbox: TunnelInbox) {
        // What it has was processed: it must not be found in it again when the other socket has its turn.
        inbox.clear();
        if let Some(open) = &mut self.open {
            open.inbox = Some(inbox);
        }
    }

    /// Encrypts what is sent from now on, or no longer.
    pub(super) fn encrypt(&mut self, identity: Option<Identity>) {
        self.sealing = identity.map(Sealing::new);
    }

    /// Follows changes of who there is.
    pub(super) fn follow(&mut self, deltas: &[Delta]) {
        if let Some(sealing) = &mut self.sealing {
            for delta in deltas {
                sealing.follow(delta);
            }
        }
    }

    /// Takes what came out of a tunnel into the batch; `false` as for [`Datapath::unwrap_datagrams`].
    pub(super) fn unwrap(
        &mut self,
        datapath: &mut Datapath,
        arrived: &mut Arrived<'_>,
        batch: &mut FrameBatch,
    ) -> bool {
        match &mut self.sealing {
            Some(sealing) => sealing.unwrap(datapath, arrived, batch),
            None => datapath.unwrap_datagrams(arrived, batch),
        }
    }

    /// When the tunnels have something to do by themselves.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.sealing.as_ref()?.next_deadline()
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Time, datapath: &mut Datapath, batch: &FrameBatch) {
        if let Some(sealing) = &mut self.sealing {
            sealing.tick(now, datapath);
            self.send_sealed(datapath, batch);
        }
    }

    /// Sends what the data path has wrapped.
    pub(super) fn send(&mut self, datapath: &mut Datapath, batch: &FrameBatch, out: &mut Output) {
        if let Some(sealing) = &mut self.sealing {
            sealing.seal(datapath, &out.tunnels, batch);
            self.send_sealed(datapath, batch);
        } else if let Some(open) = &mut self.open {
            open.send(datapath, &out.tunnels, batch);
        }
        out.tunnels.clear();
    }

    /// Sends what was encrypted, and what is to be said to peers besides.
    pub(super) fn send_sealed(&mut self, datapath: &mut Datapath, batch: &FrameBatch) {
        if let (Some(sealing), Some(open)) = (&mut self.sealing, &mut self.open) {
            sealing.take(|sealed| open.send(datapath, sealed, batch));
        }
    }
}

impl Open {
    fn send(&mut self, datapath: &mut Datapath, out: &TunnelOutput, batch: &FrameBatch) {
        for problem in self.outbox.send(&self.sockets, out, batch) {
            match *problem {
                Problem::Lost(port, reason, count) => {
                    (0..count).for_each(|_| datapath.count_drop(port, reason));
                }
                Problem::Narrow(port, mtu) => datapath.tunnel_is_narrow(port, mtu),
            }
        }
    }
}
