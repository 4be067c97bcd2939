//! rtnetlink, synchronously: links, addresses, routes, neighbours.
//!
//! One request, one answer, on a socket that belongs to the network namespace of the thread that
//! opened it, wherever it is used later. The message types come from `netlink-packet-route`, whose
//! interface changes often; nothing outside this folder sees them.

mod address;
mod link;
mod monitor;
mod neighbour;
pub(in crate::io) mod raw;
mod route;

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

pub use address::{Address, AddressOptions};
pub use link::{Link, LinkStats};
pub use monitor::{Monitor, Stop, Woken};
pub use neighbour::Neighbour;
pub use route::{NewRoute, Route};

/// A dump that the kernel had to interrupt is begun anew so often.
const DUMP_ATTEMPTS: usize = 5;

/// A netlink socket of one network namespace.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No socket could be had.
    #[error("cannot open a netlink socket: {0}")]
    Open(#[source] io::Error),
    /// The kernel refused.
    #[error("cannot {operation}: {source}{}", advice(.source))]
    Refused {
        /// What was asked, as it reads after "cannot".
        operation: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// No interface has that name.
    #[error("there is no interface `{0}` in this network namespace")]
    NoSuchLink(String),
    /// The kernel's answer was not understood.
    #[error("the kernel's answer to `{operation}` was not understood: {detail}")]
    Malformed {
        /// What was asked.
        operation: String,
        /// What was wrong.
        detail: String,
    },
}

impl NetlinkError {
    /// The kernel's error number, if it gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Open(source) | Self::Refused { source, .. } => source.raw_os_error(),
            Self::NoSuchLink(_) => Some(libc::ENODEV),
            Self::Malformed { .. } => None,
        }
    }

    /// Whether what should be made is there already.
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(libc::EEXIST)
    }

    /// Whether what was named is not there (any more).
    pub fn is_missing(&self) -> bool {
        matches!(self.errno(), Some(libc::ENODEV | libc::ESRCH | libc::EADDRNOTAVAIL))
    }
}

/// What to do about an error, where that is not plain from its name.
fn advice(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "; that takes CAP_NET_ADMIN over this network namespace: be root, or in the user \
             namespace that owns it"
        }
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH) => {
            "; the gateway lies in none of the interface's own subnets"
        }
        Some(libc::EOPNOTSUPP) => "; this kernel does not support it",
        _ => "",
    }
}

impl Netlink {
    /// A socket of the calling thread's network namespace.
    pub fn open() -> Result<Self, NetlinkError> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(NetlinkError::Open)?;
        socket.bind_auto().map_err(NetlinkError::Open)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(NetlinkError::Open)?;
        // Without strict checking, the kernel ignores the filters of a dump.
        let _ = socket.set_netlink_get_strict_chk(true);
        Ok(Self { socket, sequence: 0 })
    }

    fn send(
        &mut self,
        operation: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<u32, NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map_err(|e| refused(operation, e))?;
        Ok(self.sequence)
    }

    /// Sends a request that is answered by an error number, zero for success.
    fn execute(
        &mut self,
        operation: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), NetlinkError> {
        let sequence = self.send(operation, message, flags | NLM_F_ACK)?;
        self.collect(operation, sequence, |_| ()).map(|_interrupted| ())
    }

    /// Sends a request that is answered by one message.
    fn get(
        &mut self,
        operation: &str,
        message: RouteNetlinkMessage,
    ) -> Result<Option<RouteNetlinkMessage>, NetlinkError> {
        let mut answer = None;
        let sequence = self.send(operation, message, NLM_F_ACK)?;
        self.collect(operation, sequence, |message| answer = Some(message))?;
        Ok(answer)
    }

    /// Sends a request that is answered by a table.
    fn dump(
        &mut self,
        operation: &str,
        message: &RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        let mut table = Vec::new();
        for _ in 0..DUMP_ATTEMPTS {
            table.clear();
            let sequence = self.send(operation, message.clone(), NLM_F_DUMP)?;
            if !self.collect(operation, sequence, |message| table.push(message))? {
                break;
            }
        }
        Ok(table)
    }

    /// Reads answers up to the last one; whether the kernel says that a table changed meanwhile.
    fn collect(
        &mut self,
        operation: &str,
        sequence: u32,
        mut take: impl FnMut(RouteNetlinkMessage),
    ) -> Result<bool, NetlinkError> {
        let mut interrupted = false;
        loop {
            let (datagram, _from) =
                self.socket.recv_from_full().map_err(|e| refused(operation, e))?;
            let mut rest = &datagram[..];
            while !rest.is_empty() {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|e| malformed(operation, &e))?;
                let length = (message.header.length as usize).next_multiple_of(4).max(16);
                rest = rest.get(length..).unwrap_or_default();
                if message.header.sequence_number != sequence {
                    continue; // an answer to a request that was given up
                }
                interrupted |= message.header.flags & netlink_packet_core::NLM_F_DUMP_INTR != 0;
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(interrupted),
                    NetlinkPayload::Error(error) => match error.code {
                        None => return Ok(interrupted),
                        Some(_) => return Err(refused(operation, error.to_io())),
                    },
                    NetlinkPayload::InnerMessage(inner) => take(inner),
                    _ => {}
                }
            }
        }
    }
}

fn refused(operation: &str, source: io::Error) -> NetlinkError {
    NetlinkError::Refused { operation: operation.to_owned(), source }
}

fn malformed(operation: &str, detail: &impl ToString) -> NetlinkError {
    NetlinkError::Malformed { operation: operation.to_owned(), detail: detail.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_namespace_has_a_loopback_interface() {
        let mut netlink = Netlink::open().unwrap();
        let lo = netlink.link("lo").unwrap();
        assert_eq!((lo.name.as_str(), lo.index), ("lo", 1));
        assert!(netlink.links().unwrap().iter().any(|link| link.name == "lo"));
    }

    #[test]
    fn a_missing_link_is_named_in_the_error() {
        let error = Netlink::open().unwrap().link("nosuchlink0").unwrap_err();
        assert!(matches!(&error, NetlinkError::NoSuchLink(name) if name == "nosuchlink0"));
        assert!(error.is_missing());
    }

    #[test]
    fn an_error_says_what_was_tried_and_what_to_do() {
        let error = refused("set eth0 up", io::Error::from_raw_os_error(libc::EPERM));
        let text = error.to_string();
        assert!(text.contains("cannot set eth0 up") && text.contains("CAP_NET_ADMIN"), "{text}");
    }
}
