//! Waiting for descriptors: mio, edge-triggered, with our own types around it.
//!
//! **Edge-triggered** means: a descriptor is reported when it *becomes* ready, not while it is. Who
//! stops reading before EAGAIN, because its budget is used up, must remember that by itself (the
//! worker's ready list); the poller will not say it again.
//!
//! Errors count as readable and writable too, as the next read or write tells which error it is.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll};

use crate::base::time::Span;

/// Reports of one call of [`Poller::wait`]; what does not fit is reported by the next one.
const EVENTS_MAX: usize = 256;

/// What the caller calls a descriptor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Token(pub u64);

/// What to wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    /// Something to read.
    Read,
    /// Room to write.
    Write,
    /// Both.
    ReadWrite,
    /// Both, and urgent data.
    Stream,
}

/// A descriptor that became ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "the kernel's event bits, each by its own")]
pub struct Ready {
    /// Which one.
    pub token: Token,
    /// A read will not block.
    pub readable: bool,
    /// A write will not block.
    pub writable: bool,
    /// The other side of a stream has ended its half.
    pub hangup: bool,
    /// Urgent data is in the stream (EPOLLPRI).
    pub urgent: bool,
    /// An error condition: of a TAP, that its interface is gone.
    pub error: bool,
}

/// A set of descriptors.
pub struct Poller {
    poll: Poll,
    events: Events,
}

/// Ends a [`Poller::wait`] from another thread.
#[derive(Clone, Debug)]
pub struct Waker {
    inner: Arc<mio::Waker>,
}

impl Waker {
    /// Ends the present wait, or the next one if there is none.
    pub fn wake(&self) -> io::Result<()> {
        self.inner.wake()
    }
}

impl Poller {
    /// An empty set.
    pub fn new() -> io::Result<Self> {
        Ok(Self { poll: Poll::new()?, events: Events::with_capacity(EVENTS_MAX) })
    }

    /// The waker; it is reported as readable under this token. There can be one for each poller,
    /// which may be cloned.
    pub fn waker(&self, token: Token) -> io::Result<Waker> {
        let inner = mio::Waker::new(self.poll.registry(), to_mio(token))?;
        Ok(Waker { inner: Arc::new(inner) })
    }

    /// Adds a descriptor. If it is ready already, it is reported.
    pub fn add(&self, fd: &impl AsFd, token: Token, wish: Wish) -> io::Result<()> {
        let raw = fd.as_fd().as_raw_fd();
        self.poll.registry().register(&mut SourceFd(&raw), to_mio(token), to_interest(wish))
    }

    /// Changes what is waited for. If it is ready already, it is reported again.
    pub fn change(&self, fd: &impl AsFd, token: Token, wish: Wish) -> io::Result<()> {
        let raw = fd.as_fd().as_raw_fd();
        self.poll.registry().reregister(&mut SourceFd(&raw), to_mio(token), to_interest(wish))
    }

    /// Removes a descriptor, while it is still open: a duplicate elsewhere would keep it in the set.
    pub fn remove(&self, fd: &impl AsFd) -> io::Result<()> {
        self.poll.registry().deregister(&mut SourceFd(&fd.as_fd().as_raw_fd()))
    }

    /// Waits until something is ready, a waker calls or the time is over, and adds what is ready to
    /// `ready`. The kernel counts milliseconds; a part of one is waited whole. A signal ends the
    /// wait early with nothing.
    pub fn wait(&mut self, timeout: Option<Span>, ready: &mut Vec<Ready>) -> io::Result<()> {
        let timeout = timeout.map(|span| Duration::from_nanos(span.0));
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        ready.extend(self.events.iter().map(|event| {
            let error = event.is_error();
            Ready {
                token: Token(event.token().0 as u64),
                readable: event.is_readable() || event.is_read_closed() || error,
                writable: event.is_writable() || event.is_write_closed() || error,
                hangup: event.is_read_closed(),
                urgent: event.is_priority(),
                error,
            }
        }));
        Ok(())
    }
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").finish_non_exhaustive()
    }
}

const _: () = assert!(size_of::<usize>() == size_of::<u64>(), "a token is one word");

fn to_mio(token: Token) -> mio::Token {
    mio::Token(token.0 as usize)
}

fn to_interest(wish: Wish) -> Interest {
    match wish {
        Wish::Read => Interest::READABLE,
        Wish::Write => Interest::WRITABLE,
        Wish::ReadWrite => Interest::READABLE | Interest::WRITABLE,
        Wish::Stream => Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    const WAKE: Token = Token(u64::MAX);

    fn wait(poller: &mut Poller) -> Vec<Ready> {
        let mut ready = Vec::new();
        poller.wait(Some(Span::from_secs(5)), &mut ready).unwrap();
        ready
    }

    fn pair() -> (UnixStream, UnixStream) {
        let (a, b) = UnixStream::pair().unwrap();
        a.set_nonblocking(true).unwrap();
        (a, b)
    }

    #[test]
    fn a_descriptor_is_reported_once_for_each_time_it_becomes_ready() {
        let mut poller = Poller::new().unwrap();
        let (mut a, mut b) = pair();
        poller.add(&a, Token(7), Wish::Read).unwrap();
        for _ in 0..2 {
            b.write_all(b"x").unwrap();
            let ready = wait(&mut poller);
            assert_eq!(ready.len(), 1);
            assert!(ready[0].token == Token(7) && ready[0].readable && !ready[0].writable);
            let mut none = Vec::new();
            poller.wait(Some(Span::ZERO), &mut none).unwrap();
            assert!(none.is_empty(), "reported twice");
        }
        assert_eq!(a.read(&mut [0; 8]).unwrap(), 2);
    }

    #[test]
    fn writing_is_reported_when_it_is_wished_for() {
        let mut poller = Poller::new().unwrap();
        let (a, _b) = pair();
        poller.add(&a, Token(1), Wish::Read).unwrap();
        poller.change(&a, Token(2), Wish::ReadWrite).unwrap();
        let ready = wait(&mut poller);
        assert!(ready[0].token == Token(2) && ready[0].writable && !ready[0].readable);
    }

    #[test]
    fn the_end_of_the_other_side_is_readable() {
        let mut poller = Poller::new().unwrap();
        let (mut a, b) = pair();
        poller.add(&a, Token(1), Wish::Read).unwrap();
        drop(b);
        assert!(wait(&mut poller)[0].readable);
        assert_eq!(a.read(&mut [0; 8]).unwrap(), 0);
    }

    #[test]
    fn a_waker_ends_the_wait_from_another_thread_and_is_not_lost_before_it() {
        let mut poller = Poller::new().unwrap();
        let waker = poller.waker(WAKE).unwrap();
        waker.wake().unwrap();
        assert_eq!(wait(&mut poller)[0].token, WAKE);
        std::thread::scope(|scope| {
            scope.spawn(|| waker.wake().unwrap());
            assert_eq!(wait(&mut poller)[0].token, WAKE);
        });
    }

    #[test]
    fn a_removed_descriptor_is_silent() {
        let mut poller = Poller::new().unwrap();
        let (a, mut b) = pair();
        poller.add(&a, Token(1), Wish::Read).unwrap();
        poller.remove(&a).unwrap();
        b.write_all(b"x").unwrap();
        let mut none = Vec::new();
        poller.wait(Some(Span::from_millis(1)), &mut none).unwrap();
        assert!(none.is_empty());
    }
}
