//! TAPs kept across a restart by `wharf holder`.
//!
//! The holder is started when there is something to hold, not before: a daemon without containers is
//! one process. What cannot be kept works all the same, it only does not survive the daemon; so a
//! holder that fails is an error in the log, and is tried anew at the next TAP.

use std::io;
use std::os::fd::AsFd;
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
}

impl HolderKeeper {
    /// A keeper that speaks to the holder at `socket`, and starts one with `command` (see
    /// [`HolderClient::connect_or_spawn`]) when there is none.
    pub fn new(socket: PathBuf, command: fn() -> io::Result<Command>) -> Self {
        Self { socket, command, client: None }
    }

    fn client(&mut self) -> Result<&HolderClient, HolderError> {
        let client = match self.client.take() {
            Some(client) => client,
            None => {
                let command = (self.command)().map_err(HolderError::Start)?;
                HolderClient::connect_or_spawn(&self.socket, command)?
            }
        };
        Ok(self.client.insert(client))
    }

    /// A connection that broke is made anew once: the holder may have been killed.
    fn with_client<T>(
        &mut self,
        work: impl Fn(&HolderClient) -> Result<T, HolderError>,
    ) -> Result<T, HolderError> {
        match work(self.client()?) {
            Err(HolderError::Connection(_)) => {
                self.client = None;
                let again = work(self.client()?);
                if again.is_err() {
                    self.client = None;
                }
                again
            }
            other => other,
        }
    }
}

impl Keeper for HolderKeeper {
    fn keep(&mut self, key: &str, taps: &[Tap]) -> Result<(), String> {
        if taps.is_empty() {
            return Ok(());
        }
        let fds: Vec<_> = taps.iter().map(AsFd::as_fd).collect();
        self.with_client(|client| client.put(key, serde_json::Value::Null, &fds))
            .map_err(|e| e.to_string())
    }

    fn forget(&mut self, key: &str) -> Result<(), String> {
        // Without a holder there is nothing to forget, and no reason to start one.
        let Some(client) = &self.client else { return Ok(()) };
        client.drop_entry(key).map_err(|e| e.to_string())
    }

    fn release(&mut self) -> Result<(), String> {
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
                Ok(taps) if !taps.is_empty() => alive.push((entry.key, taps)),
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
