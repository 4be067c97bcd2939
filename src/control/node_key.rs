//! This node's private key: a file in its state directory, made at the first start.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::io::wireguard::Secret;

/// The file in the state directory: base64, as `wg genkey` writes it.
const FILE: &str = "wireguard-key";

/// The key of the node with this state directory, which is made if there is none yet.
pub fn of(state_dir: &Path) -> io::Result<Secret> {
    let file = state_dir.join(FILE);
    match fs::read_to_string(&file) {
        Ok(text) => return read(&file, &text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(io::Error::new(
                error.kind(),
                format!("cannot read {}: {error}", file.display()),
            ));
        }
    }
    let secret = Secret::random()?;
    let draft = file.with_extension("draft");
    let _ = fs::remove_file(&draft);
    // Made with its mode: at no moment may others read it.
    let mut made = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    made.write_all(format!("{}\n", secret.text()).as_bytes())?;
    made.sync_all()?;
    // Who was faster has made the key.
    let linked = fs::hard_link(&draft, &file);
    fs::remove_file(&draft)?;
    match linked {
        Ok(()) => Ok(secret),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            read(&file, &fs::read_to_string(&file)?)
        }
        Err(error) => Err(error),
    }
}

fn read(file: &Path, text: &str) -> io::Result<Secret> {
    let refuse = |why: String| Err(io::Error::other(format!("{} {why}", file.display())));
    let mode = fs::metadata(file)?.permissions().mode();
    if mode & 0o077 != 0 {
        return refuse(format!(
            "is a private key, and others may read or change it (mode {:o}): `chmod 600` it, or remove it for \
             a new key if it may have been read",
            mode & 0o777
        ));
    }
    match Secret::parse(text) {
        Some(secret) => Ok(secret),
        None => refuse("holds no WireGuard key: remove it for a new one".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_once_and_is_nobody_else_s() {
        let dir = tempfile::tempdir().unwrap();
        let first = of(dir.path()).unwrap().public();
        assert_eq!(of(dir.path()).unwrap().public(), first);
        let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left");
        assert_ne!(of(tempfile::tempdir().unwrap().path()).unwrap().public(), first);
    }

    #[test]
    fn a_key_that_others_may_read_or_that_is_none_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        of(dir.path()).unwrap();
        let file = dir.path().join(FILE);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(of(dir.path()).unwrap_err().to_string().contains("mode 640"));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&file, "secret").unwrap();
        assert!(of(dir.path()).unwrap_err().to_string().contains("no WireGuard key"));
    }

    #[test]
    fn a_key_of_wg_s_has_wg_s_public_key() {
        // RFC 7748 6.1, in base64.
        let secret = Secret::parse("dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=").unwrap();
        let public = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";
        assert_eq!(secret.public().to_string(), public);
    }
}
