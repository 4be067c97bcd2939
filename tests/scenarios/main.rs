//! Scenarios: the whole data path, without an operating system, named as sentences.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::pedantic,
    clippy::ptr_arg,
    reason = "scenarios read as sentences; style serves that"
)]

mod bridge;
mod exhaustion;
mod fragments;
mod host;
mod isolation;
mod lease;
mod malformed;
mod masquerade;
mod packets;
mod protocols;
mod publish;
mod router;
mod scale;
mod tcp;
mod uplink;
mod world;
