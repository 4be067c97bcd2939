//! End to end: real TAPs, namespaces and kernels. Runs as root and as any user.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod attach;
mod commands;
#[path = "../common/daemon.rs"]
mod harness;
mod holder;
mod packets;
mod probes;
mod processes;
mod support;
mod taps;
