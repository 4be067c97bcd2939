//! One connection to a member: requests of JSON over HTTP/1.1, one at a time.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use rustix::net::sockopt;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::address::Endpoint;
use super::error::EtcdError;
use super::tls::{self, TlsFiles};
use crate::base::limits::CLUSTER_ANSWER_BYTES_MAX;

/// How long a connection, or an answer, may take: a member that is slower is no member.
const PATIENCE: Duration = Duration::from_secs(3);
/// A connection on which nothing comes is probed after so many seconds, so often, so many times: a watch
/// that was cut by dropped packets is noticed within this (nothing else would ever tell).
const PROBE: (Duration, Duration, u32) = (Duration::from_secs(3), Duration::from_secs(1), 3);

/// A connection.
pub(super) struct Connection {
    endpoint: Endpoint,
    sender: SendRequest<Full<Bytes>>,
    /// Our own address on it.
    pub(super) local: SocketAddr,
    /// What the member gave us to say who we are.
    pub(super) token: Option<String>,
}

impl Connection {
    /// Connects.
    pub(super) async fn open(endpoint: &Endpoint, files: &TlsFiles) -> Result<Self, EtcdError> {
        let silent = |_| EtcdError::Silent(endpoint.clone());
        let failed = |source| EtcdError::Connect { endpoint: endpoint.clone(), source };
        let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port));
        let stream = timeout(PATIENCE, stream).await.map_err(silent)?.map_err(failed)?;
        probe(&stream).map_err(failed)?;
        let local = stream.local_addr().map_err(failed)?;
        let sender = if endpoint.tls {
            let name = files.server_name.as_deref().unwrap_or(&endpoint.host).to_owned();
            let refused = |source| EtcdError::Tls { endpoint: endpoint.clone(), source };
            let name = name.try_into().map_err(|e| refused(std::io::Error::other(e)))?;
            let session = tls::connector(files)?.connect(name, stream);
            let session = timeout(PATIENCE, session).await.map_err(silent)?.map_err(refused)?;
            speak(endpoint, session).await?
        } else {
            speak(endpoint, stream).await?
        };
        Ok(Self { endpoint: endpoint.clone(), sender, local, token: None })
    }

    /// Asks, and waits for the whole answer; an error if it is a refusal.
    pub(super) async fn call(
        &mut self,
        path: &str,
        body: &Value,
    ) -> Result<Result<Vec<u8>, Vec<u8>>, EtcdError> {
        let endpoint = self.endpoint.clone();
        let exchange = async {
            let response = self.send(path, body).await?;
            let good = response.status().is_success();
            let whole =
                Limited::new(response.into_body(), CLUSTER_ANSWER_BYTES_MAX).collect().await;
            let whole = whole.map_err(|e| self.broken(&*e))?;
            let whole = whole.to_bytes().to_vec();
            Ok(if good { Ok(whole) } else { Err(whole) })
        };
        timeout(PATIENCE, exchange).await.map_err(|_| EtcdError::Silent(endpoint))?
    }

    /// Asks for an answer that does not end.
    pub(super) async fn stream(mut self, path: &str, body: &Value) -> Result<Lines, EtcdError> {
        let endpoint = self.endpoint.clone();
        let silent = |_| EtcdError::Silent(endpoint.clone());
        let response = timeout(PATIENCE, self.send(path, body)).await.map_err(silent)??;
        Ok(Lines {
            endpoint,
            body: response.into_body(),
            buffer: Vec::new(),
            searched: 0,
            _sender: self.sender,
        })
    }

    async fn send(&mut self, path: &str, body: &Value) -> Result<Response<Incoming>, EtcdError> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(header::HOST, self.endpoint.authority())
            .header(header::CONTENT_TYPE, "application/json")
            // A member that is cut off from the others then ends our watch instead of being silent.
            .header("Grpc-Metadata-Hasleader", "true");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, token);
        }
        let request = request.body(Full::new(Bytes::from(body.to_string())));
        let request = request.map_err(|e| self.broken(&e))?;
        self.sender.ready().await.map_err(|e| self.broken(&e))?;
        let sent = self.sender.send_request(request).await;
        sent.map_err(|e| self.broken(&e))
    }

    fn broken(&self, why: &dyn Error) -> EtcdError {
        EtcdError::Broken { endpoint: self.endpoint.clone(), why: in_words(why) }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// An answer without an end, a line for each message.
#[derive(Debug)]
pub(super) struct Lines {
    pub(super) endpoint: Endpoint,
    body: Incoming,
    buffer: Vec<u8>,
    searched: usize,
    /// The connection lives as long as somebody may send on it.
    _sender: SendRequest<Full<Bytes>>,
}

impl Lines {
    /// The next line. May be dropped and called again: nothing is lost.
    pub(super) async fn next(&mut self) -> Result<Vec<u8>, EtcdError> {
        loop {
            if let Some(at) = self.buffer[self.searched..].iter().position(|b| *b == b'\n') {
                let rest = self.buffer.split_off(self.searched + at + 1);
                self.searched = 0;
                return Ok(std::mem::replace(&mut self.buffer, rest));
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > CLUSTER_ANSWER_BYTES_MAX {
                return Err(EtcdError::TooLong(self.endpoint.clone()));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    self.buffer.extend_from_slice(frame.data_ref().map_or(&[], |d| d));
                }
                Some(Err(e)) => return Err(self.ended(in_words(&e))),
                None => return Err(self.ended("it ended the watch".to_owned())),
            }
        }
    }

    fn ended(&self, why: String) -> EtcdError {
        EtcdError::Broken { endpoint: self.endpoint.clone(), why }
    }
}

async fn speak<S>(endpoint: &Endpoint, stream: S) -> Result<SendRequest<Full<Bytes>>, EtcdError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken =
        |e: hyper::Error| EtcdError::Broken { endpoint: endpoint.clone(), why: in_words(&e) };
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // The connection's own error shows up at the request.
    tokio::spawn(async move { connection.await.ok() });
    Ok(sender)
}

/// An error and what is behind it: hyper's own words alone say nothing.
fn in_words(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut behind = error.source();
    while let Some(cause) = behind {
        words = format!("{words}: {cause}");
        behind = cause.source();
    }
    words
}

/// Has the kernel find out whether the other side is still there.
fn probe(stream: &TcpStream) -> std::io::Result<()> {
    let (idle, interval, count) = PROBE;
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, idle)?;
    sockopt::set_tcp_keepintvl(stream, interval)?;
    sockopt::set_tcp_keepcnt(stream, count)?;
    // Unacknowledged data keeps probes away; this bounds that, too.
    let bound = (idle + interval * count).as_millis();
    sockopt::set_tcp_user_timeout(stream, u32::try_from(bound).unwrap_or(u32::MAX))?;
    Ok(())
}
