//! Sequence numbers: a circle of 2³² (RFC 9293 3.4).

/// A place in a byte stream, modulo 2³².
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Seq(pub(super) u32);

impl Seq {
    /// So many bytes further.
    pub(super) fn plus(self, n: u32) -> Self {
        Self(self.0.wrapping_add(n))
    }

    /// Signed distance from `earlier` to this place.
    pub(super) fn minus(self, earlier: Self) -> i32 {
        self.0.wrapping_sub(earlier.0) as i32
    }

    /// Whether this place comes strictly before `other`.
    pub(super) fn before(self, other: Self) -> bool {
        self.minus(other) < 0
    }

    /// The later of two.
    pub(super) fn max(self, other: Self) -> Self {
        if self.before(other) { other } else { self }
    }

    /// Bytes from `earlier` to this place; zero if it lies ahead.
    pub(super) fn since(self, earlier: Self) -> u32 {
        self.minus(earlier).max(0) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_holds_across_the_wrap() {
        let (a, b) = (Seq(u32::MAX - 1), Seq(3));
        assert!(a.before(b) && !b.before(a) && !a.before(a));
        assert_eq!((b.since(a), a.since(b), b.minus(a)), (5, 0, 5));
        assert_eq!((a.max(b), a.plus(5)), (b, b));
    }
}
