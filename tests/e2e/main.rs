//! End to end: real TAPs, namespaces and kernels. Runs as root and as any user.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod attach;
mod holder;
mod packets;
mod probes;
mod processes;
mod sockets;
mod support;
mod taps;
mod uplink;
