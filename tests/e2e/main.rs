//! End to end: real TAPs, namespaces and kernels. Runs as root and as any user.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "what a test waits for takes real time")]

mod attach;
mod capture;
mod cni;
mod commands;
mod control;
mod crowd;
mod datagrams;
mod demo;
mod endurance;
mod frames;
mod gone;
mod guests;
#[path = "../common/daemon.rs"]
mod harness;
mod holder;
mod host;
mod idle;
mod isolation;
mod kernel_nat;
mod lease;
mod modes;
mod name_suite;
mod names;
mod nat;
mod netavark;
mod nodes;
mod packet_uplink;
mod packets;
mod paths;
mod policy;
mod probes;
mod processes;
mod published;
mod rates;
mod refusals;
mod resolver;
mod same_network;
mod services;
mod share;
mod socket_loop;
mod sockets;
mod store;
mod support;
mod survival;
mod taps;
mod traffic;
mod world;
