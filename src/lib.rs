//! Wharf: a userspace virtual switch and router for containers.

pub mod base;
pub mod packet;
pub mod stage;
pub mod wire;

#[doc(hidden)]
pub mod fuzzing;
