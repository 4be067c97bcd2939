//! The API's socket: who may connect, and how many at once.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::attach::server::Access;
use crate::base::limits::API_CONNECTIONS_MAX;
use crate::io::fdpass::peer_credentials;

/// Why the socket could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another daemon listens there.
    #[error("another daemon listens at {0}")]
    InUse(PathBuf),
    /// The kernel refused.
    #[error("cannot listen at {path}: {source}")]
    Refused {
        /// The socket's path.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Listens at `path` for the daemon's user and the group, if there is one. A socket file that
/// nobody listens at is what a killed daemon leaves behind, and is replaced.
pub fn bind(
    path: &Path,
    group: Option<u32>,
) -> Result<std::os::unix::net::UnixListener, ListenError> {
    use std::os::unix::net;
    let refused = |source| ListenError::Refused { path: path.to_owned(), source };
    match net::UnixStream::connect(path) {
        Ok(_) => return Err(ListenError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(_) if is_socket(path) => std::fs::remove_file(path).map_err(refused)?,
        Err(source) => return Err(refused(source)),
    }
    let listener = net::UnixListener::bind(path).map_err(refused)?;
    // Until the mode is set the umask holds; whoever connects meanwhile is checked all the same.
    if let Some(group) = group {
        // Without root the group may be out of reach, and then it stays closed to it.
        let _ = chown(path, None, Some(group));
    }
    let mode = std::fs::Permissions::from_mode(0o660);
    std::fs::set_permissions(path, mode).map_err(refused)?;
    listener.set_nonblocking(true).map_err(refused)?;
    Ok(listener)
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
}

/// Accepts connections, a bounded number at a time, and finds out who is there.
#[derive(Debug)]
pub(super) struct Guarded {
    listener: UnixListener,
    slots: Arc<Semaphore>,
    access: Access,
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    /// Its user, if the kernel could tell.
    pub(super) uid: Option<u32>,
    /// Whether it may speak.
    pub(super) welcome: bool,
}

/// A connection and its slot.
#[derive(Debug)]
pub(super) struct Slotted {
    stream: UnixStream,
    _slot: OwnedSemaphorePermit,
}

impl Guarded {
    pub(super) fn new(
        listener: std::os::unix::net::UnixListener,
        access: Access,
    ) -> io::Result<Self> {
        let listener = UnixListener::from_std(listener)?;
        Ok(Self { listener, slots: Arc::new(Semaphore::new(API_CONNECTIONS_MAX)), access })
    }

    fn peer(&self, stream: &UnixStream) -> Peer {
        match peer_credentials(stream.as_fd()) {
            Ok(peer) => Peer {
                uid: Some(peer.uid),
                welcome: peer.may_speak(self.access.owner, self.access.group),
            },
            Err(_) => Peer { uid: None, welcome: false },
        }
    }
}

impl Listener for Guarded {
    type Io = Slotted;
    type Addr = Peer;

    async fn accept(&mut self) -> (Slotted, Peer) {
        loop {
            let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else {
                // The semaphore is never closed.
                std::future::pending::<()>().await;
                continue;
            };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let peer = self.peer(&stream);
                    return (Slotted { stream, _slot: slot }, peer);
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting an API connection failed");
                    // Out of descriptors: the reason does not go away by asking at once.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        Ok(Peer { uid: None, welcome: false })
    }
}

impl Connected<IncomingStream<'_, Guarded>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Guarded>) -> Self {
        *stream.remote_addr()
    }
}

impl AsyncRead for Slotted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Slotted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_file_that_nobody_listens_at_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api.sock");
        drop(bind(&path, None).unwrap());
        let second = bind(&path, None).unwrap();
        assert!(matches!(bind(&path, None), Err(ListenError::InUse(_))));
        drop(second);
    }

    #[test]
    fn the_socket_is_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api.sock");
        let _listener = bind(&path, None).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    }

    #[test]
    fn a_file_that_is_no_socket_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api.sock");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&path, None), Err(ListenError::Refused { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
