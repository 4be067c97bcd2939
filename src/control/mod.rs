//! Layer 9: what is wanted. Desired state, validation, addresses, the store, and how all of it
//! reaches the workers. The only writer of configuration.

pub mod config;
pub mod ipam;
pub mod model;
pub mod publish_spec;
pub mod store;
