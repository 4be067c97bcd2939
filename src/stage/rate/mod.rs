//! Rate limits: a token bucket for each limited port and direction. The worker asks it where frames are read
//! and written, which is what every way in and out of a port has in common.
//!
//! A bucket is one number, the time at which it would be full again (the generic cell rate algorithm, ITU-T
//! I.371): a frame passes if anything is left, and then costs its bytes, even more than were left. So a
//! super-frame of 64 KiB passes a bucket of any size, pays for all of its bytes, and the frames after it
//! wait for that debt. Whoever asks decides what becomes of a frame that may not pass yet.

use crate::base::time::Time;

/// Billionths of a second in a second.
const SECOND: u64 = 1_000_000_000;

/// What may pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// Bytes a second, on average.
    pub bytes_per_second: u64,
    /// Bytes at once after a pause.
    pub burst: u64,
}

/// The limits of one port.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// Of what it receives.
    pub ingress: Option<Rate>,
    /// Of what it sends.
    pub egress: Option<Rate>,
}

/// One bucket.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    bytes_per_second: u64,
    /// How far ahead of now `full_at` may lie, in nanoseconds.
    tolerance: u64,
    full_at: Time,
}

impl Bucket {
    /// A full one.
    pub fn new(rate: Rate) -> Self {
        let bytes_per_second = rate.bytes_per_second.max(1);
        let tolerance = u128::from(rate.burst) * u128::from(SECOND) / u128::from(bytes_per_second);
        let tolerance = u64::try_from(tolerance).unwrap_or(u64::MAX).max(1);
        Self { bytes_per_second, tolerance, full_at: Time::ZERO }
    }

    /// Whether a frame of so many bytes may pass now; if so, it is paid for.
    #[must_use]
    pub fn take(&mut self, now: Time, bytes: usize) -> bool {
        if self.full_at.since(now).0 >= self.tolerance {
            return false;
        }
        let cost = (bytes as u64).saturating_mul(SECOND).div_ceil(self.bytes_per_second);
        self.full_at = Time(self.full_at.max(now).0.saturating_add(cost));
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::time::Span;

    fn limited(bytes_per_second: u64, burst: u64) -> Bucket {
        Bucket::new(Rate { bytes_per_second, burst })
    }

    #[test]
    fn a_burst_passes_at_once_and_then_the_rate_holds() {
        let mut bucket = limited(1_000_000, 10_000);
        let start = Time(5);
        assert_eq!((0..100).filter(|_| bucket.take(start, 1_000)).count(), 10);
        let mut bytes = 0;
        for ms in 1..=1_000 {
            while bucket.take(start + Span::from_millis(ms), 1_000) {
                bytes += 1_000;
            }
        }
        assert_eq!(bytes, 1_000_000);
    }

    #[test]
    fn a_super_frame_passes_a_small_bucket_and_pays_for_all_of_its_bytes() {
        let mut bucket = limited(1_000_000, 1_500);
        assert!(bucket.take(Time::ZERO, 65_000));
        assert!(!bucket.take(Time::ZERO + Span::from_millis(63), 60));
        assert!(bucket.take(Time::ZERO + Span::from_millis(64), 60));
    }

    proptest! {
        #[test]
        fn over_any_span_no_more_passes_than_burst_rate_and_one_frame(
            rate in 1_000_u64..10_000_000_000,
            burst in 1_u64..10_000_000,
            frames in prop::collection::vec((0_u64..20_000_000, 40_usize..65_550), 1..200),
        ) {
            let mut bucket = limited(rate, burst);
            let (mut now, mut passed) = (Time(1), 0_u128);
            for (pause, bytes) in frames {
                now = Time(now.0 + pause);
                if bucket.take(now, bytes) {
                    passed += bytes as u128;
                }
                let earned = u128::from(rate) * u128::from(now.0 - 1) / u128::from(SECOND);
                prop_assert!(passed <= earned + u128::from(burst) + 65_550 + 1);
            }
        }
    }
}
