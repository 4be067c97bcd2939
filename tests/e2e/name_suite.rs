//! What Podman's name server is tested for, by the subjects of its suite, a test for each, asked of ours by
//! `dig`.
//!
//! One thing is otherwise on purpose: a container on two networks has, on each, its addresses of that network
//! only; the other ones could not be reached from there.
#![allow(clippy::zombie_processes, reason = "they end with the test's process namespace")]

use crate::resolver::{dig, dnsmasq, in_world};
use crate::support::PATIENCE;
use crate::world::{Container, FAMILIES, RED, World, eventually};

const GREEN: &str = "--subnet 10.40.0.0/24 --subnet fd40::/64";
/// Gateways by network, IPv4 first.
const BLUE_AT: [&str; 2] = ["10.20.0.1", "fd20::1"];
const RED_AT: [&str; 2] = ["10.30.0.1", "fd30::1"];
const GREEN_AT: [&str; 2] = ["10.40.0.1", "fd40::1"];
/// The longest that a network may have.
const LONG: &str = "n123456789.n123456789.n123456789.n123456789.n123456789.n1234567";

/// The world outside: one name in both families, and no name without a dot.
const OUTSIDE: [&str; 3] = [
    "--address=/example.test/203.0.113.7",
    "--address=/example.test/2001:db8::7",
    "--domain-needed",
];

/// Asks for a name's addresses at both gateways of a network: what is found must be these.
#[track_caller]
fn finds(world: &World, asker: &str, at: [&str; 2], name: &str, wanted: [&str; 2]) {
    for gateway in at {
        for (kind, addr) in ["A", "AAAA"].into_iter().zip(wanted) {
            let found = dig(world, asker, &format!("@{gateway} +short {name} {kind}"));
            assert_eq!(found, addr, "{asker} asks {gateway} for {name} {kind}");
        }
    }
}

/// Asks for a name at both gateways of a network: the answer must be this failure, and come at once.
#[track_caller]
fn fails(world: &World, asker: &str, at: [&str; 2], name: &str, status: &str) {
    for gateway in at {
        let start = std::time::Instant::now();
        let said = dig(world, asker, &format!("@{gateway} {name}"));
        assert!(said.contains(&format!("status: {status},")), "{asker}, {gateway}: {said}");
        assert!(!said.contains("recursion requested but not available"), "{said}");
        assert!(start.elapsed() < PATIENCE, "{name}: {:?}", start.elapsed());
    }
}

fn texts(container: &Container) -> [String; 2] {
    FAMILIES.map(|family| container.addr(family).to_string())
}

fn words(texts: &[String; 2]) -> [&str; 2] {
    [&texts[0], &texts[1]]
}

/// Runs a test in a world of its own, with the network `blue` and a name server outside.
fn suite(test: &str, body: impl FnOnce(&World)) {
    in_world(&format!("name_suite::{test}"), "nameserver 127.0.0.1\n", |world| {
        dnsmasq("127.0.0.1", &OUTSIDE);
        body(world);
    });
}

/// Makes a container on this network; its addresses.
fn on(world: &World, name: &str, options: &str) -> [String; 2] {
    texts(&world.container(name, options))
}

/// The addresses that a container has on one of its networks.
fn of(world: &World, container: &str, network: &str) -> [String; 2] {
    let endpoints = world.json(&format!("inspect {container}"));
    let mut endpoints = endpoints.as_array().unwrap().iter();
    let endpoint = endpoints.find(|e| e["network"] == network).unwrap();
    let addr = |n: usize| endpoint["addresses"][n].as_str().unwrap();
    [addr(0), addr(1)].map(|text| text.split('/').next().unwrap().to_owned())
}

fn backwards(world: &World, asker: &str, gateway: &str, addrs: &[String; 2], whole: &str) {
    for addr in addrs {
        assert_eq!(dig(world, asker, &format!("@{gateway} +short -x {addr}")), whole);
    }
}

/// Starts the daemon again with these name servers in its configuration.
fn restart(world: &World, servers: &str) {
    let config = world.path("config.toml");
    std::fs::write(&config, format!("dns = [{servers}]\n")).unwrap();
    world.ok("daemon stop");
    world.start(&format!("--config {}", config.display()));
    let is_back = || world.names().contains(&"aone".to_owned());
    eventually("the container is back", PATIENCE, is_back);
}

#[test]
fn basic_a_container_knows_itself() {
    suite("basic_a_container_knows_itself", |world| {
        let one = on(world, "aone", "--network blue");
        finds(world, "aone", BLUE_AT, "aone", words(&one));
    });
}

#[test]
fn basic_a_name_s_case_does_not_matter() {
    suite("basic_a_name_s_case_does_not_matter", |world| {
        let one = on(world, "aone", "--network blue");
        finds(world, "aone", BLUE_AT, "AOne", words(&one));
        finds(world, "aone", BLUE_AT, "aone.BLUE", words(&one));
    });
}

#[test]
fn basic_a_network_with_a_long_name() {
    suite("basic_a_network_with_a_long_name", |world| {
        world.ok(&format!("network create {LONG} {GREEN}"));
        let one = on(world, "cone", &format!("--network {LONG}"));
        finds(world, "cone", GREEN_AT, "cone", words(&one));
        finds(world, "cone", GREEN_AT, &format!("cone.{LONG}"), words(&one));
    });
}

#[test]
fn basic_a_network_of_one_family_only_has_an_empty_answer_in_the_other() {
    suite("basic_a_network_of_one_family_only_has_an_empty_answer_in_the_other", |world| {
        world.ok("network create four --subnet 10.50.0.0/24");
        world.ok("network create six --subnet fd60::/64");
        let v4 = world.container("vfour", "--network four").addr(FAMILIES[0]).to_string();
        let v6 = world.container("vsix", "--network six").addr(FAMILIES[1]).to_string();
        for (asker, at, wanted) in
            [("vfour", "10.50.0.1", [v4.as_str(), ""]), ("vsix", "fd60::1", ["", v6.as_str()])]
        {
            finds(world, asker, [at; 2], asker, wanted);
            let said = dig(world, asker, &format!("@{at} {asker} TXT"));
            assert!(said.contains("status: NOERROR"), "{said}");
        }
    });
}

#[test]
fn basic_a_name_without_a_dot_that_nobody_has_fails_at_once() {
    suite("basic_a_name_without_a_dot_that_nobody_has_fails_at_once", |world| {
        on(world, "aone", "--network blue");
        fails(world, "aone", BLUE_AT, "bone", "NXDOMAIN");
    });
}

#[test]
fn basic_the_world_s_names_in_both_families() {
    suite("basic_the_world_s_names_in_both_families", |world| {
        on(world, "aone", "--network blue");
        finds(world, "aone", BLUE_AT, "example.test", ["203.0.113.7", "2001:db8::7"]);
    });
}

#[test]
fn basic_by_tcp() {
    suite("basic_by_tcp", |world| {
        let one = on(world, "aone", "--network blue");
        for gateway in BLUE_AT {
            for (name, wanted) in [("aone", one[0].as_str()), ("example.test", "203.0.113.7")] {
                let found = dig(world, "aone", &format!("@{gateway} +tcp +short {name}"));
                assert_eq!(found, wanted, "{gateway}");
            }
        }
    });
}

#[test]
fn basic_a_container_that_has_gone_has_no_name() {
    suite("basic_a_container_that_has_gone_has_no_name", |world| {
        on(world, "aone", "--network blue");
        on(world, "atwo", "--network blue --alias 2a");
        world.ok("stop --time 0 atwo");
        eventually("its names go", PATIENCE, || {
            dig(world, "aone", "@10.20.0.1 atwo").contains("NXDOMAIN")
        });
        fails(world, "aone", BLUE_AT, "2a", "NXDOMAIN");
    });
}

#[test]
fn two_containers_of_one_network() {
    suite("two_containers_of_one_network", |world| {
        let one = on(world, "aone", "--network blue");
        let two = on(world, "atwo", "--network blue");
        finds(world, "aone", BLUE_AT, "atwo", words(&two));
        finds(world, "atwo", BLUE_AT, "aone", words(&one));
    });
}

#[test]
fn aliases_of_two_containers_of_one_network() {
    suite("aliases_of_two_containers_of_one_network", |world| {
        let one = on(world, "aone", "--network blue --alias a1 --alias 1a");
        let two = on(world, "atwo", "--network blue --alias a2 --alias 2a");
        for (alias, addrs) in [("a1", &one), ("1a", &one), ("a2", &two), ("2a", &two)] {
            finds(world, "aone", BLUE_AT, alias, words(addrs));
            finds(world, "atwo", BLUE_AT, alias, words(addrs));
        }
    });
}

#[test]
fn aliases_that_two_containers_share_give_both() {
    suite("aliases_that_two_containers_share_give_both", |world| {
        let one = on(world, "aone", "--network blue --alias shop");
        let two = on(world, "atwo", "--network blue --alias shop");
        for (kind, n) in [("A", 0), ("AAAA", 1)] {
            let found = dig(world, "aone", &format!("@10.20.0.1 +short shop {kind}"));
            let mut found: Vec<_> = found.lines().collect();
            found.sort_unstable();
            let mut both = [one[n].as_str(), two[n].as_str()];
            both.sort_unstable();
            assert_eq!(found, both);
        }
    });
}

#[test]
fn aliases_on_two_networks_are_somebody_else_on_each() {
    suite("aliases_on_two_networks_are_somebody_else_on_each", |world| {
        world.ok(&format!("network create red {RED}"));
        let one = on(world, "aone", "--network blue --alias shop");
        let other = on(world, "bone", "--network red --alias shop");
        on(world, "abtwo", "--network blue --network red");
        finds(world, "abtwo", BLUE_AT, "shop", words(&one));
        finds(world, "abtwo", RED_AT, "shop", words(&other));
    });
}

#[test]
fn two_networks_do_not_know_each_other() {
    suite("two_networks_do_not_know_each_other", |world| {
        world.ok(&format!("network create red {RED}"));
        let one = on(world, "aone", "--network blue");
        let other = on(world, "bone", "--network red");
        finds(world, "aone", BLUE_AT, "aone", words(&one));
        finds(world, "bone", RED_AT, "bone", words(&other));
        fails(world, "aone", BLUE_AT, "bone", "NXDOMAIN");
        fails(world, "bone", RED_AT, "aone", "NXDOMAIN");
    });
}

#[test]
fn two_networks_and_a_container_on_both_that_all_know() {
    suite("two_networks_and_a_container_on_both_that_all_know", |world| {
        world.ok(&format!("network create red {RED}"));
        on(world, "aone", "--network blue");
        on(world, "bone", "--network red");
        on(world, "abtwo", "--network blue --network red");
        let (blue, red) = (of(world, "abtwo", "blue"), of(world, "abtwo", "red"));
        finds(world, "aone", BLUE_AT, "abtwo", words(&blue));
        finds(world, "bone", RED_AT, "abtwo", words(&red));
        finds(world, "abtwo", BLUE_AT, "abtwo", words(&blue));
        finds(world, "abtwo", RED_AT, "abtwo", words(&red));
    });
}

#[test]
fn two_networks_and_a_container_on_both_that_knows_all() {
    suite("two_networks_and_a_container_on_both_that_knows_all", |world| {
        world.ok(&format!("network create red {RED}"));
        let one = on(world, "aone", "--network blue");
        let other = on(world, "bone", "--network red");
        on(world, "abtwo", "--network blue --network red");
        finds(world, "abtwo", BLUE_AT, "aone", words(&one));
        finds(world, "abtwo", RED_AT, "bone", words(&other));
    });
}

#[test]
fn three_networks_of_which_one_is_a_stranger() {
    suite("three_networks_of_which_one_is_a_stranger", |world| {
        world.ok(&format!("network create red {RED}"));
        world.ok(&format!("network create green {GREEN}"));
        on(world, "aone", "--network blue");
        on(world, "abtwo", "--network blue --network red");
        let third = on(world, "cone", "--network green");
        finds(world, "cone", GREEN_AT, "cone", words(&third));
        for stranger in ["aone", "abtwo"] {
            fails(world, "cone", GREEN_AT, stranger, "NXDOMAIN");
        }
        fails(world, "aone", BLUE_AT, "cone", "NXDOMAIN");
        fails(world, "abtwo", RED_AT, "cone", "NXDOMAIN");
    });
}

#[test]
fn three_networks_and_a_container_on_all() {
    suite("three_networks_and_a_container_on_all", |world| {
        world.ok(&format!("network create red {RED}"));
        world.ok(&format!("network create green {GREEN}"));
        let networks =
            [("aone", "blue", BLUE_AT), ("bone", "red", RED_AT), ("cone", "green", GREEN_AT)];
        let all =
            networks.map(|(name, network, _)| on(world, name, &format!("--network {network}")));
        on(world, "abc", "--network blue --network red --network green");
        for ((name, network, at), addrs) in networks.into_iter().zip(&all) {
            finds(world, "abc", at, name, words(addrs));
            finds(world, name, at, "abc", words(&of(world, "abc", network)));
        }
    });
}

#[test]
fn three_networks_and_whatever_gateway_is_asked() {
    suite("three_networks_and_whatever_gateway_is_asked", |world| {
        world.ok(&format!("network create red {RED}"));
        world.ok(&format!("network create green {GREEN}"));
        on(world, "aone", "--network blue");
        on(world, "cone", "--network green");
        fails(world, "cone", BLUE_AT, "aone", "NXDOMAIN");
        fails(world, "aone", RED_AT, "cone", "NXDOMAIN");
    });
}

#[test]
fn backwards_in_both_families() {
    suite("backwards_in_both_families", |world| {
        let one = on(world, "aone", "--network blue --alias a1");
        let two = on(world, "atwo", "--network blue");
        for asker in ["aone", "atwo"] {
            backwards(world, asker, "10.20.0.1", &one, "aone.blue.");
            backwards(world, asker, "fd20::1", &two, "atwo.blue.");
        }
    });
}

#[test]
fn backwards_for_an_address_that_nobody_has() {
    suite("backwards_for_an_address_that_nobody_has", |world| {
        on(world, "aone", "--network blue");
        fails(world, "aone", BLUE_AT, "-x 10.20.0.200", "NXDOMAIN");
        fails(world, "aone", BLUE_AT, "-x fd20::200", "NXDOMAIN");
    });
}

#[test]
fn backwards_on_a_shared_network() {
    suite("backwards_on_a_shared_network", |world| {
        world.ok(&format!("network create red {RED}"));
        on(world, "abtwo", "--network blue --network red");
        for (at, network) in [(BLUE_AT, "blue"), (RED_AT, "red")] {
            let addrs = of(world, "abtwo", network);
            backwards(world, "abtwo", at[0], &addrs, &format!("abtwo.{network}."));
        }
    });
}

#[test]
fn internal_networks_have_their_own_names_and_no_others() {
    suite("internal_networks_have_their_own_names_and_no_others", |world| {
        world.ok(&format!("network create red --internal {RED}"));
        let inner = on(world, "inner", "--network red");
        finds(world, "inner", RED_AT, "inner", words(&inner));
        fails(world, "inner", RED_AT, "example.test", "REFUSED");
    });
}

#[test]
fn internal_networks_and_others_at_once_ask_outside_by_the_other() {
    suite("internal_networks_and_others_at_once_ask_outside_by_the_other", |world| {
        world.ok(&format!("network create red --internal {RED}"));
        on(world, "both", "--network blue --network red");
        finds(world, "both", BLUE_AT, "example.test", ["203.0.113.7", "2001:db8::7"]);
        fails(world, "both", RED_AT, "example.test", "REFUSED");
        finds(world, "both", RED_AT, "both", words(&of(world, "both", "red")));
    });
}

#[test]
fn custom_name_servers_are_asked_and_the_host_s_are_not() {
    suite("custom_name_servers_are_asked_and_the_host_s_are_not", |world| {
        dnsmasq("127.0.0.2", &["--address=/example.test/203.0.113.8", "--domain-needed"]);
        let one = on(world, "aone", "--network blue");
        restart(world, "\"127.0.0.2\"");
        finds(world, "aone", BLUE_AT, "aone", words(&one));
        finds(world, "aone", BLUE_AT, "example.test", ["203.0.113.8", ""]);
    });
}

#[test]
fn custom_name_servers_that_are_not_there_fail_and_our_names_do_not() {
    suite("custom_name_servers_that_are_not_there_fail_and_our_names_do_not", |world| {
        let one = on(world, "aone", "--network blue");
        restart(world, "\"127.0.0.255\"");
        finds(world, "aone", BLUE_AT, "aone", words(&one));
        fails(world, "aone", BLUE_AT, "example.test", "SERVFAIL");
    });
}

#[test]
fn custom_name_servers_of_which_the_first_is_not_there() {
    suite("custom_name_servers_of_which_the_first_is_not_there", |world| {
        on(world, "aone", "--network blue");
        restart(world, "\"127.0.0.255\", \"127.0.0.1\"");
        finds(world, "aone", BLUE_AT, "example.test", ["203.0.113.7", "2001:db8::7"]);
    });
}

#[test]
fn errors_whoever_has_the_host_s_port_53_keeps_it() {
    let name = "name_suite::errors_whoever_has_the_host_s_port_53_keeps_it";
    in_world(name, "nameserver 127.0.0.1\n", |world| {
        let udp = std::net::UdpSocket::bind("[::]:53").unwrap();
        let tcp = std::net::TcpListener::bind("[::]:53").unwrap();
        let one = on(world, "aone", "--network blue");
        finds(world, "aone", BLUE_AT, "aone", words(&one));
        assert_eq!(dig(world, "aone", "@10.20.0.1 +tcp +short aone"), one[0]);
        drop((udp, tcp));
    });
}
