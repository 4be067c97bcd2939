//! The end of a daemon that `wharf run` has started: when there is no container any more.

use std::sync::mpsc::{TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::attaching::lock;
use crate::api::server::Handle;
use crate::api::types::StopRequest;
use crate::cli::output::Failure;
use crate::control::Control;

/// How often it is looked, once there is none.
const TICK: Duration = Duration::from_secs(1);
/// How many times in a row there must be nothing, and nobody who asks: a `wharf run` asks before it
/// attaches.
const TICKS: u32 = 5;

/// Looks on a thread of its own. While there is a container it sleeps until something happens: an idle
/// machine is not woken.
pub(super) fn watch(control: &Arc<Mutex<Control>>, handle: Handle) -> Result<(), Failure> {
    let control = Arc::clone(control);
    let (happens, happened) = sync_channel(1);
    lock(&control).subscribe(Box::new(move |_| {
        // One that has not been noticed yet stands for all.
        !matches!(happens.try_send(()), Err(TrySendError::Disconnected(())))
    }));
    std::thread::Builder::new().name("idle".to_owned()).spawn(move || {
        let (mut idle, mut requests) = (0, handle.requests());
        while idle < TICKS {
            let empty = lock(&control).status().endpoints == 0;
            if !empty && happened.recv().is_err() {
                return;
            }
            if empty {
                std::thread::sleep(TICK);
            }
            let now = handle.requests();
            let quiet = empty && now == requests;
            (idle, requests) = (if quiet { idle + 1 } else { 0 }, now);
        }
        tracing::info!("no container is left");
        handle.stop(StopRequest { release: true });
    })?;
    Ok(())
}
