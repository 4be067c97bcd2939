//! Pings and the answers of routers, through the kernel's ICMP sockets.
//!
//! A *ping socket* (`SOCK_DGRAM`) sends echo requests and gets their answers; the kernel fills in
//! identifier and checksum. A *raw socket* sees what arrives at a host: it is the witness of which
//! address an echo request came from and of what a router said.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto};
use serde::Serialize;

use super::check::Pair;
use super::now;

/// ICMP's and ICMPv6's types of what is looked for.
const ECHO_REQUEST: [u8; 2] = [8, 128];
const UNREACHABLE: [u8; 2] = [3, 1];
/// Communication administratively prohibited.
const PROHIBITED: [u8; 2] = [13, 1];

/// What a router said.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Answer {
    /// The router.
    pub(super) by: IpAddr,
    /// ICMP's type.
    pub(super) kind: u8,
    /// ICMP's code.
    pub(super) code: u8,
    /// The packet it is about.
    #[serde(skip)]
    pub(super) quoted: Pair,
}

impl Answer {
    /// Whether it says that a rule forbids it.
    pub(super) fn is_prohibited(&self) -> bool {
        self.code == PROHIBITED[usize::from(self.by.is_ipv6())]
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = if self.is_prohibited() { "prohibited" } else { "unreachable" };
        let name = if self.by.is_ipv6() { "ICMPv6" } else { "ICMP" };
        write!(f, "{name} {}/{}, {why}, from {}", self.kind, self.code, self.by)
    }
}

/// The body of an echo request.
pub(super) fn echo_request(to: IpAddr, payload: &[u8]) -> Vec<u8> {
    let mut message = vec![ECHO_REQUEST[usize::from(to.is_ipv6())], 0, 0, 0, 0, 0, 0, 1];
    message.extend_from_slice(payload);
    message
}

/// A ping socket of the calling thread's namespace, connected.
pub(super) fn ping_socket(to: IpAddr) -> io::Result<UdpSocket> {
    let socket = socket(to, SocketType::DGRAM)?;
    socket.connect((to, 0))?;
    Ok(socket)
}

fn socket(family: IpAddr, kind: SocketType) -> io::Result<UdpSocket> {
    let (family, protocol) = match family {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, Some(protocol))?;
    Ok(socket.into())
}

/// Sees the ICMP messages that arrive at one address of a host.
#[derive(Debug)]
pub(super) struct Witness {
    socket: UdpSocket,
    at: IpAddr,
}

impl Witness {
    /// Of the calling thread's namespace, which has this address.
    pub(super) fn new(at: IpAddr) -> io::Result<Self> {
        let socket = socket(at, SocketType::RAW)?;
        rustix::net::bind(&socket, &SocketAddr::new(at, 0))?;
        Ok(Self { socket, at })
    }

    /// Waits for the echo request with this payload: where it comes from, and where to.
    pub(super) fn echo(&self, payload: &[u8], patience: Duration) -> io::Result<Pair> {
        self.wait(patience, |from, icmp| {
            let is_it = icmp.first() == Some(&ECHO_REQUEST[usize::from(from.is_ipv6())])
                && icmp.get(8..) == Some(payload);
            is_it.then(|| Pair { from: SocketAddr::new(from, 0), to: SocketAddr::new(self.at, 0) })
        })
    }

    /// Waits for a router's word on something that was sent there.
    pub(super) fn answer(&self, to: IpAddr, patience: Duration) -> io::Result<Answer> {
        self.wait(patience, |by, icmp| {
            let answer = parse_answer(by, icmp)?;
            (answer.quoted.to.ip() == to).then_some(answer)
        })
    }

    fn wait<T>(
        &self,
        patience: Duration,
        pick: impl Fn(IpAddr, &[u8]) -> Option<T>,
    ) -> io::Result<T> {
        let end = now() + patience;
        let mut buf = [0; 2048];
        loop {
            let left = end.saturating_sub(now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.socket.set_read_timeout(Some(left))?;
            let (length, from) = self.socket.recv_from(&mut buf)?;
            let packet = &buf[..length];
            // A raw IPv4 socket shows the IP header, too.
            let skip = if from.is_ipv4() { header_length(packet) } else { 0 };
            if let Some(found) = packet.get(skip..).and_then(|icmp| pick(from.ip(), icmp)) {
                return Ok(found);
            }
        }
    }
}

fn header_length(ipv4: &[u8]) -> usize {
    ipv4.first().map_or(0, |first| usize::from(first & 15) * 4)
}

/// "Unreachable" and the packet that it quotes.
fn parse_answer(by: IpAddr, icmp: &[u8]) -> Option<Answer> {
    let (kind, code) = (*icmp.first()?, *icmp.get(1)?);
    if kind != UNREACHABLE[usize::from(by.is_ipv6())] {
        return None;
    }
    let quoted = parse_quoted(by.is_ipv6(), icmp.get(8..)?)?;
    Some(Answer { by, kind, code, quoted })
}

fn parse_quoted(ipv6: bool, packet: &[u8]) -> Option<Pair> {
    let (from, to, protocol, header): (IpAddr, IpAddr, u8, usize) = if ipv6 {
        let addr =
            |at| packet.get(at..at + 16)?.try_into().ok().map(|b: [u8; 16]| Ipv6Addr::from(b));
        (addr(8)?.into(), addr(24)?.into(), *packet.get(6)?, 40)
    } else {
        let addr = |at| packet.get(at..at + 4)?.try_into().ok().map(|b: [u8; 4]| Ipv4Addr::from(b));
        (addr(12)?.into(), addr(16)?.into(), *packet.get(9)?, header_length(packet))
    };
    let has_ports = matches!(i32::from(protocol), libc::IPPROTO_TCP | libc::IPPROTO_UDP);
    let port = |at: usize| match packet.get(header + at..header + at + 2) {
        Some(&[high, low]) if has_ports => u16::from_be_bytes([high, low]),
        _ => 0,
    };
    Some(Pair { from: SocketAddr::new(from, port(0)), to: SocketAddr::new(to, port(2)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer about a UDP packet from port 40000 to port 5000, in IPv4.
    fn prohibited() -> Vec<u8> {
        let mut icmp = vec![3, 13, 0, 0, 0, 0, 0, 0];
        icmp.extend([0x45, 0, 0, 32, 0, 0, 0, 0, 63, 17, 0, 0, 10, 20, 0, 2, 10, 30, 0, 2]);
        icmp.extend([0x9c, 0x40, 0x13, 0x88]);
        icmp
    }

    #[test]
    fn an_answer_tells_which_packet_it_is_about() {
        let by = "10.20.0.1".parse().unwrap();
        let answer = parse_answer(by, &prohibited()).unwrap();
        assert!(answer.is_prohibited());
        assert_eq!(answer.quoted.to_string(), "10.20.0.2:40000 → 10.30.0.2:5000");
        assert_eq!(answer.to_string(), "ICMP 3/13, prohibited, from 10.20.0.1");
    }

    #[test]
    fn an_answer_in_ipv6_is_read_the_same_way() {
        let mut icmp = vec![1, 1, 0, 0, 0, 0, 0, 0, 0x60, 0, 0, 0, 0, 8, 58, 63];
        icmp.extend("fd20::2".parse::<Ipv6Addr>().unwrap().octets());
        icmp.extend("fd30::2".parse::<Ipv6Addr>().unwrap().octets());
        icmp.extend([128, 0, 0, 0]);
        let answer = parse_answer("fd20::1".parse().unwrap(), &icmp).unwrap();
        assert_eq!(answer.quoted.to_string(), "fd20::2 → fd30::2");
        assert!(answer.is_prohibited());
    }

    #[test]
    fn other_messages_and_short_ones_are_no_answers() {
        let by = "10.20.0.1".parse().unwrap();
        let icmp = prohibited();
        // Without its ports it still names the addresses.
        for length in 0..28 {
            assert_eq!(parse_answer(by, &icmp[..length]), None, "{length}");
        }
        assert!(parse_answer(by, &[&[0], &icmp[1..]].concat()).is_none());
    }
}
