//! Captured frames as a body that is sent while they pass.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use crossbeam_channel::RecvTimeoutError;
use tokio::sync::mpsc;

use super::server::{Problem, Service};
use super::stream::ByteStream;
use crate::control::Control;
use crate::control::capture::Capture;
use crate::control::model::CaptureSpec;
use crate::observe::capture::Writer;

/// How often it is looked whether the reader is still there when nothing passes.
const LOOK_AFTER: Duration = Duration::from_millis(200);
/// Blocks in HTTP's form on their way out; more wait before they are formed.
const BODY_BLOCKS: usize = 2;

/// Begins a capture. It has a thread of its own, which waits for the workers and for the reader alike.
pub(super) async fn start(service: &Service, spec: CaptureSpec) -> Result<ByteStream, Problem> {
    let asked = spec.clone();
    let capture = service.with_control(move |control| control.capture(&asked)).await?;
    let (bytes, receiver) = mpsc::channel(BODY_BLOCKS);
    let control = service.control();
    std::thread::Builder::new()
        .name("capture".to_owned())
        .spawn(move || pump(&capture, &spec, &control, &bytes))
        .map_err(|error| Problem::internal(format!("no thread for a capture: {error}")))?;
    Ok(ByteStream(receiver))
}

fn pump(
    capture: &Capture,
    spec: &CaptureSpec,
    control: &Arc<Mutex<Control>>,
    bytes: &mpsc::Sender<Bytes>,
) {
    let mut writer = Writer::new(spec.form, spec.snap.unwrap_or(0), spec.segments);
    let name = |port| {
        let control = control.lock().unwrap_or_else(PoisonError::into_inner);
        control.name_of_port(port)
    };
    let mut next = writer.begin();
    loop {
        if !next.is_empty() && bytes.blocking_send(next.into()).is_err() {
            return;
        }
        next = match capture.blocks.recv_timeout(LOOK_AFTER) {
            Ok(block) => writer.block(&block, name),
            Err(RecvTimeoutError::Timeout) if !bytes.is_closed() => Vec::new(),
            Err(_) => return,
        };
    }
}
