//! Time in a TCP flow: one timer, whose meaning follows from the state.

use super::flow::{TcpFlow, TcpState};
use crate::base::time::Span;
use crate::stage::sockets::calls::SocketCall;
use crate::stage::sockets::output::SocketOutput;
use crate::stage::sockets::shared::Shared;

/// What a flow waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Timer {
    /// Nothing.
    None,
    /// The host's socket to connect.
    Connect,
    /// An answer to our SYN or SYN-ACK.
    Syn,
    /// An acknowledgement.
    Resend,
    /// A window.
    Persist,
    /// Any sign of life.
    Idle,
    /// The end.
    TimeWait,
}

/// The kernel gives up connecting after about 127 s (tcp_syn_retries 6) and says so; this is for the case
/// that its word is lost.
const CONNECT_TIMEOUT: Span = Span::from_secs(180);
/// RFC 6298 2.1.
const SYN_RTO: Span = Span::from_secs(1);
/// SYNs sent again before giving up: 1 + 2 + 4 + 8 + 16 s.
const SYN_RETRIES: u8 = 4;
/// A TAP's round trip is microseconds, so Linux's minimum serves everybody; a container that is short of
/// CPU for longer gets bytes twice, which harms nothing.
const RTO: Span = Span::from_millis(200);
/// RFC 6298 2.5 allows a bound of at least 60 s.
const RTO_MAX: Span = Span::from_secs(60);
/// Expiries without a word from the container before it is given up: about five minutes.
const SILENT_MAX: u8 = 12;
/// RFC 1122 4.2.3.6: two hours; below RFC 5382 REQ-5's 2 h 4 min a NAT would lose the flow.
const KEEP_ALIVE: Span = Span::from_secs(7_200);
/// A half-closed flow whose container has forgotten its half would stay for ever (Linux forgets an
/// orphan in FIN-WAIT-2 after 60 s): ask earlier.
const KEEP_ALIVE_HALF: Span = Span::from_secs(120);
/// Between questions without an answer.
const KEEP_ALIVE_AGAIN: Span = Span::from_secs(15);
/// Questions before the container is given up.
const KEEP_ALIVE_PROBES: u8 = 5;
/// Long enough for a container's FIN to be repeated; the four-minute 2·MSL of RFC 9293 is for paths that
/// delay segments, which a TAP does not.
const TIME_WAIT: Span = Span::from_secs(1);

/// How long a gap may last before it is a loss: several times what queues of one machine differ by, and a
/// twentieth of the time-out by which a container would notice for itself.
pub(super) const REORDERING: Span = Span::from_millis(10);

impl TcpFlow {
    fn wanted_timer(&self) -> Timer {
        match self.state {
            TcpState::Accepting | TcpState::Closed => Timer::None,
            TcpState::Connecting => Timer::Connect,
            TcpState::SynAckSent | TcpState::SynSent => Timer::Syn,
            TcpState::TimeWait => Timer::TimeWait,
            TcpState::Open if self.in_flight() => Timer::Resend,
            TcpState::Open if self.waits_for_window() => Timer::Persist,
            TcpState::Open => Timer::Idle,
        }
    }

    /// There is something to say and no window to say it in.
    fn waits_for_window(&self) -> bool {
        let more = self.readable || self.fin_at.is_some_and(|fin| !fin.before(self.snd_nxt));
        more && self.snd_wnd == 0
    }

    fn period(&self, timer: Timer) -> Span {
        let back_off = |span: Span| Span((span.0 << self.retries.min(16)).min(RTO_MAX.0));
        match timer {
            Timer::None => Span::ZERO,
            Timer::Connect => CONNECT_TIMEOUT,
            Timer::Syn => back_off(SYN_RTO),
            Timer::Resend | Timer::Persist => back_off(RTO),
            Timer::Idle if self.silent > 0 => KEEP_ALIVE_AGAIN,
            Timer::Idle if self.fin_received || self.fin_at.is_some() => KEEP_ALIVE_HALF,
            Timer::Idle => KEEP_ALIVE,
            Timer::TimeWait => TIME_WAIT,
        }
    }

    /// Sets the timer that the state wants; called at the end of each batch that touched the flow.
    pub(super) fn rearm(&mut self, shared: &mut Shared) {
        let timer = self.wanted_timer();
        let restart = std::mem::take(&mut self.restart);
        if timer == Timer::None {
            self.timer = timer;
            return;
        }
        if timer != self.timer || restart {
            self.timer = timer;
            self.deadline = shared.now + self.period(timer);
        }
        let next = self.lost_at.map_or(self.deadline, |at| at.min(self.deadline));
        shared.timers.arm(self.id, &mut self.armed, next);
    }

    /// The queue woke this flow, perhaps early.
    pub(super) fn woken(&mut self, shared: &mut Shared, out: &mut SocketOutput) {
        self.armed = None;
        self.gap_lasted(shared);
        // What this batch has brought may have ended the flow, or what it waited for.
        if self.deadline > shared.now || self.timer != self.wanted_timer() {
            return;
        }
        self.restart = true;
        self.retries = self.retries.saturating_add(1);
        self.silent = self.silent.saturating_add(1);
        match self.timer {
            Timer::None => {}
            Timer::Connect => self.abort(shared, out),
            Timer::Syn if self.retries > SYN_RETRIES => self.abort(shared, out),
            Timer::Syn => self.send_syn(out),
            Timer::Resend | Timer::Persist if self.silent > SILENT_MAX => self.abort(shared, out),
            Timer::Resend => {
                shared.stats.tcp_resent += 1;
                self.rewind();
            }
            Timer::Idle if self.silent > KEEP_ALIVE_PROBES => self.abort(shared, out),
            Timer::Persist | Timer::Idle => self.probe(out),
            Timer::TimeWait => self.state = TcpState::Closed,
        }
    }

    /// Begins anew at the first byte that is not acknowledged: it is still in the host's socket.
    pub(super) fn rewind(&mut self) {
        self.recover = Some(self.snd_max);
        self.snd_nxt = self.snd_una;
        self.dup_acks = 0;
        self.peek_moved = true;
        // What was sent is there to be read again; where only a FIN was sent there is nothing.
        self.readable |= self.fin_at != Some(self.snd_una);
    }

    /// Ends the flow on both sides by reset.
    pub(in crate::stage::sockets) fn abort(&mut self, shared: &mut Shared, out: &mut SocketOutput) {
        if self.is_live() {
            if self.state != TcpState::Accepting {
                self.send_reset(out);
            }
            out.call(SocketCall::Close { socket: self.id, reset: true });
            shared.stats.tcp_resets += 1;
        }
        self.finish(TcpState::Closed, shared);
    }

    /// The container is gone: nobody is left to be told inside.
    pub(super) fn end_by_removal(&mut self, shared: &mut Shared, out: &mut SocketOutput) {
        if self.is_live() {
            out.call(SocketCall::Close { socket: self.id, reset: true });
        }
        self.finish(TcpState::Closed, shared);
    }

    /// Gives up the flow's share of its port.
    pub(super) fn finish(&mut self, state: TcpState, shared: &mut Shared) {
        if self.is_live() {
            shared.shares.close(self.port, self.is_embryonic());
        }
        self.state = state;
    }
}
