//! What the machine can do at this moment: the measure for nanoseconds of another machine, or of
//! this one with busy neighbours.

#![allow(
    clippy::cast_precision_loss,
    clippy::unchecked_time_subtraction,
    reason = "figures for people; a clock that only goes forward"
)]

use std::hint::black_box;
use std::time::Duration;

use wharf::base::hash::Seed;

use crate::cpu_time::{now, since};

const ADDITIONS: u64 = 100_000_000;
/// 256 MiB, far beyond any cache, in lines of 64 bytes.
const LINES: usize = (256 << 20) / 64;
const READS: usize = 2_000_000;

/// Prints the processor's name, the time of an addition that waits for the one before, and that of a
/// read from main memory that does.
pub(crate) fn print() {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown", |rest| rest.trim_start_matches(['\t', ' ', ':']));
    println!("calibration: {model}");
    println!("calibration: {:.3} ns for a dependent addition", addition());
    println!("calibration: {:.1} ns for a dependent read of 256 MiB at random", random_read());
}

fn nanoseconds_each(begun: Duration, n: usize) -> f64 {
    since(begun).as_secs_f64() * 1e9 / f64::from(n as u32)
}

fn addition() -> f64 {
    let begun = now();
    // Each waits for the one before, and no compiler knows a short cut to Fibonacci's numbers.
    let (mut one, mut two) = (black_box(0_u64), black_box(1_u64));
    for _ in 0..ADDITIONS / 2 {
        one = one.wrapping_add(two);
        two = two.wrapping_add(one);
    }
    black_box(two);
    nanoseconds_each(begun, ADDITIONS as usize)
}

fn random_read() -> f64 {
    // One cycle through all lines (Sattolo's shuffle), so that no read can begin before the last ended.
    let mut next: Vec<[u64; 8]> = (0..LINES).map(|line| [line as u64; 8]).collect();
    for at in (1..LINES).rev() {
        let other = Seed(7).hash([at as u64]) as usize % at;
        next.swap(at, other);
    }
    let begun = now();
    let mut at = 0;
    for _ in 0..READS {
        at = next[at][0] as usize;
    }
    black_box(at);
    nanoseconds_each(begun, READS)
}
