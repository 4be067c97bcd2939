//! Where a daemon keeps its sockets and its state, and where its configuration is looked for.
//!
//! Root's daemon lives under `/run` and `/var/lib`, everybody else's in the places of the XDG base
//! directory specification. A daemon and its clients must come to the same answer, so it is found
//! in one place, and from the environment that is handed in.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The directory of a running daemon's sockets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RuntimeDir(PathBuf);

/// What decides about directories, apart from the command line.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// The effective user.
    pub uid: u32,
    /// `XDG_RUNTIME_DIR`.
    pub xdg_runtime_dir: Option<OsString>,
    /// `XDG_STATE_HOME`.
    pub xdg_state_home: Option<OsString>,
    /// `XDG_CONFIG_HOME`.
    pub xdg_config_home: Option<OsString>,
    /// `HOME`.
    pub home: Option<OsString>,
}

impl Surroundings {
    /// Those of this process.
    pub fn of_this_process() -> Self {
        Self {
            uid: rustix::process::geteuid().as_raw(),
            xdg_runtime_dir: std::env::var_os("XDG_RUNTIME_DIR"),
            xdg_state_home: std::env::var_os("XDG_STATE_HOME"),
            xdg_config_home: std::env::var_os("XDG_CONFIG_HOME"),
            home: std::env::var_os("HOME"),
        }
    }

    /// `/run/wharf` for root, `$XDG_RUNTIME_DIR/wharf` otherwise. Without a session there is no
    /// such variable; a directory of the user's own under `/tmp` serves, as Podman does it.
    pub fn runtime_dir(&self) -> PathBuf {
        if self.uid == 0 {
            return PathBuf::from("/run/wharf");
        }
        match absolute(self.xdg_runtime_dir.as_ref()) {
            Some(dir) => dir.join("wharf"),
            None => PathBuf::from(format!("/tmp/wharf-{}", self.uid)),
        }
    }

    /// `/var/lib/wharf` for root, `$XDG_STATE_HOME/wharf` otherwise.
    pub fn state_dir(&self) -> PathBuf {
        if self.uid == 0 {
            return PathBuf::from("/var/lib/wharf");
        }
        let home = || absolute(self.home.as_ref()).map(|home| home.join(".local/state"));
        match absolute(self.xdg_state_home.as_ref()).or_else(home) {
            Some(dir) => dir.join("wharf"),
            None => self.runtime_dir().join("state"),
        }
    }

    /// `/etc/wharf/wharf.toml` for root, `$XDG_CONFIG_HOME/wharf/wharf.toml` otherwise.
    pub fn config_file(&self) -> Option<PathBuf> {
        if self.uid == 0 {
            return Some(PathBuf::from("/etc/wharf/wharf.toml"));
        }
        let home = || absolute(self.home.as_ref()).map(|home| home.join(".config"));
        let dir = absolute(self.xdg_config_home.as_ref()).or_else(home)?;
        Some(dir.join("wharf/wharf.toml"))
    }
}

/// The specification says that a relative path there is to be ignored.
fn absolute(value: Option<&OsString>) -> Option<PathBuf> {
    value.map(PathBuf::from).filter(|path| path.is_absolute())
}

impl RuntimeDir {
    /// A directory that the user named.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn user(set: impl FnOnce(&mut Surroundings)) -> Surroundings {
        let mut surroundings =
            Surroundings { uid: 1000, home: Some("/home/ada".into()), ..Surroundings::default() };
        set(&mut surroundings);
        surroundings
    }

    #[test]
    fn root_uses_the_system_s_directories_whatever_the_environment_says() {
        let root = user(|s| {
            s.uid = 0;
            s.xdg_runtime_dir = Some("/run/user/0".into());
        });
        assert_eq!(root.runtime_dir(), Path::new("/run/wharf"));
        assert_eq!(root.state_dir(), Path::new("/var/lib/wharf"));
        assert_eq!(root.config_file().unwrap(), Path::new("/etc/wharf/wharf.toml"));
    }

    #[test]
    fn a_user_s_daemon_lives_in_the_session_s_directories() {
        let ada = user(|s| s.xdg_runtime_dir = Some("/run/user/1000".into()));
        assert_eq!(ada.runtime_dir(), Path::new("/run/user/1000/wharf"));
        assert_eq!(ada.state_dir(), Path::new("/home/ada/.local/state/wharf"));
        assert_eq!(ada.config_file().unwrap(), Path::new("/home/ada/.config/wharf/wharf.toml"));
    }

    #[test]
    fn without_a_session_the_runtime_directory_carries_the_user_s_number() {
        assert_eq!(user(|_| {}).runtime_dir(), Path::new("/tmp/wharf-1000"));
        let relative = user(|s| s.xdg_runtime_dir = Some("run".into()));
        assert_eq!(relative.runtime_dir(), Path::new("/tmp/wharf-1000"));
    }
}
