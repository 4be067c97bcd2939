//! Socket system calls of the socket uplink as safe functions: bytes in, bytes out, `io::Result`.
//!
//! Addresses and control messages are encoded and decoded as bytes, so that only the calls themselves
//! are unsafe.

#![allow(unsafe_code, reason = "socket calls without a safe wrapper for what we need of them")]

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::wire::addr::Addr;

/// Room for a socket address of either family.
pub(super) const NAME_MAX: usize = 28;

/// A socket address as the kernel has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    bytes: [u8; NAME_MAX],
    len: usize,
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Name {
    /// The address for a socket of one family: an IPv4 address for an IPv6 socket is mapped.
    pub(super) fn new(addr: Addr, port: u16, v4_socket: bool) -> Self {
        let mut bytes = [0; NAME_MAX];
        let family = if v4_socket { libc::AF_INET } else { libc::AF_INET6 } as u16;
        bytes[..2].copy_from_slice(&family.to_ne_bytes());
        bytes[2..4].copy_from_slice(&port.to_be_bytes());
        if v4_socket {
            bytes[4..8].copy_from_slice(&addr.bytes()[12..]);
        } else {
            bytes[8..24].copy_from_slice(&addr.bytes());
        }
        Self { bytes, len: if v4_socket { 16 } else { NAME_MAX } }
    }

    /// Room for the kernel to fill in.
    pub(super) fn empty() -> Self {
        Self { bytes: [0; NAME_MAX], len: 0 }
    }

    /// What the kernel filled in; mapped addresses read as IPv4.
    pub(super) fn get(&self) -> Option<(Addr, u16)> {
        parse_name(self.bytes.get(..self.len)?)
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Reads a socket address.
pub(super) fn parse_name(bytes: &[u8]) -> Option<(Addr, u16)> {
    let family = u16::from_ne_bytes(*bytes.first_chunk()?);
    let port = u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]);
    let addr = match i32::from(family) {
        libc::AF_INET => Addr::from_v4_bytes(*bytes.get(4..)?.first_chunk()?),
        libc::AF_INET6 => Addr::from_v6_bytes(*bytes.get(8..)?.first_chunk()?),
        _ => return None,
    };
    Some((addr, port))
}

/// Control messages, aligned as the kernel wants them.
#[derive(Clone, Copy, Debug)]
#[repr(align(8))]
pub(super) struct Control {
    bytes: [u8; Self::MAX],
    len: usize,
}

impl PartialEq for Control {
    fn eq(&self, other: &Self) -> bool {
        self.bytes[..self.len] == other.bytes[..other.len]
    }
}

/// Length of `struct cmsghdr`: length, level, type.
const CMSG_HEADER: usize = size_of::<usize>() + 8;

impl Control {
    const MAX: usize = 256;

    pub(super) fn new() -> Self {
        Self { bytes: [0; Self::MAX], len: 0 }
    }

    /// Appends a message; the caller's are few and small.
    pub(super) fn push(&mut self, level: i32, kind: i32, data: &[u8]) {
        let len = CMSG_HEADER + data.len();
        let end = self.len + len.next_multiple_of(size_of::<usize>());
        let Some(room) = self.bytes.get_mut(self.len..end) else { return };
        room[..size_of::<usize>()].copy_from_slice(&len.to_ne_bytes());
        room[CMSG_HEADER - 8..CMSG_HEADER - 4].copy_from_slice(&level.to_ne_bytes());
        room[CMSG_HEADER - 4..CMSG_HEADER].copy_from_slice(&kind.to_ne_bytes());
        room[CMSG_HEADER..len].copy_from_slice(data);
        self.len = end;
    }

    /// The messages: level, type, data.
    pub(super) fn iter(&self) -> impl Iterator<Item = (i32, i32, &[u8])> {
        let mut rest = &self.bytes[..self.len];
        std::iter::from_fn(move || {
            let len = usize::from_ne_bytes(*rest.first_chunk()?);
            let level = i32::from_ne_bytes(*rest.get(CMSG_HEADER - 8..)?.first_chunk()?);
            let kind = i32::from_ne_bytes(*rest.get(CMSG_HEADER - 4..)?.first_chunk()?);
            let data = rest.get(CMSG_HEADER..len)?;
            rest = rest.get(len.next_multiple_of(size_of::<usize>())..).unwrap_or_default();
            Some((level, kind, data))
        })
    }
}

fn check(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn check_int(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A new non-blocking socket.
pub(super) fn socket(v4: bool, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    let family = if v4 { libc::AF_INET } else { libc::AF_INET6 };
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: takes and gives numbers only.
    let fd = unsafe { libc::socket(family, kind | flags, protocol) };
    check_int(fd)?;
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Begins to connect.
pub(super) fn connect(fd: BorrowedFd<'_>, name: &Name) -> io::Result<()> {
    let bytes = name.bytes();
    // SAFETY: the kernel reads `len` bytes of a live buffer.
    check_int(unsafe {
        libc::connect(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len() as libc::socklen_t)
    })
}

/// Binds to a local address.
pub(super) fn bind(fd: BorrowedFd<'_>, name: &Name) -> io::Result<()> {
    let bytes = name.bytes();
    // SAFETY: the kernel reads `len` bytes of a live buffer.
    check_int(unsafe {
        libc::bind(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len() as libc::socklen_t)
    })
}

/// Listens with the longest backlog that the kernel grants.
pub(super) fn listen(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes numbers only; the kernel lowers the backlog to net.core.somaxconn.
    check_int(unsafe { libc::listen(fd.as_raw_fd(), i32::from(u16::MAX)) })
}

/// Takes a connection: its socket and its client.
pub(super) fn accept(fd: BorrowedFd<'_>) -> io::Result<(OwnedFd, Name)> {
    let mut name = Name::empty();
    let mut len = NAME_MAX as libc::socklen_t;
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let room = name.bytes.as_mut_ptr().cast();
    // SAFETY: the kernel writes at most `len` bytes into the buffer, which is that long.
    let fd = unsafe { libc::accept4(fd.as_raw_fd(), room, &raw mut len, flags) };
    check_int(fd)?;
    name.len = (len as usize).min(NAME_MAX);
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    Ok((unsafe { OwnedFd::from_raw_fd(fd) }, name))
}

/// The local address.
pub(super) fn local_name(fd: BorrowedFd<'_>) -> io::Result<Name> {
    let mut name = Name::empty();
    let mut len = NAME_MAX as libc::socklen_t;
    let room = name.bytes.as_mut_ptr().cast();
    // SAFETY: the kernel writes at most `len` bytes into the buffer, which is that long.
    check_int(unsafe { libc::getsockname(fd.as_raw_fd(), room, &raw mut len) })?;
    name.len = (len as usize).min(NAME_MAX);
    Ok(name)
}

/// Closes the sending half.
pub(super) fn shutdown_write(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes numbers only.
    check_int(unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_WR) })
}

/// Sets an option whose value is a list of integers (mostly one).
pub(super) fn set_option(
    fd: BorrowedFd<'_>,
    level: i32,
    name: i32,
    value: &[i32],
) -> io::Result<()> {
    let len = size_of_val(value) as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of a live buffer.
    check_int(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value.as_ptr().cast(), len) })
}

/// Has the kernel pass on only what a program of classic BPF accepts.
pub(super) fn attach_filter(fd: BorrowedFd<'_>, program: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: program.len() as libc::c_ushort,
        filter: program.as_ptr().cast_mut(),
    };
    let (level, name) = (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER);
    let len = size_of::<libc::sock_fprog>() as libc::socklen_t;
    let value = (&raw const program).cast();
    // SAFETY: the kernel reads a structure of `len` bytes and the program that it names, which both live
    // until it returns; it copies the program.
    check_int(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value, len) })
}

/// Reads an option into a list of integers; gives the number of those that the kernel filled.
pub(super) fn option(
    fd: BorrowedFd<'_>,
    level: i32,
    name: i32,
    value: &mut [u32],
) -> io::Result<usize> {
    let mut len = size_of_val(value) as libc::socklen_t;
    let room = value.as_mut_ptr().cast();
    // SAFETY: the kernel writes at most `len` bytes into the buffer, which is that long.
    check_int(unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, room, &raw mut len) })?;
    Ok(len as usize / size_of::<u32>())
}

fn message() -> libc::msghdr {
    // SAFETY: all members are integers and pointers, for which zero is a value.
    unsafe { std::mem::zeroed() }
}

/// Sends, to a name if one is given.
pub(super) fn send(
    fd: BorrowedFd<'_>,
    name: Option<&Name>,
    parts: &[IoSlice<'_>],
    control: &mut Control,
) -> io::Result<usize> {
    let mut message = message();
    if let Some(name) = name {
        message.msg_name = name.bytes().as_ptr().cast_mut().cast();
        message.msg_namelen = name.len as libc::socklen_t;
    }
    // `IoSlice` is laid out as `iovec`.
    message.msg_iov = parts.as_ptr().cast_mut().cast();
    message.msg_iovlen = parts.len() as _;
    if control.len > 0 {
        message.msg_control = control.bytes.as_mut_ptr().cast();
        message.msg_controllen = control.len as _;
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: every pointer is to a live buffer of the length beside it; the kernel only reads them.
    check(unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const message, flags) })
}

/// The most datagrams that one call sends.
pub(super) const SEND_MAX: usize = 32;

/// A datagram of several: where to, how, and which pieces it has among those of all.
#[derive(Clone, Debug)]
pub(super) struct Addressed {
    pub(super) name: Name,
    pub(super) control: Control,
    pub(super) pieces: std::ops::Range<usize>,
}

/// Sends datagrams in order until one fails. Gives the number of those before it; at least one, or an
/// error.
pub(super) fn send_many(
    fd: BorrowedFd<'_>,
    datagrams: &mut [Addressed],
    parts: &[IoSlice<'_>],
) -> io::Result<usize> {
    let mut messages = [libc::mmsghdr { msg_hdr: message(), msg_len: 0 }; SEND_MAX];
    let mut wanted = 0;
    for (message, one) in messages.iter_mut().zip(datagrams) {
        let pieces = parts.get(one.pieces.clone()).unwrap_or_default();
        let header = &mut message.msg_hdr;
        header.msg_name = one.name.bytes.as_mut_ptr().cast();
        header.msg_namelen = one.name.len as libc::socklen_t;
        // `IoSlice` is laid out as `iovec`.
        header.msg_iov = pieces.as_ptr().cast_mut().cast();
        header.msg_iovlen = pieces.len() as _;
        if one.control.len > 0 {
            header.msg_control = one.control.bytes.as_mut_ptr().cast();
            header.msg_controllen = one.control.len as _;
        }
        wanted += 1;
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let list = messages.as_mut_ptr();
    // SAFETY: `wanted` headers are filled in; every pointer in them is to a live buffer of the length
    // beside it, which the kernel only reads.
    check(unsafe { libc::sendmmsg(fd.as_raw_fd(), list, wanted, flags) } as isize)
}

/// What a receive brought beside the bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    pub(super) len: usize,
    pub(super) name: Name,
    pub(super) control: Control,
    pub(super) truncated: bool,
}

/// Receives a datagram with its control messages.
pub(super) fn receive(fd: BorrowedFd<'_>, buf: &mut [u8], flags: i32) -> io::Result<Received> {
    let mut parts = [IoSliceMut::new(buf)];
    let (mut name, mut control) = (Name::empty(), Control::new());
    let mut message = message();
    message.msg_name = name.bytes.as_mut_ptr().cast();
    message.msg_namelen = NAME_MAX as libc::socklen_t;
    message.msg_iov = parts.as_mut_ptr().cast();
    message.msg_iovlen = 1;
    message.msg_control = control.bytes.as_mut_ptr().cast();
    message.msg_controllen = Control::MAX as _;
    let flags = flags | libc::MSG_DONTWAIT;
    // SAFETY: every pointer is to a live buffer, writable for the length beside it.
    let len = check(unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, flags) })?;
    name.len = (message.msg_namelen as usize).min(NAME_MAX);
    control.len = message.msg_controllen.min(Control::MAX);
    let truncated = message.msg_flags & libc::MSG_TRUNC != 0;
    Ok(Received { len, name, control, truncated })
}

impl Received {
    pub(super) fn nothing() -> Self {
        Self { len: 0, name: Name::empty(), control: Control::new(), truncated: false }
    }
}

/// The most datagrams that one call receives.
pub(super) const RECEIVE_MAX: usize = 32;

/// Receives up to `got.len()` datagrams at once: the first into `first`, each further one into its
/// `stride` bytes of `others`. Gives their number; at least one, or an error.
pub(super) fn receive_many(
    fd: BorrowedFd<'_>,
    first: &mut [u8],
    (others, stride): (&mut [u8], usize),
    got: &mut [Received],
) -> io::Result<usize> {
    let none = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
    let mut parts = [none; RECEIVE_MAX];
    let mut messages = [libc::mmsghdr { msg_hdr: message(), msg_len: 0 }; RECEIVE_MAX];
    let rooms = std::iter::once(first).chain(others.chunks_exact_mut(stride));
    let mut wanted = 0;
    for (((message, part), room), one) in
        messages.iter_mut().zip(&mut parts).zip(rooms).zip(got.iter_mut())
    {
        *part = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
        let header = &mut message.msg_hdr;
        header.msg_name = one.name.bytes.as_mut_ptr().cast();
        header.msg_namelen = NAME_MAX as libc::socklen_t;
        header.msg_iov = part;
        header.msg_iovlen = 1;
        header.msg_control = one.control.bytes.as_mut_ptr().cast();
        header.msg_controllen = Control::MAX as _;
        wanted += 1;
    }
    let (list, flags) = (messages.as_mut_ptr(), libc::MSG_DONTWAIT);
    // SAFETY: `wanted` headers are filled in; every pointer in them is to a live buffer, writable for the
    // length beside it, and no two overlap.
    let n = unsafe { libc::recvmmsg(fd.as_raw_fd(), list, wanted, flags, std::ptr::null_mut()) };
    let n = check(n as isize)?;
    for (message, one) in messages.iter().zip(got).take(n) {
        let header = &message.msg_hdr;
        one.len = message.msg_len as usize;
        one.name.len = (header.msg_namelen as usize).min(NAME_MAX);
        one.control.len = header.msg_controllen.min(Control::MAX);
        one.truncated = header.msg_flags & libc::MSG_TRUNC != 0;
    }
    Ok(n)
}

/// Copies bytes of a stream without taking them, from where SO_PEEK_OFF says.
pub(super) fn peek(fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<usize> {
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    let (room, len) = (buf.as_mut_ptr().cast(), buf.len());
    // SAFETY: the kernel writes at most `len` bytes into the buffer, which is that long.
    check(unsafe { libc::recv(fd.as_raw_fd(), room, len, flags) })
}

/// Pieces of scratch that one peek may skip over.
const SKIPS_MAX: usize = 255;

/// The same for kernels without SO_PEEK_OFF: what comes before `skip` is copied into `scratch`, over
/// and over. Gives the bytes in `buf`, and whether the stream has ended.
pub(super) fn peek_after(
    fd: BorrowedFd<'_>,
    scratch: &mut [u8],
    skip: usize,
    buf: &mut [u8],
) -> io::Result<(usize, bool)> {
    let none = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
    let mut parts = [none; SKIPS_MAX + 1];
    let whole = skip.div_ceil(scratch.len().max(1));
    if whole > SKIPS_MAX {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let mut left = skip;
    for part in &mut parts[..whole] {
        let len = left.min(scratch.len());
        *part = libc::iovec { iov_base: scratch.as_mut_ptr().cast(), iov_len: len };
        left -= len;
    }
    parts[whole] = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    let mut message = message();
    message.msg_iov = parts.as_mut_ptr();
    message.msg_iovlen = (whole + 1) as _;
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: every piece is a live buffer, writable for its length; that several are one buffer only
    // means that later bytes overwrite earlier ones there.
    let len = check(unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, flags) })?;
    Ok((len.saturating_sub(skip), len == 0))
}

/// Takes `len` bytes off a stream without copying them.
pub(super) fn discard(fd: BorrowedFd<'_>, len: usize) -> io::Result<usize> {
    let flags = libc::MSG_TRUNC | libc::MSG_DONTWAIT;
    // SAFETY: with MSG_TRUNC a stream's bytes are dropped and not copied (tcp(7)), so the null buffer is
    // never written.
    check(unsafe { libc::recv(fd.as_raw_fd(), std::ptr::null_mut(), len, flags) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_survive_the_kernel_s_form() {
        for (text, v4) in [("192.0.2.1", true), ("192.0.2.1", false), ("2001:db8::1", false)] {
            let addr: Addr = text.parse().unwrap();
            assert_eq!(Name::new(addr, 80, v4).get(), Some((addr, 80)));
        }
        assert_eq!(parse_name(&[]), None);
        assert_eq!(parse_name(&[0xff; 28]), None);
    }

    #[test]
    fn control_messages_are_read_as_they_were_written() {
        let mut control = Control::new();
        control.push(17, 103, &1400_u16.to_ne_bytes());
        control.push(0, 8, &[1; 12]);
        let read: Vec<_> = control.iter().map(|(l, k, d)| (l, k, d.len())).collect();
        assert_eq!(read, [(17, 103, 2), (0, 8, 12)]);
    }
}
