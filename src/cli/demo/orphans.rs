//! Processes whose parent has ended, such as the daemon's holder, become children of the demo, which
//! sees to it that they end before it does.

use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use super::now;

/// Everybody has been told to end.
const PATIENCE: Duration = Duration::from_secs(3);
/// A process takes a millisecond to end.
const POLL: Duration = Duration::from_millis(2);

/// From now on, whoever loses his parent below this process is given to it.
pub(super) fn adopt() -> rustix::io::Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
}

/// Waits for the end of all children; those that take too long are killed.
pub(super) fn collect() {
    let end = now() + PATIENCE;
    while !all_ended() {
        if now() > end {
            for child in children() {
                let _ = kill_process(child, Signal::KILL);
            }
        }
        thread::sleep(POLL);
    }
}

/// Collects those that have ended. `true`: there are no more.
fn all_ended() -> bool {
    loop {
        match waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Ok(None) => return false,
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Err(_) => return true,
        }
    }
}

fn children() -> impl Iterator<Item = Pid> {
    let list = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    let numbers: Vec<i32> = list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
    numbers.into_iter().filter_map(Pid::from_raw)
}
