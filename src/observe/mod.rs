//! Layer 8: what the switch does, in forms that other programs read.

pub mod capture;
pub mod pcapng;
pub mod prometheus;
