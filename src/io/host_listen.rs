//! Listening and bound sockets of published ports. Control binds them, so that the command that asked
//! gets the kernel's answer; a worker serves them.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::host_calls::{self as calls, Name};
use crate::wire::addr::Addr;

/// Protocol of a published port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A socket that waits for clients.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    transport: Transport,
    v4: bool,
    port: u16,
}

/// Why a port cannot be listened on, in words for whoever asked.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// EADDRINUSE.
    #[error(
        "port {port} of {address} is in use by another program; `ss -lntup` shows which, or publish another host port"
    )]
    InUse {
        /// The address asked for.
        address: String,
        /// The port asked for.
        port: u16,
    },
    /// EACCES.
    #[error(
        "port {port} is privileged: lower the sysctl net.ipv4.ip_unprivileged_port_start to {port}, give wharf CAP_NET_BIND_SERVICE, or publish a port from 1024 on"
    )]
    Privileged {
        /// The port asked for.
        port: u16,
    },
    /// EADDRNOTAVAIL.
    #[error("the host has no address {address}; `ip address` lists those it has")]
    NoSuchAddress {
        /// The address asked for.
        address: String,
    },
    /// EMFILE, ENFILE.
    #[error("no descriptor left for port {port}: raise the limit of open files (`ulimit -n`)")]
    Descriptors {
        /// The port asked for.
        port: u16,
    },
    /// Anything else.
    #[error("listening on port {port} of {address}: {cause}")]
    Other {
        /// The address asked for.
        address: String,
        /// The port asked for.
        port: u16,
        /// What the kernel said.
        #[source]
        cause: io::Error,
    },
}

impl Listener {
    /// Binds to `address`, or to all addresses of both families with one socket if there is none. Port
    /// zero has the kernel choose. Concerns the calling thread's network namespace.
    pub fn bind(
        address: Option<IpAddr>,
        port: u16,
        transport: Transport,
    ) -> Result<Self, ListenError> {
        let explain = |cause| explain(address, port, cause);
        if let Some(address) = address {
            return Self::bind_to(address.into(), port, transport, true).map_err(explain);
        }
        let any = Self::bind_to(Addr::UNSPECIFIED, port, transport, false);
        let no_ipv6 = any.as_ref().is_err_and(|error| {
            let errno = error.raw_os_error();
            errno == Some(libc::EAFNOSUPPORT) || errno == Some(libc::EADDRNOTAVAIL)
        });
        if no_ipv6 {
            return Self::bind_to(Addr::from_v4_bits(0), port, transport, true).map_err(explain);
        }
        any.map_err(explain)
    }

    fn bind_to(addr: Addr, port: u16, transport: Transport, v6_only: bool) -> io::Result<Self> {
        let v4 = addr.is_v4();
        let kind = match transport {
            Transport::Tcp => libc::SOCK_STREAM,
            Transport::Udp => libc::SOCK_DGRAM,
        };
        let fd = calls::socket(v4, kind, 0)?;
        if !v4 {
            let only = &[i32::from(v6_only)];
            calls::set_option(fd.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, only)?;
        }
        if transport == Transport::Tcp {
            // Connections of a predecessor in TIME-WAIT must not keep the port (socket(7)).
            calls::set_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, &[1])?;
        }
        calls::bind(fd.as_fd(), &Name::new(addr, port, v4))?;
        match transport {
            Transport::Tcp => calls::listen(fd.as_fd())?,
            Transport::Udp => want_local_address(fd.as_fd(), v4)?,
        }
        let port = calls::local_name(fd.as_fd())?.get().map_or(port, |(_, port)| port);
        Ok(Self { fd, transport, v4, port })
    }

    /// A listener that was kept by somebody else across our restart.
    pub fn from_fd(fd: OwnedFd, transport: Transport) -> io::Result<Self> {
        let name = calls::local_name(fd.as_fd())?;
        let mut domain = [0];
        calls::option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_DOMAIN, &mut domain)?;
        let v4 = domain[0] == libc::AF_INET as u32;
        let port = name.get().map_or(0, |(_, port)| port);
        Ok(Self { fd, transport, v4, port })
    }

    /// The port, as the kernel chose it if it was to choose.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// TCP or UDP.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Whether the socket speaks IPv4 only.
    pub(super) fn is_v4(&self) -> bool {
        self.v4
    }

    /// Another descriptor of the same socket, for the holder.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.fd.try_clone()
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Has the kernel say which address a datagram was sent to: the answer must come from there.
fn want_local_address(fd: BorrowedFd<'_>, v4: bool) -> io::Result<()> {
    if v4 {
        calls::set_option(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, &[1])
    } else {
        calls::set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, &[1])
    }
}

pub(super) fn explain(address: Option<IpAddr>, port: u16, cause: io::Error) -> ListenError {
    let address = address.map_or_else(|| "all addresses".to_owned(), |ip| ip.to_string());
    match cause.raw_os_error() {
        Some(libc::EADDRINUSE) => ListenError::InUse { address, port },
        Some(libc::EACCES | libc::EPERM) => ListenError::Privileged { port },
        Some(libc::EADDRNOTAVAIL) => ListenError::NoSuchAddress { address },
        Some(libc::EMFILE | libc::ENFILE) => ListenError::Descriptors { port },
        _ => ListenError::Other { address, port, cause },
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpStream, UdpSocket};

    use super::*;

    #[test]
    fn one_socket_serves_both_families_on_a_port_that_the_kernel_chose() {
        let listener = Listener::bind(None, 0, Transport::Tcp).unwrap();
        for host in ["127.0.0.1", "::1"] {
            TcpStream::connect((host, listener.port())).unwrap();
        }
        let again = Listener::from_fd(listener.duplicate().unwrap(), Transport::Tcp).unwrap();
        assert_eq!((again.port(), again.is_v4()), (listener.port(), false));
    }

    #[test]
    fn a_loopback_publication_stays_on_loopback() {
        for host in ["127.0.0.1", "::1"] {
            let address: IpAddr = host.parse().unwrap();
            let listener = Listener::bind(Some(address), 0, Transport::Tcp).unwrap();
            let name = calls::local_name(listener.as_fd()).unwrap().get().unwrap();
            assert_eq!(name.0.ip(), address);
        }
    }

    #[test]
    fn what_is_in_the_way_is_said() {
        let other = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = other.local_addr().unwrap().port();
        let loopback = Some("127.0.0.1".parse().unwrap());
        let error = Listener::bind(loopback, port, Transport::Udp).unwrap_err();
        assert!(error.to_string().contains("in use"), "{error}");
        let foreign = Some("192.0.2.1".parse().unwrap());
        let error = Listener::bind(foreign, 0, Transport::Tcp).unwrap_err();
        assert!(error.to_string().contains("no address 192.0.2.1"), "{error}");
    }
}
