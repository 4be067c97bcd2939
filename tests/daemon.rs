//! The built daemon and its API, without containers: needs no right and touches nothing but a
//! temporary directory. What needs interfaces is in `tests/e2e`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/daemon.rs"]
mod harness;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use harness::{Daemon, eventually, stderr};

#[test]
fn a_fresh_daemon_has_one_network_that_leaves_by_sockets() {
    let daemon = Daemon::start();
    let networks = daemon.json(&["network", "ls", "--json"]);
    assert_eq!(networks.as_array().unwrap().len(), 1);
    assert_eq!(networks[0]["name"], "default");
    assert_eq!(networks[0]["subnets"].as_array().unwrap().len(), 2, "one of each family");
    let status = daemon.ok(&["status"]);
    assert!(!status.contains("notes"), "{status}");
    assert_eq!(daemon.json(&["uplink", "ls", "--json"])[0]["kind"], "sockets");
    assert_eq!(networks[0]["uplink"], "default");
    for listing in ["ps", "port", "flows", "fdb", "neigh", "stats"] {
        assert!(daemon.json(&[listing, "--json"]).is_array(), "{listing}");
    }
}

#[test]
fn a_network_lives_from_create_to_rm() {
    let daemon = Daemon::start();
    let create =
        ["network", "create", "blue", "--subnet", "10.20.0.0/24", "--subnet", "fd00:20::/64"];
    daemon.ok(&create);
    let blue = daemon.json(&["network", "inspect", "blue"]);
    assert_eq!(blue[0]["subnets"][0]["gateway"], "10.20.0.1");
    assert_eq!(blue[0]["subnets"][1]["gateway"], "fd00:20::1");
    assert_eq!(blue[0]["isolated"], true);
    daemon.ok(&["network", "update", "blue", "--isolated=false"]);
    assert_eq!(daemon.json(&["network", "inspect", "blue"])[0]["isolated"], false);

    let again = daemon.wharf(&create);
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).starts_with("wharf: the network `blue` exists"), "{}", stderr(&again));
    let overlap = daemon.wharf(&["network", "create", "red", "--subnet", "10.20.0.128/25"]);
    assert!(stderr(&overlap).contains("belongs to network blue"), "{}", stderr(&overlap));
    assert!(stderr(&overlap).contains("\nhint: "));

    daemon.ok(&["network", "rm", "blue"]);
    let gone = daemon.wharf(&["network", "inspect", "blue"]);
    assert!(stderr(&gone).starts_with("wharf: there is no network `blue`\nhint: "));
}

#[test]
fn what_was_made_survives_an_orderly_end_and_a_killed_daemon() {
    let daemon = Daemon::start();
    daemon.ok(&["network", "create", "blue", "--subnet", "10.20.0.0/24"]);
    let before = daemon.json(&["network", "ls", "--json"]);
    daemon.ok(&["daemon", "stop"]);
    let gone = daemon.wharf(&["ps"]);
    assert!(stderr(&gone).starts_with("wharf: no daemon is running"), "{}", stderr(&gone));
    daemon.start_again();
    assert_eq!(daemon.json(&["network", "ls", "--json"]), before);

    kill_process(daemon.pid(), Signal::KILL).unwrap();
    eventually("its death is seen", || {
        stderr(&daemon.wharf(&["ps"])).starts_with("wharf: no daemon is running")
    });
    assert!(daemon.path("run/api.sock").exists(), "a killed daemon leaves its socket behind");
    daemon.start_again();
    assert_eq!(daemon.json(&["network", "ls", "--json"]), before);
}

#[test]
fn a_second_daemon_says_who_is_there_and_harms_nothing() {
    let daemon = Daemon::start();
    let pid = daemon.pid().as_raw_nonzero();
    let second = daemon.try_start();
    assert_eq!(second.status.code(), Some(1));
    let text = stderr(&second);
    assert!(text.contains(&format!("another daemon (process {pid}) is running in ")), "{text}");

    let mut elsewhere = daemon.command(&["daemon"]);
    elsewhere.args(daemon.places()).env("WHARF_RUNTIME_DIR", daemon.path("elsewhere"));
    let same_state = elsewhere.output().unwrap();
    assert_eq!(same_state.status.code(), Some(1));
    let text = stderr(&same_state);
    assert!(text.contains("another wharf daemon uses the state in "), "{text}");
    daemon.ok(&["ps"]);
}

#[test]
fn a_damaged_store_is_refused_with_what_to_do() {
    let daemon = Daemon::not_started();
    std::fs::create_dir(daemon.path("state")).unwrap();
    std::fs::write(daemon.path("state/state.redb"), [0x55; 8192]).unwrap();
    let output = daemon.try_start();
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(
        text.contains("state.redb is damaged") && text.contains("move the file away"),
        "{text}"
    );
}

#[test]
fn what_the_file_wants_exists_and_a_wrong_one_changes_nothing() {
    let daemon = Daemon::not_started();
    let file = daemon.path("wharf.toml");
    std::fs::write(&file, "[[network]]\nname = \"blue\"\nsubnets = [\"10.20.0.0/24\"]\n").unwrap();
    daemon.start_again();
    assert_eq!(daemon.json(&["network", "inspect", "blue"])[0]["name"], "blue");

    std::fs::write(&file, "[[network]]\nname = \"red\"\n[[netork]]\n").unwrap();
    kill_process(daemon.pid(), Signal::HUP).unwrap();
    eventually("it is told what is wrong and what to do", || {
        let events = daemon.ok(&["events"]);
        let told = events.lines().find(|line| line.contains("config-refused"));
        told.is_some_and(|line| line.contains("netork") && line.contains("--check"))
    });
    daemon.ok(&["network", "inspect", "blue"]);
    std::fs::write(&file, "[[network]]\nname = \"green\"\nsubnets = [\"10.30.0.0/24\"]\n").unwrap();
    kill_process(daemon.pid(), Signal::HUP).unwrap();
    eventually("SIGHUP reads the file anew", || {
        daemon.wharf(&["network", "inspect", "green"]).status.success()
    });
    assert!(!daemon.wharf(&["network", "inspect", "red"]).status.success());
}

#[test]
fn sigterm_ends_the_daemon_in_order() {
    let daemon = Daemon::start();
    let events = daemon.command(&["events", "--follow"]).stdout(Stdio::piped()).spawn().unwrap();
    kill_process(daemon.pid(), Signal::TERM).unwrap();
    eventually("the socket goes with the daemon", || !daemon.path("run/api.sock").exists());
    // A follower must not hold it up, and ends with it.
    assert!(events.wait_with_output().is_ok());
}

#[test]
fn events_are_followed_as_they_happen() {
    let daemon = Daemon::start();
    let kept = daemon.ok(&["events", "--json"]);
    let first: Value = serde_json::from_str(kept.lines().next().unwrap()).unwrap();
    assert!(first["seq"].is_u64() && first["time_ms"].is_u64(), "{first}");
    assert!(kept.contains("\"daemon-started\""), "{kept}");

    let mut follower =
        daemon.command(&["events", "--follow", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let (sender, receiver) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        lines.map_while(Result::ok).for_each(|l| sender.send(l).unwrap());
    });
    // The follower is heard of some time after it was started: the first few may be too early for it.
    let mut number = 0;
    let line = loop {
        let (name, subnet) = (format!("n{number}"), format!("10.9.{number}.0/24"));
        daemon.ok(&["network", "create", &name, "--subnet", &subnet]);
        if let Ok(line) = receiver.recv_timeout(Duration::from_millis(100)) {
            break line;
        }
        number += 1;
        assert!(number < 100, "nothing is told to a follower");
    };
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(event["kind"], "network-created");
    follower.kill().unwrap();
    follower.wait().unwrap();
    drop(receiver);
    reader.join().unwrap();
}

#[test]
fn metrics_are_answered_on_the_socket_and_where_the_file_says() {
    let daemon = Daemon::not_started();
    // A port that was free a moment ago; should somebody have taken it since, the daemon says so.
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let addr = loop {
        let addr = free();
        std::fs::write(daemon.path("wharf.toml"), format!("metrics = \"{addr}\"\n")).unwrap();
        let started = daemon.try_start();
        if started.status.success() {
            break addr;
        }
        assert!(stderr(&started).contains("cannot answer for metrics at"), "{}", stderr(&started));
    };
    let (status, body) = daemon.request("GET", "/metrics", "");
    assert_eq!(status, 200);
    let by_tcp = |target: &str| {
        let mut stream = TcpStream::connect(addr).unwrap();
        write!(stream, "GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let answer = by_tcp("/metrics");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"));
    for text in [&body, &answer] {
        assert!(text.contains("\nwharf_networks 1\n"), "{text}");
        assert!(text.contains("\nwharf_events_total{kind=\"daemon-started\"} 1\n"), "{text}");
    }
    let rates = daemon.json(&["stats", "--watch=1", "--times", "1", "--workers", "--json"]);
    assert!(rates["time_ms"].is_u64() && rates["workers"][0]["wakeups"].is_u64(), "{rates}");
    // Nothing else is to be had there.
    assert!(by_tcp("/v1/status").starts_with("HTTP/1.1 404"));
    let taken = Daemon::not_started();
    std::fs::write(taken.path("wharf.toml"), format!("metrics = \"{addr}\"\n")).unwrap();
    let refused = taken.try_start();
    assert!(stderr(&refused).contains("\nhint: "), "{}", stderr(&refused));
}

#[test]
fn every_described_route_is_answered_and_no_other() {
    let daemon = Daemon::start();
    let (status, body) = daemon.request("GET", "/openapi.json", "");
    assert_eq!(status, 200);
    let document: Value = serde_json::from_str(&body).unwrap();
    let mut count = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            if path == "/v1/stop" {
                continue;
            }
            let target = path.replace("{name}", "nobody");
            let (status, body) = daemon.request(&method.to_uppercase(), &target, "");
            let known = !body.contains("in this API") && status != 405;
            assert!(known && status < 500, "{method} {path}: {status} {body}");
            count += 1;
        }
    }
    assert!(count > 20);
    let (status, body) = daemon.request("GET", "/v2/status", "");
    assert_eq!(status, 404);
    assert!(body.contains("there is no /v2/status in this API"), "{body}");
}

#[test]
fn wrong_requests_are_refused_in_json() {
    let daemon = Daemon::start();
    let long = json!({ "name": "x".repeat(5 << 20) }).to_string();
    for (method, target, body, status, words) in [
        ("POST", "/v1/networks", "{", 400, "EOF"),
        ("POST", "/v1/networks", r#"{"name":"a","colour":"blue"}"#, 400, "colour"),
        ("POST", "/v1/networks", r#"{"name":"../a"}"#, 400, "../a"),
        ("POST", "/v1/networks", long.as_str(), 413, "length limit"),
        ("PUT", "/v1/networks", "", 405, "takes no PUT"),
        ("GET", "/v1/flows?colour=blue", "", 400, "colour"),
        ("GET", "/v1/flows?endpoint=nobody", "", 404, "nobody"),
        ("DELETE", "/v1/endpoints/nobody", "", 404, "nobody"),
        ("DELETE", "/v1/endpoints/nobody/publications", "", 400, "spec"),
        ("POST", "/v1/endpoints/nobody/publications", r#"{"publish":["80:x"]}"#, 400, "80:x"),
        ("POST", "/v1/trace", r#"{"from":"nobody","to":"10.0.0.1"}"#, 404, "nobody"),
    ] {
        let (got, answer) = daemon.request(method, target, body);
        assert_eq!(got, status, "{method} {target}: {answer}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert!(answer["code"].is_string(), "{answer}");
        assert!(answer["message"].as_str().unwrap().contains(words), "{target}: {answer}");
    }
}

#[test]
fn the_sockets_and_the_state_are_closed_to_others() {
    let daemon = Daemon::start();
    let mode =
        |name: &str| std::fs::metadata(daemon.path(name)).unwrap().permissions().mode() & 0o007;
    for name in ["run/api.sock", "run/attach.sock", "state"] {
        assert_eq!(mode(name), 0, "{name}");
    }
}

#[test]
fn readiness_is_told_to_the_descriptor_that_was_asked_for() {
    let daemon = Daemon::not_started();
    let mut child = Command::new("sh")
        .args(["-c", "exec \"$@\" 9>&1 >/dev/null 2>&1", "sh", env!("CARGO_BIN_EXE_wharf")])
        .args(["daemon", "--ready-fd", "9"])
        .args(daemon.places())
        .env("WHARF_RUNTIME_DIR", daemon.path("run"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    // To the end: the daemon closes it, and nothing it started keeps it open.
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "ready\n");
    daemon.ok(&["status"]);
    daemon.ok(&["daemon", "stop"]);
    assert!(child.wait().unwrap().success());

    let nonsense = daemon.wharf(&["daemon", "--ready-fd", "77"]);
    assert_eq!(nonsense.status.code(), Some(2));
}
