//! Errors of the host's sockets, as far as a container must know.

use std::io;

use crate::stage::sockets::SocketError;

/// What an error means to a container.
pub(super) fn explain(error: &io::Error, v4: bool) -> SocketError {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => SocketError::Refused,
        Some(libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED) => SocketError::Reset,
        Some(libc::ENETUNREACH | libc::EAFNOSUPPORT | libc::ENETDOWN) => {
            SocketError::NetUnreachable
        }
        // Of IPv6: no address of ours to speak from. Of IPv4: no port left.
        Some(libc::EADDRNOTAVAIL) if !v4 => SocketError::NetUnreachable,
        Some(libc::EHOSTUNREACH | libc::EHOSTDOWN) => SocketError::HostUnreachable,
        Some(libc::ETIMEDOUT) => SocketError::TimedOut,
        Some(libc::EACCES | libc::EPERM | libc::EPROTONOSUPPORT) => SocketError::Prohibited,
        Some(libc::EMSGSIZE) => SocketError::TooBig(0),
        Some(
            libc::EMFILE
            | libc::ENFILE
            | libc::ENOBUFS
            | libc::ENOMEM
            | libc::EADDRNOTAVAIL
            | libc::EAGAIN,
        ) => SocketError::Limit,
        _ => SocketError::Other,
    }
}
