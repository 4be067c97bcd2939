//! Connections and their translation: conntrack and NAT.
//!
//! [`FlowTable`] holds every connection once, found by the key of either direction; [`TcpState`]
//! follows TCP; [`MappingTable`] binds inside to outside endpoints; [`icmp`] finds and translates what
//! an ICMP error quotes. The owner joins them: on a hit it tracks, touches, counts and rewrites; on a
//! miss it acquires a mapping, makes room and inserts; on a flow's end it releases the mapping.

pub mod behaviour;
#[allow(clippy::module_inception, reason = "the flow of the module of flows")]
pub mod flow;
pub mod held_syn;
pub mod icmp;
mod index;
pub mod mapping;
mod ports;
mod share;
mod slab;
pub mod table;
pub mod tcp;
#[cfg(test)]
mod testing;
pub mod timeouts;

pub use behaviour::{Behaviour, Binding, Filtering};
pub use flow::{Direction, Flag, Flow, HopId};
pub use held_syn::{HeldSyn, HeldSyns};
pub use icmp::{EmbeddedKey, related, translate_error};
pub use index::Place;
pub use mapping::{Endpoint, Mapping, MappingId, MappingTable, PortPolicy, Wanted};
pub use table::{FlowIndex, FlowTable, Likely};
pub use tcp::{TcpSegment, TcpState, Transition};
pub use timeouts::{Class, Timeouts};
