//! The descriptors of a worker, one behind each port.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use crate::base::ids::PortId;
use crate::base::limits::{EGRESS_QUEUE_BYTES_MAX, EGRESS_QUEUE_FRAMES_MAX};
use crate::base::time::Time;
use crate::io::packet::PacketSocket;
use crate::io::tap::Tap;
use crate::packet::{DropReason, FrameBatch};
use crate::stage::rate::{Bucket, Limits};

/// What frames of a port are read from and written to.
#[derive(Debug)]
pub(super) enum Device {
    Tap(Tap),
    Packet(PacketSocket),
}

/// How a read ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Drained {
    /// Nothing more is there.
    Empty,
    /// The batch is full; more may be there.
    Full,
    /// A packet socket's interface went down: it may come back, or be gone.
    Down,
    /// The device is gone for ever.
    Dead,
}

/// How a write ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Written {
    Sent,
    /// The device can take no more now.
    Full,
    Refused(DropReason),
    Dead,
}

/// A served port.
#[derive(Debug)]
pub(super) struct PortIo {
    pub(super) id: PortId,
    pub(super) device: Device,
    /// Something may be readable: the poller says so once, and it stays true until a read says no.
    pub(super) ready: bool,
    /// Frames with their headers that wait for room.
    queue: Waiting,
    pace: Pace,
}

/// Frames with their headers, in order, a bounded number.
#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<Box<[u8]>>,
    bytes: usize,
}

/// What a rate limit needs; nothing for most ports. TCP finds the rate by the time that frames wait, and only
/// what finds no room is lost: dropped at once, a super-frame would be forty segments.
#[derive(Debug, Default)]
struct Pace {
    ingress: Option<Bucket>,
    egress: Option<Bucket>,
    /// What was read and may not go on yet.
    held: Waiting,
}

impl Waiting {
    fn push(&mut self, frame: &[u8]) -> bool {
        let bytes = self.bytes + frame.len();
        if self.frames.len() >= EGRESS_QUEUE_FRAMES_MAX || bytes > EGRESS_QUEUE_BYTES_MAX {
            return false;
        }
        self.bytes = bytes;
        self.frames.push_back(frame.into());
        true
    }

    fn pop(&mut self) {
        if let Some(frame) = self.frames.pop_front() {
            self.bytes -= frame.len();
        }
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tap(tap) => tap.as_fd(),
            Self::Packet(socket) => socket.as_fd(),
        }
    }
}

impl Device {
    #[inline]
    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tap(tap) => tap.read(buf),
            Self::Packet(socket) => socket.recv(buf),
        }
    }

    #[inline]
    fn write(&self, frame: &[u8]) -> Written {
        let result = match self {
            Self::Tap(tap) => tap.write(frame),
            Self::Packet(socket) => socket.send(frame),
        };
        match result {
            Ok(_) => Written::Sent,
            Err(error) => self.explain_write(&error),
        }
    }

    #[cold]
    fn explain_write(&self, error: &io::Error) -> Written {
        let full = error.kind() == io::ErrorKind::WouldBlock
            || error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error());
        match self {
            Self::Tap(_) if Tap::is_dead_error(error) => Written::Dead,
            Self::Tap(_) if Tap::is_link_down_error(error) => {
                Written::Refused(DropReason::PortDown)
            }
            Self::Packet(_) if PacketSocket::is_down_error(error) => {
                Written::Refused(DropReason::PortDown)
            }
            _ if full => Written::Full,
            _ => Written::Refused(DropReason::WriteFailed),
        }
    }
}

impl PortIo {
    pub(super) fn new(id: PortId, device: Device) -> Self {
        Self { id, device, ready: true, queue: Waiting::default(), pace: Pace::default() }
    }

    /// Limits what the station behind the port receives and sends, from now on.
    pub(super) fn limit(&mut self, limits: Limits) {
        self.pace.ingress = limits.ingress.map(Bucket::new);
        self.pace.egress = limits.egress.map(Bucket::new);
    }

    /// Whether frames that were read wait for their time.
    pub(super) fn holds_back(&self) -> bool {
        !self.pace.held.frames.is_empty()
    }

    /// Reads frames into the batch until it is full or nothing is there. Frames whose headers lie are
    /// counted in `refused` and forgotten.
    #[inline]
    pub(super) fn drain(
        &mut self,
        now: Time,
        batch: &mut FrameBatch,
        refused: &mut Vec<DropReason>,
    ) -> Drained {
        if self.pace.egress.is_some() {
            return self.drain_paced(now, batch, refused);
        }
        while let Some(room) = batch.spare() {
            match self.device.read(room) {
                Ok(n) => {
                    if let Err(reason) = batch.commit(n) {
                        refused.push(reason);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Drained::Empty,
                Err(error) => match self.explain_read(&error) {
                    Some(drained) => return drained,
                    None => refused.push(DropReason::OffloadHeader),
                },
            }
        }
        Drained::Full
    }

    /// The same for a port whose station may only send so fast: reads what is there, some of it, and lets pass
    /// what may.
    #[cold]
    fn drain_paced(
        &mut self,
        now: Time,
        batch: &mut FrameBatch,
        refused: &mut Vec<DropReason>,
    ) -> Drained {
        let mut drained = Drained::Full;
        for _ in 0..EGRESS_QUEUE_FRAMES_MAX {
            let Some(room) = batch.spare() else { break };
            match self.device.read(room) {
                Ok(n) if self.pace.held.push(room.get(..n).unwrap_or_default()) => {}
                Ok(_) => refused.push(DropReason::RateLimited),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    drained = Drained::Empty;
                    break;
                }
                Err(error) => match self.explain_read(&error) {
                    Some(end) => {
                        drained = end;
                        break;
                    }
                    None => refused.push(DropReason::OffloadHeader),
                },
            }
        }
        let Pace { egress: Some(bucket), held, .. } = &mut self.pace else { return drained };
        while let Some(frame) = held.frames.front() {
            let Some(room) = batch.spare().filter(|room| room.len() >= frame.len()) else { break };
            if !bucket.take(now, frame.len()) {
                break;
            }
            room[..frame.len()].copy_from_slice(frame);
            if let Err(reason) = batch.commit(frame.len()) {
                refused.push(reason);
            }
            held.pop();
        }
        drained
    }

    /// `None`: only this frame was bad.
    #[cold]
    fn explain_read(&self, error: &io::Error) -> Option<Drained> {
        match &self.device {
            _ if error.kind() == io::ErrorKind::Interrupted => Some(Drained::Full),
            Device::Tap(_) if Tap::is_dead_error(error) => Some(Drained::Dead),
            Device::Packet(_) if PacketSocket::is_frame_error(error) => None,
            Device::Packet(_) if PacketSocket::is_down_error(error) => Some(Drained::Down),
            Device::Tap(_) | Device::Packet(_) => Some(Drained::Empty),
        }
    }

    /// Writes a frame with its header, or queues it behind those that wait.
    #[inline]
    pub(super) fn write(&mut self, now: Time, frame: &[u8]) -> Written {
        if !self.queue.frames.is_empty() || !self.may_receive(now, frame.len()) {
            return self.enqueue(frame);
        }
        match self.device.write(frame) {
            Written::Full => self.enqueue(frame),
            other => other,
        }
    }

    #[inline]
    fn may_receive(&mut self, now: Time, bytes: usize) -> bool {
        self.pace.ingress.as_mut().is_none_or(|bucket| bucket.take(now, bytes))
    }

    fn enqueue(&mut self, frame: &[u8]) -> Written {
        if self.queue.push(frame) {
            return Written::Full;
        }
        let limited = self.pace.ingress.is_some();
        Written::Refused(if limited { DropReason::RateLimited } else { DropReason::EgressFull })
    }

    /// Whether the device of a port that went down is gone for ever.
    pub(super) fn is_gone(&self) -> bool {
        matches!(&self.device, Device::Packet(socket) if socket.is_gone())
    }

    /// Whether frames wait for room.
    pub(super) fn has_queue(&self) -> bool {
        !self.queue.frames.is_empty()
    }

    /// Sends what waited, as far as there is room. Gives the reasons of those that were refused.
    pub(super) fn flush_queue(&mut self, now: Time) -> Vec<DropReason> {
        let mut refused = Vec::new();
        while let Some(frame) = self.queue.frames.front() {
            let (bytes, pace) = (frame.len(), &mut self.pace.ingress);
            if !pace.as_mut().is_none_or(|bucket| bucket.take(now, bytes)) {
                break;
            }
            match self.device.write(frame) {
                Written::Full => break,
                Written::Sent => {}
                Written::Refused(reason) => refused.push(reason),
                Written::Dead => refused.push(DropReason::PortGone),
            }
            self.queue.pop();
        }
        refused
    }
}
