//! `wharf demo`, as a newcomer runs it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::support::{in_long_world, in_world};
use crate::world::{eventually, links, namespaces, wharf_binary};

/// Checks of the whole story: 4 of three protocols, 3 of two, in both families, and two rates.
const CHECKS: usize = (4 * 3 + 3 * 2) * 2 + 2;

/// What there was before, and has to be again.
#[derive(PartialEq, Eq, Debug)]
struct Machine {
    links: Vec<String>,
    namespaces: usize,
    processes: Vec<String>,
}

impl Machine {
    fn now() -> Self {
        Self { links: links(), namespaces: namespaces(), processes: processes() }
    }
}

/// The processes of this world, dead ones that nobody collected included.
fn processes() -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let stat = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("stat")).ok();
    let is_number = |entry: &fs::DirEntry| {
        entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit())
    };
    let name = |stat: String| stat.split(' ').take(2).collect::<Vec<_>>().join(" ");
    entries.filter(is_number).filter_map(stat).map(name).collect()
}

/// The program alone: no `PATH`, so no other one can help it.
fn demo(dir: &Path, options: &[&str]) -> Command {
    let mut command = Command::new(wharf_binary());
    command.env_clear().env("TMPDIR", dir).current_dir("/").stdin(Stdio::null());
    command.arg("demo").args(options);
    command
}

fn stdout(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}\n{stderr}\n{told}", output.status);
    assert_eq!(stderr, "");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn assert_nothing_left(dir: &Path, before: &Machine) {
    assert_eq!(&Machine::now(), before);
    let left: Vec<_> = fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path()).collect();
    assert_eq!(left, Vec::<std::path::PathBuf>::new());
}

/// The words after a tick, whatever the numbers in between are.
#[track_caller]
fn has_line(text: &str, words: &[&str]) {
    let is_it = |line: &&str| words.iter().all(|word| line.contains(word));
    assert!(text.lines().any(|line| is_it(&line)), "no line with {words:?} in\n{text}");
}

#[test]
fn the_demo_shows_the_switch_at_work_and_leaves_nothing_behind() {
    in_world("demo::the_demo_shows_the_switch_at_work_and_leaves_nothing_behind", |dir| {
        let before = Machine::now();
        let text = stdout(&demo(dir, &[]).output().unwrap());
        assert!(!text.contains('\x1b'), "colours are for terminals:\n{text}");
        assert!(!text.contains('✗'), "{text}");
        assert_eq!(text.matches('✓').count(), CHECKS, "{text}");
        has_line(&text, &["app", "10.20.0.2, fd20::2", "on blue"]);
        has_line(&text, &["web", "publishes 1180:5000/tcp, 1180:5000/udp"]);
        has_line(&text, &["✓ ping IPv6  fd20::2 → fd20::3", "seen unchanged"]);
        has_line(
            &text,
            &["✓ ping IPv4  10.20.0.2 → 10.30.0.2", "ICMP 3/13, prohibited, from 10.20.0.1"],
        );
        has_line(&text, &["✓ TCP  IPv6  [fd20::2]:", "ICMPv6 1/1, prohibited, from fd20::1"]);
        has_line(&text, &["$ wharf network update green --isolated=false"]);
        has_line(&text, &["✓ UDP  IPv4", "→ 192.0.2.9:5000", "seen as 192.0.2.2:"]);
        has_line(&text, &["✓ TCP  IPv6", "→ [fd99::9]:5000", "seen as [fd99::2]:"]);
        has_line(
            &text,
            &["✓ TCP  IPv4", "→ 192.0.2.2:1180", "seen as 192.0.2.9:", "→ 10.20.0.3:5000"],
        );
        has_line(
            &text,
            &["✓ UDP  IPv6", "→ [fd99::2]:1180", "seen as [fd20::1]:", "→ [fd20::3]:5000"],
        );
        has_line(&text, &["✓ TCP  IPv6", "Gbit/s"]);
        has_line(&text, &["PROTO", "STATE", "TRANSLATED"]);
        has_line(&text, &["tcp", "web 192.0.2.2:1180", "dst=10.20.0.3:5000"]);
        has_line(&text, &["frames switched", "network-isolated"]);
        has_line(&text, &[&format!("{CHECKS} passed, 0 failed, in ")]);
        assert_nothing_left(dir, &before);
    });
}

#[test]
fn programs_get_json() {
    in_world("demo::programs_get_json", |dir| {
        let before = Machine::now();
        let told: Value =
            serde_json::from_str(&stdout(&demo(dir, &["--json"]).output().unwrap())).unwrap();
        assert_eq!(
            (told["passed"].as_u64(), told["failed"].as_u64()),
            (Some(CHECKS as u64), Some(0))
        );
        let chapters = told["chapters"].as_array().unwrap();
        let out = chapters.iter().find(|c| c["title"].as_str().unwrap().starts_with("Out:"));
        for check in out.unwrap()["checks"].as_array().unwrap() {
            assert_eq!(check["ok"], true);
            let (sent, seen) = (&check["sent"]["from"], &check["seen"]["from"]);
            assert_ne!(sent, seen, "masquerade shows another address");
            assert!(check["micros"].as_u64().unwrap() < 5_000_000, "{check}");
        }
        assert!(told["flows"].as_array().unwrap().len() > 20);
        let rate = &chapters.last().unwrap()["rates"][0];
        assert!(rate["bytes"].as_u64().unwrap() > 10_000_000, "{rate}");
        assert_nothing_left(dir, &before);
    });
}

/// Made to fail from outside, in the midst of it: a publication is taken back.
#[test]
fn what_fails_is_shown_the_rest_goes_on_and_the_exit_code_says_so() {
    in_world("demo::what_fails_is_shown_the_rest_goes_on_and_the_exit_code_says_so", |dir| {
        let before = Machine::now();
        let mut child = demo(dir, &[]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        lines.find(|line| line.starts_with("1. One network")).expect("it has begun");
        let runtime_dir = fs::read_dir(dir).unwrap().next().unwrap().unwrap().path().join("run");
        let mut unpublish = Command::new(wharf_binary());
        unpublish.arg("--runtime-dir").arg(runtime_dir).args(["unpublish", "web", "1180:5000/udp"]);
        assert!(unpublish.status().unwrap().success());
        let rest: Vec<String> = lines.collect();
        assert_eq!(child.wait().unwrap().code(), Some(1));
        let failed: Vec<_> = rest.iter().filter(|line| line.contains('✗')).collect();
        assert_eq!(failed.len(), 6, "{rest:?}");
        for line in failed {
            assert!(line.contains("UDP") && line.contains("Connection refused"), "{line}");
        }
        let text = rest.join("\n");
        has_line(&text, &["✓ TCP  IPv6", "Gbit/s"]);
        has_line(&text, &["PROTO", "STATE", "TRANSLATED"]);
        has_line(&text, &[&format!("{} passed, 6 failed, in ", CHECKS - 6)]);
        assert_nothing_left(dir, &before);
    });
}

#[test]
fn a_kept_world_can_be_entered_and_ends_by_a_signal() {
    in_world("demo::a_kept_world_can_be_entered_and_ends_by_a_signal", |dir| {
        let before = Machine::now();
        let mut child = demo(dir, &["--keep", "-q"])
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut hints = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let exec = hints.find(|line| line.contains(" exec app sh")).expect("how to enter");
        let runtime_dir =
            exec.split_whitespace().skip_while(|word| *word != "--runtime-dir").nth(1).unwrap();
        hints.find(|line| line.starts_with("Enter or Ctrl-C")).expect("how to end it");
        let wharf = |words: &str| {
            let mut command = Command::new(wharf_binary());
            command.arg("--runtime-dir").arg(runtime_dir).args(words.split(' '));
            command.output().unwrap()
        };
        assert!(stdout(&wharf("ps")).contains("1180->5000/tcp"));
        assert!(stdout(&wharf("exec app cat /proc/net/dev")).contains("eth0:"));
        rustix::process::kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        assert!(child.wait().unwrap().success());
        assert_nothing_left(dir, &before);
    });
}

#[test]
fn a_demo_that_is_killed_takes_its_world_with_it() {
    in_long_world("demo::a_demo_that_is_killed_takes_its_world_with_it", |dir| {
        let before = Machine::now();
        let mut child = demo(dir, &[]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        lines.find(|line| line.contains("✓ ping")).expect("it has begun");
        child.kill().unwrap();
        child.wait().unwrap();
        // The holder waits until it holds nothing and nobody comes for it. A connection that was cut in
        // the middle keeps its namespace, and so the TAP in it, until the kernel gives up sending the
        // rest: the demo's sockets say after how long.
        eventually("the world is gone", Duration::from_mins(1), || {
            let now = Machine::now();
            let running = |m: &Machine| m.processes.iter().filter(|p| p.contains("wharf")).count();
            (&now.links, now.namespaces, running(&now))
                == (&before.links, before.namespaces, running(&before))
        });
    });
}

#[test]
fn what_is_missing_is_said_in_one_line() {
    in_world("demo::what_is_missing_is_said_in_one_line", |dir| {
        // A directory stands where the device is.
        rustix::mount::mount_bind("/proc", "/dev/net").unwrap();
        let output = demo(dir, &[]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.starts_with("wharf: there is no /dev/net/tun: "), "{text}");
        assert_eq!(text.lines().count(), 2, "a line and a hint: {text}");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "");
    });
}
