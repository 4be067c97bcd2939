//! The descriptors of a worker, one behind each port.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use crate::base::ids::PortId;
use crate::base::limits::{EGRESS_QUEUE_BYTES_MAX, EGRESS_QUEUE_FRAMES_MAX};
use crate::io::packet::PacketSocket;
use crate::io::tap::Tap;
use crate::packet::{DropReason, FrameBatch};

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
    queue: VecDeque<Box<[u8]>>,
    queued_bytes: usize,
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
        Self { id, device, ready: true, queue: VecDeque::new(), queued_bytes: 0 }
    }

    /// Reads frames into the batch until it is full or nothing is there. Frames whose headers lie are
    /// counted in `refused` and forgotten.
    #[inline]
    pub(super) fn drain(&self, batch: &mut FrameBatch, refused: &mut Vec<DropReason>) -> Drained {
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
    pub(super) fn write(&mut self, frame: &[u8]) -> Written {
        if !self.queue.is_empty() {
            return self.enqueue(frame);
        }
        match self.device.write(frame) {
            Written::Full => self.enqueue(frame),
            other => other,
        }
    }

    fn enqueue(&mut self, frame: &[u8]) -> Written {
        let bytes = self.queued_bytes + frame.len();
        if self.queue.len() >= EGRESS_QUEUE_FRAMES_MAX || bytes > EGRESS_QUEUE_BYTES_MAX {
            return Written::Refused(DropReason::EgressFull);
        }
        self.queued_bytes = bytes;
        self.queue.push_back(frame.into());
        Written::Full
    }

    /// Whether the device of a port that went down is gone for ever.
    pub(super) fn is_gone(&self) -> bool {
        matches!(&self.device, Device::Packet(socket) if socket.is_gone())
    }

    /// Whether frames wait for room.
    pub(super) fn has_queue(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Sends what waited, as far as there is room. Gives the reasons of those that were refused.
    pub(super) fn flush_queue(&mut self) -> Vec<DropReason> {
        let mut refused = Vec::new();
        while let Some(frame) = self.queue.front() {
            match self.device.write(frame) {
                Written::Full => break,
                Written::Sent => {}
                Written::Refused(reason) => refused.push(reason),
                Written::Dead => refused.push(DropReason::PortGone),
            }
            if let Some(frame) = self.queue.pop_front() {
                self.queued_bytes -= frame.len();
            }
        }
        refused
    }
}
