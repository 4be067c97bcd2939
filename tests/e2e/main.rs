//! End to end: real TAPs, namespaces and kernels. Runs as root and as any user.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod attach;
mod gone;
mod holder;
mod lease;
mod packets;
mod probes;
mod processes;
mod same_network;
mod support;
mod survival;
mod taps;
mod traffic;
mod uplink;
mod world;
