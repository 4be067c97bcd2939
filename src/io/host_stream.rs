//! Two questions to a stream socket of the host.

use std::io;
use std::os::fd::BorrowedFd;

use super::host_calls as calls;
use crate::stage::sockets::Room;

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
