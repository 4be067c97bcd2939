//! What changes about the host's interfaces, addresses and routes, as it happens.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};

use super::NetlinkError;
use crate::base::time::Span;

/// RTMGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR and _IPV6_ROUTE of linux/rtnetlink.h.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// Why a wait ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Woken {
    /// Something changed.
    Changed,
    /// Nothing did.
    Quiet,
    /// It was stopped.
    Stopped,
}

/// A socket that hears of changes in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Monitor {
    socket: Socket,
    stop: Arc<OwnedFd>,
}

/// Ends the waiting of a [`Monitor`] when it is dropped.
#[derive(Debug)]
pub struct Stop(Arc<OwnedFd>);

impl Monitor {
    /// Hears of changes from now on, and what stops it.
    pub fn open() -> Result<(Self, Stop), NetlinkError> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(NetlinkError::Open)?;
        socket.bind(&SocketAddr::new(0, GROUPS)).map_err(NetlinkError::Open)?;
        socket.set_non_blocking(true).map_err(NetlinkError::Open)?;
        let stop = rustix::event::eventfd(0, EventfdFlags::CLOEXEC);
        let stop = Arc::new(stop.map_err(|error| NetlinkError::Open(error.into()))?);
        Ok((Self { socket, stop: Arc::clone(&stop) }, Stop(stop)))
    }

    /// Waits for a change, or for that time at most.
    pub fn wait(&self, patience: Span) -> io::Result<Woken> {
        let secs = (patience.0 / 1_000_000_000).cast_signed();
        let timeout = Timespec { tv_sec: secs, tv_nsec: (patience.0 % 1_000_000_000) as _ };
        #[allow(unsafe_code, reason = "the socket's type has no safe way to borrow its descriptor")]
        // SAFETY: the socket is open as long as `self`, which outlives the borrow.
        let socket = unsafe { BorrowedFd::borrow_raw(self.socket.as_raw_fd()) };
        let mut fds = [
            PollFd::new(&*self.stop, PollFlags::IN),
            PollFd::from_borrowed_fd(socket, PollFlags::IN),
        ];
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if !fds[0].revents().is_empty() {
            return Ok(Woken::Stopped);
        }
        if fds[1].revents().is_empty() {
            return Ok(Woken::Quiet);
        }
        // What changed is read anew by whoever wants it, so the messages themselves do not matter, nor
        // does it that some were lost (ENOBUFS).
        let mut buf = Vec::with_capacity(32 * 1024);
        loop {
            buf.clear();
            match self.socket.recv(&mut buf, 0) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(_) => return Ok(Woken::Changed),
            }
        }
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        // A full counter, the only way to fail, stops it just as well.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_monitor_that_is_stopped_waits_no_longer() {
        let (monitor, stop) = Monitor::open().unwrap();
        drop(stop);
        assert_eq!(monitor.wait(Span::from_secs(60)).unwrap(), Woken::Stopped);
    }

    #[test]
    fn without_any_change_the_time_is_over_some_time() {
        let (monitor, _stop) = Monitor::open().unwrap();
        assert_eq!(monitor.wait(Span::from_millis(1)).unwrap(), Woken::Quiet);
    }
}
