//! Wharf: a userspace virtual switch and router for containers.

pub mod attach;
pub mod base;
pub mod control;
pub mod datapath;
pub mod io;
pub mod packet;
pub mod stage;
pub mod wire;
