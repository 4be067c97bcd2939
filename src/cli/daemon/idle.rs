//! The end of a daemon that `wharf run` has started: when there is no container any more.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::attaching::lock;
use crate::api::server::Handle;
use crate::api::types::StopRequest;
use crate::cli::output::Failure;
use crate::control::Control;

/// How often it is looked.
const TICK: Duration = Duration::from_secs(1);
/// How many times in a row there must be nothing, and nobody who asks: a `wharf run` asks before it
/// attaches.
const TICKS: u32 = 5;

/// Looks on a thread of its own.
pub(super) fn watch(control: &Arc<Mutex<Control>>, handle: Handle) -> Result<(), Failure> {
    let control = Arc::clone(control);
    std::thread::Builder::new().name("idle".to_owned()).spawn(move || {
        let (mut idle, mut requests) = (0, handle.requests());
        while idle < TICKS {
            std::thread::sleep(TICK);
            let now = handle.requests();
            let quiet = now == requests && lock(&control).status().endpoints == 0;
            (idle, requests) = (if quiet { idle + 1 } else { 0 }, now);
        }
        tracing::info!("no container is left");
        handle.stop(StopRequest { release: true });
    })?;
    Ok(())
}
