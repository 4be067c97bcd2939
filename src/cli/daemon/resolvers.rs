//! The host's resolvers, followed as they change: a laptop that moves between networks.

use std::path::Path;
use std::sync::{Arc, Mutex};

use super::attaching::lock;
use crate::cli::output::Failure;
use crate::control::Control;
use crate::io::watch::Watch;

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Follows them from now on. Without a watch they are read again at SIGHUP only.
pub(super) fn follow(control: &Arc<Mutex<Control>>) -> Result<(), Failure> {
    let watch = match Watch::file(Path::new(RESOLV_CONF)) {
        Ok(watch) => watch,
        Err(error) => {
            tracing::warn!("changes of {RESOLV_CONF} will not be seen: {error}");
            return Ok(());
        }
    };
    let control = Arc::clone(control);
    std::thread::Builder::new().name("resolvers".to_owned()).spawn(move || {
        while watch.wait().is_ok() {
            lock(&control).refresh_resolvers();
        }
    })?;
    Ok(())
}
