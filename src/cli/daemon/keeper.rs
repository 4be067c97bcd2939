//! Control's keeper of TAPs, with the holder behind it.
//!
//! The holder is started when there is something to hold, not before: a daemon without containers is
//! one process. What cannot be kept works all the same, it only does not survive the daemon; so a
//! holder that fails is an error in the log, and is tried anew at the next TAP.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use crate::attach::holder::{HolderClient, HolderError};
use crate::control::outside::Keeper;
use crate::io::fdpass::FdPassError;
use crate::io::tap::Tap;

/// Keeps TAPs in the holder.
#[derive(Debug)]
pub(super) struct HolderKeeper {
    socket: PathBuf,
    client: Option<HolderClient>,
}

impl HolderKeeper {
    pub(super) fn new(socket: PathBuf) -> Self {
        Self { socket, client: None }
    }

    fn client(&mut self) -> Result<&HolderClient, HolderError> {
        let client = match self.client.take() {
            Some(client) => client,
            None => HolderClient::connect_or_spawn(&self.socket, holder_command()?)?,
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

fn holder_command() -> Result<Command, HolderError> {
    let mut command = Command::new(std::env::current_exe().map_err(HolderError::Start)?);
    command.arg("holder");
    Ok(command)
}

impl Keeper for HolderKeeper {
    fn keep(&mut self, key: &str, taps: &[Tap]) -> Result<(), String> {
        let fds: Vec<_> = taps.iter().map(AsFd::as_fd).collect();
        self.with_client(|client| client.put(key, json!({}), &fds)).map_err(|e| e.to_string())
    }

    fn forget(&mut self, key: &str) -> Result<(), String> {
        // Without a holder there is nothing to forget, and no reason to start one.
        let Some(client) = &self.client else { return Ok(()) };
        client.drop_entry(key).map_err(|e| e.to_string())
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
        let mut kept = Vec::with_capacity(entries.len());
        for entry in entries {
            match entry.fds.into_iter().map(Tap::from_fd).collect::<Result<Vec<_>, _>>() {
                Ok(taps) => kept.push((entry.key, taps)),
                Err(error) => tracing::warn!(key = entry.key, %error, "held in vain"),
            }
        }
        Ok(kept)
    }
}

/// Lets go of everything that is held: the containers' interfaces disappear.
pub(super) fn release(socket: &std::path::Path) -> Result<(), HolderError> {
    match HolderClient::connect(socket) {
        Ok(client) => client.quit(),
        Err(HolderError::Connection(FdPassError::NotListening { .. })) => Ok(()),
        Err(error) => Err(error),
    }
}
