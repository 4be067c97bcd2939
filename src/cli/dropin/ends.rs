//! What ends a program that stands in for another one.

use std::os::fd::OwnedFd;
use std::thread::Builder;

use crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Signal;

use crate::cli::output::{Failure, Outcome};
use crate::control::model::{EventInfo, EventKind};
use crate::io::process::SignalFd;

/// Why it is over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// It was asked to end, or who had asked for it is gone.
    Asked,
    /// The namespace is gone.
    Gone,
    /// It cannot go on.
    Failed(String),
}

/// Where ends are told, and waited for.
#[derive(Debug)]
pub(super) struct Ends {
    sender: Sender<End>,
    receiver: Receiver<End>,
}

impl Ends {
    pub(super) fn new() -> Self {
        let (sender, receiver) = unbounded();
        Self { sender, receiver }
    }

    /// The place to tell one.
    pub(super) fn sender(&self) -> Sender<End> {
        self.sender.clone()
    }

    /// SIGTERM and SIGINT, collected before there was any other thread.
    pub(super) fn at_signal(&self, signals: SignalFd) -> Result<(), Failure> {
        self.watch("signals", move || {
            let mut fds = [PollFd::new(&signals, PollFlags::IN)];
            let _ = rustix::io::retry_on_intr(|| poll(&mut fds, None));
            End::Asked
        })
    }

    /// The other end of a pipe being closed, by hand or by the end of the process that held it.
    pub(super) fn at_close_of(&self, fd: OwnedFd) -> Result<(), Failure> {
        self.watch("exit-fd", move || {
            // Nothing asked for: a hang-up and an error are always told.
            let mut fds = [PollFd::new(&fd, PollFlags::empty())];
            let _ = rustix::io::retry_on_intr(|| poll(&mut fds, None));
            End::Asked
        })
    }

    fn watch(
        &self,
        name: &str,
        wait: impl FnOnce() -> End + Send + 'static,
    ) -> Result<(), Failure> {
        let sender = self.sender();
        Builder::new().name(name.to_owned()).spawn(move || {
            let _ = sender.send(wait());
        })?;
        Ok(())
    }

    /// Waits for the first; with `stay` the namespace's end is none.
    pub(super) fn wait(&self, stay: bool) -> Outcome {
        loop {
            match self.receiver.recv() {
                Ok(End::Gone) if stay => {}
                Ok(End::Asked | End::Gone) | Err(_) => return Ok(0),
                Ok(End::Failed(why)) => return Err(Failure::new(why)),
            }
        }
    }
}

/// What in a switch's log of events is an end of it.
pub(super) fn of_event(event: &EventInfo) -> Option<End> {
    match event.kind {
        EventKind::EndpointLost => Some(End::Gone),
        EventKind::WorkerFailed => Some(End::Failed(event.text.clone())),
        _ => None,
    }
}

/// The signals that ask for the end.
pub(super) const SIGNALS: [Signal; 2] = [Signal::TERM, Signal::INT];
