//! The `packet` uplink that shares the host's address, between two real kernels: the test's own namespace
//! is the host, whose `nic0` has its addresses.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use wharf::io::netlink::{AddressOptions, Netlink};
use wharf::io::netns::NetNs;
use wharf::wire::addr::Family;

use crate::support::{PATIENCE, in_world};
use crate::traffic::{NEVER, Transfer, ping, serve_whoami, whoami_tcp, whoami_udp};
use crate::world::{BLUE, FAMILIES, Lan, World, eventually};

const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";
const UPLINK: &str = "uplink create lan --packet nic0 --share-host-address";

fn address(cidr: &str, is: bool) {
    let mut netlink = Netlink::open().unwrap();
    let index = netlink.link("nic0").unwrap().index;
    let net = cidr.parse().unwrap();
    if is {
        netlink.add_address(index, net, AddressOptions::default()).unwrap();
    } else {
        netlink.delete_address(index, net).unwrap();
    }
}

/// A host with a remote one on its LAN, and a daemon without uplinks.
fn host(dir: &std::path::Path) -> (World, Lan) {
    let lan = Lan::new();
    address("192.0.2.2/24", true);
    address("2001:db8::2/64", true);
    let world = World::new(dir);
    world.ok(&format!("network create blue {BLUE}"));
    (world, lan)
}

/// The same with the uplink, by which `blue` leaves.
fn sharing(dir: &std::path::Path) -> (World, Lan) {
    let (world, lan) = host(dir);
    world.ok(UPLINK);
    world.ok("network update blue --uplink lan");
    (world, lan)
}

fn own_ns() -> NetNs {
    NetNs::current().unwrap()
}

fn ours(family: Family, port: u16) -> SocketAddr {
    (Lan::ours(family), port).into()
}

/// Resets that the host's kernel has sent.
fn resets() -> u64 {
    let text = fs::read_to_string("/proc/net/snmp").unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names.split_whitespace().position(|name| name == "OutRsts").unwrap();
    values.split_whitespace().nth(at).unwrap().parse().unwrap()
}

/// Whether the host's kernel answers for a port by itself.
fn kernel_answers(lan: &Lan, port: u16) -> bool {
    let before = resets();
    for family in FAMILIES {
        assert!(whoami_tcp(&lan.remote, ours(family, port), NEVER).is_err());
    }
    resets() != before
}

fn uplink(world: &World) -> serde_json::Value {
    world.json("uplink inspect lan")[0].clone()
}

#[test]
fn a_container_and_its_host_speak_to_the_same_remote_from_one_address() {
    in_world("share::a_container_and_its_host_speak_to_the_same_remote_from_one_address", |dir| {
        let (world, lan) = sharing(dir);
        assert_eq!(uplink(&world)["shared"]["ports"], "61440-65535");
        let web = world.container("web", "--network blue");
        serve_whoami(&lan.remote, 7000);
        let before = resets();
        for family in FAMILIES {
            let to = (Lan::host(family), 7000).into();
            for ask in [whoami_tcp, whoami_udp] {
                let seen = ask(&web.ns(), to, PATIENCE).unwrap();
                assert_eq!(seen.by_server.ip(), Lan::ours(family));
                assert!(seen.by_server.port() >= 61_440, "{}", seen.by_server);
                let seen = ask(&own_ns(), to, PATIENCE).unwrap();
                assert_eq!(seen.by_server, seen.client, "the host goes its own way");
                assert!(seen.by_server.port() < 61_440, "{}", seen.by_server);
            }
            ping(&web.ns(), Lan::host(family), PATIENCE).unwrap();
            ping(&own_ns(), Lan::host(family), PATIENCE).unwrap();
            ping(&lan.remote, Lan::ours(family), PATIENCE).unwrap();
            // Both at once, and every byte is the right one.
            let both =
                [web.ns(), own_ns()].map(|ns| Transfer::start(&ns, &lan.remote, Lan::host(family)));
            for transfer in &both {
                transfer.goes_on(4_000_000, PATIENCE);
            }
            let sent = both.map(Transfer::finish);
            assert!(sent.iter().all(|bytes| *bytes > 4_000_000));
        }
        assert_eq!(resets(), before, "the kernel has reset nothing");
        let drops = world.json("stats --json");
        let lan = drops.as_array().unwrap().iter().find(|p| p["name"] == "lan").unwrap();
        assert_eq!(lan["drops"].as_array().unwrap().len(), 0, "{lan}");
    });
}

#[test]
fn a_published_port_is_reached_from_the_remote_and_from_the_host_and_others_are_the_host_s() {
    in_world(
        "share::a_published_port_is_reached_from_the_remote_and_from_the_host_and_others_are_the_host_s",
        |dir| {
            let (world, lan) = sharing(dir);
            let web = world.container("web", "--network blue -p 1180:5000 -p 1180:5000/udp");
            serve_whoami(&web.ns(), 5000);
            serve_whoami(&own_ns(), 7001);
            let before = resets();
            for family in FAMILIES {
                for ask in [whoami_tcp, whoami_udp] {
                    let seen = ask(&lan.remote, ours(family, 1180), PATIENCE).unwrap();
                    assert_eq!(seen.by_server, seen.client, "the client's own address is seen");
                    ask(&own_ns(), ours(family, 1180), PATIENCE).unwrap();
                    let seen = ask(&lan.remote, ours(family, 7001), PATIENCE).unwrap();
                    assert_eq!(seen.by_server, seen.client);
                }
            }
            assert_eq!(resets(), before);
            assert!(kernel_answers(&lan, 1181), "a port that is nobody's");
            world.ok("unpublish web 1180:5000 1180:5000/udp");
            assert!(kernel_answers(&lan, 1180), "the port is the host's again");
            world.ok("publish web 1180:5000");
            for family in FAMILIES {
                whoami_tcp(&lan.remote, ours(family, 1180), PATIENCE).unwrap();
            }
        },
    );
}

/// A way in which an uplink ends.
type End = fn(&World);

#[test]
fn the_kernel_answers_again_whatever_ends_the_uplink() {
    in_world("share::the_kernel_answers_again_whatever_ends_the_uplink", |dir| {
        let (world, lan) = host(dir);
        fs::write(RESERVED, "8080,62000").unwrap();
        let reserved = || fs::read_to_string(RESERVED).unwrap().trim().to_owned();
        let ends: [(&str, End); 3] = [
            ("rm", |world| drop(world.ok("uplink rm lan"))),
            ("stop", |world| drop(world.ok("daemon stop"))),
            ("kill -9", |world| world.kill_daemon()),
        ];
        for (how, end) in ends {
            assert!(kernel_answers(&lan, 62_000), "before {how}");
            world.ok(UPLINK);
            assert_eq!(reserved(), "8080,61440-65535");
            assert!(!kernel_answers(&lan, 62_000), "{how}");
            end(&world);
            assert!(kernel_answers(&lan, 62_000), "after {how}");
            match how {
                "rm" => assert_eq!(reserved(), "8080,62000"),
                "stop" => {
                    assert_eq!(reserved(), "8080,62000");
                    world.start("");
                    assert!(!kernel_answers(&lan, 62_000), "a daemon finds its uplinks again");
                    world.ok("uplink rm lan");
                }
                _ => {
                    assert_eq!(reserved(), "8080,61440-65535", "nobody could give it back");
                    fs::write(RESERVED, "8080,9000,61440-65535").unwrap();
                    world.start("");
                    assert_eq!(reserved(), "8080,9000,61440-65535");
                    world.ok("uplink rm lan");
                    assert_eq!(reserved(), "8080,9000,62000");
                }
            }
        }
    });
}

#[test]
fn who_uses_a_port_of_the_range_is_named_and_the_range_is_moved_or_refused() {
    in_world(
        "share::who_uses_a_port_of_the_range_is_named_and_the_range_is_moved_or_refused",
        |dir| {
            let (world, _lan) = host(dir);
            let tcp = TcpListener::bind("[::]:62001").unwrap();
            let me = format!("(process {})", std::process::id());
            let refused = world.refused(&format!("{UPLINK} --ports 61440-65535"));
            refused.says(1, &[&me, "62001/tcp", "--ports"]);
            world.ok(UPLINK);
            assert_eq!(uplink(&world)["shared"]["ports"], "28672-32767");
            world.ok("uplink rm lan");
            drop(tcp);
            let _udp = UdpSocket::bind("192.0.2.2:500").unwrap();
            let refused = world.refused(&format!("{UPLINK} --ports 500-600"));
            refused.says(1, &[&me, "500/udp"]);
            world.ok(UPLINK);
            let refused = world.refused("uplink create two --packet nic0 --share-host-address");
            refused.says(1, &["uplink lan"]);
            let refused = world.refused(&format!("{UPLINK} --address 192.0.2.5/24"));
            assert_eq!(refused.code, 2, "{refused:?}");
        },
    );
}

#[test]
fn a_conflict_that_comes_later_is_noticed_and_counted() {
    in_world("share::a_conflict_that_comes_later_is_noticed_and_counted", |dir| {
        let (world, _lan) = sharing(dir);
        let _tcp = TcpListener::bind("192.0.2.2:62001").unwrap();
        // A change of the host has it looked at soon.
        address("192.0.2.3/24", true);
        eventually("the conflict is counted", PATIENCE, || {
            uplink(&world)["shared"]["conflicts"] == 1
        });
        let events = world.ok("events");
        assert!(events.contains(&format!("(process {})", std::process::id())), "{events}");
    });
}

#[test]
fn a_new_address_of_the_host_is_the_uplink_s_too() {
    in_world("share::a_new_address_of_the_host_is_the_uplink_s_too", |dir| {
        let (world, lan) = sharing(dir);
        let web = world.container("web", "--network blue -p 1180:5000");
        serve_whoami(&lan.remote, 7000);
        serve_whoami(&web.ns(), 5000);
        let to = |family| (Lan::host(family), 7000).into();
        for family in FAMILIES {
            whoami_tcp(&web.ns(), to(family), PATIENCE).unwrap();
        }
        for (old, new) in [("192.0.2.2/24", "192.0.2.22/24"), ("2001:db8::2/64", "2001:db8::22/64")]
        {
            address(old, false);
            address(new, true);
        }
        let expected = serde_json::json!(["192.0.2.22/24", "2001:db8::22/64"]);
        eventually("the uplink has them", PATIENCE, || uplink(&world)["addresses"] == expected);
        for (family, new) in FAMILIES.into_iter().zip(["192.0.2.22", "2001:db8::22"]) {
            let new: IpAddr = new.parse().unwrap();
            for ask in [whoami_tcp, whoami_udp] {
                let seen = ask(&web.ns(), to(family), PATIENCE).unwrap();
                assert_eq!(seen.by_server.ip(), new);
            }
            let seen = whoami_tcp(&lan.remote, (new, 1180).into(), PATIENCE).unwrap();
            assert_eq!(seen.by_server, seen.client);
        }
    });
}

#[test]
fn a_link_that_flaps_is_used_again() {
    in_world("share::a_link_that_flaps_is_used_again", |dir| {
        let (world, lan) = sharing(dir);
        let web = world.container("web", "--network blue -p 1180:5000");
        serve_whoami(&lan.remote, 7000);
        serve_whoami(&web.ns(), 5000);
        let mut netlink = Netlink::open().unwrap();
        let index = netlink.link("nic0").unwrap().index;
        netlink.set_down(index).unwrap();
        // The kernel has taken its IPv6 addresses away.
        eventually("it is noticed", PATIENCE, || {
            uplink(&world)["addresses"] == serde_json::json!(["192.0.2.2/24"])
        });
        netlink.set_up(index).unwrap();
        address("2001:db8::2/64", true);
        eventually("it is mended", PATIENCE, || {
            uplink(&world)["addresses"].as_array().unwrap().len() == 2
        });
        for family in FAMILIES {
            let seen = whoami_tcp(&web.ns(), (Lan::host(family), 7000).into(), PATIENCE).unwrap();
            assert_eq!(seen.by_server.ip(), Lan::ours(family));
            whoami_tcp(&lan.remote, ours(family, 1180), PATIENCE).unwrap();
        }
    });
}

#[test]
fn a_nic_that_comes_back_is_shared_again() {
    in_world("share::a_nic_that_comes_back_is_shared_again", |dir| {
        let (world, lan) = sharing(dir);
        let web = world.container("web", "--network blue -p 1180:5000");
        serve_whoami(&web.ns(), 5000);
        drop(lan);
        eventually("it is noticed", PATIENCE, || uplink(&world)["state"] != "works");
        let lan = Lan::new();
        address("192.0.2.2/24", true);
        address("2001:db8::2/64", true);
        eventually("it works again", PATIENCE, || {
            uplink(&world)["addresses"].as_array().unwrap().len() == 2
        });
        for family in FAMILIES {
            let seen = whoami_tcp(&lan.remote, ours(family, 1180), PATIENCE).unwrap();
            assert_eq!(seen.by_server, seen.client);
        }
    });
}

/// A later fragment has no port: the first one says whose it is.
/// A datagram in three pieces there and back; `false`: one of them was lost.
fn exchange_large(client: &UdpSocket, server: &UdpSocket, from: IpAddr) -> bool {
    // Whoever took the bytes of a later piece for ports would find one of the uplink's: 0xf1f1.
    let (sent, mut buf) = ([0xf1; 4_000], [0; 5_000]);
    client.send(&sent).unwrap();
    let Ok((length, peer)) = server.recv_from(&mut buf) else { return false };
    assert_eq!((length, peer.ip()), (4_000, from));
    server.send_to(&sent, peer).unwrap();
    client.recv(&mut buf).is_ok_and(|length| length == 4_000)
}

#[test]
fn large_datagrams_pass_in_fragments_beside_the_host_s_own() {
    in_world("share::large_datagrams_pass_in_fragments_beside_the_host_s_own", |dir| {
        let (world, lan) = sharing(dir);
        let web = world.container("web", "--network blue -p 1180:5000/udp");
        for family in FAMILIES {
            let any = if family == Family::V4 { "0.0.0.0" } else { "::" }.parse().unwrap();
            let servers = [
                (crate::support::udp_in(&web.ns(), any, 5000), 1180),
                (crate::support::udp_in(&own_ns(), any, 7002), 7002),
            ];
            for (server, port) in servers {
                server.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
                // Each has a flow label of its own (RFC 6437), which may look like one of those ports.
                for _ in 0..100 {
                    let client = crate::support::udp_in(&lan.remote, Lan::host(family), 0);
                    client.connect(ours(family, port)).unwrap();
                    client.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
                    // As those do who speak by datagrams, it asks again when nothing comes.
                    let exchange = || exchange_large(&client, &server, Lan::host(family));
                    assert!((0..10).any(|_| exchange()), "{family:?} {port}");
                }
            }
        }
    });
}

#[test]
fn a_connection_of_the_host_s_own_is_not_disturbed_by_an_uplink_that_comes_and_goes() {
    in_world(
        "share::a_connection_of_the_host_s_own_is_not_disturbed_by_an_uplink_that_comes_and_goes",
        |dir| {
            let (world, lan) = host(dir);
            let before = resets();
            let out = Transfer::start(&own_ns(), &lan.remote, Lan::host(Family::V4));
            let into = Transfer::start(&lan.remote, &own_ns(), Lan::ours(Family::V6));
            for _ in 0..3 {
                world.ok(UPLINK);
                std::thread::sleep(Duration::from_millis(100));
                world.ok("uplink rm lan");
            }
            for transfer in [out, into] {
                transfer.goes_on(1_000_000, PATIENCE);
                transfer.finish();
            }
            assert_eq!(resets(), before);
        },
    );
}
