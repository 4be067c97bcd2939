//! A packet socket on a network card, with the virtio-net header: the `packet` uplink.
//!
//! It speaks the same language as a TAP: ten bytes of [`crate::wire::vnet`] header, then a frame,
//! which may be a super-frame with an unfinished checksum, in both directions. The kernel cuts and
//! completes what the card cannot do itself.
//!
//! A filter in the kernel passes only what concerns us: frames to our own Ethernet address (the card
//! is promiscuous while the socket lives) and to groups. Frames with a VLAN tag belong to another
//! network; the kernel strips the tag before a packet socket sees the frame, so they would look like
//! ours if the filter did not drop them. What this machine itself sends is not shown to us.
//!
//! A socket that shares the host's address is not promiscuous and passes less: see [`filter`].
//!
//! A receive buffer that is too small loses frames in silence: [`PacketSocket::take_stats`] tells.
#![allow(unsafe_code, reason = "packet socket options and recvmmsg have no safe wrapper")]

mod filter;

use std::io;
use std::mem::size_of;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::netlink::{Netlink, NetlinkError};
use crate::base::limits::{BATCH_FRAMES_MAX, PACKET_RECEIVE_BYTES, PACKET_SEND_BYTES};
use crate::wire::mac::Mac;

/// All protocols, in network byte order.
const ALL: u16 = (libc::ETH_P_ALL as u16).to_be();

/// A socket bound to one interface.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
    interface: u32,
    receive_bytes: usize,
}

/// What the kernel counted since the last time it was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PacketStats {
    /// Frames that passed the filter, dropped ones included.
    pub packets: u32,
    /// Frames that found the receive buffer full.
    pub drops: u32,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum PacketError {
    /// Looking for the interface failed, or it does not exist.
    #[error(transparent)]
    Interface(#[from] NetlinkError),
    /// It carries no Ethernet frames.
    #[error(
        "the interface `{0}` has no Ethernet address, so it cannot be a packet uplink: choose a \
         wired interface, or the `sockets` uplink"
    )]
    NotEthernet(String),
    /// The right is missing.
    #[error(
        "not allowed to open a packet socket: that takes CAP_NET_RAW; run the daemon as root, or \
         give it the capability (`setcap cap_net_raw+ep wharf`), or use the `sockets` uplink"
    )]
    NotPermitted,
    /// The kernel refused something else.
    #[error("the kernel refused {request} on a packet socket: {source}")]
    Refused {
        /// What was asked.
        request: &'static str,
        /// Its answer.
        source: io::Error,
    },
}

impl PacketSocket {
    /// Opens a socket on the interface of that name in the calling thread's network namespace, for
    /// frames to `mac` and to groups.
    pub fn open(interface: &str, mac: Mac) -> Result<Self, PacketError> {
        Self::open_with(interface, true, &filter::own_address(mac))
    }

    /// Opens a socket for what is ours of the host's own address, whose MAC is `mac`: segments and
    /// datagrams to these ports (or to more, if there are very many of them), and what neighbours and
    /// routers say. Everything else stays the kernel's and costs us nothing.
    pub fn open_shared(
        interface: &str,
        mac: Mac,
        ports: &[RangeInclusive<u16>],
    ) -> Result<Self, PacketError> {
        Self::open_with(interface, false, &filter::shared_address(mac, ports))
    }

    fn open_with(
        interface: &str,
        promiscuous: bool,
        program: &[libc::sock_filter],
    ) -> Result<Self, PacketError> {
        let link = Netlink::open()?.link(interface)?;
        if link.mac.is_none() || link.loopback {
            return Err(PacketError::NotEthernet(interface.to_owned()));
        }
        // Protocol zero: nothing is received before the filter is in place and the socket bound.
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: a plain system call; no memory is passed.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if fd < 0 {
            let source = io::Error::last_os_error();
            return Err(match source.raw_os_error() {
                Some(libc::EPERM | libc::EACCES) => PacketError::NotPermitted,
                _ => PacketError::Refused { request: "a socket", source },
            });
        }
        // SAFETY: the descriptor was just opened and is owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let mut socket = Self { fd, interface: link.index, receive_bytes: 0 };
        socket.configure(program)?;
        if promiscuous {
            socket.be_promiscuous()?;
        }
        socket.bind()?;
        Ok(socket)
    }

    fn configure(&mut self, program: &[libc::sock_filter]) -> Result<(), PacketError> {
        let on: libc::c_int = 1;
        self.set(libc::SOL_PACKET, libc::PACKET_VNET_HDR, "PACKET_VNET_HDR", &on)?;
        self.set(libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, "PACKET_IGNORE_OUTGOING", &on)?;
        attach(self.fd.as_fd(), program)?;
        self.receive_bytes = enlarge_buffers(self.fd.as_fd())
            .map_err(|source| PacketError::Refused { request: "SO_RCVBUF", source })?;
        Ok(())
    }

    fn be_promiscuous(&self) -> Result<(), PacketError> {
        let membership = libc::packet_mreq {
            mr_ifindex: self.interface.cast_signed(),
            mr_type: libc::PACKET_MR_PROMISC as libc::c_ushort,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        let request = "PACKET_ADD_MEMBERSHIP";
        self.set(libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, request, &membership)
    }

    /// What changes the ports of a socket that shares the host's address, whoever reads it.
    pub fn shared_ports(&self) -> io::Result<SharedPorts> {
        Ok(SharedPorts(self.fd.try_clone()?))
    }

    fn bind(&self) -> Result<(), PacketError> {
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as libc::c_ushort,
            sll_protocol: ALL,
            sll_ifindex: self.interface.cast_signed(),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: the address is a valid `sockaddr_ll` of the given length.
        let done = unsafe {
            libc::bind(
                self.fd.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if done == 0 { Ok(()) } else { Err(refused("bind")) }
    }

    fn set<T>(
        &self,
        level: libc::c_int,
        option: libc::c_int,
        request: &'static str,
        value: &T,
    ) -> Result<(), PacketError> {
        set_option(self.fd.as_fd(), (level, option), request, value)
    }

    /// Receives one frame with its header. EAGAIN: none is there; see also
    /// [`is_frame_error`](Self::is_frame_error).
    #[inline]
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the buffer is ours for the call, and the kernel writes at most its length.
        let n = unsafe {
            libc::recv(self.fd.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), libc::MSG_TRUNC)
        };
        match usize::try_from(n) {
            Ok(n) if n <= buf.len() => Ok(n),
            Ok(_) => Err(io::Error::from_raw_os_error(libc::EMSGSIZE)),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }

    /// Receives as many frames as there are, up to the number of buffers and
    /// [`BATCH_FRAMES_MAX`], in one system call. The lengths of the first so many are set; zero
    /// stands for a frame that was larger than its buffer.
    pub fn recv_batch(&self, bufs: &mut [&mut [u8]], lengths: &mut [usize]) -> io::Result<usize> {
        let count = bufs.len().min(lengths.len()).min(BATCH_FRAMES_MAX);
        // SAFETY: all zeros is a valid `iovec`: a null pointer with no length.
        let mut iovecs: [libc::iovec; BATCH_FRAMES_MAX] = unsafe { std::mem::zeroed() };
        // SAFETY: all zeros is a valid `mmsghdr`: no name, no vectors, no control data.
        let mut headers: [libc::mmsghdr; BATCH_FRAMES_MAX] = unsafe { std::mem::zeroed() };
        for ((buf, iovec), header) in bufs.iter_mut().zip(&mut iovecs).zip(&mut headers) {
            iovec.iov_base = buf.as_mut_ptr().cast();
            iovec.iov_len = buf.len();
            header.msg_hdr.msg_iov = iovec;
            header.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: `count` headers are filled, each with one vector of a buffer that is ours.
        let received = unsafe {
            libc::recvmmsg(
                self.fd.as_raw_fd(),
                headers.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_TRUNC as _,
                std::ptr::null_mut(),
            )
        };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        for ((length, header), buf) in lengths.iter_mut().zip(&headers).zip(bufs).take(received) {
            let full = header.msg_len as usize;
            *length = if full <= buf.len() { full } else { 0 };
        }
        Ok(received)
    }

    /// Sends one frame with its header. EAGAIN or ENOBUFS: the card's queue is full.
    #[inline]
    pub fn send(&self, buf: &[u8]) -> io::Result<usize> {
        // SAFETY: the kernel reads at most the buffer's length.
        let n = unsafe {
            libc::send(self.fd.as_raw_fd(), buf.as_ptr().cast(), buf.len(), libc::MSG_NOSIGNAL)
        };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }

    /// Whether an error concerns only this frame: the next `recv` or `send` may succeed. On
    /// receiving, the kernel met a kind of super-frame that the header cannot express (a tunnel's),
    /// or one larger than the buffer; on sending, it found header and frame contradictory, or the
    /// frame larger than the interface's MTU.
    #[inline]
    pub fn is_frame_error(error: &io::Error) -> bool {
        matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EMSGSIZE))
    }

    /// Whether an error means that the interface is down or gone. It is told once; after `ENODEV` or
    /// `ENXIO` on sending the interface is gone for good.
    #[inline]
    pub fn is_down_error(error: &io::Error) -> bool {
        matches!(error.raw_os_error(), Some(libc::ENETDOWN | libc::ENODEV | libc::ENXIO))
    }

    /// Whether the interface is gone for good. The kernel tells only that it went down, which comes
    /// first, and then takes the socket's interface away in silence.
    pub fn is_gone(&self) -> bool {
        // SAFETY: all zeros is a valid `sockaddr_ll`: numbers only.
        let mut name: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        let mut length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes into the struct.
        let done = unsafe {
            libc::getsockname(self.fd.as_raw_fd(), (&raw mut name).cast(), &raw mut length)
        };
        done == 0 && name.sll_ifindex < 0
    }

    /// The kernel's counters since the last call; reading them resets them.
    pub fn take_stats(&self) -> io::Result<PacketStats> {
        // SAFETY: all zeros is a valid `tpacket_stats`: two counters.
        let mut stats: libc::tpacket_stats = unsafe { std::mem::zeroed() };
        let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes into the struct.
        let done = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut stats).cast(),
                &raw mut length,
            )
        };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(PacketStats { packets: stats.tp_packets, drops: stats.tp_drops })
    }

    /// The receive buffer that the kernel granted, in its own counting, which is of memory and not of
    /// payload.
    pub fn receive_bytes(&self) -> usize {
        self.receive_bytes
    }

    /// The interface's number.
    pub fn interface(&self) -> u32 {
        self.interface
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for PacketSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// The filter of a socket that shares the host's address.
#[derive(Debug)]
pub struct SharedPorts(OwnedFd);

impl SharedPorts {
    /// Takes these ports from now on. The kernel exchanges the filter between two frames.
    pub fn set(&self, mac: Mac, ports: &[RangeInclusive<u16>]) -> Result<(), PacketError> {
        attach(self.0.as_fd(), &filter::shared_address(mac, ports))
    }
}

fn attach(fd: BorrowedFd<'_>, program: &[libc::sock_filter]) -> Result<(), PacketError> {
    let program = libc::sock_fprog {
        len: program.len() as libc::c_ushort,
        filter: program.as_ptr().cast_mut(),
    };
    set_option(fd, (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER), "SO_ATTACH_FILTER", &program)
}

fn set_option<T>(
    fd: BorrowedFd<'_>,
    (level, option): (libc::c_int, libc::c_int),
    request: &'static str,
    value: &T,
) -> Result<(), PacketError> {
    // SAFETY: every option passed here takes a plain struct of exactly this type; the filter's pointer
    // in it is alive as long as the value.
    let done = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(refused(request)) }
}

/// As large as we may make them; the forced way takes CAP_NET_ADMIN in the first user namespace.
fn enlarge_buffers(fd: BorrowedFd<'_>) -> io::Result<usize> {
    use rustix::net::sockopt;
    if sockopt::set_socket_recv_buffer_size_force(fd, PACKET_RECEIVE_BYTES).is_err() {
        sockopt::set_socket_recv_buffer_size(fd, PACKET_RECEIVE_BYTES)?;
    }
    if sockopt::set_socket_send_buffer_size_force(fd, PACKET_SEND_BYTES).is_err() {
        sockopt::set_socket_send_buffer_size(fd, PACKET_SEND_BYTES)?;
    }
    Ok(sockopt::socket_recv_buffer_size(fd)?)
}

fn refused(request: &'static str) -> PacketError {
    PacketError::Refused { request, source: io::Error::last_os_error() }
}
