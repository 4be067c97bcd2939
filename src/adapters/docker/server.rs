//! The plugin's socket.

use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use tokio::signal::unix::{SignalKind, signal};

use super::{Answer, Plugin};
use crate::base::limits::API_BODY_MAX;

/// What Docker's plugins speak.
const MEDIA_TYPE: &str = "application/vnd.docker.plugins.v1.2+json";
/// Threads on which calls are answered; they take turns.
const BLOCKING_THREADS: usize = 4;

/// Answers calls until SIGTERM or SIGINT. `ready` is called when the first one may come.
pub fn serve(listener: UnixListener, plugin: Arc<Plugin>, ready: impl FnOnce()) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()?;
    runtime.block_on(async {
        let listener = tokio::net::UnixListener::from_std(listener)?;
        let (mut term, mut int) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let app = Router::new()
            .fallback(call)
            .layer(DefaultBodyLimit::max(API_BODY_MAX))
            .with_state(plugin);
        ready();
        // dockerd keeps its connections open, so nobody waits for their end: a call that is being
        // answered is finished by the runtime's own end.
        tokio::select! {
            served = axum::serve(listener, app).into_future() => served,
            _ = term.recv() => Ok(()),
            _ = int.recv() => Ok(()),
        }
    })
}

async fn call(State(plugin): State<Arc<Plugin>>, uri: Uri, body: Bytes) -> Response {
    let path = uri.path().to_owned();
    let answered = tokio::task::spawn_blocking(move || plugin.answer(&path, &body)).await;
    let Ok(Answer { status, body }) = answered else {
        return (StatusCode::INTERNAL_SERVER_ERROR, r#"{"Err":"wharf failed; its log says why"}"#)
            .into_response();
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, MEDIA_TYPE)], body.to_string()).into_response()
}
