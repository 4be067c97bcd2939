//! Rate limits of endpoints: checked, and told to the workers.

use super::Control;
use super::error::ControlError;
use super::store::record::EndpointRecord;
use crate::attach::protocol::{RateLimit, RateLimits};
use crate::stage::rate::{Limits, Rate};
use crate::worker::command::Command;

/// Below this, one frame of ordinary size takes more than a second.
const LEAST: u64 = 12_000;
/// What passes at once if nothing was said: this many milliseconds of the rate, so that TCP, which sends in
/// bursts of a round trip, comes near the rate over ordinary distances.
const BURST_MS: u64 = 50;
/// But no less than this many bytes: two super-frames.
const BURST_LEAST: u64 = 128 * 1024;

/// Whether the limits make sense.
pub(super) fn check(limits: &RateLimits) -> Result<(), ControlError> {
    let all = [limits.ingress, limits.egress];
    let wrong = all.into_iter().flatten().find(|l| l.rate < LEAST || l.burst == Some(0));
    wrong.map_or(Ok(()), |limit| {
        let what = if limit.rate < LEAST { "a rate" } else { "a burst" };
        let value = if limit.rate < LEAST { limit.rate } else { 0 };
        Err(ControlError::invalid(
            format!("{what} of {value} bits is too small"),
            format!("give at least {LEAST} bits a second, such as --rate 10M, and a burst or none"),
        ))
    })
}

impl Control {
    /// Tells the workers the limits of an endpoint whose TAP they have, if it has any.
    pub(super) fn limit(&self, endpoint: &EndpointRecord) {
        let limits = Limits {
            ingress: endpoint.rate.ingress.map(rate),
            egress: endpoint.rate.egress.map(rate),
        };
        if limits != Limits::default() {
            self.outside.dataplane.send(Command::Limit(endpoint.port, limits));
        }
    }
}

fn rate(limit: RateLimit) -> Rate {
    let bytes_per_second = limit.rate / 8;
    let chosen = (bytes_per_second / 1_000 * BURST_MS).max(BURST_LEAST);
    Rate { bytes_per_second, burst: limit.burst.map_or(chosen, |bits| (bits / 8).max(1)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_chosen_by_the_rate_unless_given() {
        let burst = |rate_: u64, burst| rate(RateLimit { rate: rate_, burst }).burst;
        assert_eq!(burst(1_000_000, None), 131_072);
        assert_eq!(burst(1_000_000_000, None), 6_250_000);
        assert_eq!(burst(1_000_000_000, Some(8_000)), 1_000);
    }

    #[test]
    fn limits_that_let_nothing_pass_are_refused() {
        let limits = |rate, burst| RateLimits {
            egress: Some(RateLimit { rate, burst }),
            ..RateLimits::default()
        };
        assert!(check(&RateLimits::default()).is_ok());
        assert!(check(&limits(12_000, None)).is_ok());
        assert!(check(&limits(11_999, None)).is_err());
        assert!(check(&limits(1_000_000, Some(0))).is_err());
    }
}
