//! Who may not reach whom, and how that is changed under way.

use wharf::io::netlink::Netlink;
use wharf::io::netns::in_namespace;

use crate::support::{PATIENCE, in_world, udp_in};
use crate::traffic::{NEVER, ask_udp, ping, serve_whoami, whoami_tcp, whoami_udp};
use crate::world::{BLUE, Container, FAMILIES, RED, World};

#[track_caller]
fn reaches(from: &Container, to: &Container) {
    for family in FAMILIES {
        let address = (to.addr(family), 5000).into();
        for ask in [whoami_tcp, whoami_udp] {
            let seen = ask(&from.ns(), address, PATIENCE).unwrap();
            assert_eq!(seen.by_server, seen.client);
        }
        ping(&from.ns(), to.addr(family), PATIENCE).unwrap();
    }
}

#[track_caller]
fn reaches_not(from: &Container, to: &Container) {
    for family in FAMILIES {
        let address = (to.addr(family), 5000).into();
        for ask in [whoami_tcp, whoami_udp] {
            assert!(ask(&from.ns(), address, NEVER).is_err(), "{} -> {}", from.name, to.name);
        }
        assert!(ping(&from.ns(), to.addr(family), NEVER).is_err());
    }
}

#[test]
fn two_networks_reach_each_other_only_while_both_allow_it() {
    in_world("isolation::two_networks_reach_each_other_only_while_both_allow_it", |dir| {
        let world = World::new(dir);
        world.ok(&format!("network create blue {BLUE}"));
        world.ok(&format!("network create red --isolated=false {RED}"));
        let (b, r) =
            (world.container("b", "--network blue"), world.container("r", "--network red"));
        serve_whoami(&b.ns(), 5000);
        serve_whoami(&r.ns(), 5000);
        reaches_not(&b, &r);
        reaches_not(&r, &b);
        assert!(world.drops("b", "network-isolated") > 0);
        let to = format!("{}:5000", r.addrs[0]);
        let trace = world.output(&["trace", "--from", "b", "--to", &to]);
        assert_eq!(trace.status.code(), Some(1), "a packet that would be dropped is a failure");
        assert!(String::from_utf8_lossy(&trace.stdout).contains("network-isolated"), "{trace:?}");

        world.ok("network update blue --isolated=false");
        reaches(&b, &r);
        reaches(&r, &b);

        // What runs is cut, too.
        let sockets = FAMILIES.map(|family| {
            let socket = udp_in(&b.ns(), b.addr(family), 0);
            socket.connect((r.addr(family), 5000)).unwrap();
            ask_udp(&socket, PATIENCE).unwrap();
            socket
        });
        world.ok("network update red --isolated=true");
        for socket in sockets {
            assert!(ask_udp(&socket, NEVER).is_err(), "a flow outlived the permission");
        }
        reaches_not(&b, &r);
    });
}

#[test]
fn without_icc_containers_reach_their_gateway_and_not_each_other() {
    in_world("isolation::without_icc_containers_reach_their_gateway_and_not_each_other", |dir| {
        let world = World::new(dir);
        world.ok(&format!("network create blue --icc=false {BLUE}"));
        let (a, b) =
            (world.container("a", "--network blue"), world.container("b", "--network blue"));
        serve_whoami(&b.ns(), 5000);
        reaches_not(&a, &b);
        for gateway in ["10.20.0.1", "fd20::1"] {
            ping(&a.ns(), gateway.parse().unwrap(), PATIENCE).unwrap();
        }
        assert!(world.drops("a", "port-isolated") > 0);
        world.ok("network update blue --icc=true");
        // The kernel asks for a neighbour that did not answer only now and then.
        crate::world::eventually("they see each other", PATIENCE, || {
            FAMILIES.iter().all(|family| ping(&a.ns(), b.addr(*family), NEVER).is_ok())
        });
        reaches(&a, &b);
        world.ok("network update blue --icc=false");
        reaches_not(&a, &b);
    });
}

#[test]
fn an_internal_network_has_members_and_no_default_route() {
    in_world("isolation::an_internal_network_has_members_and_no_default_route", |dir| {
        let world = World::new(dir);
        world.ok(&format!("network create blue --internal {BLUE}"));
        let (a, b) =
            (world.container("a", "--network blue"), world.container("b", "--network blue"));
        serve_whoami(&b.ns(), 5000);
        reaches(&a, &b);
        let routes = in_namespace(&a.ns(), || Netlink::open().unwrap().routes().unwrap()).unwrap();
        assert!(!routes.iter().any(wharf::io::netlink::Route::is_default), "{routes:?}");
    });
}
