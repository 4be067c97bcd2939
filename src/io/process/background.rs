//! Going on in the background, as programs do that return to the shell when they are ready.
#![allow(unsafe_code, reason = "fork, _exit and dup2 have no safe form")]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions};

/// A process in the background whose starter still waits for it.
#[derive(Debug)]
pub struct Background {
    ready: OwnedFd,
}

/// Forks. The caller's process waits until the other one is ready, and ends with 0, or until it has failed,
/// and ends with its exit code; only the other one returns from here. Only while there is one thread.
pub fn into_background() -> io::Result<Background> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    // SAFETY: there is one thread, so the child's copy of the process is whole.
    match unsafe { libc::fork() } {
        0 => {
            rustix::process::setsid()?;
            Ok(Background { ready: writer })
        }
        pid if pid > 0 => {
            drop(writer);
            let ready = File::from(reader).read(&mut [0]).is_ok_and(|n| n == 1);
            let code = if ready { 0 } else { exit_code(pid) };
            // SAFETY: ends the process at once; what runs at exit is the child's business.
            unsafe { libc::_exit(code) }
        }
        _ => Err(io::Error::last_os_error()),
    }
}

fn exit_code(pid: i32) -> i32 {
    let Some(pid) = rustix::process::Pid::from_raw(pid) else { return 1 };
    let wait = || rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED);
    let status = rustix::io::retry_on_intr(wait).ok().flatten();
    // Whatever it is, "not ready" is no success.
    status.and_then(|status| status.exit_status()).filter(|code| *code != 0).unwrap_or(1)
}

impl Background {
    /// Tells the starter that all is well, and lets go of its standard streams: somebody may be waiting
    /// for their end.
    /// What is said from now on goes to `log`, if there is one.
    pub fn ready(self, log: Option<&File>) -> io::Result<()> {
        let null = File::options().read(true).write(true).open("/dev/null")?;
        for (stream, to) in [(0, &null), (1, &null), (2, log.unwrap_or(&null))] {
            // SAFETY: both are open, and standard streams are owned by nobody in particular.
            if unsafe { libc::dup2(to.as_raw_fd(), stream) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // The starter may have been killed.
        let _ = File::from(self.ready).write_all(&[1]);
        Ok(())
    }
}
