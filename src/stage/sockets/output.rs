//! What comes out of the flow machines: calls, and frames for containers.

use super::calls::{FrameSlot, NO_PART, Parts, SendPart, SockAddr, SocketCall, SocketId};
use crate::base::ids::PortId;
use crate::packet::{DropReason, FrameBatch, Offload};

/// A frame of ours that is small enough to be passed by value: control segments and ICMP errors.
#[derive(Clone, Copy)]
pub struct SmallFrame {
    bytes: [u8; Self::MAX],
    len: u8,
    /// What is left to be done to it.
    pub offload: Offload,
}

impl SmallFrame {
    /// Ethernet, IPv6 and ICMPv6 headers before a quoted IPv6 and TCP header.
    pub const MAX: usize = 128;

    pub(super) fn zeroed(len: usize) -> Self {
        Self { bytes: [0; Self::MAX], len: len.min(Self::MAX) as u8, offload: Offload::NONE }
    }

    /// The frame, from its Ethernet header.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..usize::from(self.len)]
    }
}

impl std::fmt::Debug for SmallFrame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SmallFrame").field("len", &self.len).finish_non_exhaustive()
    }
}

/// A frame for a container.
#[derive(Clone, Copy, Debug)]
pub enum Delivery {
    /// The frame that came with a `Data` or `Datagram` event, headers now written.
    Slot {
        /// To which port.
        port: PortId,
        /// Where the frame is.
        slot: FrameSlot,
    },
    /// One of our own.
    Made {
        /// To which port.
        port: PortId,
        /// The frame.
        frame: SmallFrame,
    },
}

/// What comes out of the flow machines. Emptied and reused, so that it allocates only while it grows.
#[derive(Debug, Default)]
pub struct SocketOutput {
    /// To be executed in order.
    pub calls: Vec<SocketCall>,
    /// Pieces of frames that `calls` name.
    pub parts: Vec<SendPart>,
    /// Bytes of earlier batches, whose turn has come.
    pub held: Vec<Vec<u8>>,
    /// To be written in order.
    pub deliveries: Vec<Delivery>,
    /// Frames that were dropped after all, and of new flows those that the host refused, by the port that
    /// they came from.
    pub drops: Vec<(PortId, DropReason)>,
    /// Bytes that [`SocketCall::SendMade`] names.
    pub made: Vec<u8>,
}

impl SocketOutput {
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.calls.clear();
        self.parts.clear();
        self.held.clear();
        self.deliveries.clear();
        self.drops.clear();
        self.made.clear();
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty() && self.deliveries.is_empty() && self.drops.is_empty()
    }

    /// The pieces of a chain, in order.
    pub fn chain(&self, parts: Parts) -> impl Iterator<Item = SendPart> + '_ {
        let mut at = parts.first;
        std::iter::from_fn(move || {
            let part = *self.parts.get(at as usize)?;
            at = part.next;
            Some(part)
        })
    }

    /// The bytes of a piece; `None` if its frame is not there any more.
    pub fn piece<'a>(&'a self, part: SendPart, batch: &'a FrameBatch) -> Option<&'a [u8]> {
        let slot = usize::from(part.slot.0);
        let bytes = match part.slot.0.checked_sub(FrameSlot::HELD) {
            Some(held) => self.held.get(usize::from(held))?,
            None => (slot < batch.len()).then(|| batch.bytes(slot))?,
        };
        bytes.get(part.start as usize..(part.start + part.len) as usize)
    }

    /// Keeps bytes until the calls that name them have been executed.
    pub(super) fn hold(&mut self, bytes: Vec<u8>) -> FrameSlot {
        self.held.push(bytes);
        FrameSlot(FrameSlot::HELD + (self.held.len() - 1) as u16)
    }

    /// Notes a drop that nobody else counts.
    pub(super) fn dropped(&mut self, port: PortId, reason: DropReason) {
        self.drops.push((port, reason));
    }

    /// Notes frames that a full socket did not take.
    pub(super) fn not_sent(&mut self, port: PortId, frames: u32) {
        self.drops.extend((0..frames).map(|_| (port, DropReason::SocketFull)));
    }

    /// Asks for bytes of our own to be sent.
    pub fn send_made(&mut self, socket: SocketId, to: SockAddr, bytes: &[u8]) {
        let (start, len) = (self.made.len() as u32, bytes.len() as u32);
        self.made.extend_from_slice(bytes);
        self.calls.push(SocketCall::SendMade { socket, to, start, len });
    }

    pub(super) fn call(&mut self, call: SocketCall) {
        self.calls.push(call);
    }

    pub(super) fn made(&mut self, port: PortId, frame: SmallFrame) {
        self.deliveries.push(Delivery::Made { port, frame });
    }

    /// A chain of one piece.
    pub(super) fn part(&mut self, slot: FrameSlot, start: u32, len: u32) -> Parts {
        let at = self.parts.len() as u32;
        self.parts.push(SendPart { slot, start, len, next: NO_PART });
        Parts { first: at, last: at, count: 1, bytes: len }
    }

    /// Adds a piece to the chain of call `hint`, if that is still a call of `want`'s.
    pub(super) fn append(
        &mut self,
        hint: u32,
        slot: FrameSlot,
        start: u32,
        len: u32,
        want: impl Fn(&SocketCall) -> bool,
    ) -> bool {
        let at = self.parts.len() as u32;
        let Some(call) = self.calls.get_mut(hint as usize).filter(|call| want(call)) else {
            return false;
        };
        let (SocketCall::Send { parts, .. } | SocketCall::SendTo { parts, .. }) = call else {
            return false;
        };
        let last = std::mem::replace(&mut parts.last, at);
        parts.count += 1;
        parts.bytes += len;
        self.parts[last as usize].next = at;
        self.parts.push(SendPart { slot, start, len, next: NO_PART });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::sockets::calls::SocketKind;

    #[test]
    fn pieces_of_alternating_flows_stay_in_their_own_chains() {
        let mut out = SocketOutput::default();
        let ids = [0, 1].map(|slot| SocketId::new(SocketKind::Tcp, slot, 0));
        for (n, socket) in ids.into_iter().enumerate() {
            let parts = out.part(FrameSlot(n as u16), 54, 10);
            out.call(SocketCall::Send { socket, parts });
        }
        for n in 2..6_u32 {
            let hint = n % 2;
            let own = |call: &SocketCall| matches!(call, SocketCall::Send { socket, .. } if *socket == ids[hint as usize]);
            assert!(out.append(hint, FrameSlot(n as u16), 54, 10, own));
        }
        let SocketCall::Send { parts, .. } = out.calls[1] else { panic!() };
        let slots: Vec<_> = out.chain(parts).map(|part| part.slot.0).collect();
        assert_eq!(slots, [1, 3, 5]);
        assert_eq!((parts.count, parts.bytes), (3, 30));
    }
}
