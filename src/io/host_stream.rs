//! Stream sockets of the host: how they are set up, what their readiness means, and the calls on them.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};

use super::host_calls::{self as calls, Control};
use super::host_datagrams::take_in;
use super::host_errors::explain;
use super::host_gather::Gather;
use super::host_sockets::{Entry, Executed, TAG};
use super::poller::{Poller, Ready, Token, Wish};
use crate::packet::FrameBatch;
use crate::stage::sockets::{Room, SocketCall, SocketError, SocketEvent, SocketOutput};
use crate::wire::vnet::HEADER_LEN as VNET_LEN;

/// The container's kernel has decided about small segments already: no second Nagle. The host's kernel
/// asks after dead peers, as nobody inside can. Urgent data stays where it is in the stream (RFC 6093 6).
pub(super) fn prepare_stream(fd: BorrowedFd<'_>) -> io::Result<()> {
    calls::set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, &[1])?;
    calls::set_option(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, &[1])?;
    calls::set_option(fd, libc::SOL_SOCKET, libc::SO_OOBINLINE, &[1])
}

/// On, no time: `close` sends a reset (socket(7)).
pub(super) fn reset_at_close(fd: BorrowedFd<'_>) {
    let _ = calls::set_option(fd, libc::SOL_SOCKET, libc::SO_LINGER, &[1, 0]);
}

/// Takes bytes off the receive queue without copying them.
fn discard(fd: BorrowedFd<'_>, mut len: usize) -> io::Result<()> {
    while len > 0 {
        match calls::discard(fd, len)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => len -= n.min(len),
        }
    }
    Ok(())
}

/// Place of the buffer's size and of what is queued in the answer of SO_MEMINFO
/// (`include/uapi/linux/sock_diag.h`).
const MEMINFO: usize = 9;
const MEMINFO_SNDBUF: usize = 3;
const MEMINFO_WMEM_QUEUED: usize = 5;

/// Room in a stream's send buffer.
pub(super) fn room(fd: BorrowedFd<'_>) -> Room {
    let mut info = [0_u32; MEMINFO];
    match calls::option(fd, libc::SOL_SOCKET, libc::SO_MEMINFO, &mut info) {
        Ok(n) if n > MEMINFO_WMEM_QUEUED => {
            let total = info[MEMINFO_SNDBUF];
            Room { free: total.saturating_sub(info[MEMINFO_WMEM_QUEUED]), total }
        }
        _ => Room::default(),
    }
}

impl Entry {
    pub(super) fn stream_ready(&mut self, ready: &Ready) -> [Option<SocketEvent<'static>>; 2] {
        let socket = self.id;
        if ready.error {
            let mut error = [0];
            let read = calls::option(self.fd.as_fd(), libc::SOL_SOCKET, libc::SO_ERROR, &mut error);
            if read.is_ok() && error[0] != 0 {
                let error = explain(&io::Error::from_raw_os_error(error[0] as i32), self.v4);
                return [Some(SocketEvent::Failed { socket, error }), None];
            }
        }
        let mut first = None;
        if ready.writable && std::mem::take(&mut self.connecting) {
            first = Some(SocketEvent::Connected { socket, room: room(self.fd.as_fd()) });
        } else if ready.writable && std::mem::take(&mut self.watching) {
            first = Some(SocketEvent::Writable { socket, room: room(self.fd.as_fd()) });
        }
        self.urgent |= ready.urgent;
        let hangup = ready.hangup;
        let second = ready.readable.then_some(SocketEvent::Readable { socket, hangup });
        [first, second]
    }

    pub(super) fn execute<'a>(
        &mut self,
        poller: &Poller,
        (call, out): (&SocketCall, &SocketOutput),
        sent: &FrameBatch,
        (received, scratch, peek_offset): (&'a mut FrameBatch, &mut [u8], bool),
    ) -> Executed<'a> {
        let (socket, fd) = (self.id, self.fd.as_fd());
        let done = match *call {
            SocketCall::Send { parts, .. } => {
                return Executed::Event(self.send(Gather::new(out, parts, sent).parts()));
            }
            SocketCall::Peek { offset, len, headers, .. } => {
                if peek_offset
                    && offset > 0
                    && !self.offset_on
                    && let Err(error) = self.set_peek_offset(offset)
                {
                    let error = explain(&error, self.v4);
                    return Executed::Event(SocketEvent::Failed { socket, error });
                }
                let skip = if peek_offset { None } else { Some((scratch, offset as usize)) };
                return self.peek(skip, len as usize, usize::from(headers), received);
            }
            SocketCall::WatchWritable { .. } => {
                self.watching = true;
                poller.change(&self.fd, Token(TAG | socket.token()), Wish::Stream)
            }
            SocketCall::SetPeekOffset { offset, .. } if peek_offset => self.set_peek_offset(offset),
            SocketCall::Discard { len, .. } => discard(fd, len as usize),
            SocketCall::Shutdown { .. } => calls::shutdown_write(fd),
            _ => Ok(()),
        };
        match done {
            Ok(()) => Executed::Done,
            Err(error) => {
                let error = explain(&error, self.v4);
                Executed::Event(SocketEvent::Failed { socket, error })
            }
        }
    }

    fn set_peek_offset(&mut self, offset: u32) -> io::Result<()> {
        let offset_is = [offset as i32];
        calls::set_option(self.fd.as_fd(), libc::SOL_SOCKET, libc::SO_PEEK_OFF, &offset_is)?;
        self.offset_on = true;
        Ok(())
    }

    pub(super) fn send(&self, parts: &[IoSlice<'_>]) -> SocketEvent<'static> {
        let (socket, fd) = (self.id, self.fd.as_fd());
        let accepted = match calls::send(fd, None, parts, &mut Control::new()) {
            Ok(n) => n as u32,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => {
                return SocketEvent::Failed { socket, error: explain(&error, self.v4) };
            }
        };
        SocketEvent::Sent { socket, accepted, room: room(fd) }
    }

    fn peek<'a>(
        &self,
        skip: Option<(&mut [u8], usize)>,
        len: usize,
        headers: usize,
        received: &'a mut FrameBatch,
    ) -> Executed<'a> {
        let socket = self.id;
        let Some(buf) = received.spare() else { return Executed::NoRoom };
        let Some(room) = buf.get_mut(VNET_LEN + headers..VNET_LEN + headers + len) else {
            return Executed::Done;
        };
        let copied = skip.is_some();
        let result = match skip {
            Some((scratch, offset)) => calls::peek_after(self.fd.as_fd(), scratch, offset, room),
            None => calls::peek(self.fd.as_fd(), room).map(|n| (n, n == 0)),
        };
        match result {
            // A peek that cannot begin behind urgent data never sees what is there.
            Ok((0, false)) if self.urgent && copied => {
                Executed::Event(SocketEvent::Failed { socket, error: SocketError::Other })
            }
            Ok((0, eof)) => Executed::Event(SocketEvent::Drained { socket, eof }),
            Ok((n, _)) => match take_in(received, headers, n) {
                Some(slot) => {
                    let frame = received.frame(usize::from(slot.0));
                    let more = n == len || self.urgent;
                    Executed::Event(SocketEvent::Data { socket, slot, frame, more })
                }
                None => Executed::Done,
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Executed::Event(SocketEvent::Drained { socket, eof: false })
            }
            Err(error) => {
                let error = explain(&error, self.v4);
                Executed::Event(SocketEvent::Failed { socket, error })
            }
        }
    }
}
