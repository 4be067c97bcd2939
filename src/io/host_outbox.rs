//! Datagrams sent many at a time.
//!
//! Calls in a row that leave by one socket, to whatever places, go out in one sendmmsg. It stops before
//! the first that fails and keeps quiet about why, so the caller sends that one by itself, learns the
//! reason, and goes on with the rest.

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;

use super::host_calls::{self as calls, Addressed, SEND_MAX};
use super::host_datagrams::{self, Outgoing};
use super::host_gather::PARTS_MAX;
use crate::packet::FrameBatch;
use crate::stage::sockets::{SocketCall, SocketKind, SocketOutput, Via};

/// Datagrams of the run at hand; reused, so that it allocates only while it grows.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    datagrams: Vec<Addressed>,
}

/// Which socket the first calls leave by and whether they may be cut, if there are at least two for it.
pub(super) fn run_of(calls: &[SocketCall]) -> Option<(Via, bool)> {
    let [
        SocketCall::SendTo { via: first, fragment, .. },
        SocketCall::SendTo { via: second, fragment: also, .. },
        ..,
    ] = calls
    else {
        return None;
    };
    // An echo request through a raw socket is made anew, piece by piece.
    let plain = match first {
        Via::Socket(id) => id.kind() == SocketKind::Udp,
        Via::Listener(_) => true,
    };
    (plain && first == second && fragment == also).then_some((*first, *fragment))
}

/// What became of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Run {
    /// So many of its calls are done.
    Sent(usize),
    /// The socket was full: it lost all of them, as a full device would.
    Full {
        /// Calls.
        calls: usize,
        /// Frames that they were made of.
        frames: u32,
    },
}

impl Outbox {
    /// Sends the first calls that leave by `via`.
    pub(super) fn send(
        &mut self,
        (fd, v4): (BorrowedFd<'_>, bool),
        via: Via,
        (calls, out): (&[SocketCall], &SocketOutput),
        sent: &FrameBatch,
        trains: bool,
    ) -> Run {
        let mut pieces = [IoSlice::new(&[]); PARTS_MAX];
        let (mut used, mut frames) = (0, 0);
        let mut cut = None;
        self.datagrams.clear();
        for call in calls.iter().take(SEND_MAX) {
            let SocketCall::SendTo { via: by, from, to, parts, segment, ttl, fragment } = *call
            else {
                break;
            };
            let train = segment > 0 && parts.bytes > u32::from(segment);
            let fits = used + parts.count as usize <= PARTS_MAX;
            let differs = by != via || *cut.get_or_insert(fragment) != fragment;
            if differs || !fits || (train && !trains) {
                break;
            }
            let start = used;
            for bytes in out.chain(parts).map_while(|part| out.piece(part, sent)) {
                let Some(place) = pieces.get_mut(used) else { break };
                *place = IoSlice::new(bytes);
                used += 1;
            }
            frames += parts.count;
            let datagram = Outgoing { from, to, segment, ttl, v4 };
            let (name, control) = host_datagrams::address(datagram, train);
            self.datagrams.push(Addressed { name, control, pieces: start..used });
        }
        if self.datagrams.is_empty() {
            return Run::Sent(0);
        }
        match calls::send_many(fd, &mut self.datagrams, &pieces[..used]) {
            Ok(done) => Run::Sent(done),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Run::Full { calls: self.datagrams.len(), frames }
            }
            Err(_) => Run::Sent(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::time::Duration;

    use super::*;
    use crate::packet::Offload;
    use crate::stage::sockets::{FrameSlot, ListenerId, NO_PART, Parts, SendPart, SockAddr};

    const VIA: Via = Via::Listener(ListenerId(1));

    fn bound(host: &str) -> UdpSocket {
        let socket = UdpSocket::bind((host, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket
    }

    fn at(socket: &UdpSocket) -> SockAddr {
        let addr = socket.local_addr().unwrap();
        SockAddr { addr: addr.ip().into(), port: addr.port() }
    }

    /// A call for each place: so many bytes, of which each datagram of a train has `segment`.
    fn calls_to(places: &[(SockAddr, u32, u16)]) -> (Vec<SocketCall>, SocketOutput, FrameBatch) {
        let (mut out, mut batch) = (SocketOutput::default(), FrameBatch::new());
        let mut calls = Vec::new();
        for (n, (to, len, segment)) in places.iter().enumerate() {
            assert!(batch.push(&vec![n as u8; *len as usize], Offload::NONE));
            let slot = FrameSlot(n as u16);
            out.parts.push(SendPart { slot, start: 0, len: *len, next: NO_PART });
            let at = n as u32;
            let parts = Parts { first: at, last: at, count: 1, bytes: *len };
            let (segment, to) = (*segment, *to);
            calls.push(SocketCall::SendTo {
                via: VIA,
                from: None,
                to,
                parts,
                segment,
                ttl: None,
                fragment: true,
            });
        }
        (calls, out, batch)
    }

    fn received(socket: &UdpSocket) -> (usize, u8) {
        let mut buf = [0; 4096];
        let n = socket.recv(&mut buf).unwrap();
        (n, buf[0])
    }

    #[test]
    fn datagrams_to_several_places_leave_by_one_call() {
        for host in ["127.0.0.1", "::1"] {
            let (from, to) = (bound(host), [(); 3].map(|()| bound(host)));
            let places = [
                (at(&to[0]), 100, 100),
                (at(&to[1]), 2_500, 1_000),
                (at(&to[2]), 300, 300),
                (at(&to[0]), 400, 400),
            ];
            let (calls, out, batch) = calls_to(&places);
            assert_eq!(run_of(&calls), Some((VIA, true)));
            let v4 = host == "127.0.0.1";
            let list = (&calls[..], &out);
            let done = Outbox::default().send((from.as_fd(), v4), VIA, list, &batch, true);
            assert_eq!(done, Run::Sent(4));
            assert_eq!([received(&to[0]), received(&to[0])], [(100, 0), (400, 3)], "in order");
            let train = [(); 3].map(|()| received(&to[1]));
            assert_eq!(train, [(1_000, 1), (1_000, 1), (500, 1)]);
            assert_eq!(received(&to[2]), (300, 2));
        }
    }

    #[test]
    fn a_run_stops_before_a_datagram_that_is_refused_and_goes_on_behind_it() {
        let (from, to) = (bound("127.0.0.1"), [(); 2].map(|()| bound("127.0.0.1")));
        // Nobody may send to a broadcast address unasked.
        let refused = SockAddr { addr: "255.255.255.255".parse().unwrap(), port: 9 };
        let places = [(at(&to[0]), 10, 10), (refused, 20, 20), (at(&to[1]), 30, 30)];
        let (calls, out, batch) = calls_to(&places);
        let mut outbox = Outbox::default();
        let mut send = |calls: &[SocketCall]| {
            outbox.send((from.as_fd(), true), VIA, (calls, &out), &batch, true)
        };
        assert_eq!([send(&calls), send(&calls[1..]), send(&calls[2..])], [1, 0, 1].map(Run::Sent));
        assert_eq!((received(&to[0]), received(&to[1])), ((10, 0), (30, 2)));
    }

    #[test]
    fn a_run_ends_where_another_socket_s_begins() {
        let to = [(); 2].map(|()| bound("127.0.0.1"));
        let (mut calls, out, batch) = calls_to(&[(at(&to[0]), 10, 10), (at(&to[1]), 10, 10)]);
        if let SocketCall::SendTo { via, .. } = &mut calls[1] {
            *via = Via::Listener(ListenerId(2));
        }
        assert_eq!(run_of(&calls), None);
        let from = bound("127.0.0.1");
        let list = (&calls[..], &out);
        let done = Outbox::default().send((from.as_fd(), true), VIA, list, &batch, true);
        assert_eq!(done, Run::Sent(1), "the other is not sent by this one");
        if let SocketCall::SendTo { via, fragment, .. } = &mut calls[1] {
            (*via, *fragment) = (VIA, false);
        }
        assert_eq!(run_of(&calls), None, "an option of the socket's, which is one for all");
    }
}
