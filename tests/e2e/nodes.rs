//! Two nodes, each a daemon in a namespace of its own, joined by a cable: their containers reach one another.

use std::path::Path;

use wharf::io::netns::in_namespace;
use wharf::wire::addr::Family;

use crate::support::{PATIENCE, configure, in_world};
use crate::traffic::{bulk, ping, serve_whoami, whoami_tcp, whoami_udp};
use crate::world::{Container, FAMILIES, Lan, World};

/// A cable, a node at each end of it, and a container on each.
struct Nodes {
    lan: Lan,
    here: World,
    there: World,
    /// On this node and on the other.
    containers: [Container; 2],
}

/// The daemon's end of the cable here, and at the other node, in this family.
fn place(n: u8, outer: Family) -> String {
    match outer {
        Family::V4 => format!("192.0.2.{n}"),
        Family::V6 => format!("2001:db8::{n}"),
    }
}

fn config(own: u8, other: u8, outer: Family, more: &str) -> String {
    let address = place(other, outer);
    format!(
        r#"
        [node]
        subnets = ["10.244.{own}.0/24", "fd24:{own}::/64"]
        {more}
        [[peer]]
        name = "node{other}"
        address = "{address}"
        subnets = ["10.244.{other}.0/24", "fd24:{other}::/64"]
        [[network]]
        name = "pods"
        subnets = ["10.244.{own}.0/24", "fd24:{own}::/64"]
        "#
    )
}

impl Nodes {
    fn new(dir: &Path, outer: Family, more: &str) -> Self {
        Self::of(dir, outer, more, World::without_daemon)
    }

    fn of(dir: &Path, outer: Family, more: &str, make: impl Fn(&Path) -> World) -> Self {
        let lan = Lan::new();
        configure("nic0", &["192.0.2.2/24", "2001:db8::2/64"]);
        let dirs = ["here", "there"].map(|name| dir.join(name));
        for dir in &dirs {
            std::fs::create_dir(dir).unwrap();
        }
        let [here, there] = dirs.map(|dir| make(&dir));
        let start = |world: &World, own, other| {
            let file = world.path("wharf.toml");
            std::fs::write(&file, config(own, other, outer, more)).unwrap();
            world.start(&format!("--config {}", file.display()));
            world.container(&format!("c{own}"), "--network pods")
        };
        let first = start(&here, 2, 9);
        let second = in_namespace(&lan.remote, || start(&there, 9, 2)).unwrap();
        Self { lan, here, there, containers: [first, second] }
    }

    /// Containers reach one another by every protocol, and see each other's own addresses.
    fn all_is_well(&self) {
        let [a, b] = &self.containers;
        serve_whoami(&b.ns(), 5000);
        for family in FAMILIES {
            let to = (b.addr(family), 5000).into();
            for ask in [whoami_tcp, whoami_udp] {
                let seen = ask(&a.ns(), to, PATIENCE).unwrap();
                assert_eq!((seen.by_server, seen.client.ip()), (seen.client, a.addr(family)));
            }
            ping(&a.ns(), b.addr(family), PATIENCE).unwrap();
            ping(&b.ns(), a.addr(family), PATIENCE).unwrap();
            bulk(&a.ns(), &b.ns(), b.addr(family), 32 << 20);
        }
    }
}

#[test]
fn containers_of_two_nodes_reach_each_other_by_every_protocol() {
    in_world("nodes::containers_of_two_nodes_reach_each_other_by_every_protocol", |dir| {
        let nodes = Nodes::new(dir, Family::V4, "");
        nodes.all_is_well();
        assert_eq!(nodes.here.json("network inspect pods")[0]["mtu"], 1450);
        let routes = nodes.here.json("routes --json");
        let route = routes.as_array().unwrap().iter().find(|r| r["dst"] == "10.244.9.0/24");
        assert_eq!(route.unwrap()["to"], "node9");
        let stats = nodes.there.json("stats --json");
        let peer = stats.as_array().unwrap().iter().find(|p| p["name"] == "node2").unwrap();
        assert!(peer["rx_bytes"].as_u64().unwrap() > 64 << 20, "{peer}");
        assert_eq!(peer["drops"].as_array().map(Vec::len), Some(0), "{peer}");
        let _ = &nodes.lan;
    });
}

#[test]
fn a_tunnel_over_ipv6_carries_both_families() {
    in_world("nodes::a_tunnel_over_ipv6_carries_both_families", |dir| {
        Nodes::new(dir, Family::V6, "").all_is_well();
    });
}

/// Two nodes that encrypt what they send each other.
fn encrypted(dir: &Path, outer: Family, starter: &[&str]) -> Nodes {
    let lan = Lan::new();
    configure("nic0", &["192.0.2.2/24", "2001:db8::2/64"]);
    let worlds = ["here", "there"].map(|name| {
        let dir = dir.join(name);
        std::fs::create_dir(&dir).unwrap();
        World::started_by(&dir, starter)
    });
    let keys = [&worlds[0], &worlds[1]].map(|world| world.ok("node key"));
    let start = |world: &World, own, other, key: &str| {
        let more = "backend = \"wireguard\"\nkeep_alive = 5";
        let text = config(own, other, outer, more)
            .replace("[[network]]", &format!("key = \"{key}\"\n[[network]]"));
        let file = world.path("wharf.toml");
        std::fs::write(&file, text).unwrap();
        world.start(&format!("--uplink none --config {}", file.display()));
        world.container(&format!("c{own}"), "--network pods")
    };
    let first = start(&worlds[0], 2, 9, &keys[1]);
    let second = in_namespace(&lan.remote, || start(&worlds[1], 9, 2, &keys[0])).unwrap();
    let [here, there] = worlds;
    Nodes { lan, here, there, containers: [first, second] }
}

#[test]
fn nodes_that_encrypt_carry_every_protocol_and_lose_nothing() {
    in_world("nodes::nodes_that_encrypt_carry_every_protocol_and_lose_nothing", |dir| {
        let nodes = encrypted(dir, Family::V4, &["env"]);
        nodes.all_is_well();
        assert_eq!(nodes.here.json("network inspect pods")[0]["mtu"], 1440);
        let stats = nodes.there.json("stats --json");
        for name in ["node2", "tunnel"] {
            let port = stats.as_array().unwrap().iter().find(|p| p["name"] == name).unwrap();
            assert_eq!(port["drops"].as_array().map(Vec::len), Some(0), "{port}");
        }
        let key = nodes.here.path("state/wireguard-key");
        let mode = std::os::unix::fs::PermissionsExt::mode(&key.metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    });
}

#[test]
fn nodes_encrypt_over_ipv6_without_any_privilege_and_without_trains_of_the_kernel() {
    let name =
        "nodes::nodes_encrypt_over_ipv6_without_any_privilege_and_without_trains_of_the_kernel";
    in_world(name, |dir| {
        let mut starter = vec!["env", "WHARF_WITHOUT=udp-segment,udp-gro"];
        starter.extend(World::UNPRIVILEGED);
        encrypted(dir, Family::V6, &starter).all_is_well();
    });
}

#[test]
fn a_node_behind_one_port_and_without_any_privilege_is_a_node_like_any_other() {
    let name = "nodes::a_node_behind_one_port_and_without_any_privilege_is_a_node_like_any_other";
    in_world(name, |dir| {
        let make = |dir: &Path| World::started_by(dir, &World::UNPRIVILEGED);
        Nodes::of(dir, Family::V4, "one_port = true\nport = 8472", make).all_is_well();
    });
}

#[test]
fn without_trains_of_the_kernel_datagrams_go_one_by_one() {
    in_world("nodes::without_trains_of_the_kernel_datagrams_go_one_by_one", |dir| {
        let make =
            |dir: &Path| World::started_by(dir, &["env", "WHARF_WITHOUT=udp-segment,udp-gro"]);
        Nodes::of(dir, Family::V4, "", make).all_is_well();
    });
}

#[test]
fn a_way_that_gets_narrower_is_found_out() {
    in_world("nodes::a_way_that_gets_narrower_is_found_out", |dir| {
        let nodes = Nodes::new(dir, Family::V4, "");
        let mut netlink = wharf::io::netlink::Netlink::open().unwrap();
        let index = netlink.link("nic0").unwrap().index;
        netlink.set_mtu(index, 1300).unwrap();
        let [a, b] = &nodes.containers;
        for family in FAMILIES {
            bulk(&a.ns(), &b.ns(), b.addr(family), 4 << 20);
        }
    });
}

#[test]
fn a_port_that_is_taken_is_said_to_be_when_the_daemon_starts() {
    in_world("nodes::a_port_that_is_taken_is_said_to_be_when_the_daemon_starts", |dir| {
        let _taken = std::net::UdpSocket::bind("0.0.0.0:4789").unwrap();
        let world = World::without_daemon(dir);
        let file = world.path("wharf.toml");
        std::fs::write(&file, config(2, 9, Family::V4, "")).unwrap();
        let refused = world.refused(&format!("daemon --background --config {}", file.display()));
        assert!(refused.text.contains("4789") && refused.text.contains("in use"), "{refused:?}");
    });
}

/// What makes a peer of a Linux host, as Flannel does it.
const KERNEL_PEER: &str = r"
    ip link add flannel.1 address 02:00:00:00:00:09 type vxlan id 1 dstport 8472 dev lan0 local LOCAL nolearning
    ip addr add 10.244.9.0/32 dev flannel.1
    ip -6 addr add fd24:9::1/128 dev flannel.1 nodad
    ip link set flannel.1 up
    ip neigh add 10.244.2.0 lladdr 02:57:0a:f4:02:00 dev flannel.1 nud permanent
    ip -6 neigh add fd24:2:: lladdr 02:57:0a:f4:02:00 dev flannel.1 nud permanent
    bridge fdb add 02:57:0a:f4:02:00 dev flannel.1 dst REMOTE
    ip route add 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink
    ip -6 route add fd24:2::/64 via fd24:2:: dev flannel.1 onlink
";

#[track_caller]
fn sh(script: &str) {
    let status = std::process::Command::new("sh").args(["-exc", script]).status().unwrap();
    assert!(status.success(), "{script}: {status}");
}

/// Traffic both ways with a Linux host, whose `offloads` say what its device does.
fn with_a_kernel_peer(dir: &Path, outer: Family, offloads: &str) {
    let lan = Lan::new();
    configure("nic0", &["192.0.2.2/24", "2001:db8::2/64"]);
    let peer = KERNEL_PEER.replace("LOCAL", &place(9, outer)).replace("REMOTE", &place(2, outer));
    in_namespace(&lan.remote, || sh(&format!("{peer}\n{offloads}"))).unwrap();
    let world = World::without_daemon(dir);
    let file = world.path("wharf.toml");
    let text = config(2, 9, outer, "port = 8472")
        .replace("[[network]]", "mac = \"02:00:00:00:00:09\"\n[[network]]");
    std::fs::write(&file, text).unwrap();
    world.start(&format!("--config {}", file.display()));
    let a = world.container("a", "--network pods");
    serve_whoami(&lan.remote, 5000);
    for (family, addr) in FAMILIES.into_iter().zip(["10.244.9.0", "fd24:9::1"]) {
        let addr = addr.parse().unwrap();
        ping(&a.ns(), addr, PATIENCE).unwrap();
        ping(&lan.remote, a.addr(family), PATIENCE).unwrap();
        for ask in [whoami_tcp, whoami_udp] {
            let seen = ask(&a.ns(), (addr, 5000).into(), PATIENCE).unwrap();
            assert_eq!((seen.by_server, seen.client.ip()), (seen.client, a.addr(family)));
        }
        bulk(&a.ns(), &lan.remote, addr, 16 << 20);
    }
    let stats = world.json("stats --json");
    let peer = stats.as_array().unwrap().iter().find(|p| p["name"] == "node9").unwrap();
    let refused = peer["drops"].as_array().unwrap().iter().find(|d| d[0] != "not-for-us");
    assert_eq!(refused, None, "{peer}");
}

#[test]
fn a_linux_host_is_a_peer_and_its_device_does_the_rest() {
    in_world("nodes::a_linux_host_is_a_peer_and_its_device_does_the_rest", |dir| {
        with_a_kernel_peer(dir, Family::V4, "");
    });
}

#[test]
fn a_linux_host_is_a_peer_over_ipv6() {
    in_world("nodes::a_linux_host_is_a_peer_over_ipv6", |dir| {
        with_a_kernel_peer(dir, Family::V6, "");
    });
}

#[test]
fn a_linux_host_is_a_peer_and_does_everything_by_itself() {
    in_world("nodes::a_linux_host_is_a_peer_and_does_everything_by_itself", |dir| {
        let offloads =
            "ethtool -K lan0 tx off tx-udp_tnl-segmentation off tx-udp_tnl-csum-segmentation off";
        with_a_kernel_peer(dir, Family::V4, offloads);
    });
}
