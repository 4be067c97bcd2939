//! The tunnels of a worker: sockets, what they have received, and what could not be sent.

use std::io;

use super::WAKER;
use crate::datapath::{Datapath, Output};
use crate::io::poller::{Poller, Token, Wish};
use crate::io::tunnel::{Problem, TunnelInbox, TunnelOutbox, TunnelSockets};
use crate::packet::FrameBatch;

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

    pub(super) fn give_back(&mut self, inbox: TunnelInbox) {
        if let Some(open) = &mut self.open {
            open.inbox = Some(inbox);
        }
    }

    /// Sends what the data path has wrapped.
    pub(super) fn send(&mut self, datapath: &mut Datapath, batch: &FrameBatch, out: &mut Output) {
        if let Some(open) = &mut self.open {
            for problem in open.outbox.send(&open.sockets, &out.tunnels, batch) {
                match *problem {
                    Problem::Lost(port, reason, count) => {
                        (0..count).for_each(|_| datapath.count_drop(port, reason));
                    }
                    Problem::Narrow(port, mtu) => datapath.tunnel_is_narrow(port, mtu),
                }
            }
        }
        out.tunnels.clear();
    }
}
