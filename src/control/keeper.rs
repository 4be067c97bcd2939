//! TAPs kept across a restart by `wharf holder`.

use std::os::fd::AsFd;

use super::outside::Keeper;
use crate::attach::holder::HolderClient;
use crate::io::tap::Tap;

/// The holder's side of [`Keeper`].
#[derive(Debug)]
pub struct HolderKeeper(pub HolderClient);

impl Keeper for HolderKeeper {
    fn keep(&mut self, key: &str, taps: &[Tap]) -> Result<(), String> {
        if taps.is_empty() {
            return Ok(());
        }
        let fds: Vec<_> = taps.iter().map(AsFd::as_fd).collect();
        self.0.put(key, serde_json::Value::Null, &fds).map_err(|e| e.to_string())
    }

    fn forget(&mut self, key: &str) -> Result<(), String> {
        self.0.drop_entry(key).map_err(|e| e.to_string())
    }

    fn recover(&mut self) -> Result<Vec<(String, Vec<Tap>)>, String> {
        let mut alive = Vec::new();
        for entry in self.0.take_all().map_err(|e| e.to_string())? {
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
