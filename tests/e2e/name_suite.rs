//! What Podman's name server is tested for, by the subjects of its suite, asked of ours by `dig`.
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

#[test]
fn containers_of_one_network_and_the_world() {
    let name = "name_suite::containers_of_one_network_and_the_world";
    in_world(name, "nameserver 127.0.0.1\n", |world| {
        dnsmasq("127.0.0.1", &OUTSIDE);
        let one = texts(&world.container("aone", "--network blue --alias a1 --alias 1a"));
        let two = texts(&world.container("atwo", "--network blue --alias a2 --alias 2a"));
        // A container's own name; and in IPv6.
        finds(world, "aone", BLUE_AT, "aone", words(&one));
        // Two containers on one network.
        finds(world, "aone", BLUE_AT, "atwo", words(&two));
        finds(world, "atwo", BLUE_AT, "aone", words(&one));
        // By their aliases, from both sides.
        for (alias, addrs) in [("a1", &one), ("1a", &one), ("a2", &two), ("2a", &two)] {
            finds(world, "aone", BLUE_AT, alias, words(addrs));
            finds(world, "atwo", BLUE_AT, alias, words(addrs));
        }
        // The host's resolvers, in both families.
        finds(world, "aone", BLUE_AT, "example.test", ["203.0.113.7", "2001:db8::7"]);
        // A name without a dot that nobody has: no such name, at once.
        fails(world, "aone", BLUE_AT, "bone", "NXDOMAIN");
        // Backwards, in both families; its own and a neighbour's; and an address that nobody has.
        for (addrs, whole) in [(&one, "aone.blue."), (&two, "atwo.blue.")] {
            for addr in addrs {
                let found = dig(world, "aone", &format!("@10.20.0.1 +short -x {addr}"));
                assert_eq!(found, whole);
            }
        }
        fails(world, "aone", BLUE_AT, "-x 10.20.0.200", "NXDOMAIN");
        fails(world, "aone", BLUE_AT, "-x fd20::200", "NXDOMAIN");
        // A network with a long name.
        world.ok(&format!("network create {LONG} {GREEN}"));
        let three = texts(&world.container("cone", &format!("--network {LONG}")));
        finds(world, "cone", GREEN_AT, "cone", words(&three));
        finds(world, "cone", GREEN_AT, &format!("cone.{LONG}"), words(&three));
        // Nobody asks for a container that has gone.
        world.ok("stop --time 0 atwo");
        eventually("its names go", PATIENCE, || {
            dig(world, "aone", "@10.20.0.1 atwo").contains("NXDOMAIN")
        });
        fails(world, "aone", BLUE_AT, "2a", "NXDOMAIN");
    });
}

#[test]
fn containers_of_two_and_three_networks() {
    let name = "name_suite::containers_of_two_and_three_networks";
    in_world(name, "nameserver 127.0.0.1\n", |world| {
        dnsmasq("127.0.0.1", &OUTSIDE);
        world.ok(&format!("network create red {RED}"));
        world.ok(&format!("network create green {GREEN}"));
        let one = texts(&world.container("aone", "--network blue --alias shop"));
        let other = texts(&world.container("bone", "--network red --alias shop"));
        let third = texts(&world.container("cone", "--network green"));
        world.container("abtwo", "--network blue --network red");
        let own = |at: [&str; 2]| {
            let networks = [("blue", BLUE_AT), ("red", RED_AT)];
            let network = networks.into_iter().find(|(_, gateways)| *gateways == at).unwrap().0;
            let endpoints = world.json("inspect abtwo");
            let mut endpoints = endpoints.as_array().unwrap().iter();
            let endpoint = endpoints.find(|e| e["network"] == network).unwrap();
            let addr = |n: usize| endpoint["addresses"][n].as_str().unwrap().to_owned();
            [addr(0), addr(1)].map(|text| text.split('/').next().unwrap().to_owned())
        };
        // Each knows itself, and nobody of another network.
        let networks =
            [("aone", BLUE_AT, &one), ("bone", RED_AT, &other), ("cone", GREEN_AT, &third)];
        for (asker, at, addrs) in networks {
            finds(world, asker, at, asker, words(addrs));
            for (stranger, ..) in networks.iter().filter(|(name, ..)| *name != asker) {
                fails(world, asker, at, stranger, "NXDOMAIN");
            }
        }
        // The shared one is known on both, by its address there, and knows both.
        let (blue, red) = (own(BLUE_AT), own(RED_AT));
        finds(world, "aone", BLUE_AT, "abtwo", words(&blue));
        finds(world, "bone", RED_AT, "abtwo", words(&red));
        finds(world, "abtwo", BLUE_AT, "aone", words(&one));
        finds(world, "abtwo", RED_AT, "bone", words(&other));
        finds(world, "abtwo", BLUE_AT, "abtwo", words(&blue));
        finds(world, "abtwo", RED_AT, "abtwo", words(&red));
        fails(world, "cone", GREEN_AT, "abtwo", "NXDOMAIN");
        // One alias on two networks is somebody else on each.
        finds(world, "abtwo", BLUE_AT, "shop", words(&one));
        finds(world, "abtwo", RED_AT, "shop", words(&other));
        // Backwards, the shared one has the name of each network.
        for (at, addrs, whole) in [(BLUE_AT, &blue, "abtwo.blue."), (RED_AT, &red, "abtwo.red.")] {
            for addr in addrs {
                assert_eq!(dig(world, "abtwo", &format!("@{} +short -x {addr}", at[0])), whole);
            }
        }
        // Whatever gateway is asked, a container hears of its own network only.
        fails(world, "cone", BLUE_AT, "aone", "NXDOMAIN");
    });
}

#[test]
fn internal_networks_and_name_servers_of_the_administrator_s_choice() {
    let name = "name_suite::internal_networks_and_name_servers_of_the_administrator_s_choice";
    in_world(name, "nameserver 127.0.0.1\n", |world| {
        dnsmasq("127.0.0.1", &OUTSIDE);
        dnsmasq("127.0.0.2", &["--address=/example.test/203.0.113.8", "--domain-needed"]);
        world.ok(&format!("network create red --internal {RED}"));
        let one = texts(&world.container("aone", "--network blue"));
        let inner = texts(&world.container("inner", "--network red"));
        // An internal network's own names, in both families, and nothing else.
        finds(world, "inner", RED_AT, "inner", words(&inner));
        fails(world, "inner", RED_AT, "example.test", "REFUSED");
        // Chosen servers that answer: they are asked, and the host's are not.
        let config = world.path("config.toml");
        let restart = |servers: &str| {
            std::fs::write(&config, format!("dns = [{servers}]\n")).unwrap();
            world.ok("daemon stop");
            world.start(&format!("--config {}", config.display()));
        };
        restart("\"127.0.0.2\"");
        eventually("the container is back", PATIENCE, || {
            world.names().contains(&"aone".to_owned())
        });
        finds(world, "aone", BLUE_AT, "aone", words(&one));
        finds(world, "aone", BLUE_AT, "example.test", ["203.0.113.8", ""]);
        // One that is not there: its names fail, and ours do not.
        restart("\"127.0.0.255\"");
        eventually("the container is back", PATIENCE, || {
            world.names().contains(&"aone".to_owned())
        });
        finds(world, "aone", BLUE_AT, "aone", words(&one));
        fails(world, "aone", BLUE_AT, "example.test", "SERVFAIL");
    });
}

#[test]
fn whoever_has_the_host_s_port_53_keeps_it() {
    let name = "name_suite::whoever_has_the_host_s_port_53_keeps_it";
    in_world(name, "nameserver 127.0.0.1\n", |world| {
        let udp = std::net::UdpSocket::bind("[::]:53").unwrap();
        let tcp = std::net::TcpListener::bind("[::]:53").unwrap();
        let one = texts(&world.container("aone", "--network blue"));
        finds(world, "aone", BLUE_AT, "aone", words(&one));
        assert_eq!(dig(world, "aone", "@10.20.0.1 +tcp +short aone"), one[0]);
        drop((udp, tcp));
    });
}
