//! `wharf run`, `exec`, `stop`, `attach` as a user types them, with real kernels on both ends. Not in
//! namespaces of the test's own: an ordinary user's way through a user namespace is what is tried.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::{Daemon, eventually, stderr, stdout};

/// Answers each line with the same line, to one peer after the other.
const SERVER: &str = "my $s = IO::Socket::IP->new(LocalHost => '::', LocalPort => 5000, Listen => 5, \
                      ReuseAddr => 1, V6Only => 0) or die $@; $| = 1; print qq(listening\\n); while (my \
                      $c = $s->accept) { print {$c} $_ while <$c> }";
/// Sends what it reads to a peer and prints what comes back, line by line.
const CLIENT: &str = "my $c = IO::Socket::IP->new(PeerHost => $ARGV[0], PeerPort => $ARGV[1], Timeout => 5) \
                      or die $@; $c->autoflush(1); $| = 1; while (<STDIN>) { print {$c} $_; print scalar <$c> }";

impl Daemon {
    /// A daemon with a network of both families.
    fn with_blue() -> Self {
        let daemon = Self::start();
        let subnets = ["--subnet", "10.77.0.0/24", "--subnet", "fd77::/64"];
        daemon.ok(&[&["network", "create", "blue"][..], &subnets].concat());
        daemon
    }

    /// A container that echoes lines at port 5000.
    fn echo_server(&self, name: &str, options: &[&str]) -> Foreground {
        let perl = ["--", "perl", "-MIO::Socket::IP", "-e", SERVER];
        let server =
            self.foreground(&[&["--network", "blue", "--name", name], options, &perl].concat());
        server.expect("listening")
    }

    /// `wharf run …`, left running.
    fn foreground(&self, arguments: &[&str]) -> Foreground {
        let mut command = self.command(&["run"]);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Foreground { child, lines }
    }

    /// What a client container on a network hears back.
    fn ask(&self, network: &str, peer: &str, port: &str) -> String {
        let perl = ["--", "perl", "-MIO::Socket::IP", "-e", CLIENT, peer, port];
        let mut client = self.foreground(&[&["--network", network], &perl[..]].concat());
        client.say("hello");
        let line = client.next_line();
        drop(client);
        line
    }

    fn names(&self) -> Vec<String> {
        let listed = self.json(&["ps", "--json"]);
        listed.as_array().unwrap().iter().map(|e| e["name"].as_str().unwrap().to_owned()).collect()
    }
}

/// A `wharf run` in the foreground, ended with the test.
struct Foreground {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Foreground {
    fn next_line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn expect(mut self, expected: &str) -> Self {
        assert_eq!(self.next_line(), expected);
        self
    }

    fn say(&mut self, line: &str) {
        writeln!(self.child.stdin.as_ref().unwrap(), "{line}").unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        // SIGTERM is passed on to the command, so nothing is left over.
        let _ = kill_process(self.pid(), Signal::TERM);
        let _ = self.child.wait();
    }
}

#[test]
fn containers_of_one_network_reach_each_other_in_both_families() {
    let daemon = Daemon::with_blue();
    let _server = daemon.echo_server("web", &[]);
    let web = daemon.json(&["inspect", "web"]);
    let addresses = web[0]["addresses"].as_array().unwrap();
    assert_eq!(addresses.len(), 2);
    for address in addresses {
        let address = address.as_str().unwrap().split('/').next().unwrap();
        assert_eq!(daemon.ask("blue", address, "5000"), "hello", "{address}");
    }
    assert_eq!(daemon.ok(&["inspect", "web", "--address"]), "10.77.0.2\n");
}

#[test]
fn a_container_of_another_network_is_kept_away_until_both_allow_it() {
    let daemon = Daemon::with_blue();
    daemon.ok(&["network", "create", "red", "--subnet", "10.78.0.0/24"]);
    let _server = daemon.echo_server("web", &[]);
    assert_eq!(daemon.ask("red", "10.77.0.2", "5000"), "");
    daemon.ok(&["network", "update", "blue", "--isolated=false"]);
    assert_eq!(daemon.ask("red", "10.77.0.2", "5000"), "");
    daemon.ok(&["network", "update", "red", "--isolated=false"]);
    assert_eq!(daemon.ask("red", "10.77.0.2", "5000"), "hello");
}

#[test]
fn the_exit_status_is_the_command_s_own() {
    let daemon = Daemon::start();
    for (script, code) in [("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137)] {
        let output = daemon.wharf(&["run", "--", "sh", "-c", script]);
        assert_eq!(output.status.code(), Some(code), "{script}: {}", stderr(&output));
    }
    let missing = daemon.wharf(&["run", "--", "/nonexistent/program"]);
    assert_eq!(missing.status.code(), Some(127), "{}", stderr(&missing));
    assert_eq!(daemon.wharf(&["run", "--", "/etc/passwd"]).status.code(), Some(126));
    eventually("nothing is left", || daemon.names().is_empty());
}

#[test]
fn signals_reach_the_command() {
    let daemon = Daemon::start();
    for (signal, name) in [(Signal::TERM, "TERM"), (Signal::USR1, "USR1"), (Signal::HUP, "HUP")] {
        let script =
            format!("trap 'echo got; exit 9' {name}; echo ready; while :; do sleep 0.05; done");
        let mut run = daemon.foreground(&["--", "sh", "-c", &script]).expect("ready");
        kill_process(run.pid(), signal).unwrap();
        assert_eq!(run.next_line(), "got", "{name}");
        assert_eq!(run.code(), Some(9), "{name}");
    }
}

#[test]
fn a_killed_run_leaves_nothing_behind() {
    let daemon = Daemon::with_blue();
    let mut run = daemon.foreground(&[
        "--network",
        "blue",
        "--name",
        "web",
        "-p",
        "18080:80",
        "--",
        "sleep",
        "60",
    ]);
    eventually("it is attached", || daemon.names() == ["web"]);
    let pid = daemon.json(&["inspect", "web"])[0]["pid"].as_i64().unwrap();
    run.child.kill().unwrap();
    eventually("the endpoint goes", || daemon.names().is_empty());
    eventually("the command ends", || {
        !std::path::Path::new(&format!("/proc/{pid}/ns")).exists()
            || std::fs::read_link(format!("/proc/{pid}/ns/net")).is_err()
    });
    assert_eq!(daemon.json(&["port", "--json"]), Value::Array(Vec::new()));
    // Name, address and port are free again.
    let run = [
        "run",
        "--network",
        "blue",
        "--name",
        "web",
        "--ip",
        "10.77.0.2",
        "-p",
        "18080:80",
        "true",
    ];
    daemon.ok(&run);
}

#[test]
fn taken_names_addresses_and_ports_name_their_holder_and_nothing_is_half_made() {
    let daemon = Daemon::with_blue();
    let options = ["-p", "18081:80", "--ip", "10.77.0.9"];
    let _web = daemon.echo_server("web", &options);
    for (options, words) in [
        (&["--name", "web"][..], "`web` exists"),
        (&["--ip", "10.77.0.9"], "10.77.0.9"),
        (&["--ip", "10.99.0.9"], "10.99.0.9"),
        (&["-p", "18081:90"], "`web` publishes"),
        (&["--network", "nowhere"], "nowhere"),
    ] {
        let network = if options[0] == "--network" { &[][..] } else { &["--network", "blue"] };
        let run = [&["run"][..], network, options, &["--", "echo", "started"]].concat();
        let output = daemon.wharf(&run);
        assert_eq!(output.status.code(), Some(125), "{options:?}");
        assert!(stderr(&output).contains(words), "{options:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{options:?}: the command has not run");
        assert_eq!(daemon.names(), ["web"], "{options:?}");
    }
}

#[test]
fn none_has_only_a_loopback_and_container_shares_it() {
    let daemon = Daemon::with_blue();
    let devices = |output: String| {
        output
            .lines()
            .filter_map(|l| l.split_once(':'))
            .map(|(n, _)| n.trim().to_owned())
            .collect::<Vec<_>>()
    };
    let none = daemon.ok(&["run", "--network", "none", "--", "cat", "/proc/net/dev"]);
    assert_eq!(devices(none), ["lo"]);

    let _server = daemon.echo_server("web", &[]);
    assert_eq!(daemon.ask("container:web", "127.0.0.1", "5000"), "hello");
    assert_eq!(daemon.ask("container:web", "::1", "5000"), "hello");
    let inside = daemon.ok(&["exec", "web", "--", "cat", "/proc/net/dev"]);
    assert!(devices(inside).contains(&"eth0".to_owned()));
}

#[test]
fn a_container_on_two_networks_has_two_interfaces() {
    let daemon = Daemon::with_blue();
    let networks =
        ["run", "--detach", "--network", "blue", "--network", "default", "--name", "web"];
    assert_eq!(daemon.ok(&[&networks[..], &["--", "sleep", "60"]].concat()), "web\n");
    let web = daemon.json(&["inspect", "web"]);
    let names: Vec<_> =
        web.as_array().unwrap().iter().map(|e| e["ifname"].as_str().unwrap()).collect();
    assert_eq!(names, ["eth0", "eth1"]);
    daemon.ok(&["detach", "web", "--network", "default"]);
    assert_eq!(daemon.json(&["inspect", "web"]).as_array().unwrap().len(), 1);
    daemon.ok(&["stop", "web"]);
    assert_eq!(daemon.names(), Vec::<String>::new());
}

#[test]
fn a_detached_container_goes_on_until_it_is_stopped() {
    let daemon = Daemon::with_blue();
    let name = daemon.ok(&["run", "--detach", "--network", "blue", "--", "sleep", "60"]);
    let name = name.trim();
    assert_eq!(daemon.names(), [name]);
    assert!(name.split('-').count() == 3, "a friendly name: {name}");
    assert_eq!(daemon.ok(&["exec", name, "echo", "hello"]), "hello\n");
    assert_eq!(daemon.wharf(&["exec", name, "sh", "-c", "exit 3"]).status.code(), Some(3));
    daemon.ok(&["stop", name]);
    let gone = daemon.wharf(&["exec", name, "true"]);
    assert_eq!(gone.status.code(), Some(125));
    assert!(stderr(&gone).contains(name), "{}", stderr(&gone));
}

#[test]
fn a_daemon_that_is_killed_and_started_again_has_its_containers_and_their_connections() {
    let daemon = Daemon::with_blue();
    let _server = daemon.echo_server("web", &["-p", "18082:5000"]);
    let perl = ["--", "perl", "-MIO::Socket::IP", "-e", CLIENT, "10.77.0.2", "5000"];
    let mut client =
        daemon.foreground(&[&["--network", "blue", "--name", "client"], &perl[..]].concat());
    client.say("before");
    assert_eq!(client.next_line(), "before");
    let before = daemon.json(&["ps", "--json"]);

    kill_process(daemon.pid(), Signal::KILL).unwrap();
    client.say("meanwhile");
    daemon.start_again();
    assert_eq!(client.next_line(), "meanwhile", "the same connection, one retransmission later");
    client.say("after");
    assert_eq!(client.next_line(), "after");
    assert_eq!(daemon.json(&["ps", "--json"]), before);
}

#[test]
fn a_namespace_that_others_made_is_attached_and_detached() {
    let daemon = Daemon::with_blue();
    let flags = if rustix::process::geteuid().is_root() { "-n" } else { "-rn" };
    let mut other = Command::new("unshare")
        .args([flags, "sh", "-c", "echo ready; exec sleep 60"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(other.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let path = format!("/proc/{}/ns/net", other.id());
    let devices = || std::fs::read_to_string(format!("/proc/{}/net/dev", other.id())).unwrap();

    let attach =
        ["attach", "--netns", &path, "--name", "x", "--network", "blue", "--ifname", "lan0"];
    assert_eq!(daemon.ok(&attach), "x\n");
    assert!(devices().contains("lan0"), "{}", devices());
    let again = daemon.wharf(&["attach", "--netns", &path, "--ifname", "lan0"]);
    assert!(stderr(&again).contains("an interface `lan0` already"), "{}", stderr(&again));
    daemon.ok(&["detach", "x"]);
    eventually("the interface goes", || !devices().contains("lan0"));

    let pid = other.id().to_string();
    assert_eq!(daemon.ok(&["run", "--pid", &pid, "--name", "y", "--network", "blue"]), "y\n");
    assert_eq!(daemon.names(), ["y"]);
    other.kill().unwrap();
    other.wait().unwrap();
    eventually("the endpoint goes with its namespace", || daemon.names().is_empty());
}

#[test]
fn run_starts_a_daemon_of_its_own_and_two_at_once_share_it() {
    let daemon = Daemon::not_started();
    let runs: Vec<Child> = (0..3)
        .map(|_| {
            let mut command = daemon.command(&["run", "--", "sleep", "0.5"]);
            // The daemon inherits it: its state would be the user's own otherwise.
            command.env("WHARF_STATE_DIR", daemon.path("state"));
            command.stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for run in runs {
        let output = run.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
    }
    let events = daemon.ok(&["events"]);
    assert_eq!(events.matches("endpoint-attached").count(), 3, "{events}");
    eventually("it ends with the last container", || !daemon.path("run/api.sock").exists());
}
