//! Bodies of the fuzz targets: a function from foreign bytes to nothing, which panics when something
//! that must always hold does not.
//!
//! They live here and not in `fuzz/`, so that `tests/fuzz_regressions.rs` replays every input ever
//! found on plain `cargo test`. `fuzz/README.md` says how to add one.

use crate::wire::{checksum, ndp, tcp};

/// A target: its name, and what is done with the bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All targets; the name is also that of the file in `fuzz/fuzz_targets/` and of the corpus folder.
pub const TARGETS: &[Target] = &[("wire", wire)];

/// Options of TCP and NDP, and checksums, over arbitrary bytes.
pub fn wire(data: &[u8]) {
    tcp_options(data);
    ndp_options(data);
    checksums(data);
}

/// The walk ends, and no option is shorter than one byte.
fn tcp_options(data: &[u8]) {
    assert!(tcp::Options::new(data).count() <= data.len());
}

/// What is called valid is walked to its last byte; what is not ends early.
fn ndp_options(data: &[u8]) {
    let walked: usize = ndp::Options::new(data).map(|(_, body)| body.len() + 2).sum();
    assert_eq!(ndp::options_are_valid(data), walked == data.len());
    for kind in [ndp::SOURCE_LINK_LAYER, ndp::TARGET_LINK_LAYER] {
        if ndp::link_layer_option(data, kind).is_some() {
            assert!(ndp::Options::new(data).any(|(found, _)| found == kind));
        }
    }
}

/// RFC 1071: sums of even parts add up, and data with its checksum sums to all ones.
fn checksums(data: &[u8]) {
    let whole = checksum::sum(data);
    let (head, tail) = data.split_at(data.len() / 4 * 2);
    let parts = checksum::add(checksum::sum(head), checksum::sum(tail));
    assert!(is_same_sum(whole, parts), "{whole:#x} is not {parts:#x}");
    let closed = checksum::add(whole, !whole);
    assert_eq!(closed, 0xffff);
    if let Some((&[a, b], rest)) = data.split_first_chunk::<2>() {
        let changed = checksum::delta(u16::from_be_bytes([a, b]), 0);
        let updated = checksum::update(!whole, changed);
        assert!(is_same_sum(!updated, checksum::sum(rest)));
    }
}

/// Ones' complement has two zeros.
fn is_same_sum(a: u16, b: u16) -> bool {
    a % 0xffff == b % 0xffff
}
