//! Names: what the gateway's name server answers itself, and what it asks the host's resolvers for.
//!
//! A query to port 53 of a gateway is either about something the switch knows ([`Zone`]: containers of
//! the same network, the host) and answered at once, or somebody else's business and given to the
//! [`Resolver`]. One answer never mixes both. Queries come as datagrams or on connections
//! ([`Streams`]). All of it is pure: bytes and time in, bytes and things to be done out.
//!
//! A name of ours is authoritative: it has the addresses that it has, and asking for anything else about
//! it gives an empty answer and never somebody else's. The same holds backwards for addresses within the
//! network's own subnets, which nobody outside could know.
//!
//! What we say ourselves is written by a codec library (`answer.rs`); what others say is passed on as it
//! came (`message.rs` says why).

mod answer;
mod cache;
mod datagram;
#[doc(hidden)]
pub mod fuzz;
mod given;
mod message;
mod resolver;
mod servers;
mod stream;
mod zone;

#[cfg(test)]
mod testing;

pub use answer::{Answer, answer, refuse};
pub use datagram::{Datagram, query, reply};
pub use given::given;
pub use resolver::{Action, Exchange, Resolver, ResolverStats};
pub use stream::{StreamId, StreamOutput, Streams};
pub use zone::{Named, Service, Zone};

use crate::base::ids::PortId;

/// The port.
pub const PORT: u16 = 53;
/// The largest datagram that passes everywhere without fragments (DNS flag day 2020).
const EDNS_SIZE: u16 = 1232;

/// Who asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Client {
    /// The plug that its query came through.
    pub port: PortId,
    /// How it is answered.
    pub peer: Peer,
}

/// How an answer gets back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peer {
    /// By a datagram.
    Datagram(Datagram),
    /// On the connection that the query came on.
    Stream(StreamId),
}
