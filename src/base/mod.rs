//! Layer 0: what everything stands on. Identifiers, bounds, time, hashing, lists.
//!
//! Nothing here knows of packets or of the operating system.

pub mod base64;
pub mod hash;
pub mod ids;
pub mod key;
pub mod limits;
pub mod lru;
pub mod prefetch;
pub mod rate;
pub mod slab;
pub mod time;
pub mod timers;
