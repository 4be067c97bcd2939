//! Names: what the gateway's name server answers itself, and what it leaves to the host's resolvers.
//!
//! A query to port 53 of a gateway is either about something the switch knows ([`Zone`]: containers of
//! the same network, the host) and answered at once, or somebody else's business and forwarded. One
//! answer never mixes both. Pure: a query's bytes come in, an [`Answer`] comes out; whoever forwards
//! decides where to.
//!
//! A name of ours is authoritative: it has the addresses that it has, and asking for anything else about
//! it gives an empty answer and never somebody else's. The same holds backwards for addresses within the
//! network's own subnets, which nobody outside could know.

mod answer;
mod datagram;
mod zone;

pub use answer::{Answer, answer, refuse};
pub use datagram::{query, reply};
pub use zone::Zone;

/// The port.
pub const PORT: u16 = 53;
