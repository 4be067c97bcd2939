//! The built program as a user meets it: what it prints, where, and how it ends. Nothing here needs a
//! daemon or a right.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs `wharf` with a runtime directory in which no daemon is, nor can be.
fn wharf(arguments: &[&str]) -> Output {
    wharf_in(Path::new("/dev/null/wharf"), arguments)
}

fn wharf_in(runtime_dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wharf"))
        .args(arguments)
        .env("WHARF_RUNTIME_DIR", runtime_dir)
        .env("COLUMNS", "100")
        .stdin(Stdio::null())
        .output()
        .expect("the program was built for this test")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Every command of the design that this version has.
const COMMANDS: [&str; 25] = [
    "daemon",
    "run",
    "exec",
    "stop",
    "attach",
    "detach",
    "ps",
    "inspect",
    "network",
    "uplink",
    "publish",
    "unpublish",
    "port",
    "flows",
    "fdb",
    "neigh",
    "routes",
    "stats",
    "events",
    "trace",
    "status",
    "doctor",
    "demo",
    "completions",
    "version",
];

#[test]
fn help_lists_the_commands_and_goes_to_standard_output() {
    let output = wharf(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&output);
    for command in COMMANDS {
        let listed = text.lines().any(|line| line.split_whitespace().next() == Some(command));
        assert!(listed, "{command} is not in\n{text}");
    }
    assert_eq!(stderr(&output), "");
}

#[test]
fn every_command_explains_itself() {
    for command in COMMANDS {
        let output = wharf(&[command, "--help"]);
        assert_eq!(output.status.code(), Some(0), "{command}");
        assert!(stdout(&output).contains("--runtime-dir"), "{command}: {}", stdout(&output));
    }
}

#[test]
fn wrong_usage_ends_with_two_and_says_what_is_wrong() {
    for (arguments, words) in [
        (&["frobnicate"][..], "frobnicate"),
        (&["ps", "--jsn"], "--jsn"),
        (&["run"], "COMMAND"),
        (&["run", "--network", "host", "--network", "blue", "ls"], "alone"),
        (&["run", "--network", "host", "-p", "80:80", "ls"], "-p"),
        (&["publish", "web", "80:http"], "http"),
        (&["publish", "web", "8080:80/gre"], "gre"),
        (&["network", "create", "blue", "--subnet", "10.0.0.1/24"], "10.0.0.0/24"),
        (&["network", "update", "blue"], "nothing to change"),
        (&["uplink", "create", "lan", "--packet", "eth0"], "--address"),
        (&["uplink", "create", "lan"], "--sockets"),
        (&["uplink", "create", "lan", "--sockets", "--packet", "eth0"], "--packet"),
        (&["uplink", "create", "lan", "--sockets", "--address", "dhcp"], "--address"),
        (&["trace", "--from", "web", "--to", "db:80"], "ADDR"),
        (&["daemon", "--uplink", "carrier-pigeon"], "carrier-pigeon"),
        (&["inspect"], "NAME"),
    ] {
        let output = wharf(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{arguments:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{arguments:?}");
    }
}

#[test]
fn without_a_daemon_every_command_says_so_and_what_to_do() {
    for arguments in [
        &["ps"][..],
        &["ps", "--json"],
        &["status"],
        &["network", "ls"],
        &["network", "create", "blue"],
        &["inspect", "web"],
        &["publish", "web", "80:80"],
        &["port"],
        &["flows"],
        &["flows", "flush"],
        &["stats"],
        &["events", "--follow"],
        &["stop", "web"],
        &["detach", "web"],
        &["attach", "--netns", "/proc/self/ns/net"],
        &["daemon", "stop"],
    ] {
        let output = wharf(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", stderr(&output));
        let text = stderr(&output);
        let first = "wharf: no daemon is running at /dev/null/wharf/api.sock\n";
        assert!(text.starts_with(first), "{arguments:?}: {text}");
        assert!(text.contains("\nhint: start one with `wharf daemon --background`"), "{text}");
        assert_eq!(text.lines().count(), 2, "{text}");
        assert_eq!(stdout(&output), "");
    }
}

#[test]
fn what_keeps_run_from_starting_is_wharf_s_failure_as_docker_has_it() {
    let output = wharf(&["run", "true"]);
    assert_eq!(output.status.code(), Some(125), "{}", stderr(&output));
    let text = "wharf: cannot use the directory /dev/null/wharf: not a directory";
    assert!(stderr(&output).starts_with(text), "{}", stderr(&output));
    for arguments in [&["exec", "web", "true"][..], &["run", "--network", "container:web", "true"]]
    {
        let output = wharf(arguments);
        assert_eq!(output.status.code(), Some(125), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).starts_with("wharf: no daemon is running"));
    }
}

#[test]
fn on_the_host_s_network_the_command_s_own_exit_status_comes_through() {
    let run = |command: &[&str]| wharf(&[&["run", "--network", "host", "--"], command].concat());
    let output = run(&["sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!(output.status.code(), Some(7));
    assert_eq!((stdout(&output).as_str(), stderr(&output).as_str()), ("out\n", "err\n"));

    let missing = run(&["/nonexistent/program"]);
    assert_eq!(missing.status.code(), Some(127));
    assert!(stderr(&missing).starts_with("wharf: /nonexistent/program: command not found\n"));

    let forbidden = run(&["/etc/passwd"]);
    assert_eq!(forbidden.status.code(), Some(126), "{}", stderr(&forbidden));
}

#[test]
fn a_missing_namespace_is_named() {
    let output = wharf(&["attach", "--netns", "/run/netns/nonexistent"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("/run/netns/nonexistent"), "{}", stderr(&output));
    let output = wharf(&["attach", "--netns", "/etc/passwd"]);
    assert!(stderr(&output).contains("not a network namespace"), "{}", stderr(&output));
}

#[test]
fn the_socket_of_a_dead_daemon_counts_as_none() {
    let dir = tempfile::tempdir().unwrap();
    drop(std::os::unix::net::UnixListener::bind(dir.path().join("api.sock")).unwrap());
    let output = wharf_in(dir.path(), &["ps"]);
    assert!(stderr(&output).starts_with("wharf: no daemon is running at "), "{}", stderr(&output));
}

#[test]
fn completions_know_the_commands_in_every_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let output = wharf(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        for command in ["publish", "doctor", "trace"] {
            assert!(stdout(&output).contains(command), "{shell}: {command}");
        }
    }
}

#[test]
fn manual_pages_are_written_one_a_command() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("man");
    let output = wharf(&["man", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for page in ["wharf.1", "wharf-run.1", "wharf-network-create.1"] {
        let text = std::fs::read_to_string(path.join(page)).unwrap();
        assert!(text.starts_with(".ie") || text.contains(".TH"), "{page}: {text}");
    }
}

#[test]
fn the_version_is_the_package_s() {
    let output = wharf(&["version"]);
    assert_eq!(stdout(&output), concat!("wharf ", env!("CARGO_PKG_VERSION"), "\n"));
    assert_eq!(stdout(&wharf(&["--version"])), stdout(&output));
}

#[test]
fn a_wrong_configuration_is_named_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wharf.toml");
    let file_name = file.to_str().unwrap();
    std::fs::write(&file, "workers = 1\n").unwrap();
    let output = wharf(&["daemon", "--check", file_name]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));

    std::fs::write(&file, "workers = 1\nworker = 2\n").unwrap();
    for arguments in [["daemon", "--check", file_name], ["daemon", "--config", file_name]] {
        let output = wharf(&arguments);
        assert_eq!(output.status.code(), Some(1));
        let text = stderr(&output);
        assert!(text.starts_with(&format!("wharf: {file_name}, line 2")), "{text}");
        assert!(text.contains("`worker`"), "{text}");
    }
}

#[test]
fn the_package_holds_a_program_that_runs_and_all_that_belongs_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let packed = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/package"))
        .args(["--binary", env!("CARGO_BIN_EXE_wharf")])
        .arg(dir.path())
        .env("PACKAGE_COMPRESSION", "none")
        .output()
        .unwrap();
    assert!(packed.status.success(), "{}", stderr(&packed));
    let (package, tree) = (stdout(&packed), dir.path().join("tree"));
    let unpack = Command::new("dpkg-deb").arg("-R").arg(package.trim()).arg(&tree).output();
    assert!(unpack.unwrap().status.success());

    let version = Command::new(tree.join("usr/bin/wharf")).arg("--version").output().unwrap();
    assert_eq!(stdout(&version), concat!("wharf ", env!("CARGO_PKG_VERSION"), "\n"));
    let unit = std::fs::read_to_string(tree.join("lib/systemd/system/wharf.service")).unwrap();
    assert!(unit.contains("ExecStart=/usr/bin/wharf daemon"), "{unit}");
    for file in [
        "usr/lib/sysusers.d/wharf.conf",
        "usr/share/bash-completion/completions/wharf",
        "usr/share/man/man1/wharf-daemon.1.gz",
        "usr/share/doc/wharf/copyright",
        "usr/share/doc/wharf/monitoring/alerts.yml",
    ] {
        let size = std::fs::metadata(tree.join(file)).map(|meta| meta.len());
        assert!(size.is_ok_and(|size| size > 20), "{file}");
    }
    for script in ["postinst", "prerm", "postrm"] {
        let read = Command::new("sh").arg("-n").arg(tree.join("DEBIAN").join(script)).status();
        assert!(read.unwrap().success(), "{script}");
    }
}
