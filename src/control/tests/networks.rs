use super::ErrorCode::{Conflict, Exists, Invalid, NotFound, Unsupported};
use super::*;
use crate::control::ipam::pools::Pool;
use crate::control::model::NetworkUpdate;

#[test]
fn the_first_start_makes_the_default_network_from_docker_s_first_range_that_is_free() {
    let daemon = Daemon::new();
    daemon.fake.world().routes = vec![("0.0.0.0/0", "eth0"), ("172.17.0.0/16", "docker0")];
    let control = daemon.start().unwrap();
    let default = control.network("default").unwrap();
    assert_eq!(default.subnets[0].subnet.to_string(), "172.18.0.0/16");
    assert_eq!(default.subnets[0].gateway, ip("172.18.0.1"));
    assert_eq!(default.gateway_mac.to_string(), "02:42:ac:12:00:01");
    let v6 = default.subnets[1].subnet;
    assert!(v6.to_string().starts_with("fd") && v6.prefix_len() == 64, "{v6}");
    assert!(default.isolated && default.icc && default.guard && !default.internal);
    assert_eq!(default.uplink, None);
    assert!(control.status().notes[0].contains("default uplink is none"));
}

#[test]
fn a_network_reaches_the_workers_as_it_was_asked_for() {
    let (daemon, mut control) = running();
    let mut spec = network("red", &["10.30.0.0/24", "fd30::/64"]);
    spec.gateways = vec![ip("fd30::99"), ip("10.30.0.254")];
    spec.isolated = false;
    spec.mtu = Some(9000);
    let info = control.create_network(&spec).unwrap();
    assert_eq!(info.gateway_mac.to_string(), "02:42:0a:1e:00:fe");
    let world = daemon.fake.world();
    let told = world.tables.network(info.id).unwrap();
    assert_eq!(told.subnets[0].gateway, ip("10.30.0.254").into());
    assert_eq!(told.subnets[1].gateway, ip("fd30::99").into());
    assert!(!told.isolated && told.mtu == 9000 && told.uplink.is_none());
}

#[test]
fn a_network_that_cannot_be_is_refused_with_the_reason_and_the_holder() {
    let (daemon, mut control) = running();
    let gateway = |mut spec: NetworkSpec, gateways: &[&str]| {
        spec.gateways = gateways.iter().map(|g| ip(g)).collect();
        spec
    };
    let with = |change: &dyn Fn(&mut NetworkSpec)| {
        let mut spec = network("red", &["10.30.0.0/24", "fd30::/64"]);
        change(&mut spec);
        spec
    };
    for (spec, code, words) in [
        (network("blue", &["10.99.0.0/24"]), Exists, vec!["network `blue` exists"]),
        (network("a b", &[]), Invalid, vec!["`a b` cannot be"]),
        (network("host", &[]), Invalid, vec!["`--network host` means something else"]),
        (network("red", &["10.20.0.128/25"]), Conflict, vec!["10.20.0.0/24", "network blue"]),
        (network("red", &["10.0.0.0/8"]), Conflict, vec!["overlaps 10.20.0.0/24", "network blue"]),
        (network("red", &["fd20::/48"]), Conflict, vec!["overlaps fd20::/64", "network blue"]),
        (network("red", &["10.30.0.7/24"]), Invalid, vec!["would be 10.30.0.0/24"]),
        (network("red", &["fd30::7/64"]), Invalid, vec!["would be fd30::/64"]),
        (network("red", &["127.0.0.0/8"]), Invalid, vec!["loopback"]),
        (network("red", &["fe80::/64"]), Invalid, vec!["link-local"]),
        (network("red", &["10.30.0.1/32"]), Invalid, vec!["no room"]),
        (network("red", &["10.30.0.0/24", "10.31.0.0/24"]), Invalid, vec!["one subnet of each"]),
        (network("red", &["fd30::/64", "fd31::/64"]), Invalid, vec!["one subnet of each"]),
        (gateway(blue_like(), &["10.31.0.1"]), Invalid, vec!["10.31.0.1 does not lie in"]),
        (gateway(blue_like(), &["fd31::1"]), Invalid, vec!["fd31::1 does not lie in"]),
        (gateway(blue_like(), &["10.30.0.255"]), Invalid, vec!["broadcast address"]),
        (gateway(blue_like(), &["10.30.0.1", "10.30.0.2"]), Invalid, vec!["two gateways"]),
        (with(&|s| s.mtu = Some(1279)), Invalid, vec!["too small for IPv6", "1280"]),
        (with(&|s| s.uplink = Some("lan".into())), NotFound, vec!["no uplink `lan`"]),
        (with(&|s| s.span = true), Unsupported, vec!["--span"]),
    ] {
        refused(&daemon, &mut control, code, &words, |c| c.create_network(&spec));
    }
}

fn blue_like() -> NetworkSpec {
    network("red", &["10.30.0.0/24", "fd30::/64"])
}

#[test]
fn a_small_mtu_is_fine_without_ipv6() {
    let (_daemon, mut control) = running();
    let mut spec = network("red", &["10.30.0.0/24"]);
    spec.mtu = Some(576);
    assert_eq!(control.create_network(&spec).unwrap().mtu, 576);
}

#[test]
fn when_the_pools_are_used_up_the_message_says_what_is_in_the_way() {
    let mut daemon = Daemon::new();
    daemon.config.pools = vec![Pool { base: "10.10.0.0/23".parse().unwrap(), size: 24 }];
    daemon.fake.world().routes = vec![("10.10.1.0/25", "a route of the host, via eth0")];
    let mut control = daemon.start().unwrap();
    assert_eq!(control.network("default").unwrap().subnets[0].subnet.to_string(), "10.10.0.0/24");
    let words = ["network default", "via eth0", "[[pool]]"];
    refused(&daemon, &mut control, ErrorCode::Exhausted, &words, |c| {
        c.create_network(&NetworkSpec::named("red"))
    });
}

#[test]
fn a_network_with_members_is_removed_only_by_force() {
    let (daemon, mut control) = running();
    attach(&mut control, "web");
    attach(&mut control, "db");
    let words = ["`blue` is in use by", "db", "web", "--force"];
    refused(&daemon, &mut control, ErrorCode::InUse, &words, |c| c.remove_network("blue", false));
    let id = control.network("blue").unwrap().id;
    control.remove_network("blue", true).unwrap();
    assert!(control.endpoints().is_empty() && control.network("blue").is_err());
    let world = daemon.fake.world();
    assert!(world.tables.network(id).is_none() && world.tables.ports().count() == 0);
    assert_eq!(world.closed.len(), 2);
    assert!(world.kept.is_empty());
    drop(world);
    assert_eq!(daemon.store.len(), 1, "the default network");
}

#[test]
fn a_removed_network_s_name_range_and_number_can_be_had_again() {
    let (_daemon, mut control) = running();
    control.remove_network("blue", false).unwrap();
    control.create_network(&blue()).unwrap();
    assert_eq!(control.remove_network("red", true).unwrap_err().code(), NotFound);
}

#[test]
fn a_full_disk_leaves_no_network_and_no_interface() {
    let (daemon, mut control) = running();
    daemon.store.set_full(true);
    let mut spec = blue_like();
    refused(&daemon, &mut control, ErrorCode::Store, &["free some space"], |c| {
        c.create_network(&spec)
    });
    daemon.store.set_full(false);
    spec.name = "green".into();
    control.create_network(&spec).unwrap();
}

#[test]
fn an_update_reaches_the_network_and_the_ports_on_it() {
    let (daemon, mut control) = running();
    attach(&mut control, "web");
    let port = control.endpoints()[0].port;
    {
        let world = daemon.fake.world();
        let told = world.tables.port(port).unwrap();
        assert!(told.guard && !told.isolated);
    }
    let update = NetworkUpdate {
        isolated: Some(false),
        icc: Some(false),
        guard: Some(false),
        ..NetworkUpdate::default()
    };
    let info = control.update_network("blue", &update).unwrap();
    assert!(!info.isolated && !info.icc && !info.guard);
    let world = daemon.fake.world();
    let told = world.tables.port(port).unwrap();
    assert!(!told.guard && told.isolated);
    assert!(!world.tables.network(info.id).unwrap().isolated);
}

#[test]
fn a_network_that_publishes_cannot_become_internal() {
    let (daemon, mut control) = running();
    attach(&mut control, "web");
    control.publish("web", None, &["8080:80".parse().unwrap()]).unwrap();
    let update = NetworkUpdate { internal: Some(true), ..NetworkUpdate::default() };
    refused(&daemon, &mut control, ErrorCode::InUse, &["web", "unpublish"], |c| {
        c.update_network("blue", &update)
    });
    control.unpublish("web", None, &["80".parse().unwrap()]).unwrap();
    assert!(control.update_network("blue", &update).unwrap().internal);
}

#[test]
fn the_host_takes_part_with_the_gateway_s_address_and_mac() {
    let (daemon, mut control) = running();
    let mut spec = blue_like();
    spec.host = true;
    let info = control.create_network(&spec).unwrap();
    assert_eq!(info.host_interface.as_deref(), Some("wharf0"));
    {
        let world = daemon.fake.world();
        let made = &world.interfaces["wharf0"];
        assert_eq!(made.mac, info.gateway_mac);
        let addresses: Vec<_> = made.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.30.0.1/24", "fd30::1/64"]);
        assert!(world.tables.network(info.id).unwrap().host_port.is_some());
    }
    let join = NetworkUpdate { host: Some(true), ..NetworkUpdate::default() };
    let joined = control.update_network("blue", &join).unwrap();
    assert_eq!(joined.host_interface.as_deref(), Some("wharf1"));
    let leave = NetworkUpdate { host: Some(false), ..NetworkUpdate::default() };
    assert!(!control.update_network("red", &leave).unwrap().host);
    assert!(daemon.fake.world().tables.network(info.id).unwrap().host_port.is_none());
}

#[test]
fn the_host_s_part_needs_a_right_and_no_route_in_the_way() {
    let (daemon, mut control) = running();
    let mut spec = blue_like();
    spec.host = true;
    daemon.fake.world().denied = Some("that takes CAP_NET_ADMIN");
    refused(&daemon, &mut control, ErrorCode::Denied, &["CAP_NET_ADMIN"], |c| {
        c.create_network(&spec)
    });
    daemon.fake.world().denied = None;
    daemon.fake.world().routes = vec![("10.30.0.0/16", "a route of the host, via eth0")];
    refused(&daemon, &mut control, Conflict, &["10.30.0.0/16", "via eth0"], |c| {
        c.create_network(&spec)
    });
    spec.host = false;
    control.create_network(&spec).unwrap();
}

#[test]
fn who_is_exempt_from_icc_false_is_not_isolated() {
    let (daemon, mut control) = running();
    let spec = NetworkSpec {
        icc: false,
        icc_except: Some("role in (server, proxy)".into()),
        ..network("private", &["10.9.0.0/24"])
    };
    control.create_network(&spec).unwrap();
    let mut attach = |name: &str, role: &str| {
        let mut wish =
            AttachRequest { name: Some(name.into()), ..AttachRequest::new("private", "eth0") };
        wish.labels.insert("role".into(), role.into());
        control.attach(&wish, Vec::new()).unwrap();
        control.endpoint(name).unwrap()[0].port
    };
    let (server, client) = (attach("s", "server"), attach("c", "client"));
    let isolated = |port| daemon.fake.world().tables.port(port).unwrap().isolated;
    assert!(!isolated(server) && isolated(client));
    let update =
        |text: &str| NetworkUpdate { icc_except: Some(text.into()), ..NetworkUpdate::default() };
    refused(&daemon, &mut control, Invalid, &["role=(", "role=server"], |c| {
        c.update_network("private", &update("role=("))
    });
    let info = control.update_network("private", &update("role=client")).unwrap();
    assert_eq!(info.icc_except.as_deref(), Some("role=client"));
    assert!(isolated(server) && !isolated(client));
    control.update_network("private", &update("")).unwrap();
    assert!(isolated(server) && isolated(client));
}
