//! Processor time of this thread as what criterion measures.

#![allow(
    clippy::cast_precision_loss,
    clippy::unchecked_time_subtraction,
    reason = "figures for people; a clock that only goes forward"
)]

use std::time::Duration;

use criterion::Throughput;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use rustix::time::{ClockId, clock_gettime};

/// Time that the processor spent on this thread, and on nobody else.
pub(crate) struct CpuTime;

pub(crate) fn now() -> Duration {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(spent.tv_sec as u64, spent.tv_nsec as u32)
}

/// What the thread was given since `begun`.
pub(crate) fn since(begun: Duration) -> Duration {
    now().saturating_sub(begun)
}

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        now()
    }

    fn end(&self, begun: Duration) -> Duration {
        since(begun)
    }

    fn add(&self, one: &Duration, two: &Duration) -> Duration {
        *one + *two
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_secs_f64() * 1e9
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        &NanosecondsEach
    }
}

/// Criterion shows elements a second; what we compare is nanoseconds an element.
struct NanosecondsEach;

impl ValueFormatter for NanosecondsEach {
    fn scale_values(&self, typical: f64, values: &mut [f64]) -> &'static str {
        WallTime.formatter().scale_values(typical, values)
    }

    fn scale_throughputs(&self, _: f64, each: &Throughput, values: &mut [f64]) -> &'static str {
        let elements = match each {
            Throughput::Elements(n) | Throughput::Bytes(n) => f64::from(*n as u32),
            _ => 1.0,
        };
        for value in values {
            *value /= elements;
        }
        "ns each"
    }

    fn scale_for_machines(&self, values: &mut [f64]) -> &'static str {
        WallTime.formatter().scale_for_machines(values)
    }
}
