//! The `packet` uplink with static addresses: out behind the switch's address, in through published
//! ports, and back in from inside.

use std::net::SocketAddr;

use wharf::wire::addr::Family;

use crate::support::{PATIENCE, in_world, udp_in};
use crate::traffic::{NEVER, ask_udp, bulk, ping, serve_whoami, whoami_tcp, whoami_udp};
use crate::world::{BLUE, Container, FAMILIES, Lan, RED, World, eventually};

/// A daemon with an uplink on a LAN, and the network `blue` that leaves by it.
fn world(dir: &std::path::Path) -> (World, Lan) {
    let lan = Lan::new();
    let world = World::new(dir);
    world.ok(&format!("uplink create default {}", Lan::UPLINK));
    world.ok(&format!("network create blue {BLUE}"));
    (world, lan)
}

fn ours(family: Family, port: u16) -> SocketAddr {
    (Lan::ours(family), port).into()
}

/// Asserts that the remote host reaches this port, and is seen as itself.
#[track_caller]
fn reaches(lan: &Lan, port: u16) {
    for family in FAMILIES {
        for ask in [whoami_tcp, whoami_udp] {
            let seen = ask(&lan.remote, ours(family, port), PATIENCE).unwrap();
            assert_eq!(seen.by_server, seen.client, "the client's own address is seen");
            assert_eq!(seen.client.ip(), Lan::host(family));
        }
    }
}

#[track_caller]
fn reaches_not(lan: &Lan, port: u16) {
    for family in FAMILIES {
        for ask in [whoami_tcp, whoami_udp] {
            let seen = ask(&lan.remote, ours(family, port), NEVER);
            assert!(seen.is_err(), "port {port} is open: {seen:?}");
        }
    }
}

#[test]
fn a_container_reaches_the_lan_behind_the_uplink_s_address() {
    in_world("packet_uplink::a_container_reaches_the_lan_behind_the_uplink_s_address", |dir| {
        let (world, lan) = world(dir);
        let web = world.container("web", "--network blue");
        serve_whoami(&lan.remote, 7000);
        for family in FAMILIES {
            let to = (Lan::host(family), 7000).into();
            for ask in [whoami_tcp, whoami_udp] {
                let seen = ask(&web.ns(), to, PATIENCE).unwrap();
                assert_eq!(seen.client.ip(), web.addr(family));
                assert_eq!(seen.by_server.ip(), Lan::ours(family));
                assert_eq!(seen.by_server.port(), seen.client.port(), "the port is kept");
            }
            ping(&web.ns(), Lan::host(family), PATIENCE).unwrap();
        }
        let flows = world.json("flows --json --proto tcp");
        let flow = flows.as_array().unwrap().iter().find(|f| f["from"] == "web").unwrap();
        assert_eq!(flow["to"], "default");
    });
}

#[test]
fn many_bytes_go_out_and_come_back_exactly() {
    in_world("packet_uplink::many_bytes_go_out_and_come_back_exactly", |dir| {
        let (world, lan) = world(dir);
        let web = world.container("web", "--network blue");
        for family in FAMILIES {
            bulk(&web.ns(), &lan.remote, Lan::host(family), 16 << 20);
        }
    });
}

#[test]
fn two_containers_with_one_source_port_are_told_apart() {
    in_world("packet_uplink::two_containers_with_one_source_port_are_told_apart", |dir| {
        let (world, lan) = world(dir);
        let (a, b) =
            (world.container("a", "--network blue"), world.container("b", "--network blue"));
        serve_whoami(&lan.remote, 7000);
        for family in FAMILIES {
            let ask = |c: &Container| {
                let socket = udp_in(&c.ns(), c.addr(family), 4444);
                socket.connect((Lan::host(family), 7000)).unwrap();
                (ask_udp(&socket, PATIENCE).unwrap(), socket)
            };
            let ((from_a, _a), (from_b, _b)) = (ask(&a), ask(&b));
            assert_ne!(from_a.by_server, from_b.by_server);
            assert_eq!(from_a.by_server.ip(), from_b.by_server.ip());
        }
    });
}

#[test]
fn the_lan_reaches_a_published_port_and_is_seen_as_itself() {
    in_world("packet_uplink::the_lan_reaches_a_published_port_and_is_seen_as_itself", |dir| {
        let (world, lan) = world(dir);
        let web = world.container("web", "--network blue -p 1180:5000 -p 1180:5000/udp");
        serve_whoami(&web.ns(), 5000);
        reaches(&lan, 1180);
        // What is not published is not there, although a server listens.
        reaches_not(&lan, 5000);
        assert!(world.drops("default", "not-published") > 0);
        let ports = world.ok("port web");
        assert!(ports.contains("*:1180") && ports.contains("5000"), "{ports}");
        // The switch's own address answers.
        for family in FAMILIES {
            ping(&lan.remote, Lan::ours(family), PATIENCE).unwrap();
        }
    });
}

#[test]
fn many_bytes_come_in_through_a_published_port_exactly() {
    in_world("packet_uplink::many_bytes_come_in_through_a_published_port_exactly", |dir| {
        let (world, lan) = world(dir);
        let web = world.container("web", "--network blue -p 1180:5000");
        for family in FAMILIES {
            let listener = wharf::io::netns::in_namespace(&web.ns(), || {
                std::net::TcpListener::bind((web.addr(family), 5000)).unwrap()
            });
            let listener = listener.unwrap();
            let client = crate::support::connect_in(&lan.remote, ours(family, 1180));
            let (server, _) = listener.accept().unwrap();
            let transfer = crate::traffic::Transfer::between(client, server);
            transfer.goes_on(16 << 20, 6 * PATIENCE);
            transfer.finish();
        }
    });
}

#[test]
fn a_range_of_ports_is_published_port_by_port() {
    in_world("packet_uplink::a_range_of_ports_is_published_port_by_port", |dir| {
        let (world, lan) = world(dir);
        let options = "--network blue -p 9000-9002:6000-6002 -p 9000-9002:6000-6002/udp";
        let web = world.container("web", options);
        serve_whoami(&web.ns(), 6000);
        serve_whoami(&web.ns(), 6002);
        reaches(&lan, 9000);
        reaches(&lan, 9002);
        reaches_not(&lan, 9003);
        assert_eq!(world.json("port --json").as_array().unwrap().len(), 2, "a range is one thing");
        assert_eq!(world.json("status --json")["published_ports"], 6);
    });
}

#[test]
fn a_port_that_is_left_to_the_switch_is_chosen_and_told() {
    in_world("packet_uplink::a_port_that_is_left_to_the_switch_is_chosen_and_told", |dir| {
        let (world, lan) = world(dir);
        let web = world.container("web", "--network blue -p 0:5000 -p 5000/udp");
        serve_whoami(&web.ns(), 5000);
        let ports = world.json("port web --json");
        let chosen: Vec<u16> = (ports.as_array().unwrap().iter())
            .map(|p| {
                p["host_ports"]
                    .as_str()
                    .map_or_else(|| panic!("a port is text: {p}"), |text| text.parse().unwrap())
            })
            .collect();
        assert_eq!(chosen.len(), 2);
        assert!(chosen.iter().all(|port| *port >= 49_153), "{chosen:?}");
        for family in FAMILIES {
            whoami_tcp(&lan.remote, ours(family, chosen[0]), PATIENCE).unwrap();
            whoami_udp(&lan.remote, ours(family, chosen[1]), PATIENCE).unwrap();
        }
        let told = world.ok("publish web 0:5001");
        assert!(told.starts_with("*:") && told.ends_with("->5001/tcp"), "{told}");
    });
}

#[test]
fn a_published_port_is_reached_from_its_own_and_from_another_network() {
    in_world(
        "packet_uplink::a_published_port_is_reached_from_its_own_and_from_another_network",
        |dir| {
            let (world, lan) = world(dir);
            world.ok(&format!("network create red {RED}"));
            let web = world.container("web", "--network blue -p 1180:5000 -p 1180:5000/udp");
            let near = world.container("near", "--network blue");
            let far = world.container("far", "--network red");
            serve_whoami(&web.ns(), 5000);
            for family in FAMILIES {
                for ask in [whoami_tcp, whoami_udp] {
                    // From the same subnet the answer must come back this way, so the gateway is seen.
                    let gateway = if family == Family::V4 { "10.20.0.1" } else { "fd20::1" };
                    let seen = ask(&near.ns(), ours(family, 1180), PATIENCE).unwrap();
                    assert_eq!(seen.by_server.ip().to_string(), gateway);
                    // The server itself, through its own publication.
                    ask(&web.ns(), ours(family, 1180), PATIENCE).unwrap();
                    // From elsewhere the client is seen as itself.
                    let seen = ask(&far.ns(), ours(family, 1180), PATIENCE).unwrap();
                    assert_eq!(seen.by_server, seen.client);
                    // The networks are isolated all the same.
                    assert!(ask(&far.ns(), (web.addr(family), 5000).into(), NEVER).is_err());
                }
            }
            reaches(&lan, 1180);
        },
    );
}

#[test]
fn a_live_container_s_port_is_published_and_unpublished() {
    in_world("packet_uplink::a_live_container_s_port_is_published_and_unpublished", |dir| {
        let (world, lan) = world(dir);
        let web = world.container("web", "--network blue");
        serve_whoami(&web.ns(), 5000);
        reaches_not(&lan, 1180);
        world.ok("publish web 1180:5000 1180:5000/udp");
        reaches(&lan, 1180);

        // An established UDP flow and a TCP one end with their publication.
        let sockets = FAMILIES.map(|family| {
            let socket = udp_in(&lan.remote, Lan::host(family), 0);
            socket.connect(ours(family, 1180)).unwrap();
            ask_udp(&socket, PATIENCE).unwrap();
            socket
        });
        world.ok("unpublish web 1180:5000 1180:5000/udp");
        reaches_not(&lan, 1180);
        for socket in sockets {
            assert!(ask_udp(&socket, NEVER).is_err(), "the flow outlived its publication");
        }
        assert!(world.ok("port").lines().count() <= 1);
        world.ok("publish web 1180:5000 1180:5000/udp");
        reaches(&lan, 1180);
    });
}

/// Docker's users lose the first datagrams' flow for minutes when a container is replaced.
#[test]
fn a_client_that_goes_on_talking_reaches_the_next_container_on_its_port() {
    in_world(
        "packet_uplink::a_client_that_goes_on_talking_reaches_the_next_container_on_its_port",
        |dir| {
            let (world, lan) = world(dir);
            let first = world.container("first", "--network blue -p 1180:5000/udp");
            serve_whoami(&first.ns(), 5000);
            let sockets = FAMILIES.map(|family| {
                let socket = udp_in(&lan.remote, Lan::host(family), 0);
                socket.connect(ours(family, 1180)).unwrap();
                ask_udp(&socket, PATIENCE).unwrap();
                socket
            });
            world.ok("stop -t 0 first");
            // Still talking, into the void.
            for socket in &sockets {
                assert!(ask_udp(socket, NEVER).is_err());
            }
            let second = world.container("second", "--network blue -p 1180:5000/udp");
            serve_whoami(&second.ns(), 5000);
            for socket in &sockets {
                ask_udp(socket, PATIENCE).unwrap();
            }
        },
    );
}

#[test]
fn a_network_without_uplink_or_an_internal_one_has_no_way_out() {
    in_world("packet_uplink::a_network_without_uplink_or_an_internal_one_has_no_way_out", |dir| {
        let (world, lan) = world(dir);
        serve_whoami(&lan.remote, 7000);
        world.ok(&format!("network create red --internal {RED}"));
        let red = world.container("red", "--network red");
        let blue = world.container("blue", "--network blue");
        for family in FAMILIES {
            let to = (Lan::host(family), 7000).into();
            assert!(whoami_tcp(&red.ns(), to, NEVER).is_err());
            whoami_tcp(&blue.ns(), to, PATIENCE).unwrap();
        }
        world.ok("network update blue --uplink none");
        for family in FAMILIES {
            let to = (Lan::host(family), 7000).into();
            assert!(whoami_tcp(&blue.ns(), to, NEVER).is_err());
        }
        world.ok("network update blue --uplink default");
        for family in FAMILIES {
            whoami_tcp(&blue.ns(), (Lan::host(family), 7000).into(), PATIENCE).unwrap();
        }
    });
}

#[test]
fn an_uplink_whose_interface_disappears_says_so() {
    in_world("packet_uplink::an_uplink_whose_interface_disappears_says_so", |dir| {
        let (world, lan) = world(dir);
        drop(lan);
        // The other end of the cable dies with its namespace, and so does ours.
        eventually("the uplink is told to be dead", PATIENCE, || {
            world.json("uplink ls --json")[0]["state"] != "works"
        });
        let notes = world.ok("status");
        assert!(notes.contains("the uplink `default` does not work"), "{notes}");
    });
}
