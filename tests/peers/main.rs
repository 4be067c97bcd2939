//! Wharf among the programs it works with, as Debian packages them (`scripts/setup interop`).
//!
//! Each test runs a script of a shell as an ordinary user, with `slirp4netns` and `pasta` that are Wharf,
//! or with the real ones: what is expected is first seen from the originals. See [`world`].
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod api;
mod cluster;
mod cni;
mod docker;
mod pasta;
mod podman;
mod rootlesskit;
mod run;
mod stun;
mod wireguard;
mod world;
