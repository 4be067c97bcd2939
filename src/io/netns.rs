//! Network namespaces: opening, comparing, entering, making.
//!
//! A namespace belongs to a thread, not to a process. Sockets, netlink and `TUNSETIFF` act in the
//! namespace that their thread was in when they were opened. So whatever has to happen in another
//! namespace happens on a fresh thread that enters it, does the work, hands the descriptors back and
//! ends; a thread that will be used again never changes its namespace.
#![allow(unsafe_code, reason = "namespace ioctls have no safe wrapper")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use rustix::thread::{LinkNameSpaceType, UnshareFlags};
use serde::{Deserialize, Serialize};

/// An open network namespace. Holding it keeps the namespace alive.
#[derive(Debug)]
pub struct NetNs {
    fd: OwnedFd,
}

/// Which namespace it is, whatever path or process it was opened from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct NetNsId {
    /// Device number of nsfs.
    pub dev: u64,
    /// Inode: the namespace itself.
    pub ino: u64,
}

/// Why a namespace could not be had or entered.
#[derive(Debug, thiserror::Error)]
pub enum NetNsError {
    /// The path or process does not exist or may not be looked at.
    #[error("cannot open the network namespace {path}: {source}")]
    Open {
        /// What was opened.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The path is a file, but none that stands for a network namespace.
    #[error(
        "{0} is not a network namespace: give a file such as /run/netns/NAME or /proc/PID/ns/net"
    )]
    NotANamespace(PathBuf),
    /// Entering was refused.
    #[error(
        "cannot enter the network namespace: {0}; that takes root, or to be in the user namespace \
         that owns it"
    )]
    Enter(#[source] io::Error),
    /// Making a new one was refused.
    #[error(
        "cannot make a network namespace: {0}; that takes root or a user namespace of one's own"
    )]
    Create(#[source] io::Error),
    /// The system has no thread left.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

impl NetNs {
    /// Opens `/run/netns/NAME`, `/proc/PID/ns/net` or any bind mount of such a file.
    pub fn open(path: &Path) -> Result<Self, NetNsError> {
        let file = File::open(path)
            .map_err(|source| NetNsError::Open { path: path.to_owned(), source })?;
        let ns = Self { fd: file.into() };
        if ns.is_network_namespace() {
            Ok(ns)
        } else {
            Err(NetNsError::NotANamespace(path.to_owned()))
        }
    }

    /// The calling thread's own.
    pub fn current() -> Result<Self, NetNsError> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// That of a process.
    pub fn of_pid(pid: u32) -> Result<Self, NetNsError> {
        Self::open(Path::new(&format!("/proc/{pid}/ns/net")))
    }

    /// A new, empty one: only a loopback interface, down.
    pub fn staging() -> Result<Self, NetNsError> {
        on_fresh_thread(|| {
            unshare_network()?;
            Self::current()
        })?
    }

    /// Takes an open descriptor of a namespace.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, NetNsError> {
        let path = PathBuf::from(format!("descriptor {}", fd.as_raw_fd()));
        let ns = Self { fd };
        if ns.is_network_namespace() { Ok(ns) } else { Err(NetNsError::NotANamespace(path)) }
    }

    /// Another handle of the same namespace.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()? })
    }

    /// Its identity.
    pub fn id(&self) -> io::Result<NetNsId> {
        let stat = rustix::fs::fstat(&self.fd)?;
        Ok(NetNsId { dev: stat.st_dev, ino: stat.st_ino })
    }

    /// The user namespace that owns it: whoever is root there may change it.
    pub fn owner(&self) -> io::Result<OwnedFd> {
        // SAFETY: NS_GET_USERNS takes no argument and touches no memory of ours.
        let fd = unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::NS_GET_USERNS) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just opened and is owned by nobody else.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    fn is_network_namespace(&self) -> bool {
        // SAFETY: NS_GET_NSTYPE takes no argument and touches no memory of ours.
        let kind = unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::NS_GET_NSTYPE) };
        kind == libc::CLONE_NEWNET
    }

    fn enter(&self) -> Result<(), NetNsError> {
        rustix::thread::move_into_link_name_space(self.fd.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|e| NetNsError::Enter(e.into()))
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for NetNs {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Runs `work` on a fresh thread inside the namespace and gives back what it returns. A panic of
/// `work` is passed on.
pub fn in_namespace<T: Send>(ns: &NetNs, work: impl FnOnce() -> T + Send) -> Result<T, NetNsError> {
    on_fresh_thread(|| {
        ns.enter()?;
        Ok(work())
    })?
}

/// Moves the calling thread into a new, empty network namespace for the rest of its life. Only for
/// a thread that ends afterwards.
fn unshare_network() -> Result<(), NetNsError> {
    // SAFETY: the only unsound flag is CLONE_FILES, which is not given.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
        .map_err(|e| NetNsError::Create(e.into()))
}

fn on_fresh_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, NetNsError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, work)
            .map_err(NetNsError::Thread)?;
        match thread.join() {
            Ok(result) => Ok(result),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_namespace_has_one_identity_however_it_was_opened() {
        let current = NetNs::current().unwrap();
        let by_pid = NetNs::of_pid(std::process::id()).unwrap();
        assert_eq!(current.id().unwrap(), by_pid.id().unwrap());
    }

    #[test]
    fn other_files_are_no_network_namespaces() {
        for path in ["/dev/null", "/proc/self/ns/mnt", "/proc/self/status"] {
            assert!(
                matches!(NetNs::open(Path::new(path)), Err(NetNsError::NotANamespace(_))),
                "{path}"
            );
        }
        assert!(matches!(NetNs::open(Path::new("/nonexistent")), Err(NetNsError::Open { .. })));
    }
}
