//! Where a daemon's sockets are: what daemon and clients must agree about.

use std::path::{Path, PathBuf};

use crate::control::config::Paths;

/// The directory of a running daemon's sockets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RuntimeDir(PathBuf);

impl RuntimeDir {
    /// A directory that the user named.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The one of this user's own daemon.
    pub fn of_this_user() -> Self {
        Self(Paths::of_this_user().runtime_dir)
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Socket of the REST API.
    pub fn api_socket(&self) -> PathBuf {
        self.0.join("api.sock")
    }

    /// Socket of the attach protocol.
    pub fn attach_socket(&self) -> PathBuf {
        self.0.join("attach.sock")
    }

    /// Socket of the process that keeps descriptors over the daemon's end.
    pub fn holder_socket(&self) -> PathBuf {
        self.0.join("holder.sock")
    }

    /// Held locked by the daemon for as long as it lives.
    pub fn lock_file(&self) -> PathBuf {
        self.0.join("daemon.lock")
    }

    /// What a daemon in the background logs.
    pub fn log_file(&self) -> PathBuf {
        self.0.join("daemon.log")
    }
}
