//! Scenarios: the whole data path, without an operating system, named as sentences.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bridge;
mod exhaustion;
mod fragments;
mod host;
mod isolation;
mod lease;
mod malformed;
mod masquerade;
mod names;
#[path = "../common/packets.rs"]
mod packets;
mod protocols;
mod publish;
mod router;
mod scale;
mod sockets;
mod tcp;
mod uplink;
#[path = "../common/world.rs"]
mod world;
