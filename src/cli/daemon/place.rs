//! The daemon's directories and its claim to them.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;

use crate::api::paths::RuntimeDir;

/// Why a directory cannot be the daemon's.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum PlaceError {
    /// It cannot be made or read.
    #[error("cannot use the directory {path}: {source}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else's: they could replace the sockets.
    #[error("the directory {path} belongs to user {owner}: choose another one, or remove it")]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// Somebody else may write to it.
    #[error(
        "everybody may write to the directory {path} (mode {mode:o}): `chmod go-w` it, or choose \
         another one"
    )]
    Open {
        /// The directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Another daemon.
    #[error("another daemon{process} is running in {path}")]
    Running {
        /// The runtime directory.
        path: PathBuf,
        /// ` (process N)`, if it is known.
        process: String,
    },
    /// The lock file.
    #[error("cannot lock {path}: {source}")]
    Lock {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The claim to a runtime directory, for as long as it is held. The kernel gives it up for a process
/// that dies, so there is no stale lock.
#[derive(Debug)]
pub(super) struct Claim {
    _file: File,
}

/// Makes the directory of the sockets. Clients of the group must be able to pass through root's; the
/// sockets themselves say who may connect.
pub(super) fn make_runtime_dir(dir: &RuntimeDir) -> Result<(), PlaceError> {
    let mode = if rustix::process::geteuid().is_root() { 0o755 } else { 0o700 };
    make_dir(dir.path(), mode)
}

/// Makes the directory of the state, which is nobody else's business.
pub(in crate::cli) fn make_state_dir(dir: &Path) -> Result<(), PlaceError> {
    make_dir(dir, 0o700)
}

fn make_dir(path: &Path, mode: u32) -> Result<(), PlaceError> {
    let failed = |source| PlaceError::Directory { path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(|error| match error.kind() {
            // A file stands where a directory above should be.
            io::ErrorKind::AlreadyExists => failed(io::ErrorKind::NotADirectory.into()),
            _ => failed(error),
        })?;
    }
    match DirBuilder::new().mode(mode).create(path) {
        // The umask may have taken bits away.
        Ok(()) => std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(error)),
    }
    // Below `/tmp` another user may have been faster, with a directory or a link of theirs.
    let meta = std::fs::symlink_metadata(path).map_err(failed)?;
    if meta.file_type().is_symlink() {
        return trusted_link(path).map_err(failed);
    }
    if !meta.is_dir() {
        return Err(failed(io::ErrorKind::NotADirectory.into()));
    }
    let own = rustix::process::geteuid().as_raw();
    if meta.uid() != own && meta.uid() != 0 {
        return Err(PlaceError::Foreign { path: path.to_owned(), owner: meta.uid() });
    }
    if meta.mode() & 0o022 != 0 {
        return Err(PlaceError::Open { path: path.to_owned(), mode: meta.mode() & 0o7777 });
    }
    Ok(())
}

/// A link is as good as who made it: root or this user.
fn trusted_link(path: &Path) -> io::Result<()> {
    let own = rustix::process::geteuid().as_raw();
    let link = std::fs::symlink_metadata(path)?;
    if link.uid() != own && link.uid() != 0 {
        return Err(io::Error::other(format!("it is a link made by user {}", link.uid())));
    }
    if std::fs::metadata(path)?.is_dir() {
        Ok(())
    } else {
        Err(io::ErrorKind::NotADirectory.into())
    }
}

/// Claims the runtime directory, or says who has it.
pub(super) fn claim(dir: &RuntimeDir) -> Result<Claim, PlaceError> {
    let path = dir.lock_file();
    let failed = |source: io::Error| PlaceError::Lock { path: path.clone(), source };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o644);
    let mut file = options.open(&path).map_err(failed)?;
    if let Err(error) = lock(&file) {
        if error != rustix::io::Errno::WOULDBLOCK {
            return Err(failed(error.into()));
        }
        let mut text = String::new();
        let _ = file.read_to_string(&mut text);
        let process = match text.trim().parse::<u32>() {
            Ok(pid) => format!(" (process {pid})"),
            Err(_) => String::new(),
        };
        return Err(PlaceError::Running { path: dir.path().to_owned(), process });
    }
    file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(Claim { _file: file })
}

/// How long the kernel may take to take a killed daemon apart; it keeps its lock until then.
const LAST_BREATH: Duration = Duration::from_millis(500);

fn lock(file: &File) -> rustix::io::Result<()> {
    const STEP: Duration = Duration::from_millis(10);
    let mut waited = Duration::ZERO;
    loop {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) if waited < LAST_BREATH => {
                std::thread::sleep(STEP);
                waited += STEP;
            }
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime_dir() -> (tempfile::TempDir, RuntimeDir) {
        let temp = tempfile::tempdir().unwrap();
        let dir = RuntimeDir::new(temp.path().join("wharf"));
        (temp, dir)
    }

    #[test]
    fn a_second_claim_names_the_process_that_has_it() {
        let (_temp, dir) = runtime_dir();
        make_runtime_dir(&dir).unwrap();
        let first = claim(&dir).unwrap();
        let error = claim(&dir).unwrap_err().to_string();
        assert!(error.contains(&format!("(process {})", std::process::id())), "{error}");
        let dying = std::thread::spawn(move || {
            std::thread::sleep(LAST_BREATH / 5);
            drop(first);
        });
        claim(&dir).unwrap();
        dying.join().unwrap();
    }

    #[test]
    fn directories_are_made_with_the_right_mode_whatever_lies_above_them() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a/b/state");
        make_state_dir(&path).unwrap();
        make_state_dir(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused() {
        let (_temp, dir) = runtime_dir();
        std::fs::create_dir(dir.path()).unwrap();
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(make_runtime_dir(&dir), Err(PlaceError::Open { mode: 0o777, .. })));
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let (_temp, dir) = runtime_dir();
        std::fs::write(dir.path(), "").unwrap();
        let error = make_runtime_dir(&dir).unwrap_err().to_string();
        assert!(error.contains(&dir.path().display().to_string()), "{error}");
    }
}
