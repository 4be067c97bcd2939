//! The server: one thread for connections, and a few where control may be waited for.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Request};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::listener::{Guarded, Peer};
pub use super::listener::{ListenError, bind};
use super::routes;
use super::types::StopRequest;
use crate::attach::server::Access;
use crate::base::limits::API_BODY_MAX;
use crate::control::model::{CaptureSpec, ErrorBody, ErrorCode, FlowQuery};
use crate::control::{Control, ControlError};
use crate::observe::capture::Form;

/// Threads on which control is asked. It is behind one lock, so more would only wait for it.
const BLOCKING_THREADS: usize = 4;
/// How long answers that are on their way may take once the daemon is to end.
const GRACE: Duration = Duration::from_secs(3);

/// What handlers work with.
#[derive(Clone)]
pub(super) struct Service {
    control: Arc<Mutex<Control>>,
    handle: Handle,
}

/// An answer that is an error.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    body: ErrorBody,
}

/// A hold on a server from other threads.
#[derive(Clone, Debug)]
pub struct Handle {
    stop: Arc<watch::Sender<Option<StopRequest>>>,
    requests: Arc<AtomicU64>,
}

impl Handle {
    /// A handle of a server that is still to be started.
    #[allow(clippy::new_without_default, reason = "a server's handle, not a value")]
    pub fn new() -> Self {
        Self { stop: Arc::new(watch::channel(None).0), requests: Arc::default() }
    }

    /// Ends the server, and with it the daemon. The first request counts.
    pub fn stop(&self, request: StopRequest) {
        self.stop.send_if_modified(|stop| {
            let first = stop.is_none();
            stop.get_or_insert(request);
            first
        });
    }

    /// How many requests came until now.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

/// What the daemon does at the server's word.
pub struct Hooks {
    /// Requests are answered from now on.
    pub ready: Box<dyn FnOnce()>,
    /// SIGHUP: the configuration is to be read anew.
    pub reload: Arc<dyn Fn(&mut Control) + Send + Sync>,
    /// Metrics are answered here, too.
    pub metrics: Option<std::net::TcpListener>,
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks").finish_non_exhaustive()
    }
}

/// Serves the API until the daemon is to end: by request, SIGTERM or SIGINT.
pub fn serve(
    listener: std::os::unix::net::UnixListener,
    access: Access,
    control: Arc<Mutex<Control>>,
    handle: Handle,
    hooks: Hooks,
) -> io::Result<StopRequest> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()?;
    let stopped = runtime.block_on(run(listener, access, Service { control, handle }, hooks));
    // A follower that does not read would hold the daemon up.
    runtime.shutdown_timeout(Duration::from_millis(100));
    stopped
}

async fn run(
    listener: std::os::unix::net::UnixListener,
    access: Access,
    service: Service,
    hooks: Hooks,
) -> io::Result<StopRequest> {
    let mut stopped = service.stopping();
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hangup = signal(SignalKind::hangup())?;

    let app = router(service.clone()).into_make_service_with_connect_info::<Peer>();
    let server = axum::serve(Guarded::new(listener, access)?, app)
        .with_graceful_shutdown(wait_for_stop(service.stopping()));
    let server = tokio::spawn(server.into_future());
    if let Some(listener) = hooks.metrics {
        tokio::spawn(super::metrics::serve(listener, service.clone()));
    }
    (hooks.ready)();
    let request = loop {
        tokio::select! {
            _ = term.recv() => break StopRequest::default(),
            _ = int.recv() => break StopRequest::default(),
            _ = hangup.recv() => {
                let reload = Arc::clone(&hooks.reload);
                let read = service.with_control(move |control| { reload(control); Ok(()) });
                let _ = read.await;
            }
            request = stopped.wait_for(Option::is_some) => {
                break request.ok().and_then(|request| *request).unwrap_or_default();
            }
        }
    };
    service.handle.stop(request);
    if tokio::time::timeout(GRACE, server).await.is_err() {
        tracing::warn!("some API connections did not end in time");
    }
    Ok(request)
}

async fn wait_for_stop(mut stopped: watch::Receiver<Option<StopRequest>>) {
    let _ = stopped.wait_for(Option::is_some).await;
}

/// The routes, and what holds for all of them.
pub(super) fn router(service: Service) -> Router {
    let mut router = Router::new();
    for route in routes::all() {
        router = router.route(route.path, route.handler);
    }
    router
        .fallback(|request: Request| async move {
            let path = request.uri().path().to_owned();
            Problem::status(StatusCode::NOT_FOUND, format!("there is no {path} in this API"))
        })
        .method_not_allowed_fallback(|request: Request| async move {
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            Problem::status(StatusCode::METHOD_NOT_ALLOWED, format!("{path} takes no {method}"))
        })
        .layer(middleware::from_fn(only_the_welcome))
        .layer(DefaultBodyLimit::max(API_BODY_MAX))
        .with_state(service)
}

async fn only_the_welcome(
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    if peer.welcome {
        return next.run(request).await;
    }
    let who = peer.uid.map_or_else(|| "an unknown user".to_owned(), |uid| format!("user {uid}"));
    let mut problem =
        Problem::status(StatusCode::FORBIDDEN, format!("{who} may not use this daemon"));
    problem.body.hint = Some(
        "be root, the user it runs as, or a member of the group `wharf` (`usermod -aG wharf \
         NAME`, then log in anew)"
            .to_owned(),
    );
    problem.into_response()
}

impl Service {
    /// Asks control where waiting is allowed.
    pub(super) async fn with_control<T, F>(&self, question: F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: FnOnce(&mut Control) -> Result<T, ControlError> + Send + 'static,
    {
        self.handle.requests.fetch_add(1, Ordering::Relaxed);
        let control = Arc::clone(&self.control);
        let asked = tokio::task::spawn_blocking(move || {
            // Control validates before it changes anything; what a panic left is still worth serving.
            question(&mut control.lock().unwrap_or_else(PoisonError::into_inner))
        });
        match asked.await {
            Ok(answer) => answer.map_err(Problem::from),
            Err(_) => Err(Problem::failed()),
        }
    }

    /// Ends the daemon.
    pub(super) fn stop(&self, request: StopRequest) {
        self.handle.stop(request);
    }

    /// A stream of events.
    pub(super) async fn events(&self, follow: bool) -> Result<Response, Problem> {
        let body = super::stream::events(self, follow).await?;
        Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::new(body)).into_response())
    }

    /// A stream of beginnings and ends of flows.
    pub(super) async fn flow_events(&self, query: FlowQuery) -> Result<Response, Problem> {
        let body = super::stream::flow_events(self, query).await?;
        Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::new(body)).into_response())
    }

    /// What is counted, for Prometheus.
    pub(super) async fn metrics(&self) -> Result<Response, Problem> {
        let text = super::metrics::text(self).await?;
        Ok(([(header::CONTENT_TYPE, crate::observe::prometheus::CONTENT_TYPE)], text)
            .into_response())
    }

    /// A stream of captured frames.
    pub(super) async fn capture(&self, spec: CaptureSpec) -> Result<Response, Problem> {
        let form = match spec.form {
            Form::Pcapng => "application/vnd.tcpdump.pcap",
            Form::Lines => "application/x-ndjson",
        };
        let body = super::capture::start(self, spec).await?;
        Ok(([(header::CONTENT_TYPE, form)], Body::new(body)).into_response())
    }

    /// Control, for a thread that may wait for it.
    pub(super) fn control(&self) -> Arc<Mutex<Control>> {
        Arc::clone(&self.control)
    }

    /// Completes when the daemon is to end.
    pub(super) fn stopping(&self) -> watch::Receiver<Option<StopRequest>> {
        self.handle.stop.subscribe()
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

impl Problem {
    /// A problem with the request itself, not with what it asks for.
    pub(super) fn status(status: StatusCode, message: impl Into<String>) -> Self {
        let code = match status {
            StatusCode::FORBIDDEN => ErrorCode::Denied,
            StatusCode::NOT_FOUND => ErrorCode::NotFound,
            StatusCode::INTERNAL_SERVER_ERROR => ErrorCode::System,
            _ => ErrorCode::Invalid,
        };
        Self { status, body: ErrorBody { code, message: message.into(), hint: None } }
    }

    /// The daemon cannot.
    pub(super) fn internal(message: impl fmt::Display) -> Self {
        Self::status(StatusCode::INTERNAL_SERVER_ERROR, format!("{message}"))
    }

    /// What should have answered panicked.
    pub(super) fn failed() -> Self {
        let words = "the daemon failed to answer; its log says why";
        Self::status(StatusCode::INTERNAL_SERVER_ERROR, words)
    }

    /// The request makes no sense.
    pub(super) fn invalid(message: impl fmt::Display) -> Self {
        Self::status(StatusCode::BAD_REQUEST, format!("{message}"))
    }
}

impl From<ControlError> for Problem {
    fn from(error: ControlError) -> Self {
        let body = error.body();
        let status = StatusCode::from_u16(body.code.http_status())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, body }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}
