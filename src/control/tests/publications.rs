use super::ErrorCode::{Conflict, Exhausted, Invalid};
use super::*;
use crate::control::model::{Proto, PublishSpec};
use crate::wire::addr::Addr;

fn specs(texts: &[&str]) -> Vec<PublishSpec> {
    texts.iter().map(|t| t.parse().unwrap()).collect()
}

fn publish(control: &mut Control, texts: &[&str]) -> Result<Vec<String>, ControlError> {
    let infos = control.publish("web", None, &specs(texts))?;
    Ok(infos.iter().map(ToString::to_string).collect())
}

fn with_web() -> (Daemon, Control) {
    let (daemon, mut control) = running();
    attach(&mut control, "web");
    (daemon, control)
}

#[test]
fn a_published_port_leads_to_both_addresses_of_the_endpoint() {
    let (daemon, mut control) = with_web();
    publish(&mut control, &["8000-8002:9000-9002/udp"]).unwrap();
    let world = daemon.fake.world();
    let host: Addr = ip("192.0.2.1").into();
    let told = world.tables.publications().lookup(Proto::Udp.number(), host, 8001).unwrap();
    assert_eq!(told.target_v4, Some(ip("10.20.0.2").into()));
    assert_eq!(told.target_v6, Some(ip("fd20::2").into()));
    assert_eq!((told.target_port, told.host_ports.clone()), (9000, 8000..=8002));
}

#[test]
fn an_address_of_one_family_is_answered_in_that_family_only() {
    let (daemon, mut control) = with_web();
    publish(&mut control, &["127.0.0.1:80:80", "[::1]:80:80"]).unwrap();
    let world = daemon.fake.world();
    for (host, v4, v6) in [("127.0.0.1", true, false), ("::1", false, true)] {
        let told = world.tables.publications().lookup(6, ip(host).into(), 80).unwrap();
        assert_eq!((told.target_v4.is_some(), told.target_v6.is_some()), (v4, v6), "{host}");
    }
}

#[test]
fn host_ports_that_were_left_open_are_chosen_and_told() {
    let (_daemon, mut control) = with_web();
    let got = publish(&mut control, &["80", "127.0.0.1::81", "8000-8010:82", "9000-9001"]).unwrap();
    assert_eq!(
        got,
        ["49153:80/tcp", "127.0.0.1:49154:81/tcp", "8000:82/tcp", "49155-49156:9000-9001/tcp"]
    );
    assert_eq!(publish(&mut control, &["8000-8010:83"]).unwrap(), ["8001:83/tcp"]);
}

#[test]
fn a_publication_that_cannot_be_is_refused_and_names_the_holder() {
    let (daemon, mut control) = with_web();
    publish(&mut control, &["8000-8010:8000-8010", "127.0.0.1:90:90", "[::1]:91:91"]).unwrap();
    control.create_network(&network("four", &["10.4.0.0/24"])).unwrap();
    let four = AttachRequest { network: "four".into(), ..request("four") };
    control.attach(&four, Vec::new()).unwrap();
    for (name, texts, code, words) in [
        ("four", vec!["8005:80"], Conflict, vec!["port 8005/tcp", "`web` publishes 8000-8010"]),
        ("four", vec!["7990-8000:90-100"], Conflict, vec!["`web`"]),
        ("four", vec!["127.0.0.1:8000:80"], Conflict, vec!["of 127.0.0.1", "`web`"]),
        ("four", vec!["0.0.0.0:90:80"], Conflict, vec!["of 0.0.0.0"]),
        ("four", vec!["90:80"], Conflict, vec!["the host's addresses"]),
        ("four", vec!["100:1", "100:2"], Conflict, vec!["port 100/tcp", "`four`"]),
        ("four", vec!["100:1", "8000:2"], Conflict, vec!["port 8000/tcp"]),
        ("four", vec!["[::1]:100:80"], Invalid, vec!["`four` has no IPv6 address"]),
        ("four", vec!["8000-8010:80"], Exhausted, vec!["no port is free among 8000-8010/tcp"]),
        ("four", vec!["224.0.0.1:1:1"], Invalid, vec!["multicast"]),
        ("nobody", vec!["1:1"], ErrorCode::NotFound, vec!["no endpoint `nobody`"]),
    ] {
        refused(&daemon, &mut control, code, &words, |c| c.publish(name, None, &specs(&texts)));
    }
    let got = publish(&mut control, &["8005:80/udp", "127.0.0.2:90:80", "[::1]:90:80", "100:1"]);
    assert!(got.is_ok(), "other protocols and addresses are free, and nothing was left behind");
}

#[test]
fn an_unpublished_port_is_gone_from_workers_and_store_and_can_be_had_again() {
    let (daemon, mut control) = with_web();
    let records = daemon.store.len();
    publish(&mut control, &["8443:443", "8444:443", "8443:443/udp"]).unwrap();
    let words = ["does not publish 1:443/tcp", "8443:443/tcp"];
    refused(&daemon, &mut control, Invalid, &words, |c| {
        c.unpublish("web", None, &specs(&["1:443"]))
    });
    assert_eq!(control.unpublish("web", None, &specs(&["8443:443"])).unwrap().len(), 1);
    let left: Vec<_> =
        control.ports(Some("web")).unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(left, ["8444:443/tcp", "8443:443/udp"]);
    control.unpublish("web", None, &specs(&["443", "443/udp"])).unwrap();
    assert_eq!(daemon.store.len(), records);
    assert_eq!(daemon.fake.world().tables.publications().iter().count(), 0);
    publish(&mut control, &["8443:443"]).unwrap();
}

#[test]
fn nothing_is_published_on_an_internal_network() {
    let (daemon, mut control) = running();
    let internal = NetworkSpec { internal: true, ..network("inner", &["10.5.0.0/24"]) };
    control.create_network(&internal).unwrap();
    let inner = AttachRequest { network: "inner".into(), netns: Some(netns(1)), ..request("web") };
    control.attach(&inner, Vec::new()).unwrap();
    refused(&daemon, &mut control, Invalid, &["`inner`: it is internal"], |c| {
        c.publish("web", None, &specs(&["80:80"]))
    });
    let outer = AttachRequest { ifname: "eth1".into(), netns: Some(netns(1)), ..request("web") };
    control.attach(&outer, Vec::new()).unwrap();
    let got = control.publish("web", None, &specs(&["80:80"])).unwrap();
    assert_eq!(got[0].network, "blue", "the network that may publish is taken");
}

#[test]
fn a_full_disk_publishes_nothing() {
    let (daemon, mut control) = with_web();
    daemon.store.set_full(true);
    refused(&daemon, &mut control, ErrorCode::Store, &["free some space"], |c| {
        c.publish("web", None, &specs(&["80:80"]))
    });
    daemon.store.set_full(false);
    publish(&mut control, &["80:80"]).unwrap();
    daemon.store.set_full(true);
    refused(&daemon, &mut control, ErrorCode::Store, &["free some space"], |c| {
        c.unpublish("web", None, &specs(&["80:80"]))
    });
}

#[test]
fn the_bound_of_publications_holds() {
    let (daemon, mut control) = with_web();
    control.settings.config.limits.publications = 2;
    publish(&mut control, &["1:1"]).unwrap();
    refused(&daemon, &mut control, Exhausted, &["2 publications"], |c| {
        c.publish("web", None, &specs(&["2:2", "3:3"]))
    });
}

#[test]
fn twelve_thousand_ports_are_published_one_by_one_and_chosen_without_walking_over_them() {
    let (daemon, mut control) = with_web();
    let single: Vec<_> = (1..=6_000_u16).map(|p| format!("{p}:{p}").parse().unwrap()).collect();
    // In pieces: the sockets of one request are open at once, and a test may open few.
    for some in single.chunks(200) {
        control.publish("web", None, some).unwrap();
    }
    for _ in 0..6_000 {
        control.publish("web", None, &specs(&["80/udp"])).unwrap();
    }
    assert_eq!(control.status().published_ports, 12_000);
    assert_eq!(daemon.fake.world().tables.publications().iter().count(), 12_000);
}

/// What is listened for: host address and port, and where it leads, in order of their names.
fn listening(daemon: &Daemon) -> Vec<(u16, Option<Addr>)> {
    let world = daemon.fake.world();
    world.listening.values().map(|p| (p.port, p.target.addrs[0])).collect()
}

#[test]
fn each_port_is_listened_for_at_the_address_asked_for_until_it_is_unpublished() {
    let (daemon, mut control) = with_web();
    publish(&mut control, &["8000-8001:90-91", "127.0.0.1:53:5353/udp", "[::1]:7:7", "9:9/sctp"])
        .unwrap();
    let (tcp, udp) = (Transport::Tcp, Transport::Udp);
    assert_eq!(
        daemon.fake.world().bound,
        [
            (None, 8000, tcp),
            (None, 8001, tcp),
            (Some(ip("127.0.0.1")), 53, udp),
            (Some(ip("::1")), 7, tcp)
        ]
    );
    let web = Some(ip("10.20.0.2").into());
    assert_eq!(listening(&daemon), [(90, web), (91, web), (5353, web), (7, web)]);
    control.unpublish("web", None, &specs(&["8000-8001:90-91"])).unwrap();
    assert_eq!(listening(&daemon), [(5353, web), (7, web)]);
    control.detach("web", None, "asked for").unwrap();
    assert_eq!(listening(&daemon), []);
}

#[test]
fn the_target_knows_what_its_clients_see_and_whom_it_answers_directly() {
    let (daemon, mut control) = with_web();
    control.create_network(&network("red", &["10.30.0.0/24"])).unwrap();
    let target = |daemon: &Daemon| {
        daemon.fake.world().listening.values().next().unwrap().target.as_ref().clone()
    };
    control.detach("web", None, "").unwrap();
    let wish =
        AttachRequest { publish: vec!["80".into()], netns: Some(netns(7)), ..request("web") };
    let attached = control.attach(&wish, Vec::new()).unwrap();
    let seen = target(&daemon);
    let both = [ip("10.20.0.1"), ip("fd20::1")].map(|a| Some(Addr::from(a)));
    assert_eq!((seen.gateways, seen.link.inside, seen.mtu), (both, attached.mac, 1500));
    assert_eq!(seen.link.gateway, control.network("blue").unwrap().gateway_mac);
    assert_eq!(seen.subnets, [(ip("10.20.0.0").into(), 24), (ip("fd20::").into(), 64)]);
    let second = AttachRequest { network: "red".into(), publish: Vec::new(), ..wish };
    control.attach(&second, Vec::new()).unwrap();
    assert_eq!(target(&daemon).subnets.last(), Some(&(ip("10.30.0.0").into(), 24)));
    control.detach("web", Some("red"), "").unwrap();
    assert_eq!(target(&daemon), seen);
}

#[test]
fn a_port_that_another_program_has_is_refused_or_passed_over_when_it_may_be_chosen() {
    let (daemon, mut control) = with_web();
    daemon.fake.world().busy = [8080, 49_153, 49_154, 9001, 9003].into();
    let words = ["port 8080 of all addresses", "another program", "`ss -lntup`"];
    refused(&daemon, &mut control, Conflict, &words, |c| {
        c.publish("web", None, &specs(&["80:80", "8080:80"]))
    });
    let wish = AttachRequest { publish: vec!["8080:80".into()], ..request("x") };
    refused(&daemon, &mut control, Conflict, &words, |c| c.attach(&wish, Vec::new()));
    let got = publish(&mut control, &["80", "9000-9003:81", "9000-9003:82"]).unwrap();
    assert_eq!(got, ["49155:80/tcp", "9000:81/tcp", "9002:82/tcp"]);
    let words = ["no port is free among 9000-9003/tcp"];
    refused(&daemon, &mut control, Exhausted, &words, |c| {
        c.publish("web", None, &specs(&["9000-9003:83"]))
    });
}

#[test]
fn an_address_that_only_the_switch_has_needs_no_socket() {
    let (daemon, mut control) = with_web();
    publish(&mut control, &["10.20.0.1:80:80"]).unwrap();
    assert_eq!(daemon.fake.world().bound, []);
    assert_eq!(daemon.fake.world().tables.publications().iter().count(), 1);
}
