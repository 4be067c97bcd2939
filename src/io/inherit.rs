//! Descriptors that whoever started this program left open for it.
#![allow(unsafe_code, reason = "a number becomes a descriptor")]

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::{FdFlags, fcntl_setfd};

/// Takes over the descriptor of this number, and keeps it from processes that are started from here.
/// Each number only once, and before anything else is opened: a later descriptor could have it.
pub fn take(number: RawFd) -> io::Result<OwnedFd> {
    if number <= 2 {
        return Err(io::Error::other("0, 1 and 2 are the standard streams"));
    }
    // SAFETY: only borrowed for the next call, which fails if there is no such descriptor.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl_setfd(borrowed, FdFlags::CLOEXEC)?;
    // SAFETY: it is open, and the caller says that nobody else here has it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use std::os::fd::IntoRawFd;

    use super::*;

    #[test]
    fn a_number_without_a_descriptor_is_an_error() {
        assert!(take(1).is_err());
        assert!(take(1_000_000).is_err());
    }

    #[test]
    fn what_is_taken_is_not_inherited_further() {
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        let taken = take(reader.into_raw_fd()).unwrap();
        assert!(rustix::io::fcntl_getfd(&taken).unwrap().contains(FdFlags::CLOEXEC));
    }
}
