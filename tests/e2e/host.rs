//! The host on a network of its own: `wharf0` in the daemon's namespace, which is the test's here.

use wharf::io::netlink::{AddressOptions, Netlink};
use wharf::io::netns::NetNs;

use crate::support::{PATIENCE, in_world};
use crate::traffic::{Transfer, ping, serve_whoami, whoami_tcp, whoami_udp};
use crate::world::{BLUE, FAMILIES, RED, World, eventually, links};

fn addresses_of(interface: &str) -> Vec<String> {
    let mut netlink = Netlink::open().unwrap();
    let index = netlink.link(interface).unwrap().index;
    let all = netlink.addresses().unwrap();
    all.iter().filter(|a| a.index == index).map(|a| a.net.to_string()).collect()
}

#[test]
fn host_and_container_reach_each_other_in_both_directions() {
    in_world("host::host_and_container_reach_each_other_in_both_directions", |dir| {
        let world = World::new(dir);
        world.ok(&format!("network create blue --host {BLUE}"));
        let addresses = addresses_of("wharf0");
        for gateway in ["10.20.0.1/24", "fd20::1/64"] {
            assert!(addresses.contains(&gateway.to_owned()), "{addresses:?}");
        }
        let a = world.container("a", "--network blue");
        let host = NetNs::current().unwrap();
        serve_whoami(&a.ns(), 5000);
        serve_whoami(&host, 7000);
        let gateways = ["10.20.0.1", "fd20::1"].map(|g| g.parse::<std::net::IpAddr>().unwrap());
        for (family, gateway) in FAMILIES.into_iter().zip(gateways) {
            for ask in [whoami_tcp, whoami_udp] {
                let seen = ask(&host, (a.addr(family), 5000).into(), PATIENCE).unwrap();
                assert_eq!((seen.by_server, seen.client.ip()), (seen.client, gateway));
                let seen = ask(&a.ns(), (gateway, 7000).into(), PATIENCE).unwrap();
                assert_eq!(seen.by_server, seen.client, "no translation on the way to the host");
            }
            ping(&host, a.addr(family), PATIENCE).unwrap();
            ping(&a.ns(), gateway, PATIENCE).unwrap();
        }
    });
}

#[test]
fn a_container_reaches_the_host_s_other_addresses_too() {
    in_world("host::a_container_reaches_the_host_s_other_addresses_too", |dir| {
        let own = ["198.51.100.1/32", "2001:db8:99::1/128"];
        let mut netlink = Netlink::open().unwrap();
        for address in own {
            netlink.add_address(1, address.parse().unwrap(), AddressOptions::default()).unwrap();
        }
        let world = World::new(dir);
        world.ok(&format!("network create blue --host {BLUE}"));
        let a = world.container("a", "--network blue");
        serve_whoami(&NetNs::current().unwrap(), 7000);
        for address in own {
            let address: std::net::IpAddr = address.split('/').next().unwrap().parse().unwrap();
            let seen = whoami_tcp(&a.ns(), (address, 7000).into(), PATIENCE).unwrap();
            assert_eq!(seen.by_server, seen.client);
        }
    });
}

#[test]
fn each_network_has_its_own_interface_which_goes_with_it() {
    in_world("host::each_network_has_its_own_interface_which_goes_with_it", |dir| {
        let before = links();
        let world = World::new(dir);
        world.ok(&format!("network create blue --host {BLUE}"));
        world.ok(&format!("network create red {RED}"));
        world.ok("network update red --host=true");
        assert!(addresses_of("wharf1").contains(&"10.30.0.1/24".to_owned()));
        let r = world.container("r", "--network red");
        ping(&NetNs::current().unwrap(), r.addrs[0], PATIENCE).unwrap();
        world.ok("network update red --host=false");
        eventually("wharf1 is gone", PATIENCE, || !links().contains(&"wharf1".to_owned()));
        world.ok("network rm blue");
        eventually("wharf0 is gone", PATIENCE, || links() == before);
    });
}

#[test]
fn the_host_s_connections_go_on_when_the_daemon_is_killed() {
    in_world("host::the_host_s_connections_go_on_when_the_daemon_is_killed", |dir| {
        let world = World::new(dir);
        world.ok(&format!("network create blue --host {BLUE}"));
        let a = world.container("a", "--network blue");
        let host = NetNs::current().unwrap();
        let transfers = FAMILIES.map(|family| Transfer::start(&host, &a.ns(), a.addr(family)));
        for transfer in &transfers {
            transfer.goes_on(4 << 20, 2 * PATIENCE);
        }
        world.kill_daemon();
        world.start("");
        assert!(addresses_of("wharf0").contains(&"10.20.0.1/24".to_owned()));
        for transfer in &transfers {
            transfer.goes_on(8 << 20, 3 * PATIENCE);
        }
        for transfer in transfers {
            transfer.finish();
        }
    });
}
