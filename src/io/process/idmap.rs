//! The id maps of a new user namespace.
//!
//! The caller is root inside. With `newuidmap` and `newgidmap` and ranges in `/etc/subuid` and
//! `/etc/subgid`, the other users exist inside as well, so that a package manager or a server that
//! drops its rights works; without, root is the only one, which needs no other program.

use std::fs;
use std::process::{Command, Stdio};

/// A range of ids that the administrator gave to a user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Range {
    first: u32,
    count: u32,
}

/// Writes the maps of the process `pid`, which has just made its user namespace.
pub(super) fn write(pid: u32) -> Result<(), String> {
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    let name = user_name(uid);
    let range = |file: &str| {
        let table = fs::read_to_string(file).unwrap_or_default();
        subordinate(&table, name.as_deref(), uid)
    };
    if let (Some(uids), Some(gids)) = (range("/etc/subuid"), range("/etc/subgid"))
        && helper("newuidmap", pid, uid, uids)
        && helper("newgidmap", pid, gid, gids)
    {
        return Ok(());
    }
    write_single(pid, uid, gid)
}

/// Maps the caller alone. The kernel demands that groups can then not be dropped.
fn write_single(pid: u32, uid: u32, gid: u32) -> Result<(), String> {
    for (file, text) in [
        ("uid_map", format!("0 {uid} 1\n")),
        ("setgroups", "deny\n".to_owned()),
        ("gid_map", format!("0 {gid} 1\n")),
    ] {
        let path = format!("/proc/{pid}/{file}");
        // `newuidmap` may have succeeded before `newgidmap` failed.
        if file == "uid_map" && fs::read_to_string(&path).is_ok_and(|map| !map.is_empty()) {
            continue;
        }
        fs::write(&path, text).map_err(|e| {
            format!(
                "cannot write {path}: {e}; Ubuntu restricts user namespaces \
                 (`sysctl kernel.apparmor_restrict_unprivileged_userns=0`)"
            )
        })?;
    }
    Ok(())
}

/// Runs a set-uid helper: the caller becomes 0, the range everything from 1.
fn helper(program: &str, pid: u32, own: u32, range: Range) -> bool {
    let arguments = [pid, 0, own, 1, 1, range.first, range.count];
    Command::new(program)
        .args(arguments.map(|number| number.to_string()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn user_name(uid: u32) -> Option<String> {
    let table = fs::read_to_string("/etc/passwd").ok()?;
    table.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// The first range of a user, who may be named or numbered there.
fn subordinate(table: &str, name: Option<&str>, uid: u32) -> Option<Range> {
    let number = uid.to_string();
    table.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        if Some(owner) != name && owner != number {
            return None;
        }
        Some(Range { first: fields.next()?.parse().ok()?, count: fields.next()?.parse().ok()? })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_s_range_is_found_by_name_or_number() {
        let table = "# comment\nanna:100000:65536\n1001:165536:65536\nbroken:1\n";
        let found = |name, uid| subordinate(table, name, uid).map(|range| range.first);
        assert_eq!(found(Some("anna"), 1000), Some(100_000));
        assert_eq!(found(Some("ben"), 1001), Some(165_536));
        assert_eq!(found(Some("broken"), 7), None);
        assert_eq!(found(None, 1000), None);
    }

    #[test]
    fn root_has_a_name() {
        assert_eq!(user_name(0).as_deref(), Some("root"));
    }
}
