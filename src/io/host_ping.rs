//! Sockets for echo requests: ping sockets where the host permits them, raw ones where we have
//! CAP_NET_RAW.
//!
//! A ping socket has the kernel choose the identifier, fill in the checksum and sort out the replies. A
//! raw one is sent a copy of every ICMP packet of the host (raw(7)), so a filter in the kernel lets only
//! replies with our identifier through, and identifier and checksum are written here.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};

use super::features::Feature;
use super::{host_calls as calls, random};
use crate::wire::icmp;
use crate::wire::{checksum, ipv4};

/// A raw socket's identifier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RawId(u16);

/// Opens a socket for echo requests; with an identifier if it is a raw one.
pub(super) fn open(v4: bool) -> io::Result<(OwnedFd, Option<RawId>)> {
    let protocol = if v4 { libc::IPPROTO_ICMP } else { libc::IPPROTO_ICMPV6 };
    let ping = if Feature::PingSockets.is_allowed() {
        calls::socket(v4, libc::SOCK_DGRAM, protocol)
    } else {
        Err(io::Error::from_raw_os_error(libc::EACCES))
    };
    let refused = match ping {
        Ok(fd) => return Ok((fd, None)),
        Err(error) => error,
    };
    match refused.raw_os_error() {
        Some(libc::EACCES | libc::EPERM | libc::EPROTONOSUPPORT) => {}
        _ => return Err(refused),
    }
    // What the ping socket met is what the container is told.
    raw(v4, protocol).map_err(|_| refused)
}

fn raw(v4: bool, protocol: i32) -> io::Result<(OwnedFd, Option<RawId>)> {
    let fd = calls::socket(v4, libc::SOCK_RAW, protocol)?;
    let id = RawId(random::number()? as u16);
    calls::attach_filter(fd.as_fd(), &filter(v4, id))?;
    Ok((fd, Some(id)))
}

/// What a raw socket puts before the message: of IPv4 the packet's header, of IPv6 nothing.
pub(super) const fn before_message(v4: bool) -> u16 {
    if v4 { ipv4::HEADER_LEN as u16 } else { 0 }
}

/// Lets replies to our identifier through. An IPv4 header with options is passed over: the message
/// would not lie where it is looked for.
fn filter(v4: bool, id: RawId) -> Vec<libc::sock_filter> {
    let op = |code: u32, k: u32, if_false: u8| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: if_false,
        k,
    };
    let byte = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    let half = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
    let is = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let at = u32::from(before_message(v4));
    let reply = if v4 { icmp::v4::ECHO_REPLY } else { icmp::v6::ECHO_REPLY };
    let mut program = Vec::with_capacity(8);
    if v4 {
        program.extend([op(byte, 0, 0), op(is, 0x45, 5)]);
    }
    program.extend([
        op(byte, at, 0),
        op(is, reply.into(), 3),
        op(half, at + 4, 0),
        op(is, id.0.into(), 1),
        op(libc::BPF_RET | libc::BPF_K, u32::MAX, 0),
        op(libc::BPF_RET | libc::BPF_K, 0, 0),
    ]);
    program
}

impl RawId {
    /// A container's request as it leaves by this socket. The kernel sums ICMPv6 itself (RFC 3542 3.1).
    pub(super) fn request(self, parts: &[IoSlice<'_>]) -> Vec<u8> {
        let bytes = parts.iter().flat_map(|part| part.iter().copied());
        let mut message: Vec<u8> = bytes.collect();
        if let Some(place) = message.get_mut(2..6) {
            let [high, low] = self.0.to_be_bytes();
            place.copy_from_slice(&[0, 0, high, low]);
        }
        let sum = !checksum::sum(&message);
        if let Some(place) = message.get_mut(2..4) {
            place.copy_from_slice(&sum.to_be_bytes());
        }
        message
    }

    /// Whether a message that was lost had been sent by this socket.
    pub(super) fn sent(self, message: &[u8]) -> bool {
        message.get(4..6) == Some(&self.0.to_be_bytes())
    }
}
