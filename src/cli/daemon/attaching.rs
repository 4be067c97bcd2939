//! The attach socket: a thread that accepts, and one for each attacher, a bounded number at a time.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::bounded;

use crate::attach::protocol::{AttachReply, Attached, Hello, Refusal};
use crate::attach::server::{ServeError, serve_one};

pub(in crate::cli) use crate::attach::server::Access;
use crate::base::limits::ATTACHERS_MAX;
use crate::cli::output::Failure;
use crate::control::Control;
use crate::io::fdpass::{Connection, Listener};

/// Listens from now on.
pub(super) fn start(
    socket: &Path,
    access: Access,
    control: Arc<Mutex<Control>>,
) -> Result<(), Failure> {
    let mode = if access.group.is_some() { 0o660 } else { 0o600 };
    let listener = match Listener::bind(socket, mode, access.group) {
        // Without root the group may be out of reach, and then it stays closed to it.
        Err(_) if access.group.is_some() => Listener::bind(socket, 0o600, None)?,
        other => other?,
    };
    let hello = Hello::new(lock(&control).queues());
    std::thread::Builder::new()
        .name("attach".to_owned())
        .spawn(move || accept(&listener, &hello, access, &control))?;
    Ok(())
}

fn accept(listener: &Listener, hello: &Hello, access: Access, control: &Arc<Mutex<Control>>) {
    let (enter, leave) = bounded(ATTACHERS_MAX);
    loop {
        let connection = match listener.accept() {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(%error, "accepting an attacher failed");
                // Out of descriptors: the reason does not go away by asking at once.
                std::thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        // Waits while all slots are taken; an attacher has only so much time.
        let _ = enter.send(());
        let (hello, control, leave) = (hello.clone(), Arc::clone(control), leave.clone());
        let served = std::thread::Builder::new().name("attacher".to_owned()).spawn(move || {
            serve(&connection, &hello, access, &control);
            let _ = leave.recv();
        });
        if let Err(error) = served {
            no_thread(&error);
        }
    }
}

fn no_thread(error: &io::Error) {
    tracing::error!(%error, "no thread for an attacher");
}

/// One attacher, from hello to reply.
pub(in crate::cli) fn serve(
    connection: &Connection,
    hello: &Hello,
    access: Access,
    control: &Mutex<Control>,
) {
    let served = serve_one(connection, hello, access, |request, taps, _peer| {
        match lock(control).attach(&request, taps) {
            Ok(attached) => AttachReply::Attached(attached),
            Err(error) => AttachReply::Refused(Refusal::from(&error)),
        }
    });
    match served {
        Ok(_) => {}
        Err(ServeError::ReplyLost { attached, source }) => {
            tracing::warn!(endpoint = attached.name, %source, "taken back: the attacher went away");
            take_back(&attached, control);
        }
        Err(error) => tracing::info!("{error}"),
    }
}

fn take_back(attached: &Attached, control: &Mutex<Control>) {
    if let Err(error) = lock(control).detach(&attached.endpoint, None, "its attacher went away") {
        tracing::warn!(%error, "not taken back");
    }
}

/// What a panic elsewhere left is still worth serving: control validates before it changes anything.
pub(in crate::cli) fn lock(control: &Mutex<Control>) -> std::sync::MutexGuard<'_, Control> {
    control.lock().unwrap_or_else(PoisonError::into_inner)
}
