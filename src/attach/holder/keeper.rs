//! The holder's side: one thread, one `poll`.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;

use super::{Hello, Reply, Request, VERSION};
use crate::base::limits::{ATTACH_PATIENCE, HOLDER_ENTRIES_MAX};
use crate::base::time::Span;
use crate::io::fdpass::{Connection, FdPassError, Listener};
use crate::io::tap::Tap;

/// How often a holder without a daemon looks after its TAPs.
const TICK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

struct Held {
    meta: serde_json::Value,
    fds: Vec<OwnedFd>,
    is_tap: bool,
}

struct Keeper {
    owner: u32,
    entries: BTreeMap<String, Held>,
    client: Option<Connection>,
}

enum Next {
    GoOn,
    End,
}

/// Holds descriptors until it is told to end, or until it holds nothing and nobody was connected for
/// so long (whole seconds).
pub fn run_holder(listener: &Listener, idle: Span) -> io::Result<()> {
    let owner = rustix::process::geteuid().as_raw();
    let mut keeper = Keeper { owner, entries: BTreeMap::new(), client: None };
    let mut idle_ticks = 0;
    loop {
        let (caller, message) = keeper.wait(listener)?;
        // The client first: if it is dead, the caller may be its successor.
        if message {
            if matches!(keeper.serve(), Next::End) {
                return Ok(());
            }
        } else if caller {
            keeper.accept(listener);
            idle_ticks = 0;
        } else {
            idle_ticks += 1;
            keeper.forget_dead_taps();
            if keeper.entries.is_empty() && idle_ticks >= idle.as_millis() / 1000 {
                return Ok(());
            }
        }
    }
}

impl Keeper {
    /// Waits for a caller and for a message of the client; for a second only if there is no client.
    fn wait(&self, listener: &Listener) -> io::Result<(bool, bool)> {
        let mut fds = vec![PollFd::new(listener, PollFlags::IN)];
        fds.extend(self.client.as_ref().map(|client| PollFd::new(client, PollFlags::IN)));
        let timeout = if self.client.is_none() { Some(&TICK) } else { None };
        rustix::io::retry_on_intr(|| poll(&mut fds, timeout))?;
        let ready = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
        Ok((ready(0), ready(1)))
    }

    fn accept(&mut self, listener: &Listener) {
        let Ok(connection) = listener.accept() else { return };
        let allowed = connection.peer().is_ok_and(|peer| peer.may_speak(self.owner, None));
        if !allowed || connection.set_patience(ATTACH_PATIENCE).is_err() {
            return;
        }
        // Two daemons on one state would be worse than one that does not start.
        if self.client.is_some() {
            let message = "another daemon is connected to it".to_owned();
            let _ = send(&connection, &Reply::Failed { message });
            return;
        }
        self.forget_dead_taps();
        let hello = Hello { version: VERSION, entries: self.entries.len() };
        if send(&connection, &hello).is_ok() {
            self.client = Some(connection);
        }
    }

    /// Answers one message of the client; whatever breaks the connection only ends the connection.
    fn serve(&mut self) -> Next {
        let Some(client) = self.client.take() else { return Next::GoOn };
        let Ok(message) = client.recv() else { return Next::GoOn };
        let (reply, next) = match serde_json::from_slice(&message.bytes) {
            Ok(Request::Put { key, meta }) => (self.put(key, meta, message.fds), Next::GoOn),
            Ok(Request::Drop { key }) => {
                self.entries.remove(&key);
                (Reply::Done, Next::GoOn)
            }
            Ok(Request::Take) => {
                if self.give(&client).is_err() {
                    return Next::GoOn;
                }
                (Reply::Done, Next::GoOn)
            }
            Ok(Request::Quit) => (Reply::Done, Next::End),
            Err(error) => (Reply::Failed { message: error.to_string() }, Next::GoOn),
        };
        if send(&client, &reply).is_ok() {
            self.client = Some(client);
        }
        next
    }

    fn put(&mut self, key: String, meta: serde_json::Value, fds: Vec<OwnedFd>) -> Reply {
        if self.entries.len() >= HOLDER_ENTRIES_MAX && !self.entries.contains_key(&key) {
            let message = format!("it holds {HOLDER_ENTRIES_MAX} entries already");
            return Reply::Failed { message };
        }
        let is_tap = fds.iter().any(Tap::is_tun_descriptor);
        self.entries.insert(key, Held { meta, fds, is_tap });
        Reply::Done
    }

    fn give(&self, client: &Connection) -> Result<(), FdPassError> {
        for (key, held) in &self.entries {
            let reply = Reply::Entry { key: key.clone(), meta: held.meta.clone() };
            let fds: Vec<_> = held.fds.iter().map(AsFd::as_fd).collect();
            client.send(&serde_json::to_vec(&reply).unwrap_or_default(), &fds)?;
        }
        Ok(())
    }

    /// A TAP whose namespace is gone reports an error. Only asked, never waited for: whoever waits on
    /// a TAP is woken by each of its frames.
    fn forget_dead_taps(&mut self) {
        self.entries.retain(|_, held| {
            let mut fds: Vec<_> =
                held.fds.iter().map(|fd| PollFd::new(fd, PollFlags::empty())).collect();
            let asked = held.is_tap && poll(&mut fds, Some(&Timespec::default())).is_ok();
            !asked || !fds.iter().any(|fd| fd.revents().contains(PollFlags::ERR))
        });
    }
}

fn send(connection: &Connection, message: &impl serde::Serialize) -> Result<(), FdPassError> {
    connection.send(&serde_json::to_vec(message).unwrap_or_default(), &[])
}
