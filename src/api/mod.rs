//! Layer 10: the REST API, JSON over HTTP/1.1 on a unix socket. The server is the daemon's; the
//! client is synchronous and serves the command line and the adapters.

pub mod client;
mod http;
mod listener;
pub mod paths;
pub mod types;

pub use http::{HttpError, Lines};
