//! Other nodes, and our end of the tunnels to them.

use super::*;
use crate::config::{Backend, RouteTarget};
use crate::control::model::{NodeSpec, PeerSpec};

fn node(text: &str) -> NodeSpec {
    toml::from_str(text).unwrap()
}

fn own() -> NodeSpec {
    node("subnets = [\"10.244.1.0/24\", \"fd24:1::/64\"]")
}

fn peer(name: &str, n: u8) -> PeerSpec {
    toml::from_str(&format!(
        "name = \"{name}\"\naddress = \"192.0.2.{n}\"\n\
         subnets = [\"10.244.{n}.0/24\", \"fd24:{n}::/64\"]"
    ))
    .unwrap()
}

fn way(daemon: &Daemon, addr: &str) -> Option<String> {
    let world = daemon.fake.world();
    match world.tables.route(addr.parse().unwrap())? {
        RouteTarget::Peer(id) => world.tables.peer(id).map(|peer| peer.name.to_string()),
        RouteTarget::Network(id) => world.tables.network(id).map(|net| net.name.to_string()),
    }
}

#[test]
fn what_the_config_file_says_of_nodes_reaches_the_workers() {
    let mut daemon = Daemon::new();
    daemon.config = Config::parse(
        std::path::Path::new("wharf.toml"),
        r#"
        default_uplink = "none"
        [node]
        subnets = ["10.244.1.0/24", "fd24:1::/64"]
        vni = 7
        [[peer]]
        name = "two"
        address = "192.0.2.2"
        subnets = ["10.244.2.0/24", "fd24:2::/64"]
        [[peer]]
        name = "three"
        address = "2001:db8::3"
        port = 8472
        subnets = ["10.244.3.0/24"]
        mac = "02:00:00:00:00:33"
        "#,
    )
    .unwrap();
    let mut control = daemon.start().unwrap();
    for (addr, name) in [("10.244.2.9", "two"), ("fd24:2::9", "two"), ("10.244.3.9", "three")] {
        assert_eq!(way(&daemon, addr).as_deref(), Some(name));
    }
    assert_eq!(daemon.fake.world().tunnels, [(vec![], 4789)]);
    {
        let world = daemon.fake.world();
        let mut peers: Vec<_> = world.tables.peers().collect();
        peers.sort_by_key(|peer| peer.name.clone());
        let [three, two] = peers[..] else { panic!("{peers:?}") };
        assert_eq!((two.endpoint.1, three.endpoint.1), (4789, 8472));
        assert_eq!(two.backend, Backend::Vxlan { vni: 7 });
        assert_eq!((two.mtu, three.mtu), (1450, 1430), "what is left of 1500 in each family");
        assert_eq!(two.mac.to_string(), "02:57:0a:f4:02:00");
        assert_eq!(three.mac.to_string(), "02:00:00:00:00:33");
        assert_eq!(world.tables.tunnel().unwrap().mac.to_string(), "02:57:0a:f4:01:00");
    }
    let mut config = daemon.config.clone();
    config.peers.remove(0);
    control.reload(config).unwrap();
    assert_eq!((way(&daemon, "10.244.2.9"), way(&daemon, "10.244.3.9").is_some()), (None, true));
    assert_eq!(daemon.fake.world().tunnels.len(), 1, "what has not changed stays open");
}

#[test]
fn a_network_of_this_node_s_subnets_has_the_mtu_that_fits_through_tunnels() {
    let (_, mut control) = running();
    control.set_node(&own()).unwrap();
    let net = control.create_network(&network("pods", &["10.244.1.0/25"])).unwrap();
    assert_eq!(net.mtu, 1450);
    control.put_peer(&peer("narrow", 99)).unwrap();
    let net = control.create_network(&network("later", &["10.244.1.128/25"])).unwrap();
    assert_eq!(net.mtu, 1350);
    let net = control.create_network(&network("elsewhere", &["10.99.0.0/24"])).unwrap();
    assert_eq!(net.mtu, 1500);
}

#[test]
fn a_peer_keeps_its_port_when_it_changes_and_gives_it_back_when_it_goes() {
    let (daemon, mut control) = running();
    control.set_node(&own()).unwrap();
    control.put_peer(&peer("two", 2)).unwrap();
    let port = |daemon: &Daemon| daemon.fake.world().tables.peers().next().map(|peer| peer.port);
    let first = port(&daemon);
    let moved = PeerSpec { address: ip("192.0.2.77"), ..peer("two", 2) };
    control.put_peer(&moved).unwrap();
    assert_eq!(port(&daemon), first);
    control.remove_peer("two").unwrap();
    assert_eq!((port(&daemon), way(&daemon, "10.244.2.9")), (None, None));
    control.put_peer(&peer("two", 2)).unwrap();
    assert_eq!(way(&daemon, "10.244.2.9").as_deref(), Some("two"));
}

#[test]
fn what_two_cannot_have_is_refused_with_the_name_of_who_has_it() {
    let (daemon, mut control) = running();
    refused(&daemon, &mut control, ErrorCode::Invalid, &["no end of a tunnel", "[node]"], |c| {
        c.put_peer(&peer("two", 2))
    });
    control.set_node(&own()).unwrap();
    control.put_peer(&peer("two", 2)).unwrap();
    let overlaps =
        |subnet: &str| PeerSpec { subnets: vec![subnet.parse().unwrap()], ..peer("three", 3) };
    for (spec, words) in [
        (overlaps("10.244.2.128/25"), ["10.244.2.0/24", "node two"]),
        (overlaps("10.244.0.0/16"), ["10.244.1.0/24", "this node"]),
        (overlaps("10.20.0.0/16"), ["10.20.0.0/24", "network blue"]),
        (PeerSpec { address: ip("192.0.2.2"), ..peer("three", 3) }, ["three and two", "192.0.2.2"]),
        (PeerSpec { address: ip("0.0.0.0"), ..peer("three", 3) }, ["three", "0.0.0.0"]),
        (PeerSpec { subnets: vec![], ..peer("three", 3) }, ["three", "no subnet"]),
        (PeerSpec { vni: Some(1 << 24), ..peer("three", 3) }, ["16777216", "16777215"]),
    ] {
        refused(&daemon, &mut control, ErrorCode::Invalid, &words, |c| c.put_peer(&spec));
    }
    let spec = PeerSpec { mac: Some("02:57:0a:f4:02:00".parse().unwrap()), ..peer("three", 3) };
    refused(&daemon, &mut control, ErrorCode::Conflict, &["two"], |c| c.put_peer(&spec));
    refused(&daemon, &mut control, ErrorCode::Conflict, &["10.244.2.0/24", "node two"], |c| {
        c.create_network(&network("thief", &["10.244.2.0/24"]))
    });
    daemon.fake.world().busy.insert(4790);
    let other = NodeSpec { port: Some(4790), ..own() };
    refused(&daemon, &mut control, ErrorCode::Conflict, &["4790", "in use"], |c| {
        c.set_node(&other)
    });
}

const KEYS: [&str; 2] = [
    "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
    "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=",
];

fn encrypting() -> NodeSpec {
    node("subnets = [\"10.244.1.0/24\", \"fd24:1::/64\"]\nbackend = \"wireguard\"")
}

fn keyed(name: &str, n: u8, key: &str) -> PeerSpec {
    PeerSpec { key: Some(key.parse().unwrap()), ..peer(name, n) }
}

#[test]
fn a_node_that_encrypts_has_a_key_its_own_port_and_a_smaller_mtu() {
    let (daemon, mut control) = running();
    control.set_node(&encrypting()).unwrap();
    control.put_peer(&keyed("two", 2, KEYS[0])).unwrap();
    let net = control.create_network(&network("pods", &["10.244.1.0/25"])).unwrap();
    assert_eq!(net.mtu, 1440);
    let world = daemon.fake.world();
    assert_eq!(world.tunnels, [(vec![], 51820)]);
    let two = world.tables.peers().next().unwrap();
    assert_eq!(two.backend, Backend::Wireguard { key: KEYS[0].parse().unwrap() });
    assert_eq!((two.endpoint.1, two.mtu), (51820, 1440));
}

#[test]
fn nobody_is_spoken_to_in_the_clear_by_mistake_nor_are_two_one() {
    let (daemon, mut control) = running();
    control.set_node(&encrypting()).unwrap();
    refused(&daemon, &mut control, ErrorCode::Invalid, &["two", "no key", "node key"], |c| {
        c.put_peer(&peer("two", 2))
    });
    control.put_peer(&keyed("two", 2, KEYS[0])).unwrap();
    let words = ["three", "two", "same key"];
    refused(&daemon, &mut control, ErrorCode::Invalid, &words, |c| {
        c.put_peer(&keyed("three", 3, KEYS[0]))
    });
    // Behind one NAT they have one address.
    let twin = PeerSpec { address: ip("192.0.2.2"), ..keyed("three", 3, KEYS[1]) };
    control.put_peer(&twin).unwrap();
    control.set_node(&own()).unwrap();
    assert_eq!(way(&daemon, "10.244.2.9"), None, "who had a key is not reached without it");
    refused(&daemon, &mut control, ErrorCode::Invalid, &["two", "encrypts nothing"], |c| {
        c.put_peer(&keyed("two", 2, KEYS[0]))
    });
}
