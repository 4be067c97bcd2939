//! Control's workers.

use std::sync::{Arc, Mutex};

use crossbeam_channel::{Receiver, Sender};

use super::attaching::lock;
use crate::cli::output::Failure;
use crate::control::Control;
use crate::control::workers::Workers;
use crate::worker::command::Notice;

/// Starts the workers. What they notice, and what others send, comes out of the receiver.
pub(super) fn start(count: usize) -> Result<(Workers, Sender<Notice>, Receiver<Notice>), Failure> {
    Workers::start(count).map_err(|error| Failure::new(error.to_string()))
}

/// Tells control what workers notice, from now on.
pub(super) fn listen(
    notices: Receiver<Notice>,
    control: &Arc<Mutex<Control>>,
) -> Result<(), Failure> {
    let control = Arc::clone(control);
    std::thread::Builder::new().name("notices".to_owned()).spawn(move || {
        for notice in notices {
            lock(&control).notice(notice);
        }
    })?;
    Ok(())
}
