//! The rules of the house that no compiler checks (CONTRIBUTING.md gives the reasons), as tests.
//!
//! `rules.rs` holds the rules, `source.rs` what they must understand of Rust's text, and this file
//! runs them over the tree and shows with small strings that each of them can fail.

#[path = "layering/rules.rs"]
mod rules;
#[path = "layering/source.rs"]
mod source;

use std::fs;
use std::path::{Path, PathBuf};

type Rule = fn(&str, &str) -> Vec<String>;

/// Folders that hold no text of ours.
const SKIPPED: &[&str] = &["target", "corpus", "artifacts", "__pycache__"];

/// Every text file below `folder`, named from the package's root.
fn files(folder: &str) -> Vec<(String, String)> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut open = vec![root.join(folder)];
    while let Some(dir) = open.pop() {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                let skip = path.file_name().is_some_and(|n| SKIPPED.iter().any(|s| n == *s));
                open.extend((!skip).then_some(path));
            } else if let Ok(text) = fs::read_to_string(&path) {
                found.push((name_of(&root, &path), text));
            }
        }
    }
    found.sort();
    found
}

fn name_of(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned()
}

/// Applies a rule to the folders' files; at least one file must be there to be judged.
fn check(rule: Rule, folders: &[&str], suffix: &str) {
    let files: Vec<_> = folders.iter().flat_map(|folder| files(folder)).collect();
    let judged: Vec<_> = files.iter().filter(|(name, _)| name.ends_with(suffix)).collect();
    assert!(!judged.is_empty(), "nothing found to judge in {folders:?}");
    let complaints: Vec<_> = judged.iter().flat_map(|(name, text)| rule(name, text)).collect();
    assert!(complaints.is_empty(), "\n  {}\n", complaints.join("\n  "));
}

#[test]
fn a_folder_imports_only_lower_layers() {
    check(rules::layers, &["src"], ".rs");
}

#[test]
fn base_to_datapath_know_no_operating_system() {
    check(rules::purity, &["src"], ".rs");
}

#[test]
fn unsafe_code_is_only_in_io_and_prefetch() {
    check(rules::unsafe_code, &["src"], ".rs");
}

#[test]
fn one_file_reads_the_clock() {
    check(rules::clock, &["src"], ".rs");
}

#[test]
fn files_and_functions_are_short() {
    check(rules::lengths, &["src"], ".rs");
}

#[test]
fn nothing_is_marked_unfinished() {
    check(rules::finished, &["src", "tests", "benches", "fuzz", "scripts", ".ci"], "");
}

#[test]
fn the_threat_model_names_tests_that_exist() {
    let model = include_str!("../docs/threat-model.md");
    let quoted = model.split('`').skip(1).step_by(2);
    let named: Vec<&str> = quoted.filter(|word| word.matches('_').count() > 2).collect();
    assert!(named.len() > 30, "{named:?}");
    let sources = [files("src"), files("tests")].concat();
    let exists =
        |name: &&str| sources.iter().any(|(_, text)| text.contains(&format!("fn {name}(")));
    let missing: Vec<&str> = named.into_iter().filter(|name| !exists(name)).collect();
    assert!(missing.is_empty(), "no test is called so: {missing:?}");
}

mod each_rule_can_fail {
    use super::*;

    #[track_caller]
    fn refused(rule: Rule, file: &str, text: &str) {
        assert_eq!(rule(file, text).len(), 1, "{file}: {text}: {:?}", rule(file, text));
    }

    #[track_caller]
    fn allowed(rule: Rule, file: &str, text: &str) {
        assert_eq!(rule(file, text), Vec::<String>::new(), "{file}: {text}");
    }

    #[test]
    fn upward_imports_are_refused() {
        refused(rules::layers, "src/wire/arp.rs", "use crate::packet::PacketBuf;");
        refused(rules::layers, "src/base/mod.rs", "fn f(a: crate::wire::addr::Addr) {}");
        refused(rules::layers, "src/config/mod.rs", "use crate::{base::ids, datapath::Input};");
        refused(rules::layers, "src/attach/mod.rs", "use crate::observe::pcap;");
        refused(rules::layers, "src/observe/mod.rs", "use crate::attach::Client;");
        refused(
            rules::layers,
            "src/packet/a.rs",
            "mod tests { use super::super::super::io::Tap; }",
        );
        refused(rules::layers, "src/wire/tcp.rs", "use super::super::stage::flow;");
        refused(rules::layers, "src/wire/tcp.rs", "use crate::nowhere::Thing;");
        refused(rules::layers, "src/newcomer/mod.rs", "");
    }

    #[test]
    fn stages_do_not_import_one_another() {
        refused(rules::layers, "src/stage/bridge/fdb.rs", "use crate::stage::flow::Flow;");
        refused(rules::layers, "src/stage/bridge/mod.rs", "use super::flow::Flow;");
        refused(rules::layers, "src/stage/route/lpm.rs", "use super::super::{route::a, flow::b};");
        refused(rules::layers, "src/stage/route/lpm.rs", "use super::super::super::stage::dns;");
        allowed(rules::layers, "src/stage/route/lpm.rs", "use super::neighbour::Table;");
        allowed(rules::layers, "src/stage/mod.rs", "pub use self::flow::Flow;");
    }

    #[test]
    fn downward_and_own_imports_are_allowed() {
        allowed(rules::layers, "src/wire/tcp.rs", "use super::{Be16, addr::Addr};");
        allowed(
            rules::layers,
            "src/datapath/mod.rs",
            "use crate::{stage::flow, wire::{arp, mac::Mac}};",
        );
        allowed(
            rules::layers,
            "src/wire/arp.rs",
            "//! see crate::packet\nlet s = \"crate::io::x\";",
        );
        allowed(rules::layers, "src/wire/arp.rs", "#[cfg(test)]\nmod tests { use super::*; }");
        allowed(rules::layers, "src/wire/arp.rs", "pub(crate) fn f() {} pub(super) struct S;");
    }

    #[test]
    fn pure_layers_name_no_operating_system() {
        refused(rules::purity, "src/stage/flow/mod.rs", "use std::{collections::X, thread};");
        refused(rules::purity, "src/datapath/mod.rs", "let f = ::std::fs::read(p);");
        refused(rules::purity, "src/packet/mod.rs", "use tracing::debug;");
        refused(rules::purity, "src/wire/mod.rs", "async fn f() {}");
        refused(rules::purity, "src/base/time.rs", "use std::time::{Duration, Instant};");
        allowed(rules::purity, "src/base/time.rs", "use std::time::Duration; fn process() {}");
        allowed(rules::purity, "src/base/a.rs", "#[cfg(test)] mod tests { use std::thread; }");
        allowed(rules::purity, "src/io/tap.rs", "use std::io;");
    }

    #[test]
    fn unsafe_blocks_are_refused_outside_io() {
        refused(rules::unsafe_code, "src/worker/mod.rs", "fn f() { unsafe { g() } }");
        refused(rules::unsafe_code, "src/base/lru.rs", "unsafe impl Send for X {}");
        allowed(rules::unsafe_code, "src/worker/mod.rs", "#![deny(unsafe_code)] // unsafe");
        allowed(rules::unsafe_code, "src/io/tap.rs", "unsafe { ioctl() }");
        allowed(rules::unsafe_code, "src/base/prefetch.rs", "unsafe { prefetch() }");
    }

    #[test]
    fn a_second_reader_of_the_clock_is_refused() {
        refused(rules::clock, "src/worker/mod.rs", "let t = std::time::Instant::now();");
        refused(rules::clock, "src/control/mod.rs", "SystemTime::now()");
        allowed(rules::clock, "src/worker/clock.rs", "Instant::now()");
        allowed(rules::clock, "src/worker/mod.rs", "\"Instant::now()\"; now()");
    }

    #[test]
    fn long_files_and_functions_are_refused() {
        let lines = "\n".repeat(100);
        refused(rules::lengths, "src/io/a.rs", &format!("fn f(a: [u8; 2]) {{{lines}}}"));
        refused(rules::lengths, "src/io/a.rs", &"\n".repeat(601));
        allowed(rules::lengths, "src/io/a.rs", &"\n".repeat(600));
        allowed(rules::lengths, "src/io/a.rs", &format!("fn f();{lines}fn g() {{ '{{'; \"{{\" }}"));
        let tests = format!("#[cfg(test)]\nmod tests {{ fn f() {{{}}} }}", "\n".repeat(700));
        allowed(rules::lengths, "src/io/a.rs", &tests);
        allowed(rules::lengths, "src/io/tests.rs", &"\n".repeat(700));
    }

    #[test]
    fn unfinished_work_is_refused() {
        refused(rules::finished, "scripts/x", concat!("# TO", "DO: later"));
        refused(rules::finished, "src/a.rs", concat!("fn f() { to", "do!() }"));
        refused(rules::finished, "tests/a.rs", concat!("#[ig", "nore = \"slow\"]"));
        allowed(rules::finished, "scripts/x", "mktemp -d /tmp/x.XXXXXX");
    }

    #[test]
    fn literals_and_comments_are_blank() {
        let code = source::blank("a 'x' '\\'' \"{\\\"\" r#\"}\"}\"# /* /* { */ */ b<'c> // {\nd é");
        let words: Vec<_> = source::tokens(&code).iter().map(|t| (t.text, t.line)).collect();
        let expected =
            [("a", 1), ("b", 1), ("<", 1), ("'", 1), ("c", 1), (">", 1), ("d", 2), ("é", 2)];
        assert_eq!(words, expected);
    }

    #[test]
    fn groups_spread_to_paths() {
        let paths = source::paths("use crate::{a::{B, c::*}, d::E as F};", &["crate"]);
        let joined: Vec<_> = paths.iter().map(|p| p.segments.join("::")).collect();
        assert_eq!(joined, ["crate::a::B", "crate::a::c::*", "crate::d::E"]);
    }
}
