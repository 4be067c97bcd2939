use super::ErrorCode::{Conflict, Exists, InUse, Invalid, System};
use super::*;
use crate::control::model::{NetworkUpdate, PacketSpec, UplinkKind, UplinkSpec};
use crate::datapath::Lan;
use crate::wire::addr::Addr;
use crate::worker::command::Notice;

fn packet(name: &str, addresses: &[&str]) -> UplinkSpec {
    let packet = PacketSpec {
        interface: "eth0".into(),
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        ..PacketSpec::default()
    };
    UplinkSpec { name: name.into(), kind: UplinkKind::Packet(packet) }
}

fn changed(mut spec: UplinkSpec, change: impl Fn(&mut PacketSpec)) -> UplinkSpec {
    if let UplinkKind::Packet(packet) = &mut spec.kind {
        change(packet);
    }
    spec
}

fn dhcp(name: &str) -> UplinkSpec {
    changed(packet(name, &[]), |p| p.dhcp = true)
}

/// What a LAN gives: these addresses, and one router, name server and MTU.
fn lan(uplink: UplinkId, addrs: &[(&str, u8)]) -> Notice {
    let addr = |text: &str| Addr::from(ip(text));
    let given = Lan {
        addrs: addrs.iter().map(|(text, len)| (addr(text), *len)).collect(),
        routers: vec![addr("192.168.7.1")],
        dns: vec![addr("192.168.7.53")],
        mtu: Some(1400),
    };
    Notice::Configured(uplink, given)
}

#[test]
fn a_packet_uplink_reaches_the_workers_with_a_mac_of_its_own() {
    let (daemon, mut control) = running();
    let spec = changed(packet("lan", &["192.168.7.2/24", "2001:db8:7::2/64"]), |p| {
        p.gateways = vec![ip("192.168.7.1"), ip("fe80::1")];
        p.ports = "40000-50000".parse().ok();
    });
    let info = control.create_uplink(&spec).unwrap();
    let mac = info.mac.unwrap();
    assert!(mac.is_unicast() && mac.0[0] == 0x02);
    let world = daemon.fake.world();
    assert_eq!(world.opened, [("eth0".to_owned(), mac)]);
    let told = world.tables.uplink(info.id).unwrap();
    assert_eq!(told.nat_ports, 40_000..=50_000);
    assert_eq!(told.next_hop(ip("198.51.100.1").into()), Some(ip("192.168.7.1").into()));
    assert_eq!(told.next_hop(ip("2001:db8:9::1").into()), Some(ip("fe80::1").into()));
    assert_eq!(world.tables.port(info.port).unwrap().mac, mac);
    assert!(world.configured.is_empty());
}

#[test]
fn networks_that_name_no_uplink_follow_the_default_one() {
    let (daemon, mut control) = running();
    let mut spec = network("red", &["10.30.0.0/24"]);
    spec.uplink = Some("none".into());
    let red = control.create_network(&spec).unwrap().id;
    let blue = control.network("blue").unwrap().id;
    let uplink_of = |id| daemon.fake.world().tables.network(id).unwrap().uplink;
    assert_eq!(uplink_of(blue), None);
    let uplink = control.create_uplink(&packet("default", &["192.168.7.2/24"])).unwrap();
    assert_eq!((uplink_of(blue), uplink_of(red)), (Some(uplink.id), None));
    assert!(uplink.networks.contains(&"blue".to_owned()));
    assert_eq!(control.status().default_uplink.as_deref(), Some("default"));
    control.remove_uplink("default").unwrap();
    assert_eq!(uplink_of(blue), None);
    assert!(daemon.fake.world().tables.uplink(uplink.id).is_none());
}

#[test]
fn an_uplink_that_a_network_names_stays() {
    let (daemon, mut control) = running();
    control.create_uplink(&packet("lan", &["192.168.7.2/24"])).unwrap();
    let by_lan = NetworkUpdate { uplink: Some("lan".into()), ..NetworkUpdate::default() };
    assert_eq!(control.update_network("blue", &by_lan).unwrap().uplink.as_deref(), Some("lan"));
    let words = ["`lan` is in use by network blue", "network update"];
    refused(&daemon, &mut control, InUse, &words, |c| c.remove_uplink("lan"));
    let none = NetworkUpdate { uplink: Some("none".into()), ..NetworkUpdate::default() };
    assert_eq!(control.update_network("blue", &none).unwrap().uplink, None);
    control.remove_uplink("lan").unwrap();
}

#[test]
fn an_uplink_that_cannot_be_is_refused_with_the_reason() {
    let (daemon, mut control) = running();
    control.create_uplink(&packet("taken", &["192.168.7.2/24"])).unwrap();
    let eth1 = |addresses: &[&str], change: &dyn Fn(&mut PacketSpec)| {
        changed(packet("lan", addresses), |p| {
            p.interface = "eth1".into();
            change(p);
        })
    };
    let same = &|_: &mut PacketSpec| {};
    for (spec, code, words) in [
        (packet("taken", &["192.0.2.9/24"]), Exists, vec!["uplink `taken` exists"]),
        (packet("none", &["192.0.2.9/24"]), Invalid, vec!["`none` cannot be"]),
        (packet("lan", &["192.0.2.9/24"]), InUse, vec!["`eth0` is in use by uplink taken"]),
        (eth1(&[], same), Invalid, vec!["has no address", "dhcp"]),
        (eth1(&["192.0.2.0/24"], same), Invalid, vec!["192.0.2.0/24 cannot be"]),
        (eth1(&["192.0.2.255/24"], same), Invalid, vec!["cannot be"]),
        (eth1(&["2001:db8::/64"], same), Invalid, vec!["cannot be"]),
        (eth1(&["10.20.0.9/16"], same), Conflict, vec!["10.20.0.0/16 overlaps", "network blue"]),
        (eth1(&["fd20::9/64"], same), Conflict, vec!["fd20::/64", "network blue"]),
        (
            eth1(&["192.0.2.9/24"], &|p| p.gateways = vec![ip("192.0.3.1")]),
            Invalid,
            vec!["192.0.3.1 does not lie in 192.0.2.0/24"],
        ),
        (eth1(&["192.0.2.9/24"], &|p| p.share_host_address = true), Invalid, vec!["leave out"]),
        (eth1(&["192.0.2.9/24"], &|p| p.interface = "nosuch0".into()), System, vec!["`nosuch0`"]),
    ] {
        refused(&daemon, &mut control, code, &words, |c| c.create_uplink(&spec));
    }
    daemon.fake.world().denied = Some("that takes CAP_NET_RAW");
    refused(&daemon, &mut control, ErrorCode::Denied, &["CAP_NET_RAW"], |c| {
        c.create_uplink(&eth1(&["192.0.2.9/24"], same))
    });
    daemon.fake.world().denied = None;
    daemon.store.set_full(true);
    refused(&daemon, &mut control, ErrorCode::Store, &["free some space"], |c| {
        c.create_uplink(&eth1(&["192.0.2.9/24"], same))
    });
}

#[test]
fn a_lan_of_an_uplink_cannot_become_a_network() {
    let (daemon, mut control) = running();
    control.create_uplink(&packet("lan", &["192.168.7.2/24", "2001:db8:7::2/64"])).unwrap();
    for subnet in ["192.168.0.0/16", "2001:db8:7::/64"] {
        refused(&daemon, &mut control, Conflict, &[subnet, "uplink lan"], |c| {
            c.create_network(&network("red", &[subnet]))
        });
    }
}

#[test]
fn what_a_lan_gives_is_used_until_it_is_taken_back() {
    let (daemon, mut control) = running();
    let id = control.create_uplink(&dhcp("default")).unwrap().id;
    assert_eq!(daemon.fake.world().configured, [id]);
    assert_eq!(control.uplink("default").unwrap().state, "waits for an address");
    control.notice(lan(id, &[("192.168.7.20", 24)]));
    control.notice(lan(id, &[("192.168.7.21", 24), ("2001:db8:7::20", 64)]));
    let info = control.uplink("default").unwrap();
    let addresses: Vec<_> = info.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["192.168.7.21/24", "2001:db8:7::20/64"]);
    assert_eq!((info.mtu, info.state.as_str()), (1400, "works"));
    let gateways = [ip("10.20.0.1"), ip("fd20::1")];
    assert_eq!(
        attach(&mut control, "web").dns,
        gateways,
        "which knows containers and asks the LAN's"
    );
    assert_eq!(control.resolvers.last(), Some(&ip("192.168.7.53")));
    {
        let world = daemon.fake.world();
        let told = world.tables.uplink(id).unwrap();
        assert!(
            told.is_ours(ip("192.168.7.21").into()) && !told.is_ours(ip("192.168.7.20").into())
        );
        assert_eq!(told.mtu, 1400);
    }
    control.notice(lan(id, &[("2001:db8:7::20", 64)]));
    assert!(!daemon.fake.world().tables.uplink(id).unwrap().is_ours(ip("192.168.7.21").into()));
    control.notice(Notice::Configured(id, Lan::default()));
    assert_eq!(control.uplink("default").unwrap().state, "waits for an address");
    assert!(kinds(&control).contains(&EventKind::UplinkLost));
    assert!(!control.resolvers.contains(&ip("192.168.7.53")));
}

#[test]
fn a_lease_inside_a_network_is_said() {
    let (_daemon, mut control) = running();
    let id = control.create_uplink(&dhcp("lan")).unwrap().id;
    control.notice(lan(id, &[("10.20.0.77", 24)]));
    let last = control.events(0).pop().unwrap();
    assert_eq!(last.text, "the LAN of uplink lan overlaps blue");
}

#[test]
fn an_uplink_whose_nic_is_gone_says_so_and_works_again_when_it_is_back() {
    let (daemon, mut control) = running();
    let info = control.create_uplink(&packet("default", &["192.168.7.2/24"])).unwrap();
    let blue = control.network("blue").unwrap().id;
    control.notice(Notice::PortDead(info.port));
    assert!(control.status().notes[0].contains("interface is gone"));
    assert_eq!(daemon.fake.world().tables.network(blue).unwrap().uplink, None);
    control.reload(daemon.config.clone()).unwrap();
    assert_eq!(control.uplink("default").unwrap().state, "works");
    assert_eq!(daemon.fake.world().tables.network(blue).unwrap().uplink, Some(info.id));
}

#[test]
fn a_daemon_that_nobody_told_anything_leaves_by_sockets() {
    let mut daemon = Daemon::new();
    daemon.config.default_uplink = None;
    let mut control = daemon.start().unwrap();
    let default = control.uplink("default").unwrap();
    assert_eq!((&default.kind, default.networks), (&UplinkKind::Sockets, vec!["default".into()]));
    assert_eq!(control.status().notes, Vec::<String>::new());
    // Whoever made another one keeps it.
    control.remove_uplink("default").unwrap();
    control.create_uplink(&packet("default", &["192.168.7.2/24"])).unwrap();
    drop(control);
    let control = daemon.start().unwrap();
    assert!(matches!(control.uplink("default").unwrap().kind, UplinkKind::Packet(_)));
    drop(control);
    daemon.config.default_uplink = Some("sockets".into());
    let control = daemon.start().unwrap();
    assert_eq!(control.uplink("default").unwrap().kind, UplinkKind::Sockets);
}
