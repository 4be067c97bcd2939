//! UDP sockets of the tunnels to other nodes: trains out (UDP_SEGMENT), trains in (UDP_GRO).
//!
//! Datagrams are received at one socket for each family. They are sent by a handful of others, so that the
//! source port says which inner flow it is, which is what routers on the way spread flows by; behind a NAT,
//! which knows one mapping, they are sent by the receiving socket itself. "Don't fragment" is set on all:
//! a tunnel that is too narrow is an error here, and its end of the tunnel gets narrower.

mod inbox;
mod outbox;

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::host_calls::{self as calls, Name};
use super::host_datagrams::{enlarge_buffers, may_fragment};
use super::host_listen::{ListenError, explain};
use super::host_sockets::Features;
use crate::wire::addr::Addr;

pub use self::inbox::TunnelInbox;
pub use self::outbox::{Problem, TunnelOutbox};

/// Sockets that datagrams leave by, for each family: enough to spread flows over a few links and over the
/// receiver's queues.
const POOL: usize = 8;

/// The sockets of one family.
#[derive(Debug)]
struct Side {
    v4: bool,
    receiving: OwnedFd,
    sending: Vec<OwnedFd>,
}

/// All sockets.
#[derive(Debug)]
pub struct TunnelSockets {
    sides: Vec<Side>,
    features: Features,
}

impl TunnelSockets {
    /// Binds `port` at these addresses, or at all if there is none. With `one_port` everything leaves by
    /// that port, too. Concerns the calling thread's network namespace.
    ///
    /// # Errors
    /// The port or an address cannot be had; a kernel without IPv6 is none.
    pub fn bind(addrs: &[IpAddr], port: u16, one_port: bool) -> Result<Self, ListenError> {
        let features = Features::probe();
        let mut sides = Vec::new();
        for v4 in [true, false] {
            let any = if v4 { Addr::from_v4_bits(0) } else { Addr::UNSPECIFIED };
            let named = addrs.iter().find(|addr| addr.is_ipv4() == v4).copied();
            if !addrs.is_empty() && named.is_none() {
                continue;
            }
            let addr = named.map_or(any, Addr::from);
            match Side::bind(addr, port, one_port, features) {
                Ok(side) => sides.push(side),
                Err(error) if named.is_none() && !v4 && is_without_ipv6(&error) => {}
                Err(error) => return Err(explain(named, port, error)),
            }
        }
        Ok(Self { sides, features })
    }

    /// The sockets to be watched, in order.
    pub fn receiving(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sides.iter().map(|side| side.receiving.as_fd())
    }

    /// The port that datagrams are received at.
    pub fn port(&self) -> u16 {
        let name = self.receiving().next().and_then(|fd| calls::local_name(fd).ok()?.get());
        name.map_or(0, |(_, port)| port)
    }

    fn side(&self, v4: bool) -> Option<&Side> {
        self.sides.iter().find(|side| side.v4 == v4)
    }
}

impl Side {
    fn bind(addr: Addr, port: u16, one_port: bool, features: Features) -> io::Result<Self> {
        let receiving = socket(addr, port)?;
        if features.udp_gro {
            // Without it datagrams come one by one.
            let _ = calls::set_option(receiving.as_fd(), libc::SOL_UDP, libc::UDP_GRO, &[1]);
        }
        let pool = if one_port { 0 } else { POOL };
        let sending = (0..pool).map(|_| socket(addr, 0)).collect::<io::Result<_>>()?;
        Ok(Self { v4: addr.is_v4(), receiving, sending })
    }

    /// The socket that a flow leaves by.
    fn sender(&self, entropy: u16) -> BorrowedFd<'_> {
        match self.sending.len() {
            0 => self.receiving.as_fd(),
            n => self.sending[usize::from(entropy) % n].as_fd(),
        }
    }
}

fn socket(addr: Addr, port: u16) -> io::Result<OwnedFd> {
    let v4 = addr.is_v4();
    let fd = calls::socket(v4, libc::SOCK_DGRAM, 0)?;
    if !v4 {
        calls::set_option(fd.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &[1])?;
    }
    enlarge_buffers(fd.as_fd());
    may_fragment(fd.as_fd(), v4, false);
    calls::bind(fd.as_fd(), &Name::new(addr, port, v4))?;
    Ok(fd)
}

fn is_without_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

/// What the kernel knows of the narrowest link on the way to a place. It says so of connected sockets only.
pub fn path_mtu(to: IpAddr, port: u16) -> Option<u16> {
    super::host_datagrams::path_mtu(crate::stage::sockets::SockAddr { addr: to.into(), port })
}

#[cfg(test)]
mod tests;
