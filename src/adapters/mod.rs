//! Layer 11: other programs' requests, turned into requests to Wharf's own API and attach protocol.
//! What they want to hear is known here and nowhere else.

mod attaching;
pub mod cni;
pub mod docker;
pub mod netavark;
