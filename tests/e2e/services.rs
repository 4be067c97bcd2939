//! Services with real containers.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};

use wharf::wire::addr::Family;

use crate::support::{PATIENCE, in_world};
use crate::traffic::{serve_whoami, whoami_tcp, whoami_udp};
use crate::world::{BLUE, Container, FAMILIES, Lan, World, eventually};

const INSIDE: u16 = 5000;
const PORTS: &str = "--port 80:5000/tcp --port 80:5000/udp";

/// A container that the service `web` selects, serving.
fn backend(world: &World, name: &str) -> Container {
    let container = world.container(name, "--network blue --label app=web");
    serve_whoami(&container.ns(), INSIDE);
    container
}

/// The virtual address of a family.
fn vip(world: &World, family: Family) -> SocketAddr {
    let service = world.json("service inspect web");
    let vips = service[0]["vips"].as_array().unwrap().iter();
    let mut vips = vips.map(|vip| vip.as_str().unwrap().parse::<IpAddr>().unwrap());
    SocketAddr::new(vips.find(|vip| vip.is_ipv4() == (family == Family::V4)).unwrap(), 80)
}

/// Addresses of backends that flows to this address went to, which are forgotten.
fn responders(world: &World, to: SocketAddr) -> BTreeSet<String> {
    let flows = world.json(&format!("flows --json --to {}", to.ip()));
    let flows = flows.as_array().unwrap().iter();
    let responders = flows.map(|flow| {
        assert_eq!(flow["service"], "web", "{flow}");
        flow["responder"][0].as_str().unwrap().to_owned()
    });
    let responders = responders.collect();
    world.ok(&format!("flows flush --to {}", to.ip()));
    responders
}

#[test]
fn containers_reach_a_service_whose_backends_come_and_go() {
    in_world("services::containers_reach_a_service_whose_backends_come_and_go", |dir| {
        let world = World::new(dir);
        world.ok(&format!("network create blue {BLUE}"));
        let client = world.container("client", "--network blue");
        world.ok(&format!("service create web {PORTS} --backend-selector app=web"));
        for family in FAMILIES {
            let refused = whoami_tcp(&client.ns(), vip(&world, family), PATIENCE).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "nobody serves");
        }
        let first = backend(&world, "first");
        let second = backend(&world, "second");
        for family in FAMILIES {
            let to = vip(&world, family);
            for _ in 0..20 {
                whoami_tcp(&client.ns(), to, PATIENCE).unwrap();
            }
            whoami_udp(&client.ns(), to, PATIENCE).unwrap();
            let both = [&first, &second].map(|c| c.addr(family).to_string());
            assert_eq!(responders(&world, to), BTreeSet::from(both), "both serve");
            let itself = whoami_tcp(&second.ns(), to, PATIENCE);
            itself.expect("a backend reaches its own service");
        }
        let trace = world.ok(&format!("trace --from client --to {}", vip(&world, Family::V4)));
        assert!(trace.contains("web: backend "), "{trace}");
        world.ok("detach first");
        for family in FAMILIES {
            let to = vip(&world, family);
            responders(&world, to);
            for _ in 0..10 {
                whoami_tcp(&client.ns(), to, PATIENCE).expect("the other one serves");
            }
            let left = BTreeSet::from([second.addr(family).to_string()]);
            assert_eq!(responders(&world, to), left);
        }
    });
}

#[test]
fn a_client_stays_with_its_backend_if_the_service_wants_it_also_across_a_restart() {
    let name =
        "services::a_client_stays_with_its_backend_if_the_service_wants_it_also_across_a_restart";
    in_world(name, |dir| {
        let world = World::new(dir);
        world.ok(&format!("network create blue {BLUE}"));
        let client = world.container("client", "--network blue");
        let _backends = ["a", "b", "c"].map(|name| backend(&world, name));
        world.ok(&format!("service create web {PORTS} --backend-selector app=web"));
        world.ok("service update web --affinity client-ip:600");
        let served = |family| {
            let to = vip(&world, family);
            for _ in 0..12 {
                whoami_tcp(&client.ns(), to, PATIENCE).unwrap();
            }
            responders(&world, to)
        };
        let before = FAMILIES.map(served);
        assert!(before.iter().all(|who| who.len() == 1), "{before:?}");
        world.kill_daemon();
        world.start("");
        assert_eq!(FAMILIES.map(served), before);
        world.ok("service rm web");
        assert_eq!(world.json("service ls --json").as_array().unwrap().len(), 0);
    });
}

#[test]
fn a_node_port_is_reached_from_the_lan_and_sees_who_asks() {
    in_world("services::a_node_port_is_reached_from_the_lan_and_sees_who_asks", |dir| {
        let lan = Lan::new();
        let world = World::new(dir);
        world.ok(&format!("uplink create default {}", Lan::UPLINK));
        world.ok(&format!("network create blue {BLUE}"));
        let _backends = ["a", "b"].map(|name| backend(&world, name));
        world.ok(&format!(
            "service create web {PORTS} --backend-selector app=web --node-port 30080 \
             --node-port 30080 --external-policy local"
        ));
        for family in FAMILIES {
            let to = SocketAddr::new(Lan::ours(family), 30_080);
            for ask in [whoami_tcp, whoami_udp] {
                let seen = ask(&lan.remote, to, PATIENCE).unwrap();
                assert_eq!(seen.by_server.ip(), Lan::host(family), "the source address is kept");
            }
        }
    });
}

#[test]
fn a_backend_that_does_not_take_connections_gets_none_until_it_does() {
    in_world("services::a_backend_that_does_not_take_connections_gets_none_until_it_does", |dir| {
        let world = World::new(dir);
        world.ok(&format!("network create blue {BLUE}"));
        let client = world.container("client", "--network blue");
        world.ok(&format!(
            "service create web {PORTS} --backend-selector app=web --health tcp --health-interval 1"
        ));
        let good = backend(&world, "good");
        let late = world.container("late", "--network blue --label app=web");
        let unready = |name: &str| {
            let service = world.json("service inspect web");
            let mut members = service[0]["members"].as_array().unwrap().iter();
            let member = members.find(|member| member["name"] == name).unwrap();
            member["unready"].as_object().unwrap().clone()
        };
        eventually("the one that serves is ready", 3 * PATIENCE, || unready("good").is_empty());
        let refused =
            |name: &str| unready(name).values().all(|why| why == "refused the connection");
        eventually("the other one is not", 3 * PATIENCE, || refused("late"));
        assert!(world.ok("service ls").contains("1/2"));
        for family in FAMILIES {
            let to = vip(&world, family);
            for _ in 0..10 {
                whoami_tcp(&client.ns(), to, PATIENCE).expect("the one that is ready serves");
            }
            assert_eq!(responders(&world, to), BTreeSet::from([good.addr(family).to_string()]));
        }
        serve_whoami(&late.ns(), INSIDE);
        eventually("the other one comes", 3 * PATIENCE, || unready("late").is_empty());
        for family in FAMILIES {
            let to = vip(&world, family);
            for _ in 0..20 {
                whoami_tcp(&client.ns(), to, PATIENCE).unwrap();
            }
            let both = [&good, &late].map(|c| c.addr(family).to_string());
            assert_eq!(responders(&world, to), BTreeSet::from(both));
        }
        let events = world.ok("events");
        assert!(events.contains("late serves web at "), "{events}");
    });
}
