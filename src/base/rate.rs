//! A token bucket, the one rate limiter of the switch.

use super::time::Time;

/// Allows `per_second` on average and bursts of `burst`. Sixteen-byte state, no timer.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    per_second: u64,
    burst: u64,
    /// Billionths of a token.
    tokens: u64,
    refilled: Time,
}

const NANO: u64 = 1_000_000_000;

impl TokenBucket {
    /// A full bucket.
    pub fn new(per_second: u64, burst: u64) -> Self {
        Self { per_second, burst, tokens: burst.saturating_mul(NANO), refilled: Time::ZERO }
    }

    /// Takes `n` tokens if they are there.
    #[must_use]
    pub fn take(&mut self, now: Time, n: u64) -> bool {
        let gained = now.since(self.refilled).0.saturating_mul(self.per_second);
        self.tokens = self.tokens.saturating_add(gained).min(self.burst.saturating_mul(NANO));
        self.refilled = self.refilled.max(now);
        let wanted = n.saturating_mul(NANO);
        let enough = self.tokens >= wanted;
        if enough {
            self.tokens -= wanted;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::super::time::Span;
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let mut bucket = TokenBucket::new(10, 5);
        let mut now = Time(1);
        assert_eq!((0..20).filter(|_| bucket.take(now, 1)).count(), 5);
        now = now + Span::from_secs(1);
        assert_eq!((0..20).filter(|_| bucket.take(now, 1)).count(), 5, "never more than the burst");
        let mut passed = 0;
        for _ in 0..100 {
            now = now + Span::from_millis(50);
            passed += u32::from(bucket.take(now, 1));
        }
        assert_eq!(passed, 50);
    }
}
