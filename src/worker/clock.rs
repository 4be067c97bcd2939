//! The only reader of the clock.

#![allow(clippy::disallowed_methods, reason = "this is the one place")]

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::base::time::Time;

/// Monotonic time since the clock was made.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// A clock that starts one second after its origin, so that "never" and "just now" differ.
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }

    /// The time now.
    #[inline]
    pub fn now(&self) -> Time {
        Time(1_000_000_000 + self.origin.elapsed().as_nanos() as u64)
    }

    /// What to add to a time of this clock to get nanoseconds since 1970.
    pub fn epoch(&self) -> u64 {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
        unix.saturating_sub(self.now().0)
    }

    /// Seconds since 1970, for records that people read.
    pub fn unix_seconds() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
    }
}
