//! What may go to everybody, and how often.

use crate::base::limits::FLOODS_PER_SECOND;
use crate::base::rate::TokenBucket;
use crate::base::time::Time;
use crate::wire::mac::Mac;

/// Whether a bridge must not forward frames to this group (IEEE 802.1D table 7-10): spanning tree,
/// pause frames, LACP, LLDP. They speak to the other end of a cable, and ours ends here.
pub fn is_reserved(mac: Mac) -> bool {
    matches!(mac.0, [0x01, 0x80, 0xc2, 0x00, 0x00, last] if last < 0x10)
}

/// The flood budget of one port: each flooded frame costs every other port a write.
#[derive(Clone, Copy, Debug)]
pub struct FloodLimit(TokenBucket);

impl Default for FloodLimit {
    fn default() -> Self {
        Self::new()
    }
}

impl FloodLimit {
    /// A full budget.
    pub fn new() -> Self {
        let rate = u64::from(FLOODS_PER_SECOND);
        Self(TokenBucket::new(rate, rate))
    }

    /// Whether `n` frames more may be flooded.
    #[must_use]
    pub fn allow(&mut self, now: Time, n: u64) -> bool {
        self.0.take(now, n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Span;

    #[test]
    fn the_sixteen_reserved_groups_stay_here_and_their_neighbours_pass() {
        for last in 0..=0x0f {
            assert!(is_reserved(Mac([0x01, 0x80, 0xc2, 0, 0, last])));
        }
        for other in ["01:80:c2:00:00:10", "01:80:c2:00:01:00", "01:00:5e:00:00:01"] {
            assert!(!is_reserved(other.parse().unwrap()), "{other}");
        }
        assert!(!is_reserved(Mac::BROADCAST));
    }

    #[test]
    fn a_storm_is_cut_to_the_rate_and_a_quiet_port_recovers() {
        let mut limit = FloodLimit::new();
        let now = Time(1);
        let passed = (0..3 * FLOODS_PER_SECOND).filter(|_| limit.allow(now, 1)).count();
        assert_eq!(passed, FLOODS_PER_SECOND as usize);
        assert!(limit.allow(now + Span::from_secs(1), u64::from(FLOODS_PER_SECOND)));
    }
}
