//! Docker Engine: a remote network driver and a remote IPAM driver in one plugin, for
//! `docker network create -d wharf --ipam-driver wharf`.
//!
//! [`Plugin::answer`] is the whole of it, without a socket: a call's path and body to the answer's. Below
//! are the calls ([`driver`], [`ipam`]), what they say to Wharf ([`switch`]), and what is remembered
//! ([`state`]). A call never asks Docker anything: at its start dockerd waits for us.

mod answer;
mod driver;
pub mod fuzz;
mod ipam;
mod messages;
mod options;
mod pools;
mod problem;
pub mod server;
mod state;
mod switch;
#[cfg(test)]
mod tests;
mod watcher;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::state::{State, Store};
use self::switch::{Daemon, Switch};
use crate::api::paths::RuntimeDir;

pub use self::answer::Answer;

/// The plugin.
#[derive(Debug)]
pub struct Plugin {
    switch: Box<dyn Switch>,
    store: Store,
    /// Held for a whole call: the calls of a moment are few, and their order is simple then.
    state: Mutex<State>,
}

impl Plugin {
    /// A plugin before the daemon of that directory, which remembers things in that file.
    pub fn open(daemon: &RuntimeDir, file: &Path) -> io::Result<Self> {
        let (store, state) = Store::open(file)?;
        let switch = Box::new(Daemon::new(daemon));
        Ok(Self { switch, store, state: Mutex::new(state) })
    }

    /// Learns names and labels from the Docker at that socket from now on, whenever it is there.
    pub fn watch(self: &Arc<Self>, docker: PathBuf) -> io::Result<()> {
        watcher::start(Arc::clone(self), docker)
    }

    /// What a panic left is still worth serving: what matters is written before it is answered.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
