//! Who this node is: a random identity in its state directory, made at the first start.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::member::Me;

/// The file in the state directory.
const FILE: &str = "node-identity";
/// Random, made by the kernel at each boot.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// This node, at this start of its daemon.
pub fn of(state_dir: &Path, name: &str) -> io::Result<Me> {
    let fresh = || crate::control::random::identity();
    // Without a /proc a restart waits until its former life has fallen silent, like after a reboot.
    let seat =
        fs::read_to_string(BOOT).map_or_else(|_| fresh(), |boot| Ok(boot.trim().to_owned()))?;
    Ok(Me {
        name: name.to_owned(),
        identity: identity(&state_dir.join(FILE))?,
        instance: fresh()?,
        seat,
    })
}

fn identity(file: &Path) -> io::Result<String> {
    match fs::read_to_string(file) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let identity = crate::control::random::identity()?;
    let draft = file.with_extension("draft");
    let mut options = fs::OpenOptions::new();
    let mut made = options.write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    made.write_all(format!("{identity}\n").as_bytes())?;
    made.sync_all()?;
    fs::rename(draft, file)?;
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_stays_and_the_instance_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (of(dir.path(), "a").unwrap(), of(dir.path(), "a").unwrap());
        assert_eq!((&first.identity, &first.seat), (&second.identity, &second.seat));
        assert_ne!(first.instance, second.instance);
        let other = of(tempfile::tempdir().unwrap().path(), "a").unwrap();
        assert_ne!(first.identity, other.identity);
    }
}
