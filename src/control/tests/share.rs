use super::ErrorCode::{Denied, Invalid};
use super::*;
use crate::control::model::{PacketSpec, UplinkKind, UplinkSpec};
use crate::datapath::Lan;
use crate::io::netfilter::table::Held;
use crate::wire::addr::Addr;
use crate::worker::command::Notice;

fn spec() -> UplinkSpec {
    let packet =
        PacketSpec { interface: "eth0".into(), share_host_address: true, ..PacketSpec::default() };
    UplinkSpec { name: "lan".into(), kind: UplinkKind::Packet(packet) }
}

fn lan(addrs: &[(&str, u8)]) -> Lan {
    let addrs = addrs.iter().map(|(text, len)| (Addr::from(ip(text)), *len)).collect();
    Lan { addrs, routers: vec![ip("192.0.2.254").into()], dns: Vec::new(), mtu: None }
}

/// A daemon with `blue`, the container `web` of both families, and a host with one address of each.
fn with_web() -> (Daemon, Control) {
    let (daemon, mut control) = running();
    attach(&mut control, "web");
    daemon.fake.world().shared.lan = lan(&[("192.0.2.5", 24), ("2001:db8::5", 64)]);
    (daemon, control)
}

fn publish(control: &mut Control, text: &str) {
    control.publish("web", None, &[text.parse().unwrap()]).unwrap();
}

fn held(daemon: &Daemon) -> Vec<Held> {
    daemon.fake.world().shared.held.iter().copied().collect()
}

const fn port(v6: bool, proto: u8, port: u16) -> Held {
    Held::Port { v6, proto, port }
}

#[test]
fn the_workers_are_told_the_host_s_addresses_and_mac_and_our_range() {
    let (daemon, mut control) = with_web();
    let info = control.create_uplink(&spec()).unwrap();
    assert_eq!(info.mac, Some(HOST_MAC));
    assert_eq!(info.shared.unwrap().ports.to_string(), "61440-65535");
    let world = daemon.fake.world();
    let told = world.tables.uplink(info.id).unwrap();
    assert!(told.shared && told.is_ours(ip("2001:db8::5").into()));
    assert_eq!(told.nat_ports, 61_440..=65_535);
    assert_eq!(told.next_hop(ip("198.51.100.1").into()), Some(ip("192.0.2.254").into()));
    assert_eq!(world.tables.port(info.port).unwrap().mac, HOST_MAC);
}

#[test]
fn a_published_port_is_held_in_its_families_and_as_long_as_it_is_published() {
    let (daemon, mut control) = with_web();
    publish(&mut control, "80:80");
    control.create_uplink(&spec()).unwrap();
    assert_eq!(held(&daemon), [port(false, 6, 80), port(true, 6, 80)], "what was there before");
    publish(&mut control, "0.0.0.0:53:53/udp");
    publish(&mut control, "[2001:db8::5]:81-82:81-82");
    let at = |port| Held::At { addr: ip("2001:db8::5"), proto: 6, port };
    let all = [port(false, 6, 80), port(false, 17, 53), port(true, 6, 80), at(81), at(82)];
    assert_eq!(held(&daemon), all);
    control.unpublish("web", None, &["80".parse().unwrap()]).unwrap();
    assert_eq!(held(&daemon), [port(false, 17, 53), at(81), at(82)]);
    control.detach("web", None, "test").unwrap();
    assert_eq!(held(&daemon), []);
}

#[test]
fn a_container_of_one_family_leaves_the_port_of_the_other_to_the_host() {
    let (daemon, mut control) = with_web();
    control.create_uplink(&spec()).unwrap();
    control.create_network(&network("four", &["10.4.0.0/24"])).unwrap();
    let four = AttachRequest { network: "four".into(), ..request("four") };
    control.attach(&four, Vec::new()).unwrap();
    control.publish("four", None, &["80:80".parse().unwrap()]).unwrap();
    assert_eq!(held(&daemon), [port(false, 6, 80)]);
}

#[test]
fn a_daemon_that_is_started_again_holds_what_is_published() {
    let (daemon, mut control) = with_web();
    control.create_uplink(&spec()).unwrap();
    publish(&mut control, "80:80");
    let before = held(&daemon);
    drop(control);
    assert_eq!(held(&daemon), [], "a share that ends gives back");
    let control = daemon.start().unwrap();
    assert_eq!(held(&daemon), before);
    assert!(control.uplink("lan").unwrap().shared.is_some());
}

#[test]
fn a_host_that_changes_is_followed_and_conflicts_are_counted_once() {
    let (daemon, mut control) = with_web();
    let info = control.create_uplink(&spec()).unwrap();
    daemon.fake.world().shared.lan = lan(&[("192.0.2.77", 24)]);
    control.notice(Notice::HostChanged(info.port, false));
    let changed = control.uplink("lan").unwrap();
    assert_eq!(changed.addresses, ["192.0.2.77/24".parse().unwrap()]);
    daemon.fake.world().shared.users = vec!["nginx (process 7) at port 62000/tcp".to_owned()];
    for _ in 0..3 {
        control.notice(Notice::HostChanged(info.port, true));
    }
    assert_eq!(control.uplink("lan").unwrap().shared.unwrap().conflicts, 1);
    let events = control.events(0);
    let told = events.iter().filter(|e| e.kind == EventKind::UplinkConflict);
    assert!(told.map(|e| &e.text).all(|text| text.contains("nginx (process 7)")));
}

#[test]
fn a_nic_that_is_gone_ends_the_share_and_one_that_is_back_begins_it_again() {
    let (daemon, mut control) = with_web();
    publish(&mut control, "80:80");
    let info = control.create_uplink(&spec()).unwrap();
    daemon.fake.world().denied = Some("there is no interface `eth0`");
    control.notice(Notice::PortDead(info.port));
    assert_eq!(held(&daemon), []);
    control.notice(Notice::HostChanged(info.port, false));
    assert_ne!(control.uplink("lan").unwrap().state, "works");
    daemon.fake.world().denied = None;
    control.notice(Notice::HostChanged(info.port, false));
    assert_eq!(control.uplink("lan").unwrap().state, "works");
    assert_eq!(held(&daemon), [port(false, 6, 80), port(true, 6, 80)]);
}

#[test]
fn a_share_that_cannot_be_is_refused_and_leaves_nothing() {
    let (daemon, mut control) = with_web();
    let mut both = spec();
    if let UplinkKind::Packet(packet) = &mut both.kind {
        packet.dhcp = true;
    }
    refused(&daemon, &mut control, Invalid, &["leave out addresses"], |c| c.create_uplink(&both));
    daemon.fake.world().denied = Some("that takes CAP_NET_ADMIN");
    let words = ["CAP_NET_ADMIN"];
    refused(&daemon, &mut control, Denied, &words, |c| c.create_uplink(&spec()));
    assert_eq!(held(&daemon), []);
}
