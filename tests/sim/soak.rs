//! One hour of 2,000 new flows a second of all kinds, with bursts of five seconds at 200,000, under virtual
//! time (`tests/common/soak.rs`): the table ends empty, every frame that came in has left or was dropped by
//! name, and every port is there again.
//!
//! An unoptimised build has its limits, so that by default it is a two-hundredth of the traffic and of the table.
//! `WHARF_SOAK=N` makes it an Nth: `WHARF_SOAK=1 cargo test --release --test sim soaking` is the whole of it,
//! 13 million flows, and takes minutes.

use crate::soak::{Load, soak};

const PART: u32 = 200;

#[test]
fn after_an_hour_of_mixed_traffic_with_bursts_nothing_is_left_and_every_frame_is_accounted_for() {
    let part = std::env::var("WHARF_SOAK").ok().and_then(|text| text.parse().ok());
    let load = Load::divided_by(part.unwrap_or(PART));
    println!("{load:?}");
    let report = soak(load);
    println!("{report:?}");
    // None at the very beginning.
    let bursts = u64::from((load.seconds - 1) / 600 * 5);
    let flows = bursts * u64::from(load.burst_per_second)
        + (u64::from(load.seconds) - bursts) * u64::from(load.per_second);
    assert_eq!(report.flows, flows);
    assert!(report.evicted > 0, "bursts fill the table");
}
