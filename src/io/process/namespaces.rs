//! Making and entering namespaces, all kinds but the network ones of [`crate::io::netns`].
#![allow(unsafe_code, reason = "`unshare` is unsafe because of a flag that is not used here")]

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::thread::{CapabilitySet, LinkNameSpaceType, ThreadNameSpaceType, UnshareFlags};

use super::{Process, SpawnError, setup};

pub(super) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: the only unsound flag is CLONE_FILES, which nobody passes.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

/// Whether this thread may make namespaces without a user namespace of its own.
pub fn may_make_namespaces() -> bool {
    has_capability(CapabilitySet::SYS_ADMIN)
}

/// Whether this thread has the capability in effect, in its user namespace.
pub fn has_capability(capability: CapabilitySet) -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(capability))
}

/// Enters a user namespace as its root, unless it is the one that the caller is in. Only for a process
/// with one thread.
pub(super) fn enter_user_namespace(owner: &OwnedFd) -> io::Result<()> {
    let (theirs, own) = (rustix::fs::fstat(owner)?, rustix::fs::stat("/proc/self/ns/user")?);
    // Entering the one that one is in is an error.
    if (theirs.st_dev, theirs.st_ino) == (own.st_dev, own.st_ino) {
        return Ok(());
    }
    let kind = Some(LinkNameSpaceType::User);
    rustix::thread::move_into_link_name_space(owner.as_fd(), kind)?;
    // Where nobody is mapped to root, the capabilities that entering has given have to do.
    let _ = setup::become_root();
    Ok(())
}

/// The namespaces of a running process.
pub(super) struct Joined {
    process: Process,
    kinds: ThreadNameSpaceType,
}

impl Joined {
    pub(super) fn open(pid: u32) -> Result<Self, SpawnError> {
        let failed = |source: io::Error| SpawnError::Join { pid, source };
        let process = Process::open(pid).map_err(failed)?;
        let mut kinds = ThreadNameSpaceType::empty();
        for (name, kind) in [
            ("user", ThreadNameSpaceType::USER),
            ("net", ThreadNameSpaceType::NETWORK),
            ("mnt", ThreadNameSpaceType::MOUNT),
        ] {
            // Entering the user namespace one is in is an error.
            let theirs = std::fs::read_link(format!("/proc/{pid}/ns/{name}")).map_err(failed)?;
            let own = std::fs::read_link(format!("/proc/self/ns/{name}")).map_err(failed)?;
            kinds.set(kind, theirs != own);
        }
        Ok(Self { process, kinds })
    }

    pub(super) fn enter(&self) -> io::Result<()> {
        if self.kinds.is_empty() {
            return Ok(());
        }
        // Entering mounts also moves to their root directory.
        let directory = std::env::current_dir();
        rustix::thread::move_into_thread_name_spaces(self.process.as_fd(), self.kinds)?;
        if let Ok(directory) = directory {
            let _ = std::env::set_current_dir(directory);
        }
        if self.kinds.contains(ThreadNameSpaceType::USER) { setup::become_root() } else { Ok(()) }
    }
}
