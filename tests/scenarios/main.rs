//! Scenarios: the whole data path, without an operating system, named as sentences.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bridge;
mod exhaustion;
mod flows;
mod fragments;
mod guise;
mod host;
mod hostile;
mod isolation;
mod lease;
mod malformed;
mod masquerade;
mod names;
mod nodes;
#[path = "../common/packets.rs"]
mod packets;
mod policy;
mod policy_sockets;
mod protocols;
mod publish;
mod router;
mod scale;
mod services;
mod share;
mod sockets;
mod tcp;
mod uplink;
#[path = "../common/world.rs"]
mod world;
