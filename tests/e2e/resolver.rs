//! The name server seen by `dig`, with dnsmasq for a resolver of the host.
#![allow(clippy::zombie_processes, reason = "they end with the test's process namespace")]

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use wharf::io::process::overlay_file;

use crate::support::{self, PATIENCE};
use crate::world::{BLUE, FAMILIES, World, eventually};

const GATEWAYS: [&str; 2] = ["10.20.0.1", "fd20::1"];
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// A resolver program at an address of loopback. It ends with the test's process namespace.
pub(crate) fn dnsmasq(at: &str, more: &[&str]) -> Child {
    let mut command = Command::new("dnsmasq");
    command.args(["--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"]);
    command.args(["--bind-interfaces", "--port=53", "--pid-file=", "--user=root", "--group=root"]);
    command.arg(format!("--listen-address={at}")).args(more);
    let child = command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap();
    let up = || {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        socket.connect((at, 53)).unwrap();
        let query = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x02up\x04test\0\0\x01\0\x01";
        socket.send(query).is_ok() && socket.recv(&mut [0; 64]).is_ok()
    };
    eventually("dnsmasq answers", PATIENCE, up);
    child
}

/// A text that no datagram of 1,232 bytes holds.
fn long_text() -> String {
    let strings = (0..8).map(|n| n.to_string().repeat(200));
    format!("--txt-record=big.test,{}", strings.collect::<Vec<_>>().join(","))
}

const NAMES: [&str; 2] =
    ["--address=/example.test/203.0.113.7", "--address=/example.test/2001:db8::7"];

pub(crate) fn in_world(name: &str, resolv_conf: &str, body: impl FnOnce(&World)) {
    support::in_world(name, |dir| {
        overlay_file(Path::new(RESOLV_CONF), resolv_conf.as_bytes()).unwrap();
        let world = World::without_daemon(dir);
        world.start("--uplink sockets");
        world.ok(&format!("network create blue {BLUE}"));
        body(&world);
    });
}

/// What `dig` prints in a container.
#[track_caller]
pub(crate) fn dig(world: &World, container: &str, words: &str) -> String {
    world.ok(&format!("exec {container} -- dig +tries=1 +time=5 {words}"))
}

#[test]
fn dig_is_answered_by_datagram_and_on_a_connection_at_both_gateways() {
    let name = "resolver::dig_is_answered_by_datagram_and_on_a_connection_at_both_gateways";
    in_world(name, "nameserver 127.0.0.1\n", |world| {
        dnsmasq("127.0.0.1", &[&NAMES[..], &[&long_text()]].concat());
        let a = world.container("web", "--network blue");
        world.container("b", "--network blue");
        let [v4, v6] = FAMILIES.map(|family| a.addr(family).to_string());
        for gateway in GATEWAYS {
            for how in ["+notcp", "+tcp"] {
                let ask = |what: &str| dig(world, "b", &format!("@{gateway} {how} +short {what}"));
                assert_eq!(ask("WEB.blue"), v4, "{gateway} {how}");
                assert_eq!(ask("web AAAA"), v6);
                assert_eq!(ask(&format!("-x {v6}")), "web.blue.");
                assert_eq!(ask("example.test"), "203.0.113.7");
                assert_eq!(ask("example.test AAAA"), "2001:db8::7");
                assert_eq!(ask("big.test TXT").len(), 8 * 203 - 1, "by TCP, in the end");
            }
            let several = dig(
                world,
                "b",
                &format!("@{gateway} +tcp +keepopen +short web example.test b.blue web AAAA"),
            );
            assert_eq!(several.lines().count(), 4, "{several}");
            let cut = dig(world, "b", &format!("@{gateway} +noedns +ignore big.test TXT"));
            assert!(cut.contains(" tc ") && cut.contains("ANSWER: 0"), "{cut}");
            let secure = dig(world, "b", &format!("@{gateway} +dnssec web.blue"));
            assert!(secure.contains("flags: do;") && secure.contains("udp: 1232"), "{secure}");
            let version = dig(world, "b", &format!("@{gateway} +edns=1 +noednsneg web.blue"));
            assert!(version.contains("BADVERS"), "{version}");
            let kind = dig(world, "b", &format!("@{gateway} web MX"));
            assert!(kind.contains("NOERROR") && kind.contains("ANSWER: 0"), "{kind}");
        }
    });
}

#[test]
fn a_resolver_that_is_gone_or_silent_delays_nobody_for_long() {
    let name = "resolver::a_resolver_that_is_gone_or_silent_delays_nobody_for_long";
    in_world(name, "nameserver 127.0.0.1\nnameserver 127.0.0.2\n", |world| {
        dnsmasq("127.0.0.2", &NAMES);
        world.container("web", "--network blue");
        let asked = |name: &str| {
            let start = Instant::now();
            let found = dig(world, "web", &format!("@10.20.0.1 +short {name}.example.test"));
            assert_eq!(found, "203.0.113.7");
            start.elapsed()
        };
        asked("nobody-listens-there");
        let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 53)).unwrap();
        std::thread::sleep(Duration::from_millis(2_100));
        let first = asked("it-says-nothing");
        assert!(first < Duration::from_secs(3), "{first:?}");
        let second = asked("and-is-not-asked-first-again");
        assert!(second < Duration::from_millis(390), "{second:?}");
        drop(silent);
    });
}

#[test]
fn when_no_resolver_answers_dig_is_told_so() {
    let name = "resolver::when_no_resolver_answers_dig_is_told_so";
    in_world(name, "nameserver 127.0.0.1\n", |world| {
        world.container("web", "--network blue");
        for how in ["+notcp", "+tcp"] {
            let answer = dig(world, "web", &format!("@10.20.0.1 {how} example.test"));
            assert!(answer.contains("SERVFAIL"), "{answer}");
        }
        let local = dig(world, "web", "@10.20.0.1 +short web");
        assert!(local.parse::<IpAddr>().is_ok(), "and names of ours work all the same: {local}");
    });
}

#[test]
fn names_come_and_go_without_a_query_that_is_not_answered() {
    let name = "resolver::names_come_and_go_without_a_query_that_is_not_answered";
    in_world(name, "nameserver 127.0.0.1\n", |world| {
        let asker = world.container("asker", "--network blue");
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let asking = std::thread::spawn(move || {
            let socket = support::udp_in(&asker.ns(), Ipv4Addr::UNSPECIFIED.into(), 0);
            socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            socket.connect(("10.20.0.1", 53)).unwrap();
            let mut answered = 0_u32;
            while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                let mut query = b"\0\0\x01\0\0\x01\0\0\0\0\0\0\x05asker\0\0\x01\0\x01".to_vec();
                query[..2].copy_from_slice(&(answered as u16).to_be_bytes());
                socket.send(&query).unwrap();
                let mut buf = [0; 512];
                let n = socket.recv(&mut buf).expect("every query is answered");
                assert_eq!(
                    (&buf[..2], buf[3] & 0xf, buf[7]),
                    (&query[..2], 0, 1),
                    "{:?}",
                    &buf[..n]
                );
                answered += 1;
            }
            answered
        });
        for n in 0..8 {
            let container = world.container(&format!("c{n}"), "--network blue --alias shared");
            let found = dig(world, "asker", &format!("@10.20.0.1 +short c{n}"));
            assert_eq!(found, container.addr(FAMILIES[0]).to_string(), "at once");
            container.kill();
        }
        stop.send(()).unwrap();
        let answered = asking.join().unwrap();
        assert!(answered > 100, "{answered}");
    });
}
