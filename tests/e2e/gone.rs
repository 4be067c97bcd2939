//! What is left of a container that ends without a goodbye: nothing, within a second.

use std::time::Duration;

use rustix::process::Signal;
use wharf::io::netns::{NetNs, in_namespace};
use wharf::wire::addr::Family;

use crate::support::{PATIENCE, in_world};
use crate::traffic::{NEVER, serve_whoami, whoami_tcp, whoami_udp};
use crate::world::{BLUE, Container, FAMILIES, Lan, World, eventually, links, namespaces};

const A_SECOND: Duration = Duration::from_secs(1);
const OPTIONS: &str = "--network blue --ip 10.20.0.50 --ip6 fd20::50 -p 1180:5000 -p 1180:5000/udp";

/// How things are without the container.
struct Before {
    world: World,
    lan: Lan,
    links: Vec<String>,
    namespaces: usize,
}

impl Before {
    fn new(dir: &std::path::Path) -> Self {
        let lan = Lan::new();
        let world = World::new(dir);
        world.ok(&format!("uplink create default {}", Lan::UPLINK));
        world.ok(&format!("network create blue {BLUE}"));
        Self { world, lan, links: links(), namespaces: namespaces() }
    }

    /// Fails unless everything is as it was within a second.
    #[track_caller]
    fn nothing_is_left(&self) {
        let world = &self.world;
        eventually("the endpoint is gone", A_SECOND, || world.names().is_empty());
        eventually("its namespace is gone", A_SECOND, || namespaces() == self.namespaces);
        assert_eq!(links(), self.links);
        assert!(world.json("port --json").as_array().unwrap().is_empty());
        assert_eq!(world.json("status --json")["published_ports"], 0);
        for family in FAMILIES {
            for ask in [whoami_tcp, whoami_udp] {
                let to = (Lan::ours(family), 1180).into();
                assert!(ask(&self.lan.remote, to, NEVER).is_err());
            }
        }
        // Name, addresses and ports can be had again at once.
        let again = world.container("web", OPTIONS);
        serve_whoami(&again.ns(), 5000);
        whoami_tcp(&self.lan.remote, (Lan::ours(Family::V4), 1180).into(), PATIENCE).unwrap();
    }

    /// `wharf run` in the foreground, once the container's command runs.
    fn run(&self) -> (std::process::Child, Container) {
        let mut command = self.world.command(&["run", "--name", "web"]);
        command.args(OPTIONS.split(' ')).args(["--", "sleep", "infinity"]);
        let run = command.spawn().unwrap();
        eventually("the container is up", PATIENCE, || self.world.names() == ["web"]);
        let web = self.world.running("web");
        let command = format!("/proc/{}/comm", web.pid);
        eventually("its command has started", PATIENCE, || {
            std::fs::read_to_string(&command).is_ok_and(|name| name.trim() == "sleep")
        });
        (run, web)
    }
}

#[test]
fn a_killed_wharf_run_leaves_nothing() {
    in_world("gone::a_killed_wharf_run_leaves_nothing", |dir| {
        let before = Before::new(dir);
        let (mut run, _) = before.run();
        run.kill().unwrap();
        run.wait().unwrap();
        before.nothing_is_left();
    });
}

#[test]
fn a_command_that_ends_leaves_nothing() {
    in_world("gone::a_command_that_ends_leaves_nothing", |dir| {
        let before = Before::new(dir);
        let (mut run, web) = before.run();
        web.kill();
        assert_eq!(run.wait().unwrap().code(), Some(128 + 9));
        before.nothing_is_left();
    });
}

#[test]
fn a_killed_container_in_the_background_leaves_nothing() {
    in_world("gone::a_killed_container_in_the_background_leaves_nothing", |dir| {
        let before = Before::new(dir);
        before.world.container("web", OPTIONS).kill();
        before.nothing_is_left();
    });
}

#[test]
fn a_namespace_that_disappears_leaves_nothing() {
    in_world("gone::a_namespace_that_disappears_leaves_nothing", |dir| {
        let before = Before::new(dir);
        let ns = NetNs::staging().unwrap();
        let path =
            format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&ns));
        before.world.ok(&format!("attach --netns {path} --name web {OPTIONS}"));
        assert!(in_namespace(&ns, links).unwrap().contains(&"eth0".to_owned()));
        drop(ns);
        before.nothing_is_left();
    });
}

#[test]
fn a_detached_container_goes_on_without_the_interface() {
    in_world("gone::a_detached_container_goes_on_without_the_interface", |dir| {
        let before = Before::new(dir);
        let web = before.world.container("web", OPTIONS);
        let ns = web.ns();
        before.world.ok("detach web");
        eventually("only lo is left", A_SECOND, || in_namespace(&ns, links).unwrap() == ["lo"]);
        drop(ns);
        web.kill();
        before.nothing_is_left();
    });
}

#[test]
fn a_wharf_run_that_is_killed_anywhere_on_its_way_leaves_nothing() {
    in_world("gone::a_wharf_run_that_is_killed_anywhere_on_its_way_leaves_nothing", |dir| {
        let before = Before::new(dir);
        for step in 0..20 {
            let mut command = before.world.command(&["run", "--name", "web"]);
            command.args(OPTIONS.split(' ')).args(["--", "sleep", "infinity"]);
            command.stderr(std::process::Stdio::null());
            let mut run = command.spawn().unwrap();
            // Not a wait for something: each one is cut off somewhere else.
            std::thread::sleep(Duration::from_millis(5 * step));
            run.kill().unwrap();
            run.wait().unwrap();
            eventually("its namespace is gone", A_SECOND, || namespaces() == before.namespaces);
            eventually("the endpoint is gone", A_SECOND, || before.world.names().is_empty());
        }
        before.nothing_is_left();
    });
}

#[test]
fn of_a_container_on_two_networks_nothing_is_left_on_either() {
    in_world("gone::of_a_container_on_two_networks_nothing_is_left_on_either", |dir| {
        let before = Before::new(dir);
        before.world.ok(&format!("network create red {}", crate::world::RED));
        let web = before.world.container("web", &format!("{OPTIONS} --network red"));
        assert_eq!(before.world.names(), ["web", "web"]);
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(web.pid.cast_signed()).unwrap(),
            Signal::KILL,
        )
        .unwrap();
        before.nothing_is_left();
    });
}
