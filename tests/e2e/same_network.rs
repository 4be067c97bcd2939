//! Two containers of one network, and what the listings say about them.

use serde_json::Value;
use wharf::wire::addr::Family;

use crate::support::{PATIENCE, in_world};
use crate::traffic::{bulk, ping, serve_whoami, whoami_tcp, whoami_udp};
use crate::world::{BLUE, Container, FAMILIES, World};

fn two(world: &World) -> (Container, Container) {
    world.ok(&format!("network create blue {BLUE}"));
    (world.container("a", "--network blue"), world.container("b", "--network blue"))
}

#[test]
fn tcp_between_two_containers_is_byte_exact_in_both_directions() {
    in_world("same_network::tcp_between_two_containers_is_byte_exact_in_both_directions", |dir| {
        let world = World::new(dir);
        let (a, b) = two(&world);
        for family in FAMILIES {
            bulk(&a.ns(), &b.ns(), b.addr(family), 64 << 20);
        }
    });
}

#[test]
fn containers_reach_each_other_by_udp_tcp_and_ping() {
    in_world("same_network::containers_reach_each_other_by_udp_tcp_and_ping", |dir| {
        let world = World::new(dir);
        let (a, b) = two(&world);
        serve_whoami(&b.ns(), 5000);
        for family in FAMILIES {
            let to = (b.addr(family), 5000).into();
            for ask in [whoami_tcp, whoami_udp] {
                let seen = ask(&a.ns(), to, PATIENCE).unwrap();
                assert_eq!((seen.by_server, seen.client.ip()), (seen.client, a.addr(family)));
            }
            ping(&a.ns(), b.addr(family), PATIENCE).unwrap();
            ping(&b.ns(), a.addr(family), PATIENCE).unwrap();
        }
    });
}

#[test]
fn the_gateway_answers_pings() {
    in_world("same_network::the_gateway_answers_pings", |dir| {
        let world = World::new(dir);
        let (a, _) = two(&world);
        for gateway in ["10.20.0.1", "fd20::1"] {
            ping(&a.ns(), gateway.parse().unwrap(), PATIENCE).unwrap();
        }
    });
}

#[test]
fn without_any_privilege_containers_reach_each_other() {
    in_world("same_network::without_any_privilege_containers_reach_each_other", |dir| {
        let world = World::unprivileged(dir);
        let (a, b) = two(&world);
        serve_whoami(&b.ns(), 5000);
        for family in FAMILIES {
            whoami_tcp(&a.ns(), (b.addr(family), 5000).into(), PATIENCE).unwrap();
            ping(&a.ns(), b.addr(family), PATIENCE).unwrap();
        }
        // What has no privilege can do the rest of a container's life, too.
        let names = world.output(&["exec", "a", "--", "ls", "/sys/class/net"]);
        assert!(names.status.success());
        world.ok("stop a b");
        assert!(world.names().is_empty());
    });
}

fn find(list: &Value, wanted: impl Fn(&Value) -> bool) -> &Value {
    let found = list.as_array().unwrap().iter().find(|item| wanted(item));
    found.unwrap_or_else(|| panic!("not in {list:#}"))
}

#[test]
fn the_listings_show_two_containers_and_their_traffic() {
    in_world("same_network::the_listings_show_two_containers_and_their_traffic", |dir| {
        let world = World::new(dir);
        world.ok(&format!("network create blue {BLUE}"));
        let a = world.container("a", "--network blue --label tier=front --alias www");
        let b = world.container("b", "--network blue");
        serve_whoami(&b.ns(), 5000);
        for family in FAMILIES {
            whoami_tcp(&a.ns(), (b.addr(family), 5000).into(), PATIENCE).unwrap();
        }

        assert_eq!(world.ok("inspect a --address"), a.addr(Family::V4).to_string());
        assert_eq!(world.names(), ["a", "b"]);
        let ps = world.json("ps --json");
        let shown = find(&ps, |e| e["name"] == "a");
        assert_eq!(shown["network"], "blue");
        assert_eq!(shown["state"], "up");
        assert_eq!(shown["labels"]["tier"], "front");
        assert_eq!(shown["aliases"][0], "www");
        assert_eq!(shown["mac"], a.mac.as_str());
        assert_eq!(a.mac, "02:42:0a:14:00:02", "Docker's rule for 10.20.0.2");

        let flows = world.json("flows --json");
        for family in FAMILIES {
            let to = serde_json::json!([b.addr(family).to_string(), 5000]);
            let flow = find(&flows, |f| f["responder"] == to && f["proto"] == "tcp");
            assert_eq!((&flow["from"], &flow["to"]), (&"a".into(), &"b".into()));
            assert!(flow["packets"][0].as_u64() >= Some(3), "{flow}");
        }
        let fdb = world.json("fdb --json");
        assert_eq!(find(&fdb, |e| e["mac"] == b.mac.as_str())["port"], "b");
        let neigh = world.json("neigh --json");
        for family in FAMILIES {
            let entry = find(&neigh, |n| n["addr"] == b.addr(family).to_string());
            assert_eq!((&entry["port"], &entry["mac"]), (&"b".into(), &b.mac.as_str().into()));
        }
        let routes = world.json("routes --json");
        for subnet in ["10.20.0.0/24", "fd20::/64"] {
            assert_eq!(find(&routes, |r| r["dst"] == subnet)["to"], "blue");
        }
        let stats = world.json("stats --json");
        for name in ["a", "b"] {
            let port = find(&stats, |p| p["name"] == name);
            assert!(port["rx_frames"].as_u64() >= Some(6) && port["tx_frames"].as_u64() >= Some(6));
        }
        let status = world.json("status --json");
        assert_eq!((&status["endpoints"], &status["networks"]), (&2.into(), &2.into()));
        assert_eq!(status["default_uplink"], Value::Null);
        let text = world.ok("status");
        assert!(text.contains("none: containers reach one another, and nothing outside"), "{text}");
    });
}

#[test]
fn a_name_belongs_to_one_container_until_it_is_gone() {
    in_world("same_network::a_name_belongs_to_one_container_until_it_is_gone", |dir| {
        let world = World::new(dir);
        let (a, _) = two(&world);
        let refused = world.refused("run --network blue --name a -- true");
        refused.says(125, &["`a` exists already", &a.addr(Family::V4).to_string()]);
        world.ok("stop a");
        world.container("a", "--network blue");
        let chosen = world.ok("run --detach --network blue -- sleep infinity");
        let other = world.ok("run --detach --network blue -- sleep infinity");
        assert_ne!(chosen, other);
    });
}
