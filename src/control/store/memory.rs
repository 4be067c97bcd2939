//! A store that ends with the process: for private daemons that keep nothing, and for tests.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::record::{Change, Kind, Snapshot};
use super::{Store, StoreError};

type Records = BTreeMap<(Kind, String), String>;

/// Records in memory. Clones share them, so a test can open "the same store" again.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    records: Arc<Mutex<Records>>,
    full: Arc<std::sync::atomic::AtomicBool>,
}

impl MemoryStore {
    /// From now on every write fails as on a full disk, or works again.
    pub fn set_full(&self, full: bool) {
        self.full.store(full, std::sync::atomic::Ordering::Relaxed);
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Store for MemoryStore {
    fn load(&self) -> Result<Snapshot, StoreError> {
        let mut snapshot = Snapshot::default();
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        for ((kind, key), json) in records.iter() {
            let added = snapshot.add(*kind, key, json);
            added.map_err(|cause| StoreError::Corrupt { path: "memory".into(), cause })?;
        }
        Ok(snapshot)
    }

    fn write(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        if self.full.load(std::sync::atomic::Ordering::Relaxed) {
            let full = std::io::ErrorKind::StorageFull.into();
            return Err(StoreError::from_io(Path::new("memory"), full));
        }
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            let key = (change.kind, change.key.clone());
            match &change.json {
                Some(json) => records.insert(key, json.clone()),
                None => records.remove(&key),
            };
        }
        Ok(())
    }

    fn place(&self) -> String {
        "memory".to_owned()
    }
}
