//! `docs/nat-conformance.md`, made from the table.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use crate::table::{Level, Row, table};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/nat-conformance.md");
/// What the kernel's masquerade was seen to do, a requirement and an outcome on each line.
const KERNEL: &str = include_str!("kernel.txt");

const BEGIN: &str = "# NAT conformance

Written by `WHARF_WRITE_DOCS=1 cargo test --test conformance`; that test fails when this page is not what
it would write. Each line is a requirement in our words, what the `packet` uplink does, and the test of
the whole data path that shows it (in both families where it means something; `tests/conformance/`).

The last column is what `nft … masquerade` of a Linux kernel does with the same packets in namespaces,
as `tests/e2e/kernel_nat.rs` sees it; `–` where that test does not look.

Deviations: a LAN whose lease overlaps a network that exists is told as an event, and neither is
renumbered (4787 REQ-7). There are no application gateways.
";

fn kernel() -> BTreeMap<&'static str, &'static str> {
    let lines = KERNEL.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once(": ")).collect()
}

fn level(level: Level) -> &'static str {
    match level {
        Level::Must => "MUST",
        Level::Should => "SHOULD",
        Level::May => "MAY",
    }
}

fn document() -> String {
    let kernel = kernel();
    let mut text = BEGIN.to_owned();
    for part in table() {
        let _ = write!(text, "\n## {}\n\n", part.title);
        text.push_str("| Requirement | | Asks | Wharf | Test | Linux masquerade |\n");
        text.push_str("|---|---|---|---|---|---|\n");
        for Row { id, level: asked, asks, does, tests } in &part.rows {
            let tests: Vec<String> = tests.iter().map(|test| format!("`{test}`")).collect();
            let tests = if tests.is_empty() { "–".to_owned() } else { tests.join(", ") };
            let theirs = kernel.get(id).copied().unwrap_or("–");
            let _ = writeln!(
                text,
                "| {id} | {} | {asks} | {does} | {tests} | {theirs} |",
                level(*asked)
            );
        }
    }
    text
}

#[test]
fn the_page_is_what_the_tests_say() {
    let text = document();
    if std::env::var_os("WHARF_WRITE_DOCS").is_some() {
        std::fs::write(DOCUMENT, &text).unwrap();
    }
    let page = std::fs::read_to_string(Path::new(DOCUMENT)).unwrap_or_default();
    assert!(page == text, "write it: WHARF_WRITE_DOCS=1 cargo test --test conformance");
}

#[test]
fn every_must_and_should_has_a_test_and_no_requirement_is_there_twice() {
    let mut seen = std::collections::BTreeSet::new();
    for row in table().into_iter().flat_map(|part| part.rows) {
        assert!(seen.insert(row.id), "{} twice", row.id);
        assert!(row.level == Level::May || !row.tests.is_empty(), "{} has no test", row.id);
    }
    // Each RFC's own list, its last requirement included.
    for (rfc, last) in [(4787, 14), (5382, 10), (5508, 11)] {
        for number in 1..=last {
            let id = format!("{rfc} REQ-{number}");
            assert!(seen.iter().any(|seen| seen.starts_with(&id)), "{id} is missing");
        }
    }
    for id in kernel().keys() {
        assert!(seen.contains(id), "the kernel's outcome for {id} has no line");
    }
}
