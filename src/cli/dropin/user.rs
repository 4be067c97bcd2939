//! Who `pasta` is when root has started it: nobody, unless `--runas` says otherwise.

use crate::cli::output::Failure;

/// A user and a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Whom to become; nobody at all for an ordinary user, and for the root of a user namespace, who is one.
pub(super) fn wanted(runas: Option<&str>) -> Result<Option<User>, Failure> {
    let root = rustix::process::geteuid().is_root() && is_real_root();
    if !root {
        return match runas {
            Some(_) if !rustix::process::geteuid().is_root() => {
                Err(Failure::new("--runas needs root"))
            }
            _ => Ok(None),
        };
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let group = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let user = find(runas.unwrap_or("nobody"), &passwd, &group);
    let user = user.ok_or_else(|| {
        Failure::new(format!("there is no user `{}`", runas.unwrap_or("nobody")))
            .hint("give --runas UID:GID")
    })?;
    Ok(Some(user).filter(|user| user.uid != 0))
}

/// The first user namespace maps every number to itself.
fn is_real_root() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// `UID`, `UID:GID`, `LOGIN` or `LOGIN:GROUP`.
fn find(text: &str, passwd: &str, groups: &str) -> Option<User> {
    let (login, group) = match text.split_once(':') {
        Some((login, group)) => (login, Some(group)),
        None => (text, None),
    };
    let field = |line: &str, at: usize| line.split(':').nth(at)?.parse::<u32>().ok();
    let entry = passwd.lines().find(|line| {
        let named = line.split(':').next() == Some(login);
        named || field(line, 2).is_some_and(|uid| login.parse() == Ok(uid))
    });
    let uid = login.parse().ok().or_else(|| field(entry?, 2))?;
    let gid = match group {
        Some(group) => group.parse().ok().or_else(|| {
            let entry = groups.lines().find(|line| line.split(':').next() == Some(group))?;
            field(entry, 2)
        })?,
        // A number without an entry is its own group, as with the original.
        None => entry.and_then(|entry| field(entry, 3)).unwrap_or(uid),
    };
    Some(User { uid, gid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_numbers_or_names_with_or_without_a_group() {
        let passwd = "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65533::/:/bin/false\n";
        let groups = "root:x:0:\nnogroup:x:65533:\nstaff:x:50:a,b\n";
        for (text, expected) in [
            ("nobody", Some((65_534, 65_533))),
            ("65534", Some((65_534, 65_533))),
            ("1234", Some((1234, 1234))),
            ("1234:7", Some((1234, 7))),
            ("nobody:staff", Some((65_534, 50))),
            ("0", Some((0, 0))),
            ("anna", None),
            ("nobody:wheel", None),
        ] {
            let found = find(text, passwd, groups).map(|user| (user.uid, user.gid));
            assert_eq!(found, expected, "{text}");
        }
    }
}
