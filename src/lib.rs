//! Wharf: a userspace virtual switch and router for containers.

pub mod attach;
pub mod base;
pub mod packet;
pub mod stage;
pub mod io;
pub mod wire;

#[doc(hidden)]
pub mod fuzzing;
