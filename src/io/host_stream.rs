//! Stream sockets of the host: how they are set up, and small questions to them.

use std::io;
use std::os::fd::BorrowedFd;

use super::host_calls as calls;
use crate::stage::sockets::Room;

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
pub(super) fn discard(fd: BorrowedFd<'_>, mut len: usize) -> io::Result<()> {
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
