//! Time as the core sees it: a number that is handed in. Nothing at this layer reads a clock.

use std::fmt;
use std::ops::{Add, Sub};

/// Nanoseconds since an origin that the caller chose (the daemon: boot; a simulation: zero).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Time(pub u64);

/// A length of time in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Span(pub u64);

impl Time {
    /// The origin.
    pub const ZERO: Self = Self(0);

    /// How long ago `earlier` was; zero if it lies ahead.
    #[must_use]
    pub fn since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }

    /// Whole milliseconds since the origin, as tables store it: 32 bits wrap after 49 days, so
    /// compare with [`Millis::before`] only.
    pub fn millis(self) -> Millis {
        Millis((self.0 / 1_000_000) as u32)
    }
}

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// So many seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs * 1_000_000_000)
    }

    /// So many milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis * 1_000_000)
    }

    /// So many microseconds.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros * 1_000)
    }

    /// Whole milliseconds.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Seconds as a fraction.
    #[allow(clippy::cast_precision_loss, reason = "for showing only")]
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }
}

impl Add<Span> for Time {
    type Output = Self;
    fn add(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl Sub<Time> for Time {
    type Output = Span;
    fn sub(self, earlier: Self) -> Span {
        self.since(earlier)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n < 10_000 => write!(f, "{n} ns"),
            n if n < 10_000_000 => write!(f, "{} µs", n / 1_000),
            n if n < 10_000_000_000 => write!(f, "{} ms", n / 1_000_000),
            n => write!(f, "{} s", n / 1_000_000_000),
        }
    }
}

/// Milliseconds in 32 bits, for tables whose entries must stay small.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Millis(pub u32);

impl Millis {
    /// Whether this lies before `other`, on a circle of 2³² ms: right for distances under 24 days.
    pub fn before(self, other: Self) -> bool {
        (self.0.wrapping_sub(other.0) as i32) < 0
    }

    /// This moment and so much later.
    #[must_use]
    pub fn plus(self, span: Span) -> Self {
        Self(self.0.wrapping_add(span.as_millis() as u32))
    }

    /// Milliseconds from `earlier` to this moment; zero if it lies ahead.
    pub fn since(self, earlier: Self) -> u32 {
        if self.before(earlier) { 0 } else { self.0.wrapping_sub(earlier.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_compare_rightly_across_the_wrap() {
        let before = Millis(u32::MAX - 5);
        let after = before.plus(Span::from_millis(10));
        assert!(before.before(after) && !after.before(before));
        assert_eq!(after.since(before), 10);
    }
}
