//! Layer 7: the loop: descriptors to frames and back.

pub mod command;
