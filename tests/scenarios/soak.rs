//! The soak, with a two-hundredth of its traffic: an unoptimised build has its limits. The whole of it
//! is `WHARF_SOAK=1 cargo bench --bench nat_scale`.

use crate::soak::{Load, soak};

#[test]
fn after_an_hour_of_mixed_traffic_with_bursts_nothing_is_left_and_every_frame_is_accounted_for() {
    let report = soak(Load::divided_by(200));
    println!("{report:?}");
    assert!(report.evicted > 0, "bursts fill the table");
    assert!(report.flows > 60_000);
}
