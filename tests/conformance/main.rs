//! The scorecard: every requirement of RFC 4787, 5382, 5508 and 7857 is a test of the whole data path
//! under a clock of its own, in both families where it means something.
//!
//! `docs/nat-conformance.md` is written from [`table`]: `WHARF_WRITE_DOCS=1 cargo test --test
//! conformance` writes it, and without that the test fails if it is not what it should be. The
//! kernel's column comes from `kernel.txt`, which `tests/e2e/kernel_nat.rs` verifies against a real one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod document;
mod nat;
#[path = "../common/packets.rs"]
mod packets;
mod rfc4787;
mod rfc5382;
mod rfc5508;
mod rfc7857;
mod table;
#[path = "../common/world.rs"]
mod world;
