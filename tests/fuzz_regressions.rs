//! Every input of the fuzz corpora, replayed on the stable compiler for ever.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use wharf::fuzzing::TARGETS;

fn fuzz(folder: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(folder)
}

/// Names in a folder, without a suffix.
fn names(folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(fuzz(folder)).expect("the folder is there");
    let paths = entries.map(|entry| entry.expect("readable").path());
    paths.map(|path| path.file_stem().expect("named").to_string_lossy().into_owned()).collect()
}

#[test]
fn every_corpus_is_replayed() {
    for (name, body) in TARGETS {
        let mut replayed = 0;
        for entry in fs::read_dir(fuzz("corpus").join(name)).expect("each target has a corpus") {
            let path = entry.expect("readable").path();
            println!("{}", path.display()); // shown when it panics
            body(&fs::read(&path).expect("readable"));
            replayed += 1;
        }
        assert!(replayed > 0, "the corpus of {name} is empty");
    }
}

#[test]
fn targets_files_programs_and_corpora_are_the_same_set() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let manifest = fs::read_to_string(fuzz("Cargo.toml")).expect("readable");
    let manifest: toml::Table = manifest.parse().expect("a manifest is TOML");
    let programs = manifest["bin"].as_array().expect("programs are listed");
    let programs = programs.iter().map(|bin| bin["name"].as_str().expect("named").to_owned());
    assert_eq!(targets, names("fuzz_targets"));
    assert_eq!(targets, names("corpus"));
    assert_eq!(targets, programs.collect());
}
