//! CNI: with Wharf and with the reference plugins, case by case.
//!
//! Needs root: the reference chain makes a bridge and firewall rules, in namespaces of the test's own.

use std::process::Command;

/// What each side does, where it is not a plain yes of both: a change of either is looked at.
const DIFFERENT: &[(&str, &str, &str)] = &[
    ("an address comes back when a namespace ends without del", "yes", "no"),
    ("no rule of the host s firewall is made", "yes", "no"),
];

/// Runs a program in network, mount and process namespaces of its own; what it printed.
fn run(words: &[&str]) -> (String, String) {
    let output = Command::new("timeout")
        .args(["--kill-after=5", "300", "unshare", "--net", "--mount", "--pid", "--fork"])
        .args(["--kill-child", "--mount-proc"])
        .args(words)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    (out, err)
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("left out: CNI plugins and Podman with CNI need root");
    }
    root
}

#[test]
fn podman_runs_containers_through_cni() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/podman_cni.sh");
    let path = dir.path().to_str().unwrap();
    let (out, err) = run(&["bash", script, env!("CARGO_BIN_EXE_wharf"), path]);
    for word in ["listed", "published", "seen", "alias", "resolved", "gone"] {
        assert!(out.lines().any(|line| line == word), "{word}:\n{out}\n{err}");
    }
}

#[test]
fn wharf_does_all_that_the_reference_plugins_do() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = env!("CARGO_MANIFEST_DIR");
    let cases = format!("{root}/tests/peers/cni_cases.py");
    let path = dir.path().to_str().unwrap();
    let (out, err) = run(&["python3", &cases, root, env!("CARGO_BIN_EXE_wharf"), path]);
    let cases: Vec<Vec<&str>> = out.lines().map(|line| line.split('\t').collect()).collect();
    assert!(cases.len() >= 15, "{out}");
    for case in &cases {
        let other = DIFFERENT.iter().find(|(name, ..)| *name == case[0]);
        let (wharf, reference) = other.map_or(("yes", "yes"), |(_, w, r)| (*w, *r));
        assert_eq!((case[1], case[2]), (wharf, reference), "{}\n{out}\n{err}", case[0]);
    }
    let document = std::fs::read_to_string(format!("{root}/docs/engines.md")).unwrap();
    for case in &cases {
        let row = format!("| {} | {} | {} |", case[0], case[1], case[2]);
        assert!(document.contains(&row), "docs/engines.md lacks\n{row}");
    }
}
