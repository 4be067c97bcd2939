//! Layer 4: what the data path reads. Objects are immutable and shared by `Arc`; a change replaces the
//! object it touches and bumps the generation, so that flows compiled before are judged again.
//!
//! Control validates and sends [`Delta`]s; every worker applies them to its own [`Tables`], which are
//! indexes over the shared objects. A change therefore costs what it touches, not what exists.

mod delta;
mod network;
mod peer;
mod policy;
mod port;
mod tables;
mod uplink;

pub use delta::Delta;
pub use network::{Guise, Network, Stands, Subnet, link_local};
pub use peer::{Backend, BackendKind, Peer, Prefix, Tunnel};
pub use policy::PolicyTables;
pub use port::{Port, PortKind};
pub use tables::{RouteTarget, Tables};
pub use uplink::{Uplink, UplinkKind};
