//! Wharf: a userspace virtual switch and router for containers.

pub mod adapters;
pub mod api;
pub mod attach;
pub mod base;
pub mod cli;
pub mod config;
pub mod control;
pub mod datapath;
#[doc(hidden)]
pub mod fuzzing;
pub mod io;
pub mod observe;
pub mod packet;
pub mod stage;
pub mod wire;
pub mod worker;
