use super::*;
use crate::control::model::{NetworkUpdate, PacketSpec, UplinkKind, UplinkSpec};
use crate::control::store::StoreError;
use crate::control::store::redb::RedbStore;

/// A daemon with a container that publishes, on a network where the host takes part, and an uplink.
fn busy() -> (Daemon, Control) {
    let (daemon, mut control) = running();
    let host = NetworkUpdate { host: Some(true), ..NetworkUpdate::default() };
    control.update_network("blue", &host).unwrap();
    let kind = UplinkKind::Packet(PacketSpec {
        interface: "eth0".into(),
        addresses: vec!["192.168.7.2/24".parse().unwrap()],
        ..PacketSpec::default()
    });
    control.create_uplink(&UplinkSpec { name: "default".into(), kind }).unwrap();
    for name in ["web", "db"] {
        let wish =
            AttachRequest { publish: vec!["80".into()], netns: Some(netns(7)), ..request(name) };
        control.attach(&wish, Vec::new()).unwrap();
    }
    (daemon, control)
}

fn tables(daemon: &Daemon) -> String {
    let world = daemon.fake.world();
    let tables = &world.tables;
    let mut ports: Vec<_> = tables.ports().map(|p| format!("{p:?}")).collect();
    ports.sort();
    let mut uplinks: Vec<_> = tables.uplinks().map(|u| format!("{u:?}")).collect();
    uplinks.sort();
    let mut publications: Vec<_> = tables.publications().iter().map(|p| format!("{p:?}")).collect();
    publications.sort();
    format!("{ports:?} {uplinks:?} {publications:?}")
}

#[test]
fn everything_is_back_after_a_restart_under_the_same_numbers_and_addresses() {
    let (daemon, control) = busy();
    let before = (control.networks(), control.uplinks(), control.endpoints(), tables(&daemon));
    let kept = daemon.fake.world().kept.clone();
    drop(control);
    let control = daemon.start().unwrap();
    let after = (control.networks(), control.uplinks(), control.endpoints(), tables(&daemon));
    assert_eq!(before, after);
    assert_eq!(daemon.fake.world().kept, kept);
    assert!(kinds(&control).contains(&EventKind::EndpointRestored));
    assert_eq!(kinds(&control).last(), Some(&EventKind::DaemonStarted));
}

#[test]
fn what_was_taken_before_the_restart_is_taken_after_it() {
    let (daemon, control) = busy();
    let published = control.ports(None).unwrap();
    drop(control);
    let mut control = daemon.start().unwrap();
    let wish = AttachRequest { ip: "10.20.0.2".parse().ok(), ..request("x") };
    refused(&daemon, &mut control, ErrorCode::Conflict, &["taken by `web`"], |c| {
        c.attach(&wish, Vec::new())
    });
    let port = published[0].host_ports;
    let wish = AttachRequest { publish: vec![format!("{port}:1")], ..request("x") };
    refused(&daemon, &mut control, ErrorCode::Conflict, &["`web` publishes"], |c| {
        c.attach(&wish, Vec::new())
    });
    let fresh = attach(&mut control, "fresh");
    assert!(control.endpoints().iter().filter(|e| e.mac == fresh.mac).count() == 1);
}

#[test]
fn an_endpoint_whose_tap_is_gone_is_removed_and_its_things_are_free() {
    let (daemon, control) = busy();
    let web = control.endpoint("web").unwrap().remove(0);
    let records = daemon.store.len();
    drop(control);
    daemon.fake.world().kept.remove(&web.id);
    let mut control = daemon.start().unwrap();
    assert_eq!(control.endpoints().len(), 1);
    assert_eq!(daemon.store.len(), records - 2, "the endpoint and its publication");
    let lost = control.events(0).into_iter().find(|e| e.kind == EventKind::EndpointLost).unwrap();
    assert_eq!(lost.endpoint.as_deref(), Some("web"));
    assert!(lost.text.contains("its TAP is gone"), "{}", lost.text);
    let wish = AttachRequest {
        ip: "10.20.0.2".parse().ok(),
        publish: vec![web.published[0].to_string()],
        ..request("web")
    };
    control.attach(&wish, Vec::new()).unwrap();
}

#[test]
fn a_tap_that_no_record_wants_is_let_go() {
    let (daemon, control) = busy();
    drop(control);
    daemon.fake.world().kept.insert("0000000000000000".into());
    daemon.start().unwrap();
    assert!(!daemon.fake.world().kept.contains("0000000000000000"));
}

#[test]
fn a_daemon_starts_without_the_right_to_its_uplink_and_says_what_is_missing() {
    let (daemon, control) = busy();
    drop(control);
    daemon.fake.world().denied = Some("that takes CAP_NET_RAW");
    daemon.fake.world().kept.retain(|key| !key.starts_with("host:"));
    let control = daemon.start().unwrap();
    let uplink = control.uplink("default").unwrap();
    assert!(uplink.state.contains("CAP_NET_RAW"), "{}", uplink.state);
    assert_eq!(control.network("blue").unwrap().uplink, None);
    assert_eq!(control.endpoints().len(), 2);
    let texts: Vec<_> = control.events(0).into_iter().map(|e| e.text).collect();
    assert!(texts.iter().any(|t| t.contains("the host is not on network blue")), "{texts:?}");
}

#[test]
fn a_host_interface_that_ended_with_the_daemon_is_made_anew_under_its_name() {
    let (daemon, control) = busy();
    drop(control);
    daemon.fake.world().kept.retain(|key| !key.starts_with("host:"));
    daemon.fake.world().interfaces.clear();
    let control = daemon.start().unwrap();
    let name = control.network("blue").unwrap().host_interface.unwrap();
    assert_eq!(
        daemon.fake.world().interfaces[&name].mac,
        control.network("blue").unwrap().gateway_mac
    );
}

#[test]
fn the_config_file_s_networks_and_uplinks_exist_and_follow_it() {
    let mut daemon = Daemon::new();
    daemon.config.networks = vec![blue(), network("default", &["10.1.0.0/24"])];
    daemon.config.default_uplink = Some("packet:eth0".into());
    let control = daemon.start().unwrap();
    assert_eq!(control.networks().len(), 2);
    assert_eq!(control.network("default").unwrap().subnets[0].subnet.to_string(), "10.1.0.0/24");
    let (uplink, mac) = (control.uplinks()[0].id, control.uplinks()[0].mac);
    drop(control);
    daemon.config.networks[0].icc = false;
    daemon.config.default_uplink = None;
    daemon.config.uplinks = vec![UplinkSpec {
        name: "default".into(),
        kind: UplinkKind::Packet(PacketSpec {
            interface: "eth0".into(),
            addresses: vec!["192.168.7.2/24".parse().unwrap()],
            ..PacketSpec::default()
        }),
    }];
    let control = daemon.start().unwrap();
    assert!(!control.network("blue").unwrap().icc);
    let info = control.uplink("default").unwrap();
    assert_eq!((info.id, info.mac), (uplink, mac), "a changed uplink keeps number and MAC");
    assert_eq!(info.addresses.len(), 1);
    drop(control);
    daemon.config.uplinks.clear();
    daemon.config.default_uplink = Some("none".into());
    assert!(daemon.start().unwrap().uplinks().is_empty());
}

#[test]
fn a_config_file_that_contradicts_the_store_stops_the_start_in_words() {
    let mut daemon = Daemon::new();
    daemon.config.networks = vec![blue()];
    drop(daemon.start().unwrap());
    daemon.config.networks = vec![network("blue", &["10.21.0.0/24"])];
    let error = daemon.start().unwrap_err();
    assert!(error.to_string().contains("`blue` of the config file"), "{error}");
    assert!(error.hint().unwrap().contains("wharf network rm blue"));
    daemon.config.networks = vec![blue(), network("red", &["10.20.0.0/16"])];
    let error = daemon.start().unwrap_err();
    assert_eq!(error.code(), ErrorCode::Conflict, "{error}");
}

#[test]
fn without_a_free_range_the_daemon_starts_without_a_default_network() {
    let daemon = Daemon::new();
    daemon.fake.world().routes =
        vec![("172.16.0.0/12", "a route of the host"), ("192.168.0.0/16", "a route of the host")];
    let control = daemon.start().unwrap();
    assert!(control.networks().is_empty());
    assert!(control.events(0)[0].text.contains("there is no network `default`"));
}

#[test]
fn a_store_in_a_file_serves_two_lives_but_not_two_daemons() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::new();
    let open = || RedbStore::open(dir.path());
    let mut control = daemon.start_on(Box::new(open().unwrap())).unwrap();
    control.create_network(&blue()).unwrap();
    let before = control.networks();
    let second = open().unwrap_err();
    assert!(matches!(second, StoreError::InUse(_)), "{second}");
    drop(control);
    let control = daemon.start_on(Box::new(open().unwrap())).unwrap();
    assert_eq!(control.networks(), before);
}

#[test]
fn ports_are_listened_for_again_and_one_that_is_taken_meanwhile_is_told_and_tried_again() {
    let (daemon, control) = busy();
    let published = control.ports(None).unwrap();
    let before: Vec<_> = daemon.fake.world().listening.values().cloned().collect();
    drop(control);
    daemon.fake.world().busy = [published[1].host_ports.first()].into();
    let mut control = daemon.start().unwrap();
    assert_eq!(control.ports(None).unwrap(), published, "it stays published");
    assert_eq!(daemon.fake.world().listening.len(), before.len() - 1);
    let lost = control.events(0).into_iter().find(|e| e.kind == EventKind::PortLost).unwrap();
    assert!(lost.text.contains("in use by another program"), "{}", lost.text);
    assert_eq!(lost.endpoint.as_deref(), Some(published[1].endpoint.as_str()));
    assert!(control.status().notes.contains(&lost.text));
    daemon.fake.world().busy.clear();
    control.reload(daemon.config.clone()).unwrap();
    let after: Vec<_> = daemon.fake.world().listening.values().cloned().collect();
    let ends = |all: &[Published]| -> Vec<_> {
        all.iter().map(|p| (p.port, p.target.as_ref().clone())).collect()
    };
    assert_eq!(ends(&after), ends(&before));
    assert!(!control.status().notes.contains(&lost.text));
}
