//! Datagrams received many at a time.
//!
//! One recvmmsg brings up to [`RECEIVE_MAX`] datagrams. Those of one sender that follow one another with
//! one size go on as one train, so that one write hands them all to a container: a write runs the
//! container's stack and costs several times what copying a datagram does.
//!
//! The first of them is received where its frame will be, the others are copied behind it or into frames
//! of their own. Copying what is large would cost more than the calls that it saves, so after a train of
//! the kernel's (UDP_GRO) one is received at a time.

use std::io;
use std::os::fd::BorrowedFd;

use super::host_calls::{self as calls, RECEIVE_MAX, Received};
use super::host_datagrams::{described, take_in};
use crate::base::limits::{
    FRAME_MAX, SOCKET_RECEIVE_TURN, SOCKET_UDP_TRAIN_BYTES_MAX, SOCKET_UDP_TRAIN_MAX,
};
use crate::packet::FrameBatch;
use crate::stage::sockets::{FrameSlot, SockAddr, SocketEvent, SocketKind, Via};
use crate::wire::addr::Addr;
use crate::wire::vnet::HEADER_LEN as VNET_LEN;

/// Room of one datagram: the largest there is, and a few cache lines more, so that the beginnings of all
/// do not fall into the same few lines of the cache.
const STRIDE: usize = FRAME_MAX.next_multiple_of(64) + 17 * 64;
/// From here on one datagram at a time.
const LARGE: usize = 8 * 1024;
/// What receiving a large one counts.
const LARGE_COUNTS: usize = 4;
/// Errors passed over in search of a datagram: each is reported once and then gone.
const ERRORS_MAX: usize = 4;

/// Datagrams of the socket at hand.
#[derive(Debug)]
pub(super) struct Inbox {
    room: Box<[u8]>,
    got: Box<[Received]>,
    /// Whose datagrams these are; none between two calls.
    via: Option<Via>,
    count: usize,
    next: usize,
    /// How many more may be received for this call.
    left: usize,
    large: bool,
}

/// How far a call is.
#[derive(Debug)]
pub(super) enum Inboxed<'a> {
    /// A datagram or a train; there may be more.
    Event(SocketEvent<'a>),
    /// Nothing more is there.
    Drained,
    /// More is there, but others want their turn.
    Enough,
    /// The batch is full.
    NoRoom,
}

/// What a frame was made of.
struct Taken {
    slot: FrameSlot,
    from: SockAddr,
    to: Option<Addr>,
    segment: Option<u16>,
}

impl Inbox {
    /// Memory that the kernel only gives when it is written to.
    pub(super) fn new() -> Self {
        Self {
            room: vec![0; (RECEIVE_MAX - 1) * STRIDE].into_boxed_slice(),
            got: vec![Received::nothing(); RECEIVE_MAX].into_boxed_slice(),
            via: None,
            count: 0,
            next: 0,
            left: 0,
            large: false,
        }
    }

    /// Forgets a call that cannot go on.
    pub(super) fn forget(&mut self) {
        self.via = None;
    }

    /// The next datagram or train, in a new frame behind `headers` bytes. Asked again and again until it
    /// answers with something else than an event.
    pub(super) fn receive<'a>(
        &mut self,
        fd: BorrowedFd<'_>,
        via: Via,
        headers: usize,
        batch: &'a mut FrameBatch,
    ) -> Inboxed<'a> {
        if self.via != Some(via) {
            (self.via, self.count, self.next) = (Some(via), 0, 0);
            self.left = SOCKET_RECEIVE_TURN;
        }
        let mut errors = 0;
        loop {
            if batch.spare().is_none() {
                return Inboxed::NoRoom;
            }
            if self.next < self.count {
                let Some(taken) = self.take(via, headers, batch) else { continue };
                let Taken { slot, from, to, segment } = taken;
                let frame = batch.frame(usize::from(slot.0));
                let event = SocketEvent::Datagram { via, slot, frame, from, to, segment };
                return Inboxed::Event(event);
            }
            if self.left == 0 {
                self.forget();
                return Inboxed::Enough;
            }
            match self.read(fd, headers, batch) {
                Ok(()) => {}
                Err(error) if error.kind() != io::ErrorKind::WouldBlock && errors < ERRORS_MAX => {
                    errors += 1;
                }
                Err(_) => {
                    self.forget();
                    return Inboxed::Drained;
                }
            }
        }
    }

    fn read(
        &mut self,
        fd: BorrowedFd<'_>,
        headers: usize,
        batch: &mut FrameBatch,
    ) -> io::Result<()> {
        let first = batch.spare().and_then(|room| room.get_mut(VNET_LEN + headers..));
        let wanted = if self.large { 1 } else { self.left.min(RECEIVE_MAX) };
        let (Some(first), Some(got)) = (first, self.got.get_mut(..wanted)) else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        (self.count, self.next) = (0, 0);
        self.count = calls::receive_many(fd, first, (&mut self.room, STRIDE), got)?;
        let cost = if self.large { LARGE_COUNTS } else { self.count };
        self.left = self.left.saturating_sub(cost);
        self.large = self.got[..self.count].last().is_some_and(|last| last.len >= LARGE);
        Ok(())
    }

    /// Makes a frame of the next datagram and of those that make a train with it.
    fn take(&mut self, via: Via, headers: usize, batch: &mut FrameBatch) -> Option<Taken> {
        let number = self.next;
        self.next += 1;
        let got = *self.got.get(number)?;
        let (from, to, mut segment) = described(&got);
        let (from, room) = (from?, batch.spare()?.get_mut(VNET_LEN + headers..)?);
        if got.truncated {
            return None;
        }
        if number > 0 {
            room.get_mut(..got.len)?.copy_from_slice(self.bytes(number)?);
        }
        let mut len = got.len;
        if segment.is_none() && makes_trains(via) {
            while let Some(joined) = self.joins(&got, len) {
                room.get_mut(len..len + joined.len())?.copy_from_slice(joined);
                len += joined.len();
                segment = Some(got.len as u16);
                self.next += 1;
            }
        }
        let slot = take_in(batch, headers, len)?;
        Some(Taken { slot, from, to, segment })
    }

    /// The next datagram, if it can be the next of the train that `first` began and that is `len` long.
    fn joins(&self, first: &Received, len: usize) -> Option<&[u8]> {
        let next = self.got[..self.count].get(self.next)?;
        // All but the last have one size.
        let whole = len.checked_rem(first.len)? == 0;
        let fits = next.len <= first.len && next.len > 0 && !next.truncated;
        let bounded = len / first.len < SOCKET_UDP_TRAIN_MAX as usize
            && len + next.len <= SOCKET_UDP_TRAIN_BYTES_MAX as usize;
        let same = next.name == first.name && next.control == first.control;
        if whole && fits && bounded && same { self.bytes(self.next) } else { None }
    }

    fn bytes(&self, number: usize) -> Option<&[u8]> {
        let start = number.checked_sub(1)? * STRIDE;
        self.room.get(start..start + self.got.get(number)?.len)
    }
}

fn makes_trains(via: Via) -> bool {
    match via {
        Via::Socket(id) => id.kind() == SocketKind::Udp,
        Via::Listener(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;
    use crate::stage::sockets::ListenerId;

    const VIA: Via = Via::Listener(ListenerId(1));

    /// A receiver and two senders to it.
    fn sockets(host: &str) -> (UdpSocket, [UdpSocket; 2]) {
        let receiver = UdpSocket::bind((host, 0)).unwrap();
        receiver.set_nonblocking(true).unwrap();
        let senders = [(); 2].map(|()| {
            let sender = UdpSocket::bind((host, 0)).unwrap();
            sender.connect(receiver.local_addr().unwrap()).unwrap();
            sender
        });
        (receiver, senders)
    }

    /// All that is there: the length of each frame, its train's size and its last byte.
    fn receive_all(inbox: &mut Inbox, socket: &UdpSocket) -> Vec<(usize, Option<u16>, u8)> {
        let (mut batch, mut all) = (FrameBatch::new(), Vec::new());
        loop {
            match inbox.receive(socket.as_fd(), VIA, 42, &mut batch) {
                Inboxed::Event(SocketEvent::Datagram { frame, segment, .. }) => {
                    let last = *frame.bytes().last().unwrap();
                    all.push((frame.len() - 42, segment, last));
                }
                Inboxed::Event(other) => panic!("{other:?}"),
                Inboxed::NoRoom => batch.clear(),
                Inboxed::Enough => {}
                Inboxed::Drained => return all,
            }
        }
    }

    #[test]
    fn datagrams_of_one_sender_and_size_in_a_row_make_a_train() {
        for host in ["127.0.0.1", "::1"] {
            let (receiver, [a, b]) = sockets(host);
            let send = |from: &UdpSocket, len: usize, byte: u8| {
                from.send(&vec![byte; len]).unwrap();
            };
            for (from, len, byte) in [
                (&a, 1000, 1),
                (&a, 1000, 2),
                (&a, 400, 3),
                (&a, 1000, 4),
                (&b, 1000, 5),
                (&b, 1200, 6),
                (&a, 0, 0),
            ] {
                send(from, len, byte);
            }
            let all = receive_all(&mut Inbox::new(), &receiver);
            let lone = |len, byte| (len, None, byte);
            // An empty one has the last byte of its headers.
            let expected =
                [(2400, Some(1000), 3), lone(1000, 4), lone(1000, 5), lone(1200, 6), lone(0, 0)];
            assert_eq!(
                all, expected,
                "a shorter one ends a train, another sender begins a new one"
            );
        }
    }

    #[test]
    fn a_flood_gets_one_turn_at_a_time_and_loses_nothing() {
        let (receiver, [a, _]) = sockets("127.0.0.1");
        let (mut inbox, mut batch, mut got) = (Inbox::new(), FrameBatch::new(), 0);
        let mut turns = 0;
        let sent = 150;
        for _ in 0..sent {
            a.send(&[7; 300]).unwrap();
        }
        loop {
            match inbox.receive(receiver.as_fd(), VIA, 42, &mut batch) {
                Inboxed::Event(SocketEvent::Datagram { frame, .. }) => got += frame.len() - 42,
                Inboxed::Event(other) => panic!("{other:?}"),
                Inboxed::NoRoom => batch.clear(),
                Inboxed::Enough => turns += 1,
                Inboxed::Drained => break,
            }
        }
        assert_eq!((got, turns), (sent * 300, 1));
    }

    #[test]
    fn the_largest_datagrams_arrive_whole_one_at_a_time() {
        let (receiver, [a, _]) = sockets("127.0.0.1");
        for byte in 0..3 {
            a.send(&vec![byte; 60_000]).unwrap();
        }
        let all = receive_all(&mut Inbox::new(), &receiver);
        assert_eq!(all, [(60_000, None, 0), (60_000, None, 1), (60_000, None, 2)]);
    }
}
