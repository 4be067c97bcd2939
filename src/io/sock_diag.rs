//! Sockets of the host and whose they are, as the kernel lists them (`sock_diag`).

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::io::netlink::raw::RawNetlink;
use crate::wire::ipv6::{TCP, UDP};

/// NETLINK_SOCK_DIAG and SOCK_DIAG_BY_FAMILY.
const SOCK_DIAG: isize = 4;
const BY_FAMILY: u16 = 20;
/// All states but TIME_WAIT (6), which nobody holds any more. A UDP socket without a peer is "closed" (7).
const STATES: u32 = !(1 << 6);

/// A port that a socket has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeldPort {
    /// TCP or UDP.
    pub proto: u8,
    /// At which address; unspecified: at all, and those of IPv4 too if it is IPv6's.
    pub addr: IpAddr,
    /// The port.
    pub port: u16,
    /// By which the process can be found.
    inode: u32,
    /// Who made it.
    uid: u32,
}

/// TCP's and UDP's sockets of the calling thread's network namespace that have a port.
pub fn ports() -> io::Result<Vec<HeldPort>> {
    let mut found = Vec::new();
    let mut netlink = RawNetlink::open(SOCK_DIAG)?;
    for family in [libc::AF_INET, libc::AF_INET6] {
        for proto in [TCP, UDP] {
            netlink.dump(BY_FAMILY, &request(family, proto), |_, content| {
                found.extend(read(proto, content).filter(|held| held.port != 0));
            })?;
        }
    }
    Ok(found)
}

/// `struct inet_diag_req_v2`; the identity of one socket is left empty.
fn request(family: i32, proto: u8) -> [u8; 56] {
    let mut request = [0; 56];
    request[0] = family as u8;
    request[1] = proto;
    request[4..8].copy_from_slice(&STATES.to_ne_bytes());
    request
}

/// `struct inet_diag_msg`.
fn read(proto: u8, bytes: &[u8]) -> Option<HeldPort> {
    let word = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let addr = if i32::from(*bytes.first()?) == libc::AF_INET {
        Ipv4Addr::from(*bytes.get(8..)?.first_chunk::<4>()?).into()
    } else {
        Ipv6Addr::from(*bytes.get(8..)?.first_chunk::<16>()?).to_canonical()
    };
    let port = u16::from_be_bytes(*bytes.get(4..)?.first_chunk()?);
    Some(HeldPort { proto, addr, port, uid: word(64)?, inode: word(68)? })
}

impl HeldPort {
    /// Whether packets to this address would be for it.
    pub fn covers(&self, addr: IpAddr) -> bool {
        match self.addr {
            IpAddr::V6(any) if any.is_unspecified() => true,
            any if any.is_unspecified() => addr.is_ipv4(),
            own => own == addr,
        }
    }

    /// `nginx (process 4711)`, as far as it can be found out.
    pub fn holder(&self) -> String {
        match process_of(self.inode) {
            Some((pid, name)) => format!("{name} (process {pid})"),
            None => format!("a process of user {}", self.uid),
        }
    }

    /// Whether it is a socket of this process.
    pub fn is_own(&self) -> bool {
        has_socket(std::process::id(), self.inode)
    }
}

/// The process that has a socket open, among those whose descriptors may be looked at.
fn process_of(inode: u32) -> Option<(u32, String)> {
    let pids = fs::read_dir("/proc").ok()?.flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let pid = { pids }.find(|pid| has_socket(*pid, inode))?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some((pid, name.trim().to_owned()))
}

fn has_socket(pid: u32, inode: u32) -> bool {
    let wanted = format!("socket:[{inode}]");
    let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    fds.flatten()
        .any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == wanted.as_str()))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn a_socket_of_ours_is_found_with_our_name() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("[::]:0").unwrap();
        let all = ports().unwrap();
        let find = |proto, port| all.iter().find(|h| h.proto == proto && h.port == port).unwrap();
        let tcp = find(TCP, tcp.local_addr().unwrap().port());
        assert!(tcp.covers([127, 0, 0, 1].into()) && !tcp.covers([127, 0, 0, 2].into()));
        let udp = find(UDP, udp.local_addr().unwrap().port());
        assert!(udp.covers([127, 0, 0, 1].into()) && udp.covers("::1".parse().unwrap()));
        for held in [tcp, udp] {
            assert!(held.is_own());
            assert!(held.holder().ends_with(&format!("(process {})", std::process::id())));
        }
    }
}
