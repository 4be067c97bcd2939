//! One HTTP request over a unix socket, synchronously: what clients of the API need.
//!
//! Each call makes a connection and a single-threaded runtime of its own. That costs a tenth of a
//! millisecond, and in return callers need not know that anything is asynchronous.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

use crate::base::limits::{API_PATIENCE, API_REPLY_MAX};

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Nobody listens.
    #[error("no daemon is running at {0}")]
    NoDaemon(PathBuf),
    /// The socket is closed to this user.
    #[error("not allowed to speak to the daemon at {0}")]
    NotAllowed(PathBuf),
    /// Connecting failed otherwise.
    #[error("cannot connect to {path}: {source}")]
    Connect {
        /// The socket's path.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The connection broke, or the other side does not speak HTTP.
    #[error("the daemon broke the connection off: {0}")]
    Broken(#[source] hyper::Error),
    /// The answer did not come or did not end.
    #[error("the daemon sent an incomplete answer: {0}")]
    Incomplete(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Nothing came in time.
    #[error("the daemon did not answer within {} s", API_PATIENCE.as_millis() / 1000)]
    TimedOut,
    /// No runtime could be made.
    #[error("cannot start the client: {0}")]
    Runtime(#[source] io::Error),
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Status code.
    pub(crate) status: StatusCode,
    /// Body, whole.
    pub(crate) body: Bytes,
}

/// Makes a request and waits for the whole answer. `target` is path and query.
pub(crate) fn call(
    socket: &Path,
    method: Method,
    target: &str,
    body: Option<Vec<u8>>,
) -> Result<Reply, HttpError> {
    let exchange = async {
        let response = send(socket, method, target, body).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), API_REPLY_MAX)
            .collect()
            .await
            .map_err(HttpError::Incomplete)?
            .to_bytes();
        Ok(Reply { status, body })
    };
    let patience = Duration::from_nanos(API_PATIENCE.0);
    runtime()?.block_on(async {
        tokio::time::timeout(patience, exchange).await.map_err(|_| HttpError::TimedOut)?
    })
}

/// Makes a request whose answer is read line by line, as it comes.
pub(crate) fn lines(socket: &Path, target: &str) -> Result<(StatusCode, Lines), HttpError> {
    let runtime = runtime()?;
    let response = runtime.block_on(send(socket, Method::GET, target, None))?;
    let status = response.status();
    Ok((status, Lines { runtime, body: response.into_body(), buffer: Vec::new() }))
}

/// Makes a request whose answer is read as it comes.
pub(super) fn stream(
    socket: &Path,
    target: &str,
    body: Vec<u8>,
) -> Result<(StatusCode, Chunks), HttpError> {
    let runtime = runtime()?;
    let response = runtime.block_on(send(socket, Method::POST, target, Some(body)))?;
    let status = response.status();
    Ok((status, Chunks { runtime, body: response.into_body() }))
}

/// An answer without an end, in pieces of any length.
#[derive(Debug)]
pub(super) struct Chunks {
    runtime: Runtime,
    body: Incoming,
}

impl Iterator for Chunks {
    type Item = Result<Bytes, HttpError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.runtime.block_on(self.body.frame())? {
                Ok(frame) => {
                    // Trailers have nothing to say.
                    if let Ok(data) = frame.into_data() {
                        return Some(Ok(data));
                    }
                }
                Err(error) => return Some(Err(HttpError::Broken(error))),
            }
        }
    }
}

/// An answer without an end, in lines.
#[derive(Debug)]
pub struct Lines {
    runtime: Runtime,
    body: Incoming,
    buffer: Vec<u8>,
}

impl Iterator for Lines {
    type Item = Result<String, HttpError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let rest = self.buffer.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.truncate(end);
                return Some(Ok(String::from_utf8_lossy(&line).into_owned()));
            }
            match self.runtime.block_on(self.body.frame())? {
                Ok(frame) => self.buffer.extend_from_slice(frame.data_ref().map_or(&[], |d| d)),
                Err(error) => return Some(Err(HttpError::Broken(error))),
            }
        }
    }
}

async fn send(
    socket: &Path,
    method: Method,
    target: &str,
    body: Option<Vec<u8>>,
) -> Result<Response<Incoming>, HttpError> {
    let mut sender = connect(socket).await?;
    let request = Request::builder()
        .method(method)
        .uri(target)
        .header(header::HOST, "wharf")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body.unwrap_or_default())));
    // A target that is no URI can only come from a name with odd characters, which callers encode.
    let request = request.map_err(|e| HttpError::Incomplete(Box::new(e)))?;
    sender.send_request(request).await.map_err(HttpError::Broken)
}

async fn connect(socket: &Path) -> Result<SendRequest<Full<Bytes>>, HttpError> {
    let path = socket.to_owned();
    let stream = UnixStream::connect(socket).await.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::ConnectionRefused => HttpError::NoDaemon(path),
        io::ErrorKind::PermissionDenied => HttpError::NotAllowed(path),
        _ => HttpError::Connect { path, source },
    })?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(HttpError::Broken)?;
    // The connection's own error shows up at the request.
    tokio::spawn(async move { connection.await.ok() });
    Ok(sender)
}

fn runtime() -> Result<Runtime, HttpError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(HttpError::Runtime)
}
