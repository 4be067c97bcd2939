//! Trains sent many at a time.
//!
//! Trains in a row that leave by one socket go out in one sendmmsg. It stops before the first that fails and
//! keeps quiet about why, so that one is sent by itself, and what the kernel says of it is acted upon: a
//! way that takes no trains gets datagrams one by one from then on, one that is too narrow is told of.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd};

use hashbrown::HashSet;

use super::{TunnelSockets, path_mtu};
use crate::base::ids::PortId;
use crate::io::host_calls::{self as calls, Addressed, Control, Name, SEND_MAX};
use crate::packet::{DropReason, FrameBatch};
use crate::stage::tunnel::{Train, TunnelOutput, Wrap};
use crate::wire::addr::Addr;

/// Pieces of one call: that of the kernel for one datagram (UIO_MAXIOV).
const PIECES_MAX: usize = 1024;

/// Something that did not leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Problem {
    /// Datagrams for a peer were lost.
    Lost(PortId, DropReason, u32),
    /// The way to a peer takes IP packets of at most this size, our headers included.
    Narrow(PortId, u16),
}

/// Sends trains; remembers who cannot take them.
#[derive(Debug, Default)]
pub struct TunnelOutbox {
    messages: Vec<Addressed>,
    /// Places to which datagrams go one by one.
    without_trains: HashSet<Addr>,
    problems: Vec<Problem>,
}

impl TunnelOutbox {
    /// Sends everything; what went wrong is in the answer.
    pub fn send(
        &mut self,
        sockets: &TunnelSockets,
        out: &TunnelOutput,
        batch: &FrameBatch,
    ) -> &[Problem] {
        self.problems.clear();
        let mut rest = out.trains();
        while let Some((first, others)) = rest.split_first() {
            let Some(fd) = sender(sockets, first) else {
                // What nobody has encrypted that should be never leaves.
                let bare = first.wrap == Wrap::Bare;
                self.lose(first, if bare { DropReason::PortGone } else { DropReason::NoAddress });
                rest = others;
                continue;
            };
            match self.send_run((sockets, fd), rest, out, batch) {
                0 => {
                    self.send_alone(fd, first, out, batch, sockets.features.udp_segment);
                    rest = others;
                }
                sent => rest = &rest[sent..],
            }
        }
        &self.problems
    }

    /// Sends the first trains that leave by one socket; how many went.
    fn send_run(
        &mut self,
        (sockets, fd): (&TunnelSockets, BorrowedFd<'_>),
        trains: &[Train],
        out: &TunnelOutput,
        batch: &FrameBatch,
    ) -> usize {
        let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
        let mut used = 0;
        self.messages.clear();
        for train in trains.iter().take(SEND_MAX) {
            let same = sender(sockets, train).is_some_and(|of| of.as_raw_fd() == fd.as_raw_fd());
            let whole = train.count == 1
                || sockets.features.udp_segment && !self.without_trains.contains(&train.to.0);
            if !same || !whole || used + out.count_pieces(train) > PIECES_MAX {
                break;
            }
            let start = used;
            for bytes in out.pieces(train, batch) {
                pieces[used] = IoSlice::new(bytes);
                used += 1;
            }
            self.messages.push(message(train, start..used, train.count > 1));
        }
        if self.messages.is_empty() {
            return 0;
        }
        calls::send_many(fd, &mut self.messages, &pieces[..used]).unwrap_or(0)
    }

    fn send_alone(
        &mut self,
        fd: BorrowedFd<'_>,
        train: &Train,
        out: &TunnelOutput,
        batch: &FrameBatch,
        trains: bool,
    ) {
        let mut bytes = Vec::with_capacity(train.bytes as usize);
        out.pieces(train, batch).for_each(|piece| bytes.extend_from_slice(piece));
        if train.count > 1 && trains && !self.without_trains.contains(&train.to.0) {
            match send(fd, train, &bytes, true) {
                Err(error) if is_no_train(&error) => {
                    // As many as there are peers; one that went and left its place here did no harm.
                    self.without_trains.insert(train.to.0);
                }
                Err(error) => return self.explain(train, &error, train.count),
                Ok(()) => return,
            }
        }
        for datagram in bytes.chunks(train.segment as usize) {
            if let Err(error) = send(fd, train, datagram, false) {
                self.explain(train, &error, 1);
            }
        }
    }

    fn explain(&mut self, train: &Train, error: &io::Error, count: u32) {
        let reason = match error.raw_os_error() {
            Some(libc::EMSGSIZE) => {
                let narrow = path_mtu(train.to.0.ip(), train.to.1);
                let narrow = narrow.map(|mtu| Problem::Narrow(train.port, mtu));
                self.problems.extend(narrow.filter(|p| !self.problems.contains(p)));
                DropReason::TooBig
            }
            Some(libc::EAGAIN | libc::ENOBUFS) => DropReason::EgressFull,
            _ => DropReason::WriteFailed,
        };
        self.problems.push(Problem::Lost(train.port, reason, count));
    }

    fn lose(&mut self, train: &Train, reason: DropReason) {
        self.problems.push(Problem::Lost(train.port, reason, train.count));
    }
}

fn sender<'a>(sockets: &'a TunnelSockets, train: &Train) -> Option<BorrowedFd<'a>> {
    if train.wrap == Wrap::Bare {
        return None;
    }
    Some(sockets.side(train.to.0.is_v4())?.sender(train.entropy))
}

fn message(train: &Train, pieces: std::ops::Range<usize>, is_train: bool) -> Addressed {
    let mut control = Control::new();
    if is_train {
        control.push(libc::SOL_UDP, libc::UDP_SEGMENT, &(train.segment as u16).to_ne_bytes());
    }
    Addressed { name: Name::new(train.to.0, train.to.1, train.to.0.is_v4()), control, pieces }
}

fn send(fd: BorrowedFd<'_>, train: &Train, bytes: &[u8], is_train: bool) -> io::Result<()> {
    let mut message = message(train, 0..1, is_train);
    let parts = [IoSlice::new(bytes)];
    calls::send(fd, Some(&message.name), &parts, &mut message.control).map(drop)
}

/// The way out cannot cut trains: it has no checksum offload, or something stands between.
fn is_no_train(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL))
}
