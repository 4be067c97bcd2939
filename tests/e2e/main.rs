//! End to end: real TAPs, namespaces and kernels. Runs as root and as any user.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod attach;
mod commands;
mod control;
#[path = "../common/daemon.rs"]
mod harness;
mod holder;
mod packet_uplink;
mod packets;
mod probes;
mod processes;
mod published;
mod same_network;
mod sockets;
mod store;
mod support;
mod taps;
mod traffic;
mod uplink;
mod world;
