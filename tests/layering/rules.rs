//! The rules, each a function from a file's name and text to complaints.

use crate::source::{self, Path};

/// The layers: a folder imports only folders with a lower number. Equal numbers are siblings and
/// never import one another. `stage`'s own folders are siblings too.
const LAYERS: &[(&str, u8)] = &[
    ("base", 0),
    ("wire", 1),
    ("packet", 2),
    ("stage", 3),
    ("config", 4),
    ("datapath", 5),
    ("io", 6),
    ("worker", 7),
    ("attach", 8),
    ("observe", 8),
    ("control", 9),
    ("api", 10),
    ("adapters", 11),
    ("cli", 12),
    ("fuzzing", 13),
];

/// The last layer that is pure: no descriptor, thread, clock, lock or async.
const LAST_PURE: u8 = 5;

/// Modules and crates that a pure layer has no use for.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::io",
    "std::os",
    "std::env",
    "std::process",
    "std::thread",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "std::sync::Mutex",
    "std::sync::RwLock",
    "std::sync::Condvar",
    "std::sync::mpsc",
    "std::time::Instant",
    "std::time::SystemTime",
    "crossbeam_channel",
    "hyper",
    "libc",
    "mio",
    "netlink_sys",
    "redb",
    "rustix",
    "tokio",
    "tracing",
];

/// Files that may contain `unsafe`.
const UNSAFE_ALLOWED: &[&str] = &["src/io/", "src/base/prefetch.rs"];

/// The one file that reads the clock.
const CLOCK: &str = "src/worker/clock.rs";

const MAX_FILE_LINES: usize = 600;
const MAX_FUNCTION_LINES: usize = 100;

/// Marks of unfinished work, written apart so that this file passes its own rule.
const UNFINISHED: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("unimple", "mented!"),
    concat!("to", "do!"),
    concat!("#[ig", "nore"),
];

fn layer(folder: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == folder).map(|(_, number)| *number)
}

/// The module a file is: `src/stage/bridge/fdb.rs` is `stage::bridge::fdb`.
fn module_of(file: &str) -> Vec<&str> {
    let name = file.trim_start_matches("src/").trim_end_matches(".rs");
    let mut module: Vec<&str> = name.split('/').collect();
    if matches!(module.last(), Some(&("mod" | "lib" | "main"))) {
        module.pop();
    }
    module
}

/// Whether the file's lines are tests as a whole.
fn is_test_file(file: &str) -> bool {
    file.ends_with("/tests.rs") || file.contains("/tests/")
}

/// What the path names, from the crate's root.
fn resolve(file: &str, path: &Path) -> Vec<String> {
    let mut module: Vec<String> = module_of(file).into_iter().map(str::to_owned).collect();
    module.extend(path.inside.iter().cloned());
    for segment in &path.segments {
        match segment.as_str() {
            "crate" => module.clear(),
            "super" => drop(module.pop()),
            "self" => {}
            name => module.push(name.to_owned()),
        }
    }
    module
}

/// A folder imports only lower layers, and no sibling.
pub(crate) fn layers(file: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let own = module_of(file);
    let Some(&folder) = own.first() else { return complaints };
    let Some(own_layer) = layer(folder) else {
        return vec![format!("{file}: folder `{folder}` has no layer: give it one in LAYERS")];
    };
    for path in source::paths(&source::blank(text), &["crate", "super", "self"]) {
        let target = resolve(file, &path);
        let Some(name) = target.first() else { continue };
        let place = format!("{file}:{}: `{}`", path.line, path.segments.join("::"));
        if name == folder {
            let stages = (own.get(1), target.get(1));
            if let ("stage", (Some(mine), Some(other))) = (folder, stages)
                && mine != other
            {
                complaints.push(format!("{place}: stage/{mine} imports its sibling stage/{other}"));
            }
            continue;
        }
        match layer(name) {
            None => complaints.push(format!("{place}: `{name}` has no layer")),
            Some(number) if number >= own_layer => {
                complaints.push(format!(
                    "{place}: {folder} (layer {own_layer}) imports {name} (layer {number})"
                ));
            }
            Some(_) => {}
        }
    }
    complaints
}

/// Base to datapath know no descriptor, thread, clock, lock, async or log.
pub(crate) fn purity(file: &str, text: &str) -> Vec<String> {
    let pure = module_of(file).first().and_then(|f| layer(f)).is_some_and(|n| n <= LAST_PURE);
    if !pure || is_test_file(file) {
        return Vec::new();
    }
    let code = source::blank(text);
    let tests = source::test_modules(&code);
    let roots: Vec<&str> = IMPURE.iter().filter_map(|path| path.split("::").next()).collect();
    let named = source::paths(&code, &roots).into_iter().map(|p| (p.line, p.segments.join("::")));
    let asynchronous = source::tokens(&code)
        .into_iter()
        .filter(|t| ["async", "await"].contains(&t.text))
        .map(|t| (t.line, t.text.to_owned()));
    named
        .filter(|(_, path)| IMPURE.iter().any(|b| path == b || path.starts_with(&format!("{b}::"))))
        .chain(asynchronous)
        .filter(|(line, _)| !within(&tests, *line))
        .map(|(line, what)| format!("{file}:{line}: `{what}` in a pure layer"))
        .collect()
}

/// `unsafe` only where it is allowed, tests included.
pub(crate) fn unsafe_code(file: &str, text: &str) -> Vec<String> {
    if UNSAFE_ALLOWED.iter().any(|allowed| file.starts_with(allowed)) {
        return Vec::new();
    }
    let code = source::blank(text);
    let tokens = source::tokens(&code).into_iter().filter(|t| t.text == "unsafe");
    tokens.map(|t| format!("{file}:{}: `unsafe` outside io/", t.line)).collect()
}

/// One file reads the clock. Tests that must measure are clippy's to judge.
pub(crate) fn clock(file: &str, text: &str) -> Vec<String> {
    if file == CLOCK || is_test_file(file) {
        return Vec::new();
    }
    let code = source::blank(text);
    let tests = source::test_modules(&code);
    let tokens = source::tokens(&code);
    let mut complaints = Vec::new();
    for window in tokens.windows(3) {
        let [ty, colons, call] = window else { continue };
        let reads = ["Instant", "SystemTime"].contains(&ty.text)
            && colons.text == "::"
            && call.text == "now";
        if reads && !within(&tests, ty.line) {
            complaints.push(format!("{file}:{}: `{}::now` outside {CLOCK}", ty.line, ty.text));
        }
    }
    complaints
}

/// Files and functions fit a reader's head; tests do not count.
pub(crate) fn lengths(file: &str, text: &str) -> Vec<String> {
    if is_test_file(file) {
        return Vec::new();
    }
    let code = source::blank(text);
    let tests = source::test_modules(&code);
    let testing: usize = tests.iter().map(|(first, last)| last - first + 1).sum();
    let lines = text.lines().count() - testing;
    let mut complaints = Vec::new();
    if lines > MAX_FILE_LINES {
        complaints.push(format!("{file}: {lines} lines, {MAX_FILE_LINES} allowed: split it"));
    }
    for (name, first, last) in source::functions(&code) {
        let lines = last - first + 1;
        if lines > MAX_FUNCTION_LINES && !within(&tests, first) {
            complaints.push(format!(
                "{file}:{first}: fn {name} has {lines} lines, {MAX_FUNCTION_LINES} allowed"
            ));
        }
    }
    complaints
}

/// No mark of unfinished work, comments included, and no test left out.
pub(crate) fn finished(file: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for word in UNFINISHED.iter().filter(|word| has_word(line, word)) {
            complaints.push(format!("{file}:{}: `{word}`", number + 1));
        }
    }
    complaints
}

/// Whether `word` occurs in `line` on its own, not as part of a longer word.
fn has_word(line: &str, word: &str) -> bool {
    let joins = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, _)| {
        !joins(line[..at].chars().last()) && !joins(line[at + word.len()..].chars().next())
    })
}

fn within(ranges: &[(usize, usize)], line: usize) -> bool {
    ranges.iter().any(|(first, last)| (*first..=*last).contains(&line))
}
