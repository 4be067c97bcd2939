//! Segments from the container (RFC 9293 3.10.7, with the differences that the theory in `mod.rs` gives).

use super::flow::{TcpFlow, TcpState};
use super::reorder::NoRoom;
use super::segment::Segment;
use super::seq::Seq;
use super::timers::REORDERING;
use crate::base::time::{Span, Time};
use crate::packet::DropReason;
use crate::stage::sockets::calls::{FrameSlot, SocketCall};
use crate::stage::sockets::headers;
use crate::stage::sockets::output::SocketOutput;
use crate::stage::sockets::shared::Shared;
use crate::wire::{ethernet, tcp};

/// Acknowledgements that make a sender resend at once (RFC 5681 3.2).
const DUP_ACKS: u8 = 3;

/// No IPv4 path is believed to take less: as Linux has it (`min_pmtu`), so that no forger makes us send
/// crumbs.
const PATH_MTU_MIN_V4: u16 = 552;
/// RFC 8201 4: no IPv6 path takes less.
const PATH_MTU_MIN_V6: u16 = 1280;
/// RFC 8201 5.3 and RFC 1191 6.3: how long what is known of a path holds.
const PATH_MTU_AGES: Span = Span::from_secs(600);

type Outcome = Result<(), DropReason>;

impl TcpFlow {
    /// Takes in one segment. What is to be said about it is said at the end of the batch.
    pub(super) fn segment(
        &mut self,
        segment: &Segment<'_>,
        slot: FrameSlot,
        shared: &mut Shared,
        out: &mut SocketOutput,
    ) -> Outcome {
        self.silent = 0;
        match self.state {
            TcpState::Accepting | TcpState::Closed => Err(DropReason::TcpNoFlow),
            TcpState::Connecting => {
                self.while_connecting(segment, shared, out);
                Ok(())
            }
            TcpState::SynAckSent => self.after_syn_ack(segment, slot, shared, out),
            TcpState::SynSent => self.answer_to_syn(segment, shared, out),
            TcpState::Open => self.while_open(segment, slot, shared, out),
            TcpState::TimeWait => {
                self.after_the_end(segment);
                Ok(())
            }
        }
    }

    /// Repeated SYNs are answered when the host's socket has connected.
    fn while_connecting(
        &mut self,
        segment: &Segment<'_>,
        shared: &mut Shared,
        out: &mut SocketOutput,
    ) {
        if segment.has(tcp::RST) && segment.seq == self.rcv_nxt {
            self.end_by_reset(shared, out);
        }
    }

    fn after_syn_ack(
        &mut self,
        segment: &Segment<'_>,
        slot: FrameSlot,
        shared: &mut Shared,
        out: &mut SocketOutput,
    ) -> Outcome {
        if segment.has(tcp::SYN) && segment.seq.plus(1) == self.rcv_nxt {
            self.send_syn(out);
            return Ok(());
        }
        if !segment.has(tcp::RST) && segment.has(tcp::ACK) {
            if segment.ack != self.snd_nxt {
                return Err(DropReason::TcpWindow);
            }
            self.establish(segment, shared);
        }
        self.while_open(segment, slot, shared, out)
    }

    fn answer_to_syn(
        &mut self,
        segment: &Segment<'_>,
        shared: &mut Shared,
        out: &mut SocketOutput,
    ) -> Outcome {
        if !segment.has(tcp::ACK) || segment.ack != self.snd_nxt {
            return Err(DropReason::TcpWindow);
        }
        if segment.has(tcp::RST) {
            // Nobody listens in the container: the client is reset.
            self.end_by_reset(shared, out);
            return Ok(());
        }
        if !segment.has(tcp::SYN) {
            return Err(DropReason::TcpFlags);
        }
        self.rcv_nxt = segment.seq.plus(1);
        self.rcv_edge = self.rcv_nxt.plus(self.rcv_edge.0);
        self.take_options(segment.mss, segment.scale);
        self.establish(segment, shared);
        // The window of a SYN-ACK is not scaled (RFC 7323 2.2).
        self.snd_wnd = u32::from(segment.window);
        self.acks_due = 1;
        Ok(())
    }

    fn establish(&mut self, segment: &Segment<'_>, shared: &mut Shared) {
        self.snd_una = segment.ack;
        self.snd_wl1 = segment.seq;
        self.snd_wl2 = segment.ack;
        self.snd_wnd = u32::from(segment.window) << self.their_scale;
        self.state = TcpState::Open;
        self.retries = 0;
        shared.shares.established(self.port);
    }

    fn after_the_end(&mut self, segment: &Segment<'_>) {
        if segment.has(tcp::RST) {
            self.state = TcpState::Closed;
        } else if segment.space() > 0 {
            self.acks_due = 1;
        }
    }

    fn while_open(
        &mut self,
        segment: &Segment<'_>,
        slot: FrameSlot,
        shared: &mut Shared,
        out: &mut SocketOutput,
    ) -> Outcome {
        if segment.has(tcp::RST) {
            return self.reset(segment, shared, out);
        }
        if segment.has(tcp::SYN) {
            // RFC 5961 4.2: whoever really restarted answers this with an exact reset.
            self.acks_due = self.acks_due.max(1);
            return Err(DropReason::TcpFlags);
        }
        if !segment.has(tcp::ACK) {
            return Err(DropReason::TcpFlags);
        }
        self.restart |= !self.in_flight();
        self.acknowledgement(segment, shared)?;
        let mut outcome = Ok(());
        if segment.space() > 0 {
            outcome = self.bytes(segment, slot, shared, out);
        } else if segment.seq.before(self.expected()) {
            // A keep-alive or a probe for our window.
            self.acks_due = self.acks_due.max(1);
        }
        self.close_if_done(shared, out);
        outcome
    }

    /// RFC 5961 3.2: only the exact number resets; another one in the window is asked to prove itself.
    fn reset(
        &mut self,
        segment: &Segment<'_>,
        shared: &mut Shared,
        out: &mut SocketOutput,
    ) -> Outcome {
        if segment.seq == self.expected() || segment.seq == self.rcv_nxt {
            self.end_by_reset(shared, out);
            return Ok(());
        }
        let window = self.rcv_edge.since(self.rcv_nxt).max(1);
        if segment.seq.since(self.rcv_nxt) < window && !segment.seq.before(self.rcv_nxt) {
            self.acks_due = self.acks_due.max(1);
        }
        Err(DropReason::TcpWindow)
    }

    /// The container has reset its side: nothing is said to it any more, the host's peer is reset.
    fn end_by_reset(&mut self, shared: &mut Shared, out: &mut SocketOutput) {
        out.call(SocketCall::Close { socket: self.id, reset: true });
        shared.stats.tcp_resets += 1;
        self.acks_due = 0;
        self.finish(TcpState::Closed, shared);
    }

    fn acknowledgement(&mut self, segment: &Segment<'_>, shared: &mut Shared) -> Outcome {
        if self.snd_max.before(segment.ack) {
            self.acks_due = self.acks_due.max(1);
            return Err(DropReason::TcpWindow);
        }
        let advance = segment.ack.since(self.snd_una);
        if advance > 0 {
            self.acknowledged(segment, advance);
        } else if segment.ack == self.snd_una {
            self.maybe_duplicate(segment, shared);
        }
        let newer = self.snd_wl1.before(segment.seq)
            || (self.snd_wl1 == segment.seq && !segment.ack.before(self.snd_wl2));
        if newer && !segment.ack.before(self.snd_una) {
            let was_closed = self.snd_wnd == 0;
            self.snd_wnd = u32::from(segment.window) << self.their_scale;
            self.snd_wl1 = segment.seq;
            self.snd_wl2 = segment.ack;
            if was_closed && self.snd_wnd > 0 {
                self.retries = 0;
            }
        }
        Ok(())
    }

    fn acknowledged(&mut self, segment: &Segment<'_>, advance: u32) {
        let fin = self.fin_at.is_some_and(|fin| fin.before(segment.ack));
        self.discard += advance - u32::from(fin);
        self.snd_una = segment.ack;
        if self.snd_nxt.before(self.snd_una) {
            // Sent again from the front, while the container had had more than it could say.
            self.snd_nxt = self.snd_una;
            self.peek_moved = true;
        }
        if self.recover.is_some_and(|end| !self.snd_una.before(end)) {
            self.recover = None;
        }
        self.dup_acks = 0;
        self.retries = 0;
        self.restart = true;
    }

    fn maybe_duplicate(&mut self, segment: &Segment<'_>, shared: &mut Shared) {
        let window = u32::from(segment.window) << self.their_scale;
        if segment.space() > 0 || window != self.snd_wnd || !self.in_flight() {
            return;
        }
        self.dup_acks = self.dup_acks.saturating_add(1);
        if self.dup_acks == DUP_ACKS && self.recover.is_none() {
            shared.stats.tcp_resent += 1;
            self.restart = true;
            self.rewind();
        }
    }

    /// Segments towards the container are too large for a hop behind it: what is under way is sent again
    /// in smaller ones. An error that quotes no byte under way is a guess (RFC 5927 4.1).
    pub(super) fn path_mtu(&mut self, (seq, mtu): (Seq, u16), now: Time) -> Outcome {
        let under_way = !seq.before(self.snd_una) && seq.before(self.snd_max);
        if self.state != TcpState::Open || !under_way {
            return Err(DropReason::IcmpUnrelated);
        }
        let v4 = self.key.src.is_v4();
        let least = if v4 { PATH_MTU_MIN_V4 } else { PATH_MTU_MIN_V6 };
        let headers = (headers::tcp_headers(v4) - ethernet::HEADER_LEN) as u16;
        let mss = mtu.max(least) - headers;
        if mss < self.mss {
            self.mss = mss;
            self.larger_at = now + PATH_MTU_AGES;
            self.restart = true;
            self.rewind();
        }
        Ok(())
    }

    /// What was narrow may have been replaced: if it has not, the next large segment is answered as the
    /// first one was.
    pub(super) fn try_larger(&mut self, now: Time) {
        if self.mss < self.mss_told && self.larger_at <= now {
            self.mss = self.mss_told;
        }
    }

    /// The bytes of a segment, and its FIN.
    fn bytes(
        &mut self,
        segment: &Segment<'_>,
        slot: FrameSlot,
        shared: &mut Shared,
        out: &mut SocketOutput,
    ) -> Outcome {
        let expected = self.expected();
        let ended = self.fin_received || self.fin_pending;
        let old = expected.since(segment.seq);
        if ended || self.not_taken || old >= segment.space() {
            self.acks_due = self.acks_due.max(1);
            return Ok(());
        }
        if expected.before(segment.seq) {
            return self.gap(segment, shared, out);
        }
        // `old` may reach into the FIN's place, never beyond it.
        let fresh = segment.len.saturating_sub(old);
        if fresh > 0 {
            self.send_piece(slot, segment.data_at + old, fresh, out);
        }
        self.fin_pending = segment.has(tcp::FIN);
        self.lost_at = None;
        if self.holds {
            self.take_held(shared, out);
        }
        if self.fin_pending && self.sending == 0 {
            self.pass_fin_on(out);
        }
        Ok(())
    }

    /// Something is missing before this segment: it waits.
    fn gap(
        &mut self,
        segment: &Segment<'_>,
        shared: &mut Shared,
        out: &mut SocketOutput,
    ) -> Outcome {
        shared.stats.tcp_out_of_order += 1;
        // Windows are told rounded up to a multiple of the scale.
        if self.rcv_edge.plus(1 << self.our_scale).before(segment.end()) {
            self.acks_due = self.acks_due.max(1);
            return Err(DropReason::TcpWindow);
        }
        let expected = self.expected();
        if self.gap_at != Some(expected) {
            self.gap_at = Some(expected);
            self.lost_at = Some(shared.now + REORDERING);
            self.acks_due = self.acks_due.max(1);
        } else if self.lost_at.is_none() {
            // It has been complained of, and what comes now tells the sender that something still arrives.
            self.acks_due = self.acks_due.max(1);
        }
        let piece = (segment.seq, segment.data, segment.has(tcp::FIN));
        let held = shared.held.insert((self.id, self.port), piece);
        self.holds = true;
        while let Some(gone) = shared.held.evict() {
            shared.stats.tcp_not_held += gone.ranges as u64;
            out.dropped(gone.port, DropReason::TcpOutOfOrder);
        }
        held.map_err(|NoRoom| {
            shared.stats.tcp_not_held += 1;
            DropReason::TcpOutOfOrder
        })
    }

    /// A gap is filled: what waited behind it goes the same way, up to the next gap.
    fn take_held(&mut self, shared: &mut Shared, out: &mut SocketOutput) {
        while !self.fin_pending
            && let Some(range) = shared.held.take(self.id, self.expected())
        {
            let old = self.expected().since(range.seq);
            let fresh = (range.bytes.len() as u32).saturating_sub(old);
            if fresh > 0 {
                let slot = out.hold(range.bytes);
                self.send_piece(slot, old, fresh, out);
            }
            self.fin_pending = range.fin;
        }
        if self.fin_pending {
            shared.held.forget(self.id);
        }
        self.holds = shared.held.has(self.id);
        if self.holds {
            self.gap_at = Some(self.expected());
            self.lost_at = Some(shared.now + REORDERING);
        }
    }

    /// What is missing has had its time: now make the container send it again.
    pub(super) fn gap_lasted(&mut self, shared: &mut Shared) {
        if self.lost_at.is_none_or(|at| at > shared.now) {
            return;
        }
        self.lost_at = None;
        if self.state == TcpState::Open && self.gap_at == Some(self.expected()) {
            shared.stats.tcp_gaps_lost += 1;
            // The first one may tell a new window, and does not count then.
            self.acks_due = DUP_ACKS + 1;
        }
    }

    /// All the container's bytes are in the host's socket: close that half.
    pub(super) fn pass_fin_on(&mut self, out: &mut SocketOutput) {
        self.fin_pending = false;
        self.fin_received = true;
        self.closed_first = self.fin_at.is_some();
        self.rcv_nxt = self.rcv_nxt.plus(1);
        self.acks_due = self.acks_due.max(1);
        out.call(SocketCall::Shutdown { socket: self.id });
    }

    /// Both halves closed and ours acknowledged: the host's socket is no longer needed. What its peer has
    /// not taken yet the kernel delivers after `close`.
    pub(super) fn close_if_done(&mut self, shared: &mut Shared, out: &mut SocketOutput) {
        let acknowledged = self.fin_at.is_some_and(|fin| self.snd_una == fin.plus(1));
        if self.state != TcpState::Open || !self.fin_received || !acknowledged {
            return;
        }
        if self.discard > 0 {
            // A socket closed with unread bytes sends a reset, and its peer would lose the rest.
            let len = std::mem::take(&mut self.discard);
            out.call(SocketCall::Discard { socket: self.id, len });
        }
        out.call(SocketCall::Close { socket: self.id, reset: false });
        let state = if self.closed_first { TcpState::TimeWait } else { TcpState::Closed };
        self.finish(state, shared);
    }
}
