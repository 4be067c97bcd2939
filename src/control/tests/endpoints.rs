use super::ErrorCode::{Conflict, Exists, Invalid, NotFound};
use super::*;
use crate::attach::protocol::{RateLimit, Refusal, RefusalCode};
use crate::base::limits::LABELS_MAX;
use crate::control::model::{EndpointUpdate, NetworkUpdate};
use crate::worker::command::Notice;

#[test]
fn an_endpoint_gets_the_next_addresses_of_both_families_and_docker_s_mac() {
    let (daemon, mut control) = running();
    let first = attach(&mut control, "web");
    let addresses: Vec<_> = first.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.20.0.2/24", "fd20::2/64"]);
    assert_eq!(first.mac.to_string(), "02:42:0a:14:00:02");
    assert_eq!(first.gateways, [ip("10.20.0.1"), ip("fd20::1")]);
    assert_eq!(first.mtu, 1500);
    let second = attach(&mut control, "db");
    assert_eq!(second.addresses[0].addr(), ip("10.20.0.3"));
    let world = daemon.fake.world();
    let told = world.tables.ports().find(|p| &*p.name == "web").unwrap();
    assert_eq!(told.addrs, [ip("10.20.0.2").into(), ip("fd20::2").into()]);
    assert!(world.kept.contains(&first.endpoint));
}

#[test]
fn an_endpoint_gets_the_addresses_and_the_mac_it_wishes() {
    let (_daemon, mut control) = running();
    let wish = AttachRequest {
        ip: Some("10.20.0.77".parse().unwrap()),
        ip6: Some("fd20::77".parse().unwrap()),
        mac: Some("02:00:00:00:00:07".parse().unwrap()),
        ..request("web")
    };
    let got = control.attach(&wish, Vec::new()).unwrap();
    let addresses: Vec<_> = got.addresses.iter().map(ipnet::IpNet::addr).collect();
    assert_eq!(addresses, [ip("10.20.0.77"), ip("fd20::77")]);
    assert_eq!(got.mac.to_string(), "02:00:00:00:00:07");
    assert_eq!(attach(&mut control, "next").addresses[0].addr(), ip("10.20.0.2"));
}

#[test]
fn a_request_that_cannot_be_met_is_refused_and_names_the_holder() {
    let (daemon, mut control) = running();
    let web = AttachRequest { publish: vec!["8080:80".into()], ..request("web") };
    control.attach(&web, Vec::new()).unwrap();
    let with = |change: &dyn Fn(&mut AttachRequest)| {
        let mut wish = request("x");
        change(&mut wish);
        wish
    };
    let labels: BTreeMap<String, String> =
        (0..=LABELS_MAX).map(|n| (n.to_string(), String::new())).collect();
    for (wish, code, words) in [
        (request("web"), Exists, vec!["endpoint `web` exists", "network blue", "10.20.0.2"]),
        (with(&|r| r.network = "red".into()), NotFound, vec!["no network `red`", "network ls"]),
        (with(&|r| r.name = Some("a b".into())), Invalid, vec!["`a b` cannot be the name"]),
        (with(&|r| r.ifname = "a/b".into()), Invalid, vec!["`a/b`", "eth0"]),
        (with(&|r| r.ifname = "sixteen-letters-".into()), Invalid, vec!["15 printable"]),
        (with(&|r| r.ip = "10.20.0.2".parse().ok()), Conflict, vec!["10.20.0.2 is taken by `web`"]),
        (with(&|r| r.ip6 = "fd20::2".parse().ok()), Conflict, vec!["fd20::2 is taken by `web`"]),
        (with(&|r| r.ip = "10.20.0.1".parse().ok()), Conflict, vec!["taken by the gateway"]),
        (
            with(&|r| r.ip = "10.20.1.2".parse().ok()),
            Invalid,
            vec!["does not lie in 10.20.0.0/24 and fd20::/64"],
        ),
        (with(&|r| r.ip6 = "fd21::2".parse().ok()), Invalid, vec!["fd21::2 does not lie in"]),
        (with(&|r| r.ip = "10.20.0.255".parse().ok()), Invalid, vec!["broadcast"]),
        (with(&|r| r.mac = "02:42:0a:14:00:02".parse().ok()), Conflict, vec!["taken by `web`"]),
        (with(&|r| r.mac = "02:42:0a:14:00:01".parse().ok()), Conflict, vec!["by the gateway"]),
        (with(&|r| r.mac = "01:00:5e:00:00:01".parse().ok()), Invalid, vec!["must be even"]),
        (with(&|r| r.mac = "00:00:00:00:00:00".parse().ok()), Invalid, vec!["cannot be"]),
        (
            with(&|r| r.publish = vec!["8080:81".into()]),
            Conflict,
            vec!["8080/tcp", "`web` publishes"],
        ),
        (with(&|r| r.publish = vec!["81:http".into()]), Invalid, vec!["`http` in `81:http`"]),
        (with(&|r| r.labels = labels.clone()), Invalid, vec!["too many"]),
        (with(&|r| r.aliases = vec!["-".into()]), Invalid, vec!["an alias"]),
        (
            with(&|r| r.rate.egress = Some(RateLimit { rate: 1, burst: None })),
            Invalid,
            vec!["--rate"],
        ),
    ] {
        refused(&daemon, &mut control, code, &words, |c| c.attach(&wish, Vec::new()));
    }
    // Nothing of what was refused above still holds an address or a port.
    let next = AttachRequest { publish: vec!["81:81".into()], ..request("next") };
    assert!(control.attach(&next, Vec::new()).is_ok());
}

#[test]
fn a_wished_address_of_a_family_that_the_network_lacks_is_refused() {
    let (daemon, mut control) = running();
    control.create_network(&network("four", &["10.4.0.0/24"])).unwrap();
    control.create_network(&network("six", &["fd06::/64"])).unwrap();
    let on = |network: &str| AttachRequest { network: network.into(), ..request("x") };
    let v6 = AttachRequest { ip6: "fd06::5".parse().ok(), ..on("four") };
    let v4 = AttachRequest { ip: "10.4.0.5".parse().ok(), ..on("six") };
    for (wish, words) in
        [(v6, "fd06::5 does not lie in 10.4.0.0/24"), (v4, "10.4.0.5 does not lie in fd06::/64")]
    {
        refused(&daemon, &mut control, Invalid, &[words], |c| c.attach(&wish, Vec::new()));
    }
    let alone = control.attach(&on("six"), Vec::new()).unwrap();
    assert_eq!(alone.addresses.len(), 1);
    assert_eq!(alone.mac.to_string(), "02:42:00:00:00:02");
}

#[test]
fn a_full_subnet_says_so_and_a_freed_address_can_be_had_again() {
    let (daemon, mut control) = running();
    control.create_network(&network("tiny", &["10.9.0.0/30"])).unwrap();
    let on_tiny = |name: &str| AttachRequest { network: "tiny".into(), ..request(name) };
    control.attach(&on_tiny("a"), Vec::new()).unwrap();
    let words = ["no address is left in 10.9.0.0/30", "larger subnet"];
    refused(&daemon, &mut control, ErrorCode::Exhausted, &words, |c| {
        c.attach(&on_tiny("b"), Vec::new())
    });
    control.detach("a", None, "asked").unwrap();
    control.attach(&on_tiny("b"), Vec::new()).unwrap();
}

#[test]
fn a_container_may_be_on_several_networks_but_a_name_is_one_container_s() {
    let (daemon, mut control) = running();
    control.create_network(&network("red", &["10.30.0.0/24"])).unwrap();
    let on_blue = AttachRequest { netns: Some(netns(1)), ..request("web") };
    control.attach(&on_blue, Vec::new()).unwrap();
    let on_red = AttachRequest { network: "red".into(), ifname: "eth1".into(), ..on_blue.clone() };
    control.attach(&on_red, Vec::new()).unwrap();
    assert_eq!(control.endpoint("web").unwrap().len(), 2);
    let again = AttachRequest { ifname: "eth2".into(), ..on_blue };
    refused(&daemon, &mut control, Exists, &["on network blue"], |c| c.attach(&again, Vec::new()));
    let other =
        AttachRequest { network: "default".into(), netns: Some(netns(2)), ..request("web") };
    refused(&daemon, &mut control, Exists, &["`web` exists"], |c| c.attach(&other, Vec::new()));
    assert_eq!(control.detach("web", Some("red"), "asked").unwrap().len(), 1);
    assert_eq!(control.detach("web", None, "asked").unwrap().len(), 1);
}

#[test]
fn an_endpoint_without_a_name_gets_one_from_its_identity() {
    let (_daemon, mut control) = running();
    let got = control.attach(&AttachRequest::new("blue", "eth0"), Vec::new()).unwrap();
    assert!(got.endpoint.starts_with(&got.name) && got.name.len() == 12);
    assert_eq!(control.endpoint(&got.endpoint[..6]).unwrap()[0].name, got.name);
    let error = control.endpoint("nobody").unwrap_err();
    assert_eq!(error.to_string(), "there is no endpoint `nobody`");
    let error = control.detach(&got.name, Some("default"), "asked").unwrap_err();
    assert!(error.to_string().contains("on network `default`"), "{error}");
}

#[test]
fn the_bound_of_endpoints_holds() {
    let mut daemon = Daemon::new();
    daemon.config.limits.endpoints = 2;
    let mut control = daemon.start().unwrap();
    control.create_network(&blue()).unwrap();
    attach(&mut control, "a");
    attach(&mut control, "b");
    refused(&daemon, &mut control, ErrorCode::Exhausted, &["2 endpoints"], |c| {
        c.attach(&request("c"), Vec::new())
    });
}

#[test]
fn a_container_that_ends_gives_back_address_port_and_publications() {
    let (daemon, mut control) = running();
    let wish = AttachRequest { publish: vec!["8080:80".into()], ..request("web") };
    let got = control.attach(&wish, Vec::new()).unwrap();
    let port = control.endpoint("web").unwrap()[0].port;
    control.notice(Notice::PortDead(port));
    assert!(control.endpoints().is_empty() && control.ports(None).unwrap().is_empty());
    {
        let world = daemon.fake.world();
        assert!(world.tables.port(port).is_none());
        assert_eq!(world.tables.publications().iter().count(), 0);
        assert_eq!(world.closed, [port]);
        assert!(!world.kept.contains(&got.endpoint));
    }
    assert_eq!(daemon.store.len(), 2, "two networks");
    assert_eq!(kinds(&control).last(), Some(&EventKind::EndpointLost));
    let again = AttachRequest { ip: "10.20.0.2".parse().ok(), ..wish };
    control.attach(&again, Vec::new()).unwrap();
}

#[test]
fn a_container_s_end_is_a_fact_even_when_the_disk_is_full() {
    let (daemon, mut control) = running();
    attach(&mut control, "web");
    let port = control.endpoints()[0].port;
    daemon.store.set_full(true);
    refused(&daemon, &mut control, ErrorCode::Store, &["free some space"], |c| {
        c.detach("web", None, "asked")
    });
    control.port_dead(port);
    assert!(control.endpoints().is_empty());
    refused(&daemon, &mut control, ErrorCode::Store, &["free some space"], |c| {
        c.attach(&request("next"), Vec::new())
    });
}

#[test]
fn an_internal_network_gives_no_default_route() {
    let (_daemon, mut control) = running();
    let update = NetworkUpdate { internal: Some(true), ..NetworkUpdate::default() };
    control.update_network("blue", &update).unwrap();
    assert!(attach(&mut control, "web").gateways.is_empty());
}

#[test]
fn the_host_s_addresses_reach_the_workers_when_they_change() {
    let (daemon, mut control) = running();
    daemon.fake.world().addresses = vec![ip("192.0.2.1"), ip("2001:db8::1")];
    attach(&mut control, "web");
    let world = daemon.fake.world();
    assert!(world.tables.is_host_addr(ip("192.0.2.1").into()));
    assert!(world.tables.is_host_addr(ip("2001:db8::1").into()));
}

#[test]
fn an_attacher_is_told_what_to_do_about_a_refusal() {
    let (_daemon, mut control) = running();
    attach(&mut control, "web");
    let error = control.attach(&request("web"), Vec::new()).unwrap_err();
    let refusal = Refusal::from(&error);
    assert_eq!(refusal.code, RefusalCode::Conflict);
    assert!(refusal.message.contains("choose another name"), "{}", refusal.message);
}

#[test]
fn a_container_is_called_anew_while_it_works() {
    let (daemon, mut control) = running();
    let web = attach(&mut control, "1a2b3c4d5e6f");
    attach(&mut control, "db");
    let update = |name: &str| EndpointUpdate {
        name: Some(name.to_owned()),
        labels: Some([("tier".to_owned(), "front".to_owned())].into()),
        aliases: Some(vec!["www".to_owned()]),
    };
    let error = control.update_endpoint("1a2b3c4d5e6f", None, &update("db")).unwrap_err();
    assert_eq!(error.body().code, Exists);
    assert!(error.to_string().contains("10.20.0.3"), "{error}");
    let error = control.update_endpoint("1a2b3c4d5e6f", None, &update("a b")).unwrap_err();
    assert_eq!(error.body().code, Invalid);
    let infos = control.update_endpoint("1a2b3c4d5e6f", None, &update("web")).unwrap();
    assert_eq!(
        (infos[0].name.as_str(), infos[0].aliases.as_slice()),
        ("web", &["www".to_owned()][..])
    );
    assert!(control.endpoint("1a2b3c4d5e6f").is_err());
    assert_eq!(control.endpoint("web").unwrap()[0].id, web.endpoint);
    assert!(daemon.fake.world().tables.ports().any(|p| &*p.name == "web"));
    // What is absent stays, also over a restart.
    control.update_endpoint("web", None, &EndpointUpdate::default()).unwrap();
    drop(control);
    let control = daemon.start().unwrap();
    let again = &control.endpoint("web").unwrap()[0];
    assert_eq!(again.labels.get("tier").map(String::as_str), Some("front"));
    assert_eq!(again.addresses, infos[0].addresses);
}
