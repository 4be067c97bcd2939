//! Descriptors that outlive the daemon.
//!
//! A TAP lives as long as one of its descriptors, and inside a container nothing can be reopened. So
//! the daemon gives a duplicate of each descriptor that it cannot do without (TAPs, listeners, tunnel
//! sockets) to a second process, `wharf holder`, which does nothing but hold them: it reads no
//! traffic, no configuration and no clock. A daemon that was killed or replaced takes them back.
//! (Where systemd keeps a descriptor store, no holder is needed.)
//!
//! The holder serves one daemon at a time, and ends when it is told to, or when it holds nothing and
//! no daemon has been there for a while. It is nobody's child and has its own session, so that it
//! survives whatever kills the daemon. While no daemon is connected, it looks every second whether a
//! TAP's interface is gone and lets go of those, and once more when one connects; a connected daemon
//! sees that by itself and says [`HolderClient::drop_entry`]. A namespace without processes may live
//! on for minutes: a connection that was cut in the middle keeps it until the kernel gives up sending
//! the rest (`tcp_orphan_retries`: 102 s, or 204 s if the clock misses the first by a hair).
//!
//! The protocol is JSON in sequenced packets, the daemon asking and the holder answering, after a
//! hello of the holder. It hardly ever may change: the holder of the old version serves the daemon
//! of the new one.

mod keeper;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::net::sockopt;
use serde::{Deserialize, Serialize};

use crate::base::limits::ATTACH_PATIENCE;
use crate::io::fdpass::{Connection, FdPassError, Listener};

pub use keeper::run_holder;

/// The version of the protocol between daemon and holder.
pub const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    version: u32,
    entries: usize,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Request {
    /// With descriptors; an entry of the same key is replaced.
    Put {
        key: String,
        meta: serde_json::Value,
    },
    Drop {
        key: String,
    },
    /// All entries with duplicates of their descriptors; the holder keeps its own.
    Take,
    Quit,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reply {
    Done,
    /// With descriptors.
    Entry {
        key: String,
        meta: serde_json::Value,
    },
    Failed {
        message: String,
    },
}

/// What the holder gives back.
#[derive(Debug)]
pub struct Entry {
    /// Its name.
    pub key: String,
    /// What the daemon noted with it.
    pub meta: serde_json::Value,
    /// The descriptors, in the order in which they were given.
    pub fds: Vec<OwnedFd>,
}

/// Why the holder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HolderError {
    /// The connection failed.
    #[error("cannot speak with the holder: {0}")]
    Connection(#[from] FdPassError),
    /// It could not be started.
    #[error("cannot start the holder: {0}")]
    Start(#[source] io::Error),
    /// It speaks another version.
    #[error(
        "the holder that runs speaks version {0} of its protocol, this program version {VERSION}: \
         stop the containers, end it (`wharf holder --quit`) and start the daemon anew"
    )]
    Version(u32),
    /// It answered something that is not in the protocol.
    #[error("the holder's answer was not understood: {0}")]
    Malformed(String),
    /// It refused.
    #[error("the holder refused: {0}")]
    Refused(String),
}

/// The daemon's connection to the holder.
#[derive(Debug)]
pub struct HolderClient {
    connection: Connection,
    entries: usize,
}

impl HolderClient {
    /// Connects to a holder that runs.
    pub fn connect(socket: &Path) -> Result<Self, HolderError> {
        let connection = Connection::connect(socket)?;
        connection.set_patience(ATTACH_PATIENCE)?;
        let bytes = connection.recv()?.bytes;
        if let Ok(Reply::Failed { message }) = serde_json::from_slice(&bytes) {
            return Err(HolderError::Refused(message));
        }
        let hello: Hello =
            serde_json::from_slice(&bytes).map_err(|e| HolderError::Malformed(e.to_string()))?;
        if hello.version != VERSION {
            return Err(HolderError::Version(hello.version));
        }
        Ok(Self { connection, entries: hello.entries })
    }

    /// Connects to the holder, starting one first if none is there. `command` is to end up in
    /// [`run_holder`] with [`listener_from_stdin`] after [`crate::io::process::detach`]; the socket
    /// is opened here, so there is nothing to wait for.
    pub fn connect_or_spawn(socket: &Path, mut command: Command) -> Result<Self, HolderError> {
        match Self::connect(socket) {
            Err(HolderError::Connection(FdPassError::NotListening { .. })) => {}
            other => return other,
        }
        let listener = Listener::bind(socket, 0o600, None)?;
        let status = command
            .stdin(OwnedFd::from(listener))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .status()
            .map_err(HolderError::Start)?;
        // It detaches itself and the process that was started ends at once.
        if !status.success() {
            return Err(HolderError::Start(io::Error::other(status.to_string())));
        }
        Self::connect(socket)
    }

    /// How many entries it held when the connection was made.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Gives it descriptors to hold, in place of those it had under this key.
    pub fn put(
        &self,
        key: &str,
        meta: serde_json::Value,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), HolderError> {
        self.ask(&Request::Put { key: key.to_owned(), meta }, fds)
    }

    /// Lets it let go. A key that it does not have is no error.
    pub fn drop_entry(&self, key: &str) -> Result<(), HolderError> {
        self.ask(&Request::Drop { key: key.to_owned() }, &[])
    }

    /// Everything that it holds; it goes on holding it.
    pub fn take_all(&self) -> Result<Vec<Entry>, HolderError> {
        self.send(&Request::Take, &[])?;
        let mut entries = Vec::new();
        loop {
            let message = self.connection.recv()?;
            match parse(&message.bytes)? {
                Reply::Entry { key, meta } => entries.push(Entry { key, meta, fds: message.fds }),
                Reply::Done => return Ok(entries),
                Reply::Failed { message } => return Err(HolderError::Refused(message)),
            }
        }
    }

    /// Ends it, and everything that only it holds.
    pub fn quit(self) -> Result<(), HolderError> {
        self.ask(&Request::Quit, &[])
    }

    fn ask(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<(), HolderError> {
        self.send(request, fds)?;
        match parse(&self.connection.recv()?.bytes)? {
            Reply::Done => Ok(()),
            Reply::Failed { message } => Err(HolderError::Refused(message)),
            Reply::Entry { .. } => Err(HolderError::Malformed("an unexpected entry".to_owned())),
        }
    }

    fn send(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<(), HolderError> {
        let bytes =
            serde_json::to_vec(request).map_err(|e| HolderError::Malformed(e.to_string()))?;
        Ok(self.connection.send(&bytes, fds)?)
    }
}

fn parse(bytes: &[u8]) -> Result<Reply, HolderError> {
    serde_json::from_slice(bytes).map_err(|e| HolderError::Malformed(e.to_string()))
}

/// The listening socket that [`HolderClient::connect_or_spawn`] hands to the holder.
pub fn listener_from_stdin() -> io::Result<Listener> {
    let stdin = io::stdin();
    if !sockopt::socket_acceptconn(stdin.as_fd()).unwrap_or(false) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the holder is started by the daemon, with its socket as standard input",
        ));
    }
    Ok(Listener::from_fd(stdin.as_fd().try_clone_to_owned()?))
}
