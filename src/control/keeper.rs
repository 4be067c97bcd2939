//! TAPs kept across a restart by `wharf holder`.
//!
//! The holder is started when there is something to hold, not before: a daemon without containers is
//! one process. What cannot be kept works all the same, it only does not survive the daemon; so a
//! holder that fails is an error in the log, and is tried anew at the next TAP.
//!
//! A duplicate of each TAP stays here, too: a holder that takes the place of one that was killed is
//! given all of them. The workers' own descriptors are theirs, and out of reach.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::Command;

use super::outside::Keeper;
use crate::attach::holder::{HolderClient, HolderError};
use crate::io::fdpass::FdPassError;
use crate::io::tap::Tap;

/// Keeps TAPs in the holder.
#[derive(Debug)]
pub struct HolderKeeper {
    socket: PathBuf,
    command: fn() -> io::Result<Command>,
    client: Option<HolderClient>,
    kept: BTreeMap<String, Vec<OwnedFd>>,
}

impl HolderKeeper {
    /// A keeper that speaks to the holder at `socket`, and starts one with `command` (see
    /// [`HolderClient::connect_or_spawn`]) when there is none.
    pub fn new(socket: PathBuf, command: fn() -> io::Result<Command>) -> Self {
        Self { socket, command, client: None, kept: BTreeMap::new() }
    }

    fn client(&mut self) -> Result<&HolderClient, HolderError> {
        let client = match self.client.take() {
            Some(client) => client,
            None => {
                let command = (self.command)().map_err(HolderError::Start)?;
                let client = HolderClient::connect_or_spawn(&self.socket, command)?;
                for (key, taps) in &self.kept {
                    put(&client, key, taps)?;
                }
                client
            }
        };
        Ok(self.client.insert(client))
    }

    /// Gives the holder an entry. A connection that broke is made anew once: the holder may have been
    /// killed.
    fn hand_over(&mut self, key: &str) -> Result<(), HolderError> {
        let Some(taps) = self.kept.get(key) else { return Ok(()) };
        if let Some(client) = &self.client {
            match put(client, key, taps) {
                Err(HolderError::Connection(_)) => self.client = None,
                other => return other,
            }
        }
        // With all that is kept.
        self.client().map(drop)
    }
}

fn put(client: &HolderClient, key: &str, taps: &[OwnedFd]) -> Result<(), HolderError> {
    let fds: Vec<_> = taps.iter().map(AsFd::as_fd).collect();
    client.put(key, serde_json::Value::Null, &fds)
}

fn duplicates(taps: &[Tap]) -> io::Result<Vec<OwnedFd>> {
    taps.iter().map(|tap| tap.as_fd().try_clone_to_owned()).collect()
}

impl Keeper for HolderKeeper {
    fn keep(&mut self, key: &str, taps: &[Tap]) -> Result<(), String> {
        if taps.is_empty() {
            return Ok(());
        }
        let fds = duplicates(taps).map_err(|e| e.to_string())?;
        self.kept.insert(key.to_owned(), fds);
        self.hand_over(key).map_err(|e| e.to_string())
    }

    fn forget(&mut self, key: &str) -> Result<(), String> {
        self.kept.remove(key);
        // Without a holder there is nothing to forget, and no reason to start one.
        let Some(client) = &self.client else { return Ok(()) };
        match client.drop_entry(key) {
            // Its successor is never told of this entry.
            Err(HolderError::Connection(_)) => {
                self.client = None;
                Ok(())
            }
            other => other.map_err(|e| e.to_string()),
        }
    }

    fn release(&mut self) -> Result<(), String> {
        self.kept.clear();
        let client = match self.client.take() {
            Some(client) => client,
            None => match HolderClient::connect(&self.socket) {
                Ok(client) => client,
                Err(HolderError::Connection(FdPassError::NotListening { .. })) => return Ok(()),
                Err(error) => return Err(error.to_string()),
            },
        };
        client.quit().map_err(|e| e.to_string())
    }

    fn recover(&mut self) -> Result<Vec<(String, Vec<Tap>)>, String> {
        let client = match HolderClient::connect(&self.socket) {
            Ok(client) => client,
            Err(HolderError::Connection(FdPassError::NotListening { .. })) => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(error.to_string()),
        };
        let entries = client.take_all().map_err(|e| e.to_string())?;
        self.client = Some(client);
        let mut alive = Vec::with_capacity(entries.len());
        for entry in entries {
            let taps = entry.fds.into_iter().map(Tap::from_fd).collect::<Result<Vec<_>, _>>();
            // A TAP whose link is gone refuses every request; so would anything else that got in here.
            match taps {
                Ok(taps) if !taps.is_empty() => {
                    let fds = duplicates(&taps).map_err(|e| e.to_string())?;
                    self.kept.insert(entry.key.clone(), fds);
                    alive.push((entry.key, taps));
                }
                Ok(_) => self.forget(&entry.key)?,
                Err(error) => {
                    tracing::info!("{} is gone: {error}", entry.key);
                    self.forget(&entry.key)?;
                }
            }
        }
        Ok(alive)
    }
}
