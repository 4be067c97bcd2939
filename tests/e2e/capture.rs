//! `wharf capture`: what passes is seen as it passes, and what is dropped with its reason.

use std::fs;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use wharf::wire::addr::Family;

use crate::support::{PATIENCE, in_world};
use crate::traffic::{NEVER, ping, serve_whoami, whoami_tcp};
use crate::world::{BLUE, FAMILIES, RED, World, eventually};

/// A capture that has begun: it answers only after the workers know of it, with its first bytes.
struct Capture(Child);

impl Capture {
    /// With these options, into that file.
    fn start(world: &World, file: &str, options: &str) -> Self {
        let mut words = vec!["capture"];
        words.extend(options.split_whitespace());
        let path = world.path(file);
        let output = fs::File::create(path).unwrap();
        let child = world.command(&words).stdout(output).stderr(Stdio::inherit()).spawn().unwrap();
        Self(child)
    }

    /// Ends by itself, since it was asked for a number of frames.
    fn wait(mut self) {
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn lines(world: &World, file: &str) -> Vec<Value> {
    let text = fs::read_to_string(world.path(file)).unwrap();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[test]
fn frames_are_told_as_they_come_in_and_as_they_leave_and_drops_with_their_reason() {
    in_world(
        "capture::frames_are_told_as_they_come_in_and_as_they_leave_and_drops_with_their_reason",
        |dir| {
            let world = World::new(dir);
            world.ok(&format!("network create blue {BLUE}"));
            world.ok(&format!("network create red {RED}"));
            let (a, b) =
                (world.container("a", "--network blue"), world.container("b", "--network blue"));
            let other = world.container("other", "--network red");
            let _all = Capture::start(&world, "all", "--json");
            let _drops = Capture::start(&world, "drops", "--json --drops --endpoint a");
            for family in FAMILIES {
                eventually("what passes is seen", PATIENCE, || {
                    ping(&a.ns(), b.addr(family), PATIENCE).unwrap();
                    let (from, to) = (a.addr(family), b.addr(family));
                    let icmp = if family == Family::V4 { "ICMP" } else { "ICMPv6" };
                    let asked = format!("{icmp} {from} -> {to}");
                    let seen = |port: &str, side: &str| {
                        let all = lines(&world, "all");
                        all.iter().any(|line| {
                            line["port"] == port
                                && line["side"] == side
                                && line["summary"] == asked.as_str()
                        })
                    };
                    seen("a", "ingress") && seen("b", "egress")
                });
                eventually("what is dropped is seen with its reason", PATIENCE, || {
                    assert!(ping(&a.ns(), other.addr(family), NEVER).is_err());
                    let to = other.addr(family).to_string();
                    let drops = lines(&world, "drops");
                    drops.iter().any(|line| {
                        line["drop"] == "network-isolated"
                            && line["summary"].as_str().unwrap().ends_with(&to)
                    })
                });
            }
            let drops = lines(&world, "drops");
            assert!(drops.iter().all(|line| line["drop"].is_string() && line["port"] == "a"));
        },
    );
}

#[test]
fn a_filter_in_the_language_of_tcpdump_chooses_and_tcpdump_reads_the_file() {
    in_world(
        "capture::a_filter_in_the_language_of_tcpdump_chooses_and_tcpdump_reads_the_file",
        |dir| {
            let world = World::new(dir);
            world.ok(&format!("network create blue {BLUE}"));
            let (a, b) =
                (world.container("a", "--network blue"), world.container("b", "--network blue"));
            serve_whoami(&b.ns(), 5000);
            let file = world.path("frames.pcapng");
            let file = file.to_str().unwrap();
            let options = format!("--count 40 --write {file} tcp port 5000 or icmp6");
            let capture = Capture::start(&world, "none", &options);
            eventually("the file begins", PATIENCE, || {
                fs::metadata(file).is_ok_and(|meta| meta.len() > 0)
            });
            for _ in 0..20 {
                for family in FAMILIES {
                    whoami_tcp(&a.ns(), (b.addr(family), 5000).into(), PATIENCE).unwrap();
                }
                ping(&a.ns(), b.addr(Family::V4), PATIENCE).unwrap();
            }
            capture.wait();
            // As root it would become a user whom a namespace with one user does not have.
            let words = ["--user", "tcpdump", "-nr", file];
            let read = Command::new("unshare").args(words).output().unwrap();
            let text = String::from_utf8(read.stdout).unwrap();
            assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
            assert_eq!(text.lines().count(), 40, "{text}");
            for line in text.lines() {
                assert!(line.contains(".5000") || line.contains("ICMP6"), "{line}");
            }
            for family in FAMILIES {
                let syn = format!(" > {}.5000: Flags [S]", b.addr(family));
                assert!(text.contains(&syn), "no `{syn}` in\n{text}");
            }
        },
    );
}

#[test]
fn what_cannot_be_captured_is_refused_in_words() {
    in_world("capture::what_cannot_be_captured_is_refused_in_words", |dir| {
        let world = World::new(dir);
        world.refused("capture --endpoint nobody").says(1, &["there is no endpoint `nobody`"]);
        world.refused("capture no such language").says(2, &["is not a filter", "pcap-filter"]);
        world.refused("capture --write /nowhere/file").says(1, &["/nowhere/file"]);
        let running: Vec<_> = (0..4)
            .map(|n| {
                let file = world.path(&format!("file{n}"));
                let options = format!("--write {}", file.display());
                let capture = Capture::start(&world, "none", &options);
                eventually("the file begins", PATIENCE, || {
                    fs::metadata(&file).is_ok_and(|meta| meta.len() > 0)
                });
                capture
            })
            .collect();
        world.refused("capture --json --count 1").says(1, &["captures"]);
        drop(running);
        eventually("there is room again", PATIENCE, || {
            let options = "capture --json --count 1 --endpoint nobody";
            world.refused(options).text.contains("no endpoint")
        });
    });
}
