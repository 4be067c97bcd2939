//! Local sockets that carry messages with descriptors: the attach protocol and the holder.
//!
//! SOCK_SEQPACKET keeps the bounds of a message, so there is no framing and no partial read, and a
//! message arrives with its descriptors or not at all. What comes from the other side is bounded in
//! bytes and descriptors, and anything that the kernel had to cut off is an error: a message without
//! its descriptors would be misunderstood.
#![allow(unsafe_code, reason = "SO_PEERGROUPS has no safe wrapper")]

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use crate::base::limits::{CONTROL_FDS_MAX, CONTROL_MESSAGE_MAX};
use crate::base::time::Span;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;
/// Supplementary groups a process can have (`NGROUPS_MAX`).
const GROUPS_MAX: usize = 65_536;

/// One message.
#[derive(Debug, Default)]
pub struct Message {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The descriptors that came with it, close-on-exec.
    pub fds: Vec<OwnedFd>,
}

/// Why a message could not be sent or received, or a socket not be had.
#[derive(Debug, thiserror::Error)]
pub enum FdPassError {
    /// Nobody listens there.
    #[error("nobody listens at {path}: {source}")]
    NotListening {
        /// The socket's path.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The path cannot be a socket's.
    #[error(
        "{0} cannot be a socket's path: the kernel allows 107 bytes; choose a shorter directory \
         (`--runtime-dir`)"
    )]
    PathTooLong(PathBuf),
    /// Somebody listens there already.
    #[error("somebody listens at {0} already: stop that process or choose another directory")]
    InUse(PathBuf),
    /// Making the socket failed.
    #[error("cannot listen at {path}: {source}")]
    Listen {
        /// The socket's path.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The message is larger than the protocol allows.
    #[error(
        "a message of {bytes} bytes with {fds} descriptors is larger than the allowed \
         {CONTROL_MESSAGE_MAX} and {CONTROL_FDS_MAX}"
    )]
    TooLarge {
        /// Its bytes.
        bytes: usize,
        /// Its descriptors.
        fds: usize,
    },
    /// The kernel cut the message or its descriptors off.
    #[error(
        "a message arrived incomplete: it was too large, or this process has no descriptor left \
         (`ulimit -n`)"
    )]
    Truncated,
    /// The other side sent nothing in time.
    #[error("the other side did not answer in time")]
    TimedOut,
    /// The other side is gone.
    #[error("the other side closed the connection")]
    Closed,
    /// Something else.
    #[error("{operation} failed: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// A listening socket at a path.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
}

/// One end of a connection.
#[derive(Debug)]
pub struct Connection {
    fd: OwnedFd,
}

impl Listener {
    /// Listens at `path`, with these permission bits and, if given, this group. A socket file that
    /// nobody listens at is replaced.
    pub fn bind(path: &Path, mode: u32, group: Option<u32>) -> Result<Self, FdPassError> {
        let failed =
            |source: Errno| FdPassError::Listen { path: path.to_owned(), source: source.into() };
        let address = address(path)?;
        match Connection::connect(path) {
            Ok(_) => return Err(FdPassError::InUse(path.to_owned())),
            Err(FdPassError::NotListening { source, .. })
                if source.kind() == io::ErrorKind::ConnectionRefused =>
            {
                let _ = std::fs::remove_file(path);
            }
            Err(_) => {}
        }
        let fd = socket().map_err(failed)?;
        rustix::net::bind(&fd, &address).map_err(failed)?;
        // Nobody can connect before `listen`, so there is no moment with wider permissions.
        let restrict = || -> io::Result<()> {
            std::os::unix::fs::chown(path, None, group)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        };
        restrict().map_err(|source| FdPassError::Listen { path: path.to_owned(), source })?;
        rustix::net::listen(&fd, BACKLOG).map_err(failed)?;
        Ok(Self { fd })
    }

    /// Takes a listening socket that somebody else made.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Waits for the next connection.
    pub fn accept(&self) -> io::Result<Connection> {
        let accept = || rustix::net::accept_with(&self.fd, SocketFlags::CLOEXEC);
        Ok(Connection { fd: rustix::io::retry_on_intr(accept)? })
    }
}

impl Connection {
    /// Connects to the listener at `path`.
    pub fn connect(path: &Path) -> Result<Self, FdPassError> {
        let not_listening = |source: Errno| FdPassError::NotListening {
            path: path.to_owned(),
            source: source.into(),
        };
        let address = address(path)?;
        let fd = socket().map_err(not_listening)?;
        rustix::io::retry_on_intr(|| rustix::net::connect(&fd, &address)).map_err(not_listening)?;
        Ok(Self { fd })
    }

    /// Two ends that are connected to each other.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (a, b) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Self { fd: a }, Self { fd: b }))
    }

    /// How long one message may be waited for, in either direction.
    pub fn set_patience(&self, patience: Span) -> Result<(), FdPassError> {
        let patience = Some(Duration::from_nanos(patience.0));
        for direction in [Timeout::Recv, Timeout::Send] {
            sockopt::set_socket_timeout(&self.fd, direction, patience)
                .map_err(|e| failed("setting a timeout", e))?;
        }
        Ok(())
    }

    /// Sends one message with descriptors, which stay open here as well.
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), FdPassError> {
        if bytes.len() > CONTROL_MESSAGE_MAX || fds.len() > CONTROL_FDS_MAX {
            return Err(FdPassError::TooLarge { bytes: bytes.len(), fds: fds.len() });
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(CONTROL_FDS_MAX))];
        let send = || {
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !fds.is_empty() {
                control.push(SendAncillaryMessage::ScmRights(fds));
            }
            rustix::net::sendmsg(
                &self.fd,
                &[IoSlice::new(bytes)],
                &mut control,
                SendFlags::NOSIGNAL,
            )
        };
        rustix::io::retry_on_intr(send).map(drop).map_err(|e| failed("sending a message", e))
    }

    /// Waits for one message. A message without bytes and the end of the connection look the same:
    /// both are [`FdPassError::Closed`].
    pub fn recv(&self) -> Result<Message, FdPassError> {
        let mut bytes = vec![0; CONTROL_MESSAGE_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(CONTROL_FDS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::io::retry_on_intr(|| {
            rustix::net::recvmsg(
                &self.fd,
                &mut [IoSliceMut::new(&mut bytes)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            )
        })
        .map_err(|e| failed("receiving a message", e))?;
        let fds: Vec<OwnedFd> = control
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(fds) => Some(fds),
                _ => None,
            })
            .flatten()
            .collect();
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(FdPassError::Truncated);
        }
        // The alignment of the buffer lets one more through than it was made for.
        if fds.len() > CONTROL_FDS_MAX {
            return Err(FdPassError::TooLarge { bytes: received.bytes, fds: fds.len() });
        }
        if received.bytes == 0 {
            return Err(FdPassError::Closed);
        }
        bytes.truncate(received.bytes);
        Ok(Message { bytes, fds })
    }

    /// Who is at the other end, as of the moment it connected.
    pub fn peer(&self) -> io::Result<PeerCredentials> {
        peer_credentials(self.fd.as_fd())
    }
}

/// Who is at the other end of any connected unix socket, as of the moment it connected.
pub fn peer_credentials(socket: BorrowedFd<'_>) -> io::Result<PeerCredentials> {
    let credentials = sockopt::socket_peercred(socket)?;
    Ok(PeerCredentials {
        pid: credentials.pid.as_raw_nonzero().get().cast_unsigned(),
        uid: credentials.uid.as_raw(),
        gid: credentials.gid.as_raw(),
        groups: peer_groups(socket)?,
    })
}

/// Who is at the other end of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerCredentials {
    /// The process that connected. It may have ended since, so nothing may be decided by it.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its supplementary groups.
    pub groups: Vec<u32>,
}

impl PeerCredentials {
    /// Whether it may speak with a daemon that runs as `owner`: root, the same user, and members of
    /// the group, if there is one.
    pub fn may_speak(&self, owner: u32, group: Option<u32>) -> bool {
        let member = |gid| self.gid == gid || self.groups.contains(&gid);
        self.uid == 0 || self.uid == owner || group.is_some_and(member)
    }
}

/// The number of a group, from `/etc/group`.
pub fn group_id(name: &str) -> Option<u32> {
    find_group(&std::fs::read_to_string("/etc/group").ok()?, name)
}

fn find_group(table: &str, name: &str) -> Option<u32> {
    table.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        fields.nth(1)?.parse().ok()
    })
}

fn peer_groups(fd: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups: Vec<u32> = vec![0; 32];
    loop {
        let mut length = size_of_val(&groups[..]) as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes into the vector and sets `length`.
        let done = unsafe {
            libc::getsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let count = length as usize / size_of::<u32>();
        if done == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        // ERANGE tells how many there are.
        if error.raw_os_error() != Some(libc::ERANGE) || count <= groups.len() || count > GROUPS_MAX
        {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}

fn socket() -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

fn address(path: &Path) -> Result<SocketAddrUnix, FdPassError> {
    SocketAddrUnix::new(path).map_err(|_| FdPassError::PathTooLong(path.to_owned()))
}

fn failed(operation: &'static str, error: Errno) -> FdPassError {
    match error {
        Errno::AGAIN => FdPassError::TimedOut,
        Errno::PIPE | Errno::CONNRESET => FdPassError::Closed,
        Errno::MSGSIZE => FdPassError::Truncated,
        _ => FdPassError::Io { operation, source: error.into() },
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl From<Listener> for OwnedFd {
    fn from(listener: Listener) -> Self {
        listener.fd
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests;
