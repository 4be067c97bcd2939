//! Processes that run: ours and others.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

use super::{EXIT_OURS, SignalFd};
use crate::io::netns::{NetNs, NetNsError};

/// A command that runs.
#[derive(Debug)]
pub struct Child {
    process: Process,
    /// What `prepare` returned.
    pub report: Vec<u8>,
}

/// A process, ours or not, that cannot be mistaken for a later one of the same number.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    pidfd: OwnedFd,
}

impl Process {
    /// Opens a running process.
    pub fn open(pid: u32) -> io::Result<Self> {
        let raw = Pid::from_raw(pid.cast_signed()).ok_or(io::ErrorKind::InvalidInput)?;
        let pidfd = rustix::process::pidfd_open(raw, PidfdFlags::empty())?;
        Ok(Self { pid, pidfd })
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(rustix::process::pidfd_send_signal(&self.pidfd, signal)?)
    }

    /// Waits for the end of a child of ours; its exit code, or 128 and the signal that killed it.
    pub fn wait(&self) -> io::Result<i32> {
        let wait =
            || rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
        let status = rustix::io::retry_on_intr(wait)?;
        let code = status.and_then(|status| {
            status.exit_status().or(status.terminating_signal().map(|signal| 128 + signal))
        });
        Ok(code.unwrap_or(EXIT_OURS))
    }

    /// Whether it ended, at the latest after `patience`. Works for any process.
    pub fn ended_within(&self, patience: Duration) -> io::Result<bool> {
        let timeout = patience.try_into().map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        Ok(poll(&mut fds, Some(&timeout))? > 0)
    }
}

impl AsFd for Process {
    /// Readable when the process has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Child {
    pub(super) fn new(process: Process, report: Vec<u8>) -> Self {
        Self { process, report }
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its network namespace.
    pub fn network(&self) -> Result<NetNs, NetNsError> {
        NetNs::of_pid(self.process.pid())
    }

    /// Waits for its end and meanwhile passes on to it what arrives at `signals`, except what a
    /// terminal sends, since that goes to the whole foreground group. The exit code, or 128 and the
    /// signal that killed it.
    pub fn wait_forwarding(&self, signals: &SignalFd) -> io::Result<i32> {
        loop {
            let mut fds = [
                PollFd::new(&self.process.pidfd, PollFlags::IN),
                PollFd::new(signals, PollFlags::IN),
            ];
            rustix::io::retry_on_intr(|| poll(&mut fds, None))?;
            if !fds[0].revents().is_empty() {
                return self.process.wait();
            }
            while let Some(received) = signals.read()? {
                if !received.from_terminal {
                    let _ = self.process.signal(received.signal);
                }
            }
        }
    }
}
