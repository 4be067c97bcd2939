//! What a fresh network and mount namespace needs before a command is at home in it.

use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
};

use crate::io::netlink::{Netlink, NetlinkError};
use crate::io::random;
use crate::io::sysctl;

/// Why a namespace could not be furnished.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The loopback interface could not be set up.
    #[error(transparent)]
    Loopback(#[from] NetlinkError),
    /// A file could not be laid over another one.
    #[error("cannot lay a file over {target}: {source}")]
    Overlay {
        /// The file that should have been covered.
        target: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Makes a new network namespace what Docker's users know: the loopback interface works, everybody
/// may ping, and low ports are open to everybody. Acts on the calling thread's namespace.
pub fn prepare_network() -> Result<(), SetupError> {
    let mut netlink = Netlink::open()?;
    let loopback = netlink.link("lo")?.index;
    netlink.set_up(loopback)?;
    // Comforts; where /proc/sys is read-only they are missing, no more.
    let ping = Path::new("ipv4/ping_group_range");
    if sysctl::set(ping, "0 2147483647").is_err() {
        // In a user namespace only mapped groups may be named.
        let _ = sysctl::set(ping, "0 0");
    }
    let _ = sysctl::set(Path::new("ipv4/ip_unprivileged_port_start"), "0");
    Ok(())
}

/// Lays a file with this content over `target`, in the calling process's mount namespace only. The
/// content lives in a file system without a place of its own, so that nothing is left over when the
/// namespace ends. (A file without a name would do, but nothing could be laid over that one again.)
pub fn overlay_file(target: &Path, content: &[u8]) -> Result<(), SetupError> {
    let failed = |source| SetupError::Overlay { target: target.to_owned(), source };
    let mut suffix = [0; 8];
    random::fill(&mut suffix).map_err(failed)?;
    let name = format!("wharf-{:016x}", u64::from_ne_bytes(suffix));
    let place = std::env::temp_dir().join(name);
    std::fs::DirBuilder::new().mode(0o700).create(&place).map_err(failed)?;
    let result = overlay_from(&place, target, content);
    let _ = std::fs::remove_dir(&place);
    result.map_err(failed)
}

fn overlay_from(place: &Path, target: &Path, content: &[u8]) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("wharf", place, "tmpfs", flags, Some(c"size=64k,mode=0755"))?;
    let path = place.join("content");
    let write = || {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o644).open(&path)?;
        file.write_all(content)?;
        io::Result::Ok(mount_bind(&path, target)?)
    };
    let result = write();
    // The other mount keeps the content.
    unmount(place, UnmountFlags::DETACH)?;
    result
}

/// What is mounted here from now on is not seen outside; what is mounted outside is seen here.
pub(super) fn separate_mounts() -> io::Result<()> {
    Ok(mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?)
}

/// Becomes the user namespace's root, if the calling process is somebody else in it. Only for a
/// process with one thread.
pub(super) fn become_root() -> io::Result<()> {
    use rustix::thread::{Gid, Uid, set_thread_gid, set_thread_groups, set_thread_uid};
    if rustix::process::geteuid().is_root() && rustix::process::getegid().is_root() {
        return Ok(());
    }
    // Refused where only one id is mapped, and not needed there.
    let _ = set_thread_groups(&[]);
    set_thread_gid(Gid::ROOT)?;
    set_thread_uid(Uid::ROOT)?;
    Ok(())
}
