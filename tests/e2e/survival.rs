//! What survives: a daemon that is killed or replaced under traffic, one whose holder is gone, too,
//! and a store that is cut off in the middle of commands.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use wharf::wire::addr::Family;

use crate::support::{PATIENCE, in_world};
use crate::traffic::{Transfer, ping, serve_whoami, whoami_tcp, whoami_udp};
use crate::world::{BLUE, FAMILIES, Lan, RED, World, eventually, links, process_named};

/// TCP waits ever longer between two attempts, and the next one may just have been missed.
const TCP_RETRIES: Duration = Duration::from_secs(15);

/// Everything that a restart must not change.
fn everything(world: &World) -> [Value; 5] {
    ["network ls --json", "uplink ls --json", "ps --json", "port --json", "routes --json"]
        .map(|line| world.json(line))
}

/// A daemon with two networks, an uplink, a container on both networks, published ports and options.
fn furnished(dir: &std::path::Path) -> (World, Lan) {
    let lan = Lan::new();
    let world = World::new(dir);
    world.ok(&format!("uplink create default {}", Lan::UPLINK));
    world.ok(&format!("network create blue {BLUE}"));
    world.ok(&format!("network create red --icc=false --isolated=false --mtu 1400 {RED}"));
    let options = "--ip 10.20.0.77 --mac 02:00:00:00:00:77 -p 9000-9009:6000-6009/udp -p 0:80";
    world.container("a", &format!("--network blue --network red --label x=y --alias z {options}"));
    world.container("b", "--network blue -p 1180:5000");
    (world, lan)
}

fn restart_under_transfer(dir: &std::path::Path, end: impl FnOnce(&World)) {
    let (world, lan) = furnished(dir);
    let (a, b) = (world.running("a"), world.running("b"));
    let transfers = FAMILIES.map(|family| Transfer::start(&a.ns(), &b.ns(), b.addr(family)));
    for transfer in &transfers {
        transfer.goes_on(4 << 20, 2 * PATIENCE);
    }
    let before = everything(&world);

    end(&world);
    world.start("");

    assert_eq!(everything(&world), before);
    for transfer in &transfers {
        transfer.goes_on(16 << 20, TCP_RETRIES);
    }
    for transfer in transfers {
        transfer.finish();
    }
    // What is new works as well: between containers, out, and in.
    serve_whoami(&b.ns(), 5000);
    serve_whoami(&lan.remote, 7000);
    for family in FAMILIES {
        ping(&b.ns(), a.addr(family), PATIENCE).unwrap();
        whoami_tcp(&a.ns(), (b.addr(family), 5000).into(), PATIENCE).unwrap();
        whoami_udp(&a.ns(), (Lan::host(family), 7000).into(), PATIENCE).unwrap();
        let seen = whoami_tcp(&lan.remote, (Lan::ours(family), 1180).into(), PATIENCE).unwrap();
        assert_eq!(seen.by_server, seen.client);
    }
    let c = world.container("c", "--network blue");
    ping(&c.ns(), a.addr(Family::V4), PATIENCE).unwrap();
    world.ok("stop -t 0 a b c");
}

#[test]
fn a_daemon_that_is_killed_comes_back_with_everything_and_tcp_goes_on() {
    in_world(
        "survival::a_daemon_that_is_killed_comes_back_with_everything_and_tcp_goes_on",
        |dir| restart_under_transfer(dir, World::kill_daemon),
    );
}

#[test]
fn a_daemon_that_is_stopped_comes_back_with_everything_and_tcp_goes_on() {
    in_world(
        "survival::a_daemon_that_is_stopped_comes_back_with_everything_and_tcp_goes_on",
        |dir| {
            restart_under_transfer(dir, |world| {
                world.ok("daemon stop");
                world.refused("ps").says(1, &["daemon"]);
            });
        },
    );
}

#[test]
fn a_connection_through_a_published_port_goes_on_after_the_daemon_was_killed() {
    in_world(
        "survival::a_connection_through_a_published_port_goes_on_after_the_daemon_was_killed",
        |dir| {
            let (world, lan) = furnished(dir);
            let b = world.running("b");
            let transfers = FAMILIES.map(|family| {
                let listener = wharf::io::netns::in_namespace(&b.ns(), || {
                    std::net::TcpListener::bind((b.addr(family), 5000)).unwrap()
                });
                let listener = listener.unwrap();
                let to = (Lan::ours(family), 1180).into();
                let client = crate::support::connect_in(&lan.remote, to);
                Transfer::between(client, listener.accept().unwrap().0)
            });
            for transfer in &transfers {
                transfer.goes_on(2 << 20, 2 * PATIENCE);
            }
            world.kill_daemon();
            world.start("");
            for transfer in &transfers {
                transfer.goes_on(8 << 20, TCP_RETRIES);
            }
            for transfer in transfers {
                transfer.finish();
            }
        },
    );
}

#[test]
fn containers_that_ended_while_there_was_no_daemon_are_forgotten() {
    in_world("survival::containers_that_ended_while_there_was_no_daemon_are_forgotten", |dir| {
        let (world, _lan) = furnished(dir);
        let a = world.running("a");
        world.kill_daemon();
        a.kill();
        world.start("");
        assert_eq!(world.names(), ["b"]);
        // Its addresses and ports are free.
        world.container("a2", "--network blue --ip 10.20.0.77 -p 9005:1/udp");
    });
}

#[test]
fn a_holder_that_is_killed_is_replaced_and_has_everything_again() {
    in_world("survival::a_holder_that_is_killed_is_replaced_and_has_everything_again", |dir| {
        let world = World::new(dir);
        world.ok(&format!("network create blue {BLUE}"));
        let a = world.container("a", "--network blue");
        process_named("holder").signal(rustix::process::Signal::KILL).unwrap();
        let b = world.container("b", "--network blue");
        ping(&a.ns(), b.addr(Family::V4), PATIENCE).unwrap();
        world.kill_daemon();
        world.start("");
        assert_eq!(world.names(), ["a", "b"]);
        for family in FAMILIES {
            ping(&a.ns(), b.addr(family), PATIENCE).unwrap();
        }
    });
}

#[test]
fn a_daemon_whose_holder_is_gone_too_starts_and_says_what_is_lost() {
    in_world("survival::a_daemon_whose_holder_is_gone_too_starts_and_says_what_is_lost", |dir| {
        let (world, lan) = furnished(dir);
        let before = everything(&world);
        let b = world.running("b");
        process_named("holder").signal(rustix::process::Signal::KILL).unwrap();
        world.kill_daemon();
        world.start("");
        let after = everything(&world);
        assert_eq!(world.names(), Vec::<String>::new());
        assert_eq!(after[1]["networks"], before[1]["networks"], "uplinks are as they were");
        let events = world.ok("events");
        assert!(events.contains("b did not survive the restart"), "{events}");
        // What they had can be had again, in the same containers even.
        let netns = format!("/proc/{}/ns/net", b.pid);
        world.ok(&format!("attach --netns {netns} --name b --network blue -p 1180:5000"));
        world.ok(&format!("attach --netns {netns} --name b --network red --ifname eth1"));
        serve_whoami(&b.ns(), 5000);
        for family in FAMILIES {
            whoami_tcp(&lan.remote, (Lan::ours(family), 1180).into(), PATIENCE).unwrap();
        }
    });
}

#[test]
fn a_daemon_that_is_told_to_release_lets_go_of_the_interfaces() {
    in_world("survival::a_daemon_that_is_told_to_release_lets_go_of_the_interfaces", |dir| {
        let world = World::new(dir);
        world.ok(&format!("network create blue {BLUE}"));
        let a = world.container("a", "--network blue");
        let has_eth0 = || {
            let links = wharf::io::netns::in_namespace(&a.ns(), links).unwrap();
            links.contains(&"eth0".to_owned())
        };
        assert!(has_eth0());
        world.ok("daemon stop --release");
        eventually("eth0 is gone", PATIENCE, || !has_eth0());
        world.start("");
        assert!(world.names().is_empty());
    });
}

/// Commands run all the while; whatever one of them was told is done, is there afterwards.
#[test]
fn a_store_opens_after_each_of_twenty_kills_and_forgets_nothing_that_was_promised() {
    in_world(
        "survival::a_store_opens_after_each_of_twenty_kills_and_forgets_nothing_that_was_promised",
        |dir| {
            let world = World::new(dir);
            world.ok(&format!("network create blue {BLUE}"));
            world.container("web", "--network blue");
            let mut promised = Promised::default();
            for round in 0..20 {
                let stop = AtomicBool::new(false);
                std::thread::scope(|scope| {
                    let busy = scope.spawn(|| promised.keep_busy(&world, round, &stop));
                    // Not a wait for something: each round is cut off somewhere else.
                    std::thread::sleep(Duration::from_millis(5 + 7 * round));
                    world.kill_daemon();
                    stop.store(true, Ordering::Relaxed);
                    busy.join().unwrap();
                });
                world.start("");
                promised.check(&world);
            }
            assert!(promised.networks.len() > 20, "few commands were done: {promised:?}");
            assert_eq!(world.names(), ["web"]);
        },
    );
}

#[derive(Default, Debug)]
struct Promised {
    networks: Vec<String>,
    ports: Vec<u16>,
    removed: Vec<String>,
}

impl Promised {
    fn keep_busy(&mut self, world: &World, round: u64, stop: &AtomicBool) {
        let done =
            |line: String| world.output(&line.split(' ').collect::<Vec<_>>()).status.success();
        for number in 0.. {
            let name = format!("n{round}-{number}");
            let port = 2000 + 100 * round as u16 + number;
            if done(format!("network create {name}")) {
                self.networks.push(name.clone());
            }
            if done(format!("publish web {port}:80")) {
                self.ports.push(port);
            }
            if number % 3 == 2 {
                // One whose removal was cut off may be there or not: nothing was promised.
                self.networks.retain(|kept| *kept != name);
                if done(format!("network rm {name}")) {
                    self.removed.push(name);
                }
            }
            if stop.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    fn check(&self, world: &World) {
        let networks = world.json("network ls --json");
        let names: Vec<&str> =
            networks.as_array().unwrap().iter().map(|n| n["name"].as_str().unwrap()).collect();
        assert!(self.networks.iter().all(|name| names.contains(&name.as_str())), "{names:?}");
        assert!(!self.removed.iter().any(|name| names.contains(&name.as_str())), "{names:?}");
        let ports = world.ok("port web");
        assert!(self.ports.iter().all(|port| ports.contains(&format!("*:{port} "))), "{ports}");
    }
}
