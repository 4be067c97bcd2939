//! The protocol against a store that behaves as etcd does.

mod model;
mod scale;
mod sim;
pub(in crate::control::cluster) mod store;
