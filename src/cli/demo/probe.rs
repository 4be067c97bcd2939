//! Traffic: one exchange between the kernels of two hosts, through sockets of both, with the addresses
//! that each end's socket tells.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::sockopt;

use super::check::{Pair, Proto};
use super::icmp::{Answer, Witness, echo_request, ping_socket};
use super::{now, since};
use crate::io::netns::{NetNs, in_namespace};
use crate::io::random;

/// An answer takes well below a millisecond, and on a machine that is busy as long as it takes.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// What both ends saw.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exchange {
    /// At the sender.
    pub(super) sent: Pair,
    /// At the receiver.
    pub(super) seen: Pair,
    /// There and back.
    pub(super) time: Duration,
}

/// A connection, and some bytes there and back.
pub(super) fn tcp(
    from: &NetNs,
    at: &NetNs,
    to: SocketAddr,
    server: SocketAddr,
) -> Result<Exchange, String> {
    let listener = inside(at, || TcpListener::bind(server)).map_err(cannot("listen"))?;
    let (mut client, start) = connect(from, to).map_err(cannot("connect"))?;
    let (mut served, peer) = accept(&listener).map_err(cannot("accept"))?;
    let work = || -> io::Result<Exchange> {
        let sent = Pair { from: client.local_addr()?, to: client.peer_addr()? };
        let seen = Pair { from: peer, to: served.local_addr()? };
        let said = nonce()?;
        client.write_all(&said)?;
        expect(&said, |buf| served.read_exact(buf).map(|()| buf.len()))?;
        served.write_all(&said)?;
        expect(&said, |buf| client.read_exact(buf).map(|()| buf.len()))?;
        Ok(Exchange { sent, seen, time: since(start) })
    };
    let done = { work }().map_err(cannot("exchange bytes"));
    // The client closes first, so that the server's port is free at once.
    drop(client);
    done
}

/// A datagram there and one back.
pub(super) fn udp(
    from: &NetNs,
    at: &NetNs,
    to: SocketAddr,
    server: SocketAddr,
) -> Result<Exchange, String> {
    let server = inside(at, || UdpSocket::bind(server)).map_err(cannot("bind"))?;
    let client = inside(from, || udp_to(to)).map_err(cannot("send"))?;
    let work = || -> io::Result<Exchange> {
        server.set_read_timeout(Some(PATIENCE))?;
        let said = nonce()?;
        let start = now();
        client.send(&said)?;
        arrived(&server, &client)?;
        let mut peer = None;
        expect(&said, |buf| {
            let (length, from) = server.recv_from(buf)?;
            peer = Some(from);
            Ok(length)
        })?;
        let peer = peer.ok_or(io::ErrorKind::NotConnected)?;
        server.send_to(&said, peer)?;
        // A connected socket takes only what comes from where it sends to.
        expect(&said, |buf| client.recv(buf))?;
        let time = since(start);
        let sent = Pair { from: client.local_addr()?, to };
        Ok(Exchange { sent, seen: Pair { from: peer, to: server.local_addr()? }, time })
    };
    work().map_err(cannot("exchange datagrams"))
}

/// An echo request, answered by the other kernel and seen there by a witness.
pub(super) fn ping(from: &NetNs, at: &NetNs, to: IpAddr) -> Result<Exchange, String> {
    let witness = inside(at, || Witness::new(to)).map_err(cannot("watch"))?;
    let client = inside(from, || ping_socket(to)).map_err(cannot("open a ping socket"))?;
    let work = || -> io::Result<Exchange> {
        client.set_read_timeout(Some(PATIENCE))?;
        let said = nonce()?;
        let start = now();
        client.send(&echo_request(to, &said))?;
        let mut reply = [0; 64];
        let length = client.recv(&mut reply)?;
        let time = since(start);
        if reply.get(8..length) != Some(&said) {
            return Err(io::Error::other("another answer came"));
        }
        let seen = witness.echo(&said, PATIENCE)?;
        let own = SocketAddr::new(client.local_addr()?.ip(), 0);
        Ok(Exchange { sent: Pair { from: own, to: SocketAddr::new(to, 0) }, seen, time })
    };
    work().map_err(cannot("ping"))
}

/// Something that must not arrive: the sender's socket has to get an error, and its host the router's
/// answer that it comes from.
pub(super) fn refused(
    proto: Proto,
    from: &NetNs,
    own: IpAddr,
    to: SocketAddr,
) -> Result<(Answer, Duration), String> {
    let witness = inside(from, || Witness::new(own)).map_err(cannot("watch"))?;
    let (sent, time) = inside(from, || {
        let start = now();
        let sent = match proto {
            Proto::Tcp => TcpStream::connect_timeout(&to, PATIENCE).map(drop),
            Proto::Udp => udp_to(to).and_then(|socket| ask(&socket, &nonce()?)),
            Proto::Ping => ping_socket(to.ip())
                .and_then(|socket| ask(&socket, &echo_request(to.ip(), &nonce()?))),
        };
        Ok((sent, since(start)))
    })
    .map_err(cannot("send"))?;
    match sent {
        Ok(()) => Err("it arrived".to_owned()),
        Err(error) if is_timeout(&error) => Err(format!("no answer within {PATIENCE:?}")),
        Err(error) => {
            let answer = witness.answer(to.ip(), PATIENCE);
            let answer = answer.map_err(|_| format!("{error}, without a router's answer"))?;
            Ok((answer, time))
        }
    }
}

/// A connection out of a namespace, and when it was begun.
pub(super) fn connect(from: &NetNs, to: SocketAddr) -> io::Result<(TcpStream, Duration)> {
    let (stream, start) = inside(from, || {
        let start = now();
        Ok((TcpStream::connect_timeout(&to, PATIENCE)?, start))
    })?;
    stream.set_nodelay(true)?;
    be_impatient(&stream)?;
    Ok((stream, start))
}

/// The next caller, if one comes.
pub(super) fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let timeout = PATIENCE.try_into().map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    if poll(&mut fds, Some(&timeout))? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let (stream, peer) = listener.accept()?;
    be_impatient(&stream)?;
    Ok((stream, peer))
}

/// The kernel too: what a killed demo leaves unsent would keep its namespace for minutes
/// (`tcp_orphan_retries`; `TCP_USER_TIMEOUT` goes on after the process).
fn be_impatient(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let millis = PATIENCE.as_millis().try_into().unwrap_or(u32::MAX);
    Ok(sockopt::set_tcp_user_timeout(stream, millis)?)
}

/// Opens something in a namespace.
pub(super) fn inside<T: Send>(
    ns: &NetNs,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    in_namespace(ns, work).map_err(io::Error::other)?
}

fn udp_to(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Waits until something is at the server, or the client is told that it did not get there.
fn arrived(server: &UdpSocket, client: &UdpSocket) -> io::Result<()> {
    let mut fds = [PollFd::new(server, PollFlags::IN), PollFd::new(client, PollFlags::IN)];
    let timeout = PATIENCE.try_into().map_err(|_| io::ErrorKind::InvalidInput)?;
    if poll(&mut fds, Some(&timeout))? > 0 && fds[0].revents().is_empty() {
        client.recv(&mut [0; 64])?;
    }
    Ok(())
}

/// Sends and waits for an answer, whatever it is.
fn ask(socket: &UdpSocket, message: &[u8]) -> io::Result<()> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(message)?;
    socket.recv(&mut [0; 64]).map(drop)
}

/// What nobody else says.
fn nonce() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    random::fill(&mut bytes)?;
    Ok(bytes)
}

fn expect(said: &[u8; 16], read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<()> {
    let mut heard = [0; 16];
    let length = read(&mut heard)?;
    if heard.get(..length) == Some(said) {
        Ok(())
    } else {
        Err(io::Error::other("what arrived is not what was sent"))
    }
}

/// Words for an error of what was tried.
fn cannot(what: &'static str) -> impl Fn(io::Error) -> String {
    move |error| {
        if is_timeout(&error) {
            format!("cannot {what}: no answer within {PATIENCE:?}")
        } else {
            format!("cannot {what}: {error}")
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
