//! Where desired state is kept, so that it survives the daemon.
//!
//! A store holds records by kind and key; a batch of changes is written whole or not at all, and is on
//! the disk when `write` returns. Control validates first, then writes here, then tells the workers: a
//! daemon that dies in between comes back with what it had promised.

pub mod etcd;
pub mod memory;
pub mod record;
pub mod redb;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use record::{Change, Snapshot};

/// The version of what is written. Raised when an older daemon could misread it.
pub const SCHEMA: u32 = 1;

/// A place for desired state.
pub trait Store: Send + fmt::Debug {
    /// Everything there is.
    fn load(&self) -> Result<Snapshot, StoreError>;

    /// Writes all changes, or none.
    fn write(&mut self, changes: &[Change]) -> Result<(), StoreError>;

    /// Where it is, for people.
    fn place(&self) -> String;
}

/// Why the store cannot be used. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another daemon has it.
    #[error(
        "another wharf daemon uses the state in {0}: stop that one first, or give this one a state \
         directory of its own (--state-dir)"
    )]
    InUse(PathBuf),
    /// It cannot be read.
    #[error(
        "the state in {path} is damaged ({cause}): move the file away to start afresh; networks and \
         publications have to be made again"
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What was found.
        cause: String,
    },
    /// A later daemon wrote it.
    #[error(
        "the state in {path} was written by a newer wharf (schema {found}, this one knows \
         {SCHEMA}): install that version again, or use another --state-dir"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u32,
    },
    /// No right to it.
    #[error(
        "no right to use the state in {path}: {source}; run as its owner, or use another --state-dir"
    )]
    Denied {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file system does not take writes.
    #[error("the state in {0} is on a read-only file system: use another --state-dir")]
    ReadOnly(PathBuf),
    /// The disk or the quota is full.
    #[error(
        "no space left for the state in {path}: {source}; nothing was changed, free some space and try again"
    )]
    Full {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another failure of the system.
    #[error("the state in {path} cannot be used: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl StoreError {
    /// The fitting error for what the system said.
    pub fn from_io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::Denied { path, source },
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly(path),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full { path, source }
            }
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                Self::Corrupt { path, cause: source.to_string() }
            }
            _ => Self::Io { path, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_of_the_disk_is_one_line_with_what_to_do() {
        let path = Path::new("/state/state.redb");
        for (kind, words) in [
            (io::ErrorKind::PermissionDenied, "run as its owner"),
            (io::ErrorKind::ReadOnlyFilesystem, "read-only file system"),
            (io::ErrorKind::StorageFull, "free some space"),
            (io::ErrorKind::QuotaExceeded, "free some space"),
            (io::ErrorKind::InvalidData, "move the file away"),
        ] {
            let text = StoreError::from_io(path, kind.into()).to_string();
            assert!(text.contains(words) && text.contains("/state/state.redb"), "{text}");
            assert!(!text.contains('\n') && !text.contains("  "), "{text}");
        }
    }
}
