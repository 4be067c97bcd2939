//! Datagrams of host sockets: trains both ways, local addresses, the error queue.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};

use super::host_calls::{self as calls, Control, Name, Received};
use super::host_errors::explain;
use super::host_ping::RawId;
use super::host_sockets::Features;
use crate::packet::FrameBatch;
use crate::stage::sockets::{FrameSlot, SockAddr, SocketError, SocketEvent, Via};
use crate::wire::addr::Addr;
use crate::wire::icmp;
use crate::wire::vnet::HEADER_LEN as VNET_LEN;

/// Buffers asked for. The kernel doubles the number and counts some 2.3 KiB for a datagram of 1,400
/// bytes, so this holds 3,600 of them: 14 ms of 250,000 a second, longer than we are ever away for a
/// turn of others or for another process's share of the processor. The default holds a fifteenth of it.
const BUFFER: i32 = 4 << 20;

/// Sets what a datagram socket can do. All of it is optional: the error is the kernel's "no".
pub(super) fn prepare(fd: BorrowedFd<'_>, v4: bool, features: Features) {
    let set = |level, name| {
        let _ = calls::set_option(fd, level, name, &[1]);
    };
    if v4 {
        set(libc::IPPROTO_IP, libc::IP_RECVERR);
    } else {
        set(libc::IPPROTO_IPV6, libc::IPV6_RECVERR);
        // A dual-stack socket meets ICMP errors of both families.
        set(libc::IPPROTO_IP, libc::IP_RECVERR);
    }
    if features.udp_gro {
        set(libc::SOL_UDP, libc::UDP_GRO);
    }
    enlarge_buffers(fd);
}

/// Gives a socket buffers for bursts.
pub(super) fn enlarge_buffers(fd: BorrowedFd<'_>) {
    enlarge(fd, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF);
    enlarge(fd, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF);
}

/// Root may have any buffer, others what net.core.rmem_max and wmem_max allow.
fn enlarge(fd: BorrowedFd<'_>, force: i32, ask: i32) {
    if calls::set_option(fd, libc::SOL_SOCKET, force, &[BUFFER]).is_err() {
        let _ = calls::set_option(fd, libc::SOL_SOCKET, ask, &[BUFFER]);
    }
}

/// How a datagram leaves.
#[derive(Clone, Copy)]
pub(super) struct Outgoing {
    pub(super) from: Option<Addr>,
    pub(super) to: SockAddr,
    pub(super) segment: u16,
    pub(super) ttl: Option<u8>,
    /// Family of the socket.
    pub(super) v4: bool,
}

/// Sends a datagram or a train. A full socket loses it, as a full device would, and says "would block".
pub(super) fn send(
    fd: BorrowedFd<'_>,
    datagram: Outgoing,
    parts: &[IoSlice<'_>],
    features: Features,
) -> io::Result<()> {
    let bytes: usize = parts.iter().map(|part| part.len()).sum();
    let train = datagram.segment > 0 && bytes > usize::from(datagram.segment);
    if !train || features.udp_segment {
        match send_once(fd, datagram, parts, train) {
            // The way out cannot cut trains (no checksum offload, a smaller MTU): one by one, then.
            Err(error) if train && is_no_train(&error) => {}
            other => return other,
        }
    }
    for part in parts {
        for piece in part.chunks(usize::from(datagram.segment).max(1)) {
            send_once(fd, datagram, &[IoSlice::new(piece)], false)?;
        }
    }
    Ok(())
}

fn is_no_train(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE))
}

fn send_once(
    fd: BorrowedFd<'_>,
    datagram: Outgoing,
    parts: &[IoSlice<'_>],
    train: bool,
) -> io::Result<()> {
    let (name, mut control) = address(datagram, train);
    // An error that an earlier datagram met is reported to the next call once; the error queue has
    // the details, and this datagram has not been sent.
    for again in [true, false] {
        match calls::send(fd, Some(&name), parts, &mut control) {
            Err(error) if again && is_earlier(&error) => {}
            other => return other.map(drop),
        }
    }
    Ok(())
}

/// Where a datagram goes, and how, in the kernel's form.
pub(super) fn address(datagram: Outgoing, train: bool) -> (Name, Control) {
    let name = Name::new(datagram.to.addr, datagram.to.port, datagram.v4);
    let mut control = Control::new();
    if train {
        control.push(libc::SOL_UDP, libc::UDP_SEGMENT, &datagram.segment.to_ne_bytes());
    }
    if let Some(ttl) = datagram.ttl {
        let ttl = i32::from(ttl).to_ne_bytes();
        if datagram.to.addr.is_v4() {
            control.push(libc::IPPROTO_IP, libc::IP_TTL, &ttl);
        } else {
            control.push(libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, &ttl);
        }
    }
    if let Some(from) = datagram.from {
        push_local_address(&mut control, from, datagram.v4);
    }
    (name, control)
}

fn is_earlier(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ECONNREFUSED | libc::EHOSTUNREACH))
}

/// Has the kernel cut datagrams for links that are too narrow, or refuse them (ip(7), ipv6(7)). Routers
/// may cut what leaves without "don't fragment"; in IPv6 only the host may, after the path's MTU.
pub(super) fn may_fragment(fd: BorrowedFd<'_>, v4: bool, fragment: bool) {
    let (level, name, value) = match (v4, fragment) {
        (true, true) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT),
        (true, false) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO),
        (false, true) => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_WANT),
        (false, false) => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO),
    };
    // No kernel refuses it; if one did, datagrams would be cut after its default.
    let _ = calls::set_option(fd, level, name, &[value]);
    if !v4 {
        // A socket of both families.
        may_fragment(fd, true, fragment);
    }
}

/// What the kernel knows of the narrowest link on the way. It says so of connected sockets only.
pub(super) fn path_mtu(to: SockAddr) -> Option<u16> {
    let v4 = to.addr.is_v4();
    let fd = calls::socket(v4, libc::SOCK_DGRAM, 0).ok()?;
    calls::connect(fd.as_fd(), &Name::new(to.addr, to.port, v4)).ok()?;
    let (level, name) =
        if v4 { (libc::IPPROTO_IP, libc::IP_MTU) } else { (libc::IPPROTO_IPV6, libc::IPV6_MTU) };
    let mut mtu = [0];
    calls::option(fd.as_fd(), level, name, &mut mtu).ok()?;
    u16::try_from(mtu[0]).ok()
}

/// The host's own word about a datagram that it did not send.
pub(super) fn lost(via: Via, error: &io::Error, v4: bool, to: SockAddr) -> SocketEvent<'static> {
    let offender = Addr::UNSPECIFIED;
    let error = match explain(error, v4) {
        SocketError::TooBig(_) => SocketError::TooBig(path_mtu(to).unwrap_or(0)),
        other => other,
    };
    SocketEvent::DatagramError { via, error, offender, to, echo_seq: 0 }
}

/// `struct in_pktinfo` (interface, address to send from, unused) or `struct in6_pktinfo`.
fn push_local_address(control: &mut Control, from: Addr, v4_socket: bool) {
    if v4_socket {
        let mut info = [0; 12];
        info[4..8].copy_from_slice(&from.bytes()[12..]);
        control.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
    } else {
        let mut info = [0; 20];
        info[..16].copy_from_slice(&from.bytes());
        control.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
    }
}

/// Makes a frame of what was read into a batch's room behind `headers` bytes.
pub(super) fn take_in(batch: &mut FrameBatch, headers: usize, n: usize) -> Option<FrameSlot> {
    // Nothing of an earlier frame may be taken for this one's virtio-net header.
    batch.spare()?.get_mut(..VNET_LEN + headers)?.fill(0);
    batch.commit(VNET_LEN + headers + n).ok()?;
    Some(FrameSlot(batch.len() as u16 - 1))
}

/// Sender, local address and train's size.
pub(super) fn described(got: &Received) -> (Option<SockAddr>, Option<Addr>, Option<u16>) {
    let from = got.name.get().map(|(addr, port)| SockAddr { addr, port });
    let (mut to, mut segment) = (None, None);
    for (level, kind, data) in got.control.iter() {
        match (level, kind) {
            (libc::SOL_UDP, libc::UDP_GRO) => {
                segment = data.first_chunk().map(|size| i32::from_ne_bytes(*size) as u16);
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // Interface, address of the host, address in the packet's header.
                to = data.get(4..).and_then(|d| d.first_chunk()).map(|a| Addr::from_v4_bytes(*a));
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                to = data.first_chunk().map(|a| Addr::from_v6_bytes(*a));
            }
            _ => {}
        }
    }
    (from, to, segment)
}

/// Length of `struct sock_extended_err`, which the offender's address follows.
const EXTENDED_ERROR: usize = 16;

/// Reads one entry of the error queue. A raw socket hears of everybody's errors, so those of others
/// are passed over; and so is what the call that sent a datagram was told already.
pub(super) fn receive_error(
    fd: BorrowedFd<'_>,
    via: Via,
    raw: Option<RawId>,
) -> SocketEvent<'static> {
    let none = SocketEvent::ErrorsDrained { via };
    let mut sent = [0; icmp::HEADER_LEN];
    let got = loop {
        let Ok(got) = calls::receive(fd, &mut sent, libc::MSG_ERRQUEUE) else { return none };
        if raw.is_none_or(|raw| raw.sent(&sent)) && !is_own(&got) {
            break got;
        }
    };
    let errors = [(libc::IPPROTO_IP, libc::IP_RECVERR), (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)];
    let entry = got.control.iter().find(|(level, kind, _)| errors.contains(&(*level, *kind)));
    let to = got.name.get().map(|(addr, port)| SockAddr { addr, port });
    let (Some((_, _, data)), Some(to)) = (entry, to) else { return none };
    let Some((error, offender)) = read_error(data) else { return none };
    // Of a ping socket: the request that was lost begins with its ICMP header.
    let echo_seq = u16::from_be_bytes([sent[6], sent[7]]);
    SocketEvent::DatagramError { via, error, offender, to, echo_seq }
}

fn is_own(got: &Received) -> bool {
    let errors = [(libc::IPPROTO_IP, libc::IP_RECVERR), (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)];
    got.control.iter().any(|(level, kind, data)| {
        errors.contains(&(level, kind)) && data.get(4) == Some(&libc::SO_EE_ORIGIN_LOCAL)
    })
}

fn read_error(data: &[u8]) -> Option<(SocketError, Addr)> {
    let errno = i32::from_ne_bytes(*data.first_chunk()?);
    let (origin, kind, code) = (*data.get(4)?, *data.get(5)?, *data.get(6)?);
    let info = u32::from_ne_bytes(*data.get(8..)?.first_chunk()?);
    let offender = calls::parse_name(data.get(EXTENDED_ERROR..)?).map(|(addr, _)| addr);
    let too_big = SocketError::TooBig(u16::try_from(info).unwrap_or(u16::MAX));
    let error = match (origin, kind, code) {
        (libc::SO_EE_ORIGIN_ICMP, icmp::v4::TIME_EXCEEDED, _)
        | (libc::SO_EE_ORIGIN_ICMP6, icmp::v6::TIME_EXCEEDED, _) => SocketError::TimeExceeded,
        (libc::SO_EE_ORIGIN_ICMP, icmp::v4::UNREACHABLE, icmp::v4::CODE_TOO_BIG)
        | (libc::SO_EE_ORIGIN_ICMP6, icmp::v6::TOO_BIG, _) => too_big,
        _ if errno == libc::EMSGSIZE => too_big,
        _ => explain(&io::Error::from_raw_os_error(errno), origin != libc::SO_EE_ORIGIN_ICMP6),
    };
    Some((error, offender.unwrap_or(Addr::UNSPECIFIED)))
}
