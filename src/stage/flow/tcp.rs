//! TCP's phases and windows, as a box in the middle sees them.
//!
//! **Phases** after RFC 7857 2 and RFC 6146 3.5.2 (initiator is "V6" there, responder "V4"):
//!
//! ```text
//!            SYN            SYN|ACK                ACK
//!   (none) ------> SynSent ---------> AckedByResp. -----> Established -- FIN --> FinInit. / FinResp.
//!     |               | SYN of the        ^  ACK              ^                        | other FIN
//!     | ACK, where    |  responder        |                   |                        v
//!     |  allowed      +---> SynCrossed ---+-- AckedByInit. ---+                     FinBoth
//!     +-----> PickedUp ----- any segment of the responder ----+
//!   RST: SynSent --> Refused; any other --> ResetByInit. / ResetByResp. -- life sign of the same side --> Established
//!   SYN of the initiator in Refused, ResetBy*, FinBoth --> SynSent
//! ```
//!
//! Two things differ from the figure of the RFC, both to its intent. Established waits for the third
//! segment of the handshake, so that a flood of spoofed SYNs stays in the class that is dropped first.
//! And a reset connection is revived only by the side that is said to have reset it: what the other
//! side still had on its way proves nothing, while a side that really reset sends no more.
//!
//! **Windows** after van Rooij, "Real stateful TCP packet filtering in IP Filter" (2001), which BSDs and
//! Linux use. For each side three numbers are kept: `end`, one beyond the highest sequence number it
//! has sent; `ack`, what it expects next (its highest acknowledgement, before that implied by the
//! other's SYN); `window`, the largest it has offered. A segment of side *s* to side *p* must have
//!
//! 1. `seq <= ack[p] + window[p]`: no data beyond what *p* has offered;
//! 2. `seq + len >= ack[p] - window[p]`: no data acknowledged long ago;
//! 3. `ack <= end[p]`: nothing acknowledged that was never sent;
//! 4. `ack >= ack[s] - window[s]`: no acknowledgement older than a window (RFC 5961 5.2).
//!
//! The largest window ever instead of the last one is what makes the box safe against reordering.
//! Bounds below are never narrower than 64 KiB, since a window may shrink while segments fly.
//! A super-frame counts as the one segment that its sender meant.
//!
//! **Resets** after RFC 5961 3.2: only a RST at exactly the next sequence number ends the connection. One
//! elsewhere in the window passes without effect (its receiver answers with a challenge, and an honest
//! sender then hits exactly); one outside is dropped. A SYN in a living connection passes without effect
//! for the same reason (RFC 5961 4.2).

use zerocopy::FromBytes;

use super::flow::Direction;
use super::timeouts::Class;
use crate::packet::{DropReason, Parsed};
use crate::wire::tcp::{self, ACK, FIN, Options, RST, SYN, Tcp, TcpOption};

/// What of a segment matters here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TcpSegment {
    /// First sequence number.
    pub seq: u32,
    /// Acknowledgement; counts if the flag is set.
    pub ack: u32,
    /// Window as it stands in the header.
    pub window: u16,
    /// Flags as in [`crate::wire::tcp`].
    pub flags: u8,
    /// Bytes of data, those of a whole super-frame.
    pub len: u32,
    /// Window scale offered by a SYN.
    pub scale: Option<u8>,
}

impl TcpSegment {
    /// Reads the segment in a frame that was parsed as TCP and is not a later fragment.
    #[inline]
    pub fn read(parsed: &Parsed, frame: &[u8]) -> Option<Self> {
        let bytes = parsed.l4_bytes(frame);
        let (header, rest) = Tcp::ref_from_prefix(bytes).ok()?;
        let scale = if header.has(SYN) {
            let options = rest.get(..header.header_len().checked_sub(tcp::HEADER_LEN)?)?;
            Options::new(options).find_map(|option| match option {
                // RFC 7323 2.3: a larger shift counts as 14.
                TcpOption::WindowScale(shift) => Some(shift.min(SCALE_MAX)),
                _ => None,
            })
        } else {
            None
        };
        Some(Self {
            seq: header.seq.get(),
            ack: header.ack.get(),
            window: header.window.get(),
            flags: header.flags,
            len: bytes.len().checked_sub(header.header_len())? as u32,
            scale,
        })
    }

    #[inline]
    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// One beyond the last sequence number; SYN and FIN take one each.
    #[inline]
    fn end(&self) -> u32 {
        let flags = u32::from(self.has(SYN)) + u32::from(self.has(FIN));
        self.seq.wrapping_add(self.len).wrapping_add(flags)
    }
}

/// Where a connection stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Phase {
    /// Not TCP.
    #[default]
    None,
    /// The initiator's SYN was seen.
    SynSent,
    /// Both sides' SYNs were seen, neither acknowledged (simultaneous open).
    SynCrossed,
    /// The responder has acknowledged the initiator's SYN: the usual middle of a handshake.
    AckedByResponder,
    /// The other way round, after a simultaneous open.
    AckedByInitiator,
    /// Begun before our time; only the initiator was seen.
    PickedUp,
    /// Both sides were heard.
    Established,
    /// The initiator has no more data.
    FinInitiator,
    /// The responder has no more data.
    FinResponder,
    /// Closed by both sides.
    FinBoth,
    /// Reset before it was answered.
    Refused,
    /// Reset by the initiator.
    ResetByInitiator,
    /// Reset by the responder.
    ResetByResponder,
}

impl Phase {
    /// The name that people read.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::SynSent => "syn-sent",
            Self::SynCrossed => "syn-crossed",
            Self::AckedByResponder | Self::AckedByInitiator => "syn-received",
            Self::PickedUp => "picked-up",
            Self::Established => "established",
            Self::FinInitiator => "fin-initiator",
            Self::FinResponder => "fin-responder",
            Self::FinBoth => "closed",
            Self::Refused => "refused",
            Self::ResetByInitiator | Self::ResetByResponder => "reset",
        }
    }
}

/// What a segment did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transition {
    /// It belongs to the connection and changed no phase.
    Unchanged,
    /// The handshake is complete.
    Established,
    /// The first side has finished.
    HalfClosed,
    /// The second side has finished too.
    Closed,
    /// The connection was reset; it lingers (RFC 7857 2.2).
    Reset,
    /// The reset was not true.
    Revived,
    /// A new connection between the same ports began.
    Reopened,
    /// It may pass, and proves nothing: the flow is not to be [touched](super::FlowTable::touch).
    Ignored,
    /// The connection is over and the responder begins a new one: the flow must be removed, and the
    /// segment judged as the first of a flow in the opposite direction.
    Over,
}

/// Phase and windows of one TCP connection, 22 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
// Two bytes of padding would cost two megabytes at a million flows.
#[repr(C, packed(2))]
pub struct TcpState {
    end: [u32; 2],
    ack: [u32; 2],
    /// In units of the sender's scale; before both SYNs were seen, in bytes.
    window: [u16; 2],
    /// The initiator's shift below, the responder's above.
    scales: u8,
    phase: Phase,
}

const _: () = assert!(size_of::<TcpState>() == 22);

/// RFC 7323 2.3.
const SCALE_MAX: u8 = 14;
/// In a nibble of `scales` before both SYNs were seen: the option was absent.
const NOT_OFFERED: u8 = 15;
/// Bounds below are at least so far away: the largest window without scaling.
const SLACK: u32 = 0xffff;

const INITIATOR: usize = 0;
const RESPONDER: usize = 1;

/// `a` lies before `b` on the circle of sequence numbers.
#[inline]
fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// Flags that occur together; PSH, URG and the ECN bits go with any.
fn are_legal(flags: u8) -> bool {
    matches!(flags & (SYN | FIN | RST | ACK), f if f == SYN || f == SYN | ACK || f == RST
        || f == RST | ACK || f == ACK || f == FIN | ACK)
}

impl TcpState {
    /// The state after a flow's first segment. With `pick_up`, one from the middle of a connection
    /// will do: the flow may be older than the daemon.
    pub fn begin(segment: &TcpSegment, pick_up: bool) -> Result<Self, DropReason> {
        if !are_legal(segment.flags) {
            return Err(DropReason::TcpFlags);
        }
        match segment.flags & (SYN | RST | ACK) {
            SYN => Ok(Self::syn_sent(segment)),
            ACK if pick_up => Ok(Self::picked_up(segment)),
            _ => Err(DropReason::TcpNoFlow),
        }
    }

    fn syn_sent(segment: &TcpSegment) -> Self {
        Self {
            end: [segment.end(), 0],
            ack: [0, segment.seq.wrapping_add(1)],
            window: [segment.window, 0],
            scales: segment.scale.unwrap_or(NOT_OFFERED),
            phase: Phase::SynSent,
        }
    }

    /// Nothing is known of windows and scales, so the largest are assumed.
    fn picked_up(segment: &TcpSegment) -> Self {
        Self {
            end: [segment.end(), segment.ack],
            ack: [segment.ack, segment.seq],
            window: [u16::MAX; 2],
            scales: SCALE_MAX | SCALE_MAX << 4,
            phase: Phase::PickedUp,
        }
    }

    /// Where the connection stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The class under which the connection ages; `None` if this is not TCP.
    #[inline]
    pub fn class(&self) -> Option<Class> {
        Some(match self.phase {
            Phase::None => return None,
            Phase::SynSent
            | Phase::SynCrossed
            | Phase::AckedByResponder
            | Phase::AckedByInitiator
            | Phase::PickedUp => Class::TcpEmbryonic,
            // RFC 6146 3.5.2: half-closed connections may live as long as open ones.
            Phase::Established | Phase::FinInitiator | Phase::FinResponder => Class::TcpEstablished,
            Phase::FinBoth | Phase::Refused | Phase::ResetByInitiator | Phase::ResetByResponder => {
                Class::TcpTransitory
            }
        })
    }

    /// Takes in a segment that goes in `dir`.
    ///
    /// # Errors
    /// `TcpFlags` and `TcpWindow`: the segment must not pass, and has changed nothing.
    #[inline]
    pub fn track(
        &mut self,
        dir: Direction,
        segment: &TcpSegment,
    ) -> Result<Transition, DropReason> {
        if !are_legal(segment.flags) {
            return Err(DropReason::TcpFlags);
        }
        if matches!(self.phase, Phase::SynSent | Phase::Refused) {
            return self.unanswered(dir, segment);
        }
        if segment.has(SYN) {
            return Ok(self.syn_again(dir, segment));
        }
        if segment.has(RST) {
            return self.reset(dir, segment);
        }
        self.check(dir, segment)?;
        self.advance(dir, segment);
        Ok(self.step(dir, segment))
    }

    /// Only the initiator's SYN is known.
    fn unanswered(
        &mut self,
        dir: Direction,
        segment: &TcpSegment,
    ) -> Result<Transition, DropReason> {
        let refused = self.phase == Phase::Refused;
        let acks_syn = |ack: u32| !before(ack, self.ack[RESPONDER]) && !before(self.end[0], ack);
        match (dir, segment.flags & (SYN | RST | ACK)) {
            (Direction::Initiator, SYN) => {
                let again = !refused && segment.seq.wrapping_add(1) == self.ack[RESPONDER];
                let end = self.end[INITIATOR];
                *self = Self::syn_sent(segment);
                if again && before(self.end[INITIATOR], end) {
                    // The data of a fast open (RFC 7413) are not sent again with the SYN.
                    self.end[INITIATOR] = end;
                }
                Ok(if refused { Transition::Reopened } else { Transition::Unchanged })
            }
            (Direction::Responder, flags) if flags == SYN | ACK => {
                if !acks_syn(segment.ack) {
                    // A half-open connection: the initiator will reset it (RFC 9293 3.5.1).
                    return Ok(Transition::Ignored);
                }
                self.meet(segment);
                self.ack[RESPONDER] = segment.ack;
                self.phase = Phase::AckedByResponder;
                Ok(Transition::Unchanged)
            }
            (Direction::Responder, SYN) if refused => Ok(Transition::Over),
            (Direction::Responder, SYN) => {
                self.meet(segment);
                self.phase = Phase::SynCrossed;
                Ok(Transition::Unchanged)
            }
            (Direction::Responder, flags) if flags == RST | ACK && acks_syn(segment.ack) => {
                self.phase = Phase::Refused;
                Ok(if refused { Transition::Ignored } else { Transition::Reset })
            }
            (Direction::Responder, ACK) => Ok(Transition::Ignored),
            (Direction::Initiator, flags) if flags & RST != 0 => {
                if !acks_syn(segment.seq) || refused {
                    return Ok(Transition::Ignored);
                }
                self.phase = Phase::Refused;
                Ok(Transition::Reset)
            }
            _ => Err(DropReason::TcpWindow),
        }
    }

    /// The responder's SYN: now scales are agreed upon or dropped (RFC 7323 2.2).
    fn meet(&mut self, segment: &TcpSegment) {
        let offered = self.scales & 0xf;
        let (ours, theirs) = match segment.scale {
            Some(theirs) if offered != NOT_OFFERED => (offered, theirs),
            _ => (0, 0),
        };
        self.scales = ours | theirs << 4;
        // Windows of SYNs are never scaled: from bytes to units, rounded up.
        let units = |bytes: u16, scale: u8| u32::from(bytes).div_ceil(1 << scale) as u16;
        self.window = [units(self.window[INITIATOR], ours), units(segment.window, theirs)];
        self.end[RESPONDER] = segment.end();
        self.ack[INITIATOR] = segment.seq.wrapping_add(1);
    }

    /// A SYN when both sides are known.
    fn syn_again(&mut self, dir: Direction, segment: &TcpSegment) -> Transition {
        let plain = !segment.has(ACK);
        match self.phase {
            Phase::FinBoth | Phase::ResetByInitiator | Phase::ResetByResponder if plain => {
                if dir == Direction::Responder {
                    return Transition::Over;
                }
                *self = Self::syn_sent(segment);
                Transition::Reopened
            }
            Phase::SynCrossed | Phase::AckedByResponder | Phase::AckedByInitiator => {
                let (own, other) = (dir.index(), dir.flip().index());
                let is_again = segment.seq.wrapping_add(1) == self.ack[other];
                let acks =
                    !before(segment.ack, self.ack[own]) && !before(self.end[other], segment.ack);
                match (is_again, plain) {
                    (true, true) => Transition::Unchanged,
                    (true, false) if acks => self.acknowledged(dir),
                    _ => Transition::Ignored,
                }
            }
            _ => Transition::Ignored,
        }
    }

    /// Whether the side that sends in `dir` has a segment beginning at `seq` on its way: an ICMP error
    /// that quotes another is forged (RFC 5927 4.1).
    pub fn has_sent(&self, dir: Direction, seq: u32) -> bool {
        let (own, other) = (dir.index(), dir.flip().index());
        let oldest = if self.phase == Phase::SynSent || self.phase == Phase::Refused {
            self.end[own].wrapping_sub(SLACK)
        } else {
            self.ack[other].wrapping_sub(self.window_bytes(other).max(SLACK))
        };
        !before(seq, oldest) && !before(self.end[own], seq)
    }

    fn reset(&mut self, dir: Direction, segment: &TcpSegment) -> Result<Transition, DropReason> {
        let (own, other) = (dir.index(), dir.flip().index());
        let seq = segment.seq;
        // What the receiver expects next: the highest it has acknowledged, or what is on its way.
        let exact = seq == self.ack[other] || seq == self.end[own];
        if !exact {
            let window = self.window_bytes(other);
            let (low, high) = self.bounds(other, window);
            let inside = !before(seq, low) && !before(high, seq);
            return if inside { Ok(Transition::Ignored) } else { Err(DropReason::TcpWindow) };
        }
        if self.class() == Some(Class::TcpTransitory) {
            return Ok(Transition::Ignored);
        }
        self.phase = match dir {
            Direction::Initiator => Phase::ResetByInitiator,
            Direction::Responder => Phase::ResetByResponder,
        };
        Ok(Transition::Reset)
    }

    #[inline]
    fn window_bytes(&self, side: usize) -> u32 {
        let scale = self.scales >> (4 * side) & 0xf;
        u32::from(self.window[side]) << scale
    }

    /// The lowest end and the highest start of data towards `side`.
    #[inline]
    fn bounds(&self, side: usize, window: u32) -> (u32, u32) {
        let expected = self.ack[side];
        (expected.wrapping_sub(window.max(SLACK)), expected.wrapping_add(window))
    }

    /// The four conditions at the top of this file.
    #[inline]
    fn check(&mut self, dir: Direction, segment: &TcpSegment) -> Result<(), DropReason> {
        let (own, other) = (dir.index(), dir.flip().index());
        let (low, high) = self.bounds(other, self.window_bytes(other));
        // Until both sides were seen, what is acknowledged shows what had been sent before our time.
        let unseen = self.phase == Phase::PickedUp && before(self.end[other], segment.ack);
        let sent = if unseen { segment.ack } else { self.end[other] };
        let oldest = self.ack[own].wrapping_sub(self.window_bytes(own).max(SLACK));
        let fits = !before(high, segment.seq)
            && !before(segment.end(), low)
            && !before(sent, segment.ack)
            && !before(segment.ack, oldest);
        if !fits {
            return Err(DropReason::TcpWindow);
        }
        self.end[other] = sent;
        Ok(())
    }

    #[inline]
    fn advance(&mut self, dir: Direction, segment: &TcpSegment) {
        let own = dir.index();
        if before(self.end[own], segment.end()) {
            self.end[own] = segment.end();
        }
        if before(self.ack[own], segment.ack) {
            self.ack[own] = segment.ack;
        }
        if self.window[own] < segment.window {
            self.window[own] = segment.window;
        }
    }

    /// The phase after a segment without SYN and RST that fits.
    #[inline]
    fn step(&mut self, dir: Direction, segment: &TcpSegment) -> Transition {
        let transition = match (self.phase, dir) {
            (Phase::Established | Phase::FinInitiator | Phase::FinResponder, _) => {
                Transition::Unchanged
            }
            (Phase::SynCrossed | Phase::AckedByResponder | Phase::AckedByInitiator, _) => {
                self.acknowledged(dir)
            }
            (Phase::PickedUp, Direction::Responder) => self.establish(Transition::Established),
            (Phase::ResetByInitiator, Direction::Initiator)
            | (Phase::ResetByResponder, Direction::Responder) => {
                self.establish(Transition::Revived)
            }
            (Phase::PickedUp, Direction::Initiator) => return Transition::Unchanged,
            _ => return Transition::Ignored,
        };
        if segment.has(FIN) { self.finished(dir, transition) } else { transition }
    }

    fn establish(&mut self, transition: Transition) -> Transition {
        self.phase = Phase::Established;
        transition
    }

    /// `dir` has acknowledged the other side's SYN.
    fn acknowledged(&mut self, dir: Direction) -> Transition {
        match (self.phase, dir) {
            (Phase::SynCrossed, Direction::Initiator) => self.phase = Phase::AckedByInitiator,
            (Phase::SynCrossed, Direction::Responder) => self.phase = Phase::AckedByResponder,
            (Phase::AckedByResponder, Direction::Initiator)
            | (Phase::AckedByInitiator, Direction::Responder) => {
                return self.establish(Transition::Established);
            }
            _ => {}
        }
        Transition::Unchanged
    }

    fn finished(&mut self, dir: Direction, before: Transition) -> Transition {
        let (phase, transition) = match (self.phase, dir) {
            (Phase::FinResponder, Direction::Initiator)
            | (Phase::FinInitiator, Direction::Responder) => (Phase::FinBoth, Transition::Closed),
            (Phase::FinInitiator | Phase::FinResponder, _) => return before,
            (_, Direction::Initiator) => (Phase::FinInitiator, Transition::HalfClosed),
            (_, Direction::Responder) => (Phase::FinResponder, Transition::HalfClosed),
        };
        self.phase = phase;
        transition
    }
}

#[cfg(test)]
mod tests;
