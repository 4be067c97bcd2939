//! Traffic of real kernels: sockets inside namespaces, held by threads of the test.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, ipproto, socket};
use wharf::io::netns::{NetNs, in_namespace};

use crate::support::PATIENCE;

/// How long is waited for what must not come.
pub(crate) const NEVER: Duration = Duration::from_millis(400);

const CHUNK: usize = 256 * 1024;

/// Who is seen by whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Seen {
    /// The client's own idea of its address.
    pub(crate) client: SocketAddr,
    /// The client's address as the server saw it.
    pub(crate) by_server: SocketAddr,
}

/// Servers on one port, TCP and UDP in both families, that answer everybody with the address they
/// see. They end with the test.
pub(crate) fn serve_whoami(ns: &NetNs, port: u16) {
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let (tcp, udp) =
        in_namespace(ns, || (TcpListener::bind(any).unwrap(), UdpSocket::bind(any).unwrap()))
            .unwrap();
    std::thread::spawn(move || {
        for stream in tcp.incoming() {
            let Ok(mut stream) = stream else { continue };
            let Ok(peer) = stream.peer_addr() else { continue };
            let _ = stream.write_all(canonical(peer).to_string().as_bytes());
        }
    });
    std::thread::spawn(move || {
        let mut buf = [0; 64];
        while let Ok((_, peer)) = udp.recv_from(&mut buf) {
            let _ = udp.send_to(canonical(peer).to_string().as_bytes(), peer);
        }
    });
}

fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

fn parsed(answer: &[u8]) -> io::Result<SocketAddr> {
    let text = std::str::from_utf8(answer).map_err(io::Error::other)?;
    text.parse().map_err(|_| io::Error::other(format!("`{text}` is no address")))
}

/// Asks a server of [`serve_whoami`] over TCP.
pub(crate) fn whoami_tcp(ns: &NetNs, to: SocketAddr, patience: Duration) -> io::Result<Seen> {
    let mut stream = in_namespace(ns, || TcpStream::connect_timeout(&to, patience))
        .map_err(io::Error::other)??;
    stream.set_read_timeout(Some(patience))?;
    let client = stream.local_addr()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(Seen { client, by_server: parsed(&answer)? })
}

/// Asks a server of [`serve_whoami`] over UDP. A question may be lost, so it is asked again.
pub(crate) fn whoami_udp(ns: &NetNs, to: SocketAddr, patience: Duration) -> io::Result<Seen> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = in_namespace(ns, || UdpSocket::bind(any)).map_err(io::Error::other)??;
    // Only answers of whom was asked are heard.
    socket.connect(to)?;
    ask_udp(&socket, patience)
}

/// The same on a socket that is there.
pub(crate) fn ask_udp(socket: &UdpSocket, patience: Duration) -> io::Result<Seen> {
    let client = socket.local_addr()?;
    let tries = 2;
    socket.set_read_timeout(Some(patience / tries))?;
    let mut answer = [0; 64];
    let mut result = Err(io::Error::other("never asked"));
    for _ in 0..tries {
        socket.send(b"who am I?")?;
        result = socket.recv(&mut answer);
        if result.is_ok() {
            break;
        }
    }
    let length = result?;
    Ok(Seen { client, by_server: parsed(&answer[..length])? })
}

/// One echo request and its answer.
pub(crate) fn ping(ns: &NetNs, to: IpAddr, patience: Duration) -> io::Result<()> {
    let (family, protocol, request, reply) = match to {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, 8, 0),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, 128, 129),
    };
    // A ping socket: the kernel fills in identifier and checksum, and shows only our answers.
    let open = || socket(family, SocketType::DGRAM, Some(protocol));
    let socket = UdpSocket::from(in_namespace(ns, open).map_err(io::Error::other)??);
    socket.connect((to, 0))?;
    socket.set_read_timeout(Some(patience))?;
    socket.send(&[request, 0, 0, 0, 0, 0, 0, 7, b'w', b'h', b'a', b'r', b'f'])?;
    let mut answer = [0; 64];
    let length = socket.recv(&mut answer)?;
    if answer[0] == reply && answer[8..length] == *b"wharf" {
        Ok(())
    } else {
        Err(io::Error::other(format!("an odd answer: {:?}", &answer[..length])))
    }
}

/// A chunk of a stream, different for every number.
fn fill(chunk: &mut [u8], number: u64) {
    for (at, word) in chunk.chunks_exact_mut(8).enumerate() {
        let value = (number << 32 | at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        word.copy_from_slice(&value.to_le_bytes());
    }
}

/// A TCP stream that goes on until it is told to end, and is compared byte by byte.
pub(crate) struct Transfer {
    stop: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
    sender: JoinHandle<u64>,
    receiver: JoinHandle<u64>,
}

impl Transfer {
    /// From one namespace to an address of another one.
    pub(crate) fn start(from: &NetNs, to: &NetNs, address: IpAddr) -> Self {
        let (listener, address) = crate::support::listener_in(to, address);
        let output = crate::support::connect_in(from, address);
        let (input, _) = listener.accept().unwrap();
        Self::between(output, input)
    }

    /// Over a connection that is there.
    pub(crate) fn between(output: TcpStream, input: TcpStream) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let received = Arc::new(AtomicU64::new(0));
        // Longer than any pause of the switch: the kernels' retransmission timers double.
        input.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&received));
        Self {
            stop,
            received,
            sender: std::thread::spawn(move || send(output, &stopped)),
            receiver: std::thread::spawn(move || receive(input, &count)),
        }
    }

    /// Bytes that have arrived and were right.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Waits until this many more bytes have arrived.
    #[track_caller]
    pub(crate) fn goes_on(&self, bytes: u64, patience: Duration) {
        let before = self.received();
        super::world::eventually("the transfer goes on", patience, || {
            self.received() >= before + bytes || self.receiver.is_finished()
        });
        assert!(self.received() >= before + bytes, "the transfer ended early");
    }

    /// Ends it. Everything that was sent has arrived, or this fails. The number of bytes.
    pub(crate) fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.join().expect("the sender had no error");
        let received = self.receiver.join().expect("the receiver had no error");
        assert_eq!(sent, received);
        received
    }
}

fn send(mut output: TcpStream, stop: &AtomicBool) -> u64 {
    let mut chunk = vec![0; CHUNK];
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        fill(&mut chunk, number);
        output.write_all(&chunk).unwrap();
        number += 1;
    }
    number * CHUNK as u64
}

fn receive(mut input: TcpStream, received: &AtomicU64) -> u64 {
    let (mut chunk, mut expected) = (vec![0; CHUNK], vec![0; CHUNK]);
    for number in 0.. {
        // The stream ends between two chunks, never inside one.
        if input.peek(&mut [0]).unwrap() == 0 {
            return number * CHUNK as u64;
        }
        input.read_exact(&mut chunk).unwrap();
        fill(&mut expected, number);
        assert!(chunk == expected, "chunk {number} differs");
        received.fetch_add(CHUNK as u64, Ordering::Relaxed);
    }
    unreachable!("the stream ends before its chunks run out of numbers")
}

/// Sends this many bytes over TCP, in both directions one after the other, and compares them.
pub(crate) fn bulk(a: &NetNs, b: &NetNs, address_of_b: IpAddr, bytes: u64) {
    let (listener, address) = crate::support::listener_in(b, address_of_b);
    for back in [false, true] {
        let client = crate::support::connect_in(a, address);
        let (server, _) = listener.accept().unwrap();
        let transfer = if back {
            Transfer::between(server, client)
        } else {
            Transfer::between(client, server)
        };
        super::world::eventually("the bytes arrive", 6 * PATIENCE, || {
            transfer.received() >= bytes || transfer.receiver.is_finished()
        });
        assert!(transfer.finish() >= bytes);
    }
}
