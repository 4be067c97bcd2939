//! `wharf run` and its modes, `exec`, `stop`, signals and exit codes, in namespaces of the test's own.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use wharf::io::netlink::Netlink;
use wharf::io::netns::{NetNs, in_namespace};

use crate::support::{PATIENCE, in_world};
use crate::traffic::{ping, serve_whoami, whoami_tcp};
use crate::world::{BLUE, FAMILIES, RED, World, eventually, namespaces};

fn world(dir: &Path) -> World {
    let world = World::new(dir);
    world.ok(&format!("network create blue {BLUE}"));
    world
}

/// `wharf run OPTIONS -- sh -c SCRIPT`
fn shell(world: &World, options: &str, script: &str) -> Output {
    let mut args = vec!["run"];
    args.extend(options.split_whitespace());
    args.extend(["--", "sh", "-c", script]);
    world.output(&args)
}

fn text(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap().trim_end()
}

fn namespace_of(pid: &str) -> String {
    std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap().display().to_string()
}

#[test]
fn host_is_the_caller_s_namespace_and_none_has_only_a_loopback() {
    in_world("modes::host_is_the_caller_s_namespace_and_none_has_only_a_loopback", |dir| {
        let world = World::without_daemon(dir);
        // Neither needs a daemon, and neither starts one.
        let own = shell(&world, "--network host", "readlink /proc/self/ns/net; exit 4");
        assert_eq!((text(&own), own.status.code()), (&*namespace_of("self"), Some(4)));
        let none = shell(&world, "--network none", "ls /proc/sys/net/ipv4/conf; exit 5");
        assert_eq!(none.status.code(), Some(5));
        assert_eq!(text(&none).split('\n').collect::<Vec<_>>(), ["all", "default", "lo"]);
        world.refused("ps").says(1, &["no daemon is running"]);
    });
}

#[test]
fn container_shares_the_namespace_and_so_localhost() {
    in_world("modes::container_shares_the_namespace_and_so_localhost", |dir| {
        let world = world(dir);
        let web = world.container("web", "--network blue");
        let inside = namespace_of(&web.pid.to_string());
        let run = shell(&world, "--network container:web", "readlink /proc/self/ns/net; exit 6");
        assert_eq!((text(&run), run.status.code()), (&*inside, Some(6)));
        let exec = world.output(&["exec", "web", "readlink", "/proc/self/ns/net"]);
        assert_eq!(text(&exec), inside);
        // A second process there, and a server that only listens on localhost.
        let second = world.ok("run --detach --network container:web -- sleep infinity");
        let second = NetNs::of_pid(second.parse().expect("a process number")).unwrap();
        serve_whoami(&web.ns(), 5000);
        for localhost in ["127.0.0.1:5000", "[::1]:5000"] {
            whoami_tcp(&second, localhost.parse().unwrap(), PATIENCE).unwrap();
        }
        assert_eq!(world.names(), ["web"], "the second one is no endpoint of its own");
    });
}

#[test]
fn the_exit_code_is_the_command_s_own_in_every_mode() {
    in_world("modes::the_exit_code_is_the_command_s_own_in_every_mode", |dir| {
        let world = world(dir);
        world.container("web", "--network blue");
        for options in ["--network blue", "--network none", "--network container:web"] {
            for (script, code) in [("true", 0), ("exit 7", 7), ("kill -TERM $$", 143)] {
                let output = shell(&world, options, script);
                assert_eq!(output.status.code(), Some(code), "{options}: {script}: {output:?}");
            }
            let line = format!("run {options} -- /etc/passwd");
            world.refused(&line).says(126, &["/etc/passwd"]);
            world.refused(&format!("run {options} -- no-such-command")).says(127, &["not found"]);
        }
        let exec = |command: &[&str]| {
            world.output(&[&["exec", "web", "--"], command].concat()).status.code()
        };
        assert_eq!(exec(&["sh", "-c", "exit 9"]), Some(9));
        assert_eq!(exec(&["no-such-command"]), Some(127));
        assert_eq!(exec(&["/etc/passwd"]), Some(126));
        world.refused("exec nobody -- true").says(125, &["there is no", "`nobody`"]);
        world
            .refused("run --network nowhere -- true")
            .says(125, &["there is no network `nowhere`"]);
        eventually("only web is left", PATIENCE, || world.names() == ["web"]);
    });
}

/// A `wharf run` on `terminal` whose command appends a word to `log` for each signal and ends with TERM.
fn listening(world: &World, log: &Path, terminal: OwnedFd) -> Child {
    let file = log.display();
    let script = format!(
        "trap 'echo int >> {file}' INT; trap 'echo usr1 >> {file}' USR1; \
         trap 'echo term >> {file}; exit 5' TERM; echo ready >> {file}; \
         while :; do sleep 0.02; done"
    );
    let wharf = world.command(&["run", "--network", "blue", "--name", "web", "--"]);
    // Makes it the terminal of a session of its own, and takes the process's place.
    let mut command = Command::new("setsid");
    command.arg("--ctty").arg(wharf.get_program()).args(wharf.get_args());
    command.envs(wharf.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let run = command.args(["sh", "-c", &script]).stdin(terminal).spawn().unwrap();
    eventually("the command runs", PATIENCE, || log.exists());
    run
}

/// A terminal: the keyboard's end, and the end that programs have.
fn terminal() -> (OwnedFd, OwnedFd) {
    let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&keyboard).unwrap();
    unlockpt(&keyboard).unwrap();
    let name = ptsname(&keyboard, Vec::new()).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let screen = rustix::fs::open(name.as_c_str(), flags, Mode::empty()).unwrap();
    (keyboard, screen)
}

fn said(log: &Path) -> Vec<String> {
    std::fs::read_to_string(log).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_signal_to_wharf_run_reaches_the_command() {
    in_world("modes::a_signal_to_wharf_run_reaches_the_command", |dir| {
        let world = world(dir);
        let log = world.path("log");
        let (_keyboard, screen) = terminal();
        let mut run = listening(&world, &log, screen);
        for (signal, word) in [(Signal::USR1, "usr1"), (Signal::TERM, "term")] {
            kill_process(Pid::from_child(&run), signal).unwrap();
            eventually(word, PATIENCE, || said(&log).last().unwrap() == word);
        }
        assert_eq!(run.wait().unwrap().code(), Some(5));
        assert_eq!(said(&log), ["ready", "usr1", "term"]);
        assert!(world.names().is_empty(), "gone when the command returns");
    });
}

/// A terminal sends Ctrl-C to everybody in the foreground, the command included.
#[test]
fn ctrl_c_reaches_the_command_once() {
    in_world("modes::ctrl_c_reaches_the_command_once", |dir| {
        let world = world(dir);
        let log = world.path("log");
        let (keyboard, screen) = terminal();
        let mut run = listening(&world, &log, screen);
        rustix::io::write(&keyboard, b"\x03").unwrap();
        eventually("the command hears it", PATIENCE, || said(&log).len() > 1);
        kill_process(Pid::from_child(&run), Signal::TERM).unwrap();
        assert_eq!(run.wait().unwrap().code(), Some(5));
        assert_eq!(said(&log), ["ready", "int", "term"]);
    });
}

#[test]
fn stop_asks_first_and_then_ends_what_does_not_listen() {
    in_world("modes::stop_asks_first_and_then_ends_what_does_not_listen", |dir| {
        let world = world(dir);
        let before = namespaces();
        let deaf = "trap '' TERM; while :; do sleep 0.05; done";
        let output = shell(&world, "--detach --name deaf --network blue", deaf);
        assert_eq!(text(&output), "deaf");
        world.container("polite", "--network blue");
        let start = Instant::now();
        world.ok("stop --time 1 deaf polite");
        let took = start.elapsed();
        assert!(took >= Duration::from_secs(1) && took < PATIENCE, "{took:?}");
        assert!(world.names().is_empty());
        eventually("their namespaces are gone", PATIENCE, || namespaces() == before);
    });
}

#[test]
fn name_servers_are_laid_over_the_container_s_file_only() {
    in_world("modes::name_servers_are_laid_over_the_container_s_file_only", |dir| {
        let world = world(dir);
        let before = std::fs::read("/etc/resolv.conf").ok();
        let dns = "--dns 192.0.2.53 --dns 2001:db8::53";
        for network in ["blue", "none"] {
            let options = format!("--network {network} {dns}");
            let output = shell(&world, &options, "cat /etc/resolv.conf");
            assert_eq!(text(&output), "nameserver 192.0.2.53\nnameserver 2001:db8::53");
        }
        assert_eq!(std::fs::read("/etc/resolv.conf").ok(), before);
    });
}

#[test]
fn a_container_has_the_addresses_it_asked_for() {
    in_world("modes::a_container_has_the_addresses_it_asked_for", |dir| {
        let world = world(dir);
        let mac = "02:00:00:00:12:34";
        let options = format!("--network blue --ip 10.20.0.99 --ip6 fd20::99 --mac {mac}");
        let web = world.container("web", &options);
        let (link, addresses, routes) = in_namespace(&web.ns(), || {
            let mut netlink = Netlink::open().unwrap();
            let link = netlink.link("eth0").unwrap();
            let addresses = netlink.addresses().unwrap();
            let addresses: Vec<IpAddr> =
                addresses.iter().filter(|a| a.index == link.index).map(|a| a.net.addr()).collect();
            (link, addresses, netlink.routes().unwrap())
        })
        .unwrap();
        assert!(link.up);
        assert_eq!(link.mac.unwrap().to_string(), mac);
        for wanted in ["10.20.0.99", "fd20::99"] {
            assert!(addresses.contains(&wanted.parse().unwrap()), "{addresses:?}");
        }
        let defaults = routes.iter().filter(|r| r.is_default()).filter_map(|r| r.via);
        let defaults: Vec<String> = defaults.map(|via| via.to_string()).collect();
        assert_eq!(defaults, ["10.20.0.1", "fd20::1"]);
    });
}

#[test]
fn a_container_on_two_networks_reaches_both_and_joins_none_of_them() {
    in_world("modes::a_container_on_two_networks_reaches_both_and_joins_none_of_them", |dir| {
        let world = world(dir);
        world.ok(&format!("network create red {RED}"));
        let both = world.container("both", "--network blue --network red");
        let (b, r) =
            (world.container("b", "--network blue"), world.container("r", "--network red"));
        for family in FAMILIES {
            ping(&both.ns(), b.addr(family), PATIENCE).unwrap();
            ping(&both.ns(), r.addr(family), PATIENCE).unwrap();
            ping(&b.ns(), r.addr(family), crate::traffic::NEVER).unwrap_err();
        }
        let endpoints = world.json("inspect both");
        let interfaces: Vec<_> =
            endpoints.as_array().unwrap().iter().map(|e| e["ifname"].as_str().unwrap()).collect();
        assert_eq!(interfaces, ["eth0", "eth1"]);
        world.ok("detach both --network red");
        ping(&both.ns(), b.addrs[0], PATIENCE).unwrap();
        ping(&both.ns(), r.addrs[0], crate::traffic::NEVER).unwrap_err();
    });
}

#[test]
fn a_run_without_a_daemon_has_one_of_its_own_that_ends_with_it() {
    in_world("modes::a_run_without_a_daemon_has_one_of_its_own_that_ends_with_it", |dir| {
        let world = World::without_daemon(dir);
        let output = shell(&world, "", "ls /sys/class/net >/dev/null; exit 3");
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        let socket = world.runtime_dir().join("api.sock");
        eventually("the daemon ends", 3 * PATIENCE, || !socket.exists());
    });
}
