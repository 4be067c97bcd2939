//! Layer 10: the REST API, JSON over HTTP/1.1 on a unix socket. The server is the daemon's; the
//! client is synchronous and serves the command line and the adapters.

mod body;
mod capture;
pub mod client;
mod examples;
pub(crate) mod http;
mod listener;
pub mod metrics;
mod openapi;
pub mod paths;
mod routes;
pub mod server;
mod stream;
pub mod types;

pub use http::{HttpError, Lines};
