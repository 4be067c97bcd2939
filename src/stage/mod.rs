//! Layer 3: what can happen to a frame, one folder each. Pure; siblings never import one another:
//! `datapath` joins them and hands each the answers it needs.

pub mod bridge;
pub mod dns;
pub mod flow;
pub mod lease;
pub mod policy;
pub mod rate;
pub mod respond;
pub mod route;
pub mod service;
pub mod sockets;
pub mod tunnel;
