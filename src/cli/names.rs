//! Names for containers that were given none: an adjective and a thing found in a harbour.

use std::hash::{BuildHasher, Hasher, RandomState};

const ADJECTIVES: [&str; 32] = [
    "amber", "bold", "brisk", "calm", "clear", "coral", "deep", "eager", "early", "fair", "gentle",
    "golden", "grand", "happy", "keen", "kind", "light", "lucky", "merry", "mild", "neat", "noble",
    "proud", "quick", "quiet", "rapid", "salty", "silver", "steady", "sunny", "swift", "warm",
];
const NOUNS: [&str; 32] = [
    "anchor", "barge", "beacon", "bollard", "breeze", "buoy", "capstan", "cargo", "clipper",
    "cove", "crane", "current", "cutter", "dinghy", "dock", "ferry", "galley", "gull", "harbour",
    "jetty", "keel", "lantern", "mast", "mooring", "pier", "pilot", "quay", "rudder", "sail",
    "skiff", "tide", "tug",
];

/// A name such as `calm-jetty-3f`. Uniqueness is the daemon's to judge; a taken one is tried again.
pub(crate) fn random() -> String {
    // The standard library's hasher keys come from the system's random numbers.
    name_of(RandomState::new().build_hasher().finish())
}

fn name_of(bits: u64) -> String {
    let pick = |words: &[&'static str; 32], shift: u32| words[(bits >> shift) as usize % 32];
    format!("{}-{}-{:02x}", pick(&ADJECTIVES, 0), pick(&NOUNS, 8), bits >> 56)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_two_words_and_a_number() {
        assert_eq!(name_of(0), "amber-anchor-00");
        assert_eq!(name_of(u64::MAX), "warm-tug-ff");
        let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        assert!(random().chars().all(valid));
    }

    #[test]
    fn the_words_are_distinct_so_that_names_are() {
        for words in [ADJECTIVES, NOUNS] {
            let mut sorted = words.to_vec();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), words.len());
        }
    }
}
