//! Scenarios: the whole data path, without an operating system, named as sentences.

mod bridge;
mod isolation;
mod masquerade;
mod publish;
mod router;
mod scale;
mod uplink;
mod world;
