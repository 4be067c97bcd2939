//! Kernel parameters of the calling thread's network namespace (`/proc/sys/net`).
//!
//! In a container `/proc/sys` is often mounted read-only; whether that matters is for the caller to
//! say, so the errors are told apart.

use std::io;
use std::path::{Path, PathBuf};

/// Why a parameter could not be written.
#[derive(Debug, thiserror::Error)]
pub enum SysctlError {
    /// The file system or the rights forbid it.
    #[error(
        "cannot set {path}: /proc/sys is read-only here, as it is in most containers; set it \
         outside or mount /proc/sys writable"
    )]
    ReadOnly {
        /// The parameter.
        path: PathBuf,
    },
    /// The parameter does not exist: an older kernel, or IPv6 is compiled out or disabled.
    #[error("this kernel has no {path}")]
    Missing {
        /// The parameter.
        path: PathBuf,
    },
    /// Something else.
    #[error("cannot set {path}: {source}")]
    Refused {
        /// The parameter.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// What an interface needs so that an address which the switch assigned is usable at once: no
/// duplicate address detection, not for the link-local address either, and no router that would
/// tell it otherwise.
const QUIET: [(&str, &str); 4] = [
    ("accept_dad", "0"),
    ("dad_transmits", "0"),
    ("router_solicitations", "0"),
    ("accept_ra", "0"),
];

/// Writes `net.ipv4.NAME`, `net.ipv6.conf.…` and the like; dots in an interface's name stay whole,
/// since `key` is a path below `/proc/sys/net`.
pub fn set(key: &Path, value: &str) -> Result<(), SysctlError> {
    let path = Path::new("/proc/sys/net").join(key);
    std::fs::write(&path, value).map_err(|source| match source.raw_os_error() {
        Some(libc::EROFS | libc::EACCES | libc::EPERM) => SysctlError::ReadOnly { path },
        Some(libc::ENOENT) => SysctlError::Missing { path },
        _ => SysctlError::Refused { path, source },
    })
}

/// Reads a parameter.
pub fn get(key: &Path) -> io::Result<String> {
    let text = std::fs::read_to_string(Path::new("/proc/sys/net").join(key))?;
    Ok(text.trim().to_owned())
}

/// Makes IPv6 on this interface speak only when asked. Before it is set up.
pub fn quiet_ipv6(interface: &str) -> Result<(), SysctlError> {
    for (name, value) in QUIET {
        set(&ipv6_key(interface, name), value)?;
    }
    Ok(())
}

/// Allows or forbids IPv6 on this interface, link-local addresses included.
pub fn disable_ipv6(interface: &str, disable: bool) -> Result<(), SysctlError> {
    set(&ipv6_key(interface, "disable_ipv6"), if disable { "1" } else { "0" })
}

fn ipv6_key(interface: &str, name: &str) -> PathBuf {
    Path::new("ipv6/conf").join(interface).join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_that_does_not_exist_is_told_from_one_that_may_not_be_set() {
        let error = set(Path::new("ipv4/no_such_parameter"), "1").unwrap_err();
        assert!(matches!(error, SysctlError::Missing { .. } | SysctlError::ReadOnly { .. }));
    }

    #[test]
    fn a_parameter_can_be_read() {
        assert!(!get(Path::new("core/somaxconn")).unwrap().is_empty());
    }
}
