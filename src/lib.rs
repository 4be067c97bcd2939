//! Wharf: a userspace virtual switch and router for containers.

pub mod api;
pub mod attach;
pub mod base;
pub mod cli;
pub mod control;
pub mod datapath;
pub mod io;
pub mod packet;
pub mod stage;
pub mod wire;
