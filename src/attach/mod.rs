//! Layer 8: attaching a container, both ends. Synchronous: no async runtime, no thread of its own.
//!
//! The attacher ([`client`]) is whoever has the right to change the container's network namespace:
//! `wharf run`, `wharf attach`, the CNI plugin. The daemon ([`server`]) needs no right at all; it is
//! handed the descriptors of the TAP. [`protocol`] is what they say to each other:
//!
//! ```text
//! attacher                                  daemon
//!    │ connect ────────────────────────────▶ │ who is it? (SO_PEERCRED)
//!    │ ◀─────────────────────────────── hello │ version, number of queues, kind of TAP
//!    │ open the TAP in staging, all queues   │
//!    │ move it into the container as eth0    │
//!    │ request + the descriptors ──────────▶ │ is it a TAP as agreed? (TUNGETIFF)
//!    │                                       │ addresses, port, publications
//!    │ ◀─────────────────────────────── reply │
//!    │ MAC, MTU, addresses, up, routes       │
//! ```
//!
//! The move comes before the request, because a name that is taken in the container must fail before
//! the daemon has assigned anything. Whatever fails afterwards removes the link; the daemon sees a
//! TAP whose link is gone and forgets the endpoint ([`crate::io::tap`] says how that looks). So
//! there is nothing to roll back by message, and an attacher that is killed leaves nothing behind
//! that outlives the container.
//!
//! [`holder`] keeps descriptors across the daemon's death.

pub mod client;
pub mod holder;
pub mod protocol;
pub mod server;
