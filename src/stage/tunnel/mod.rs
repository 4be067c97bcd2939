//! Tunnels to other nodes: frames wrapped into datagrams, and taken out of them.
//!
//! A datagram holds one frame of an ordinary size, so a super-frame is cut here. The pieces are not copied:
//! a datagram is a list of places in the batch and in a buffer of headers, and datagrams of one size that
//! go one way make a train, which the kernel takes in one call (UDP_SEGMENT).

pub mod fuzz;
mod train;
pub mod vxlan;

pub use train::{Link, Train, TunnelOutput, Wrap};

#[cfg(test)]
mod tests;
