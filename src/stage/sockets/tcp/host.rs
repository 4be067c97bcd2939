//! What the host's socket says.

use super::flow::{TcpFlow, TcpState};
use super::seq::Seq;
use crate::packet::{DropReason, FrameMut};
use crate::stage::sockets::calls::{FrameSlot, Room, SocketCall};
use crate::stage::sockets::events::SocketError;
use crate::stage::sockets::headers::{self, Quote};
use crate::stage::sockets::output::SocketOutput;
use crate::stage::sockets::shared::Shared;

/// Duplicate acknowledgements that make a container resend what was not taken.
const RESEND_ACKS: u8 = 3;

impl TcpFlow {
    /// The connection stands: now the container may know.
    pub(super) fn connected(&mut self, room: Room, out: &mut SocketOutput) {
        if self.state != TcpState::Connecting {
            return;
        }
        self.room = room;
        self.state = TcpState::SynAckSent;
        self.send_syn(out);
    }

    /// The socket failed, or a call of it did.
    pub(super) fn failed(
        &mut self,
        error: SocketError,
        shared: &mut Shared,
        out: &mut SocketOutput,
    ) {
        if self.state == TcpState::Connecting {
            shared.stats.tcp_refused += 1;
            if error == SocketError::Limit {
                shared.stats.limits_met += 1;
                out.dropped(self.port, DropReason::SocketLimit);
            }
            let reset =
                matches!(error, SocketError::Refused | SocketError::Reset | SocketError::Limit);
            if !reset && shared.may_refuse() {
                // An error that the container's kernel understands at once, instead of its own time-out.
                let seq = self.rcv_nxt.0.wrapping_sub(1);
                let quote = Quote::Syn { seq };
                let frame = headers::icmp_error(self.link, &self.key, &quote, error, self.gateway);
                out.made(self.port, frame);
                out.call(SocketCall::Close { socket: self.id, reset: true });
                self.finish(TcpState::Closed, shared);
                return;
            }
        }
        self.abort(shared, out);
    }

    /// Bytes or an end arrived.
    pub(super) fn became_readable(&mut self, hangup: bool) {
        // At the end of the stream there is nothing to be read again.
        self.readable |= self.fin_at.is_none();
        self.hangup |= hangup;
    }

    /// There is room again.
    pub(super) fn writable(&mut self, room: Room) {
        self.watching = false;
        self.room = room;
        if self.state != TcpState::Open {
            return;
        }
        // The first one tells the window, and what only repeats it counts as a duplicate.
        self.acks_due = if std::mem::take(&mut self.not_taken) { 1 + RESEND_ACKS } else { 1 };
    }

    /// The answer to `Send`.
    pub(super) fn sent(
        &mut self,
        accepted: u32,
        room: Room,
        shared: &mut Shared,
        out: &mut SocketOutput,
    ) {
        let asked = std::mem::take(&mut self.sending);
        let accepted = accepted.min(asked);
        self.rcv_nxt = self.rcv_nxt.plus(accepted);
        self.room = room;
        self.acks_due = self.acks_due.max(1);
        if accepted < asked {
            shared.stats.tcp_not_taken += u64::from(asked - accepted);
            self.not_taken = true;
            self.fin_pending = false;
        } else if self.fin_pending {
            self.pass_fin_on(out);
            self.close_if_done(shared, out);
        }
    }

    /// The answer to `Peek`: bytes.
    pub(super) fn data(
        &mut self,
        frame: &mut FrameMut<'_>,
        slot: FrameSlot,
        more: bool,
        out: &mut SocketOutput,
    ) {
        let Some(began) = self.peeking.take() else { return };
        let headers = headers::tcp_headers(self.key.src.is_v4());
        let len = frame.len().saturating_sub(headers) as u32;
        if self.state != TcpState::Open || began != self.snd_nxt || len == 0 {
            // The flow was rewound in between; the kernel's offset has moved for nothing.
            self.peek_moved = true;
            return;
        }
        self.readable = more;
        self.end_of_stream(self.snd_nxt.plus(len));
        self.send_data(frame, slot, out);
    }

    /// The answer to `Peek`: nothing, or nothing more ever.
    pub(super) fn drained(&mut self, eof: bool) {
        let Some(began) = self.peeking.take() else { return };
        self.hangup |= eof;
        if began == self.snd_nxt {
            self.readable = false;
            self.end_of_stream(self.snd_nxt);
        }
    }

    /// If the peer has shut down and `end` is behind the last byte there will ever be, our FIN goes there.
    fn end_of_stream(&mut self, end: Seq) {
        let all = !end.before(self.snd_max);
        if self.hangup && !self.readable && all && self.fin_at.is_none() {
            self.fin_at = Some(end);
        }
    }
}
