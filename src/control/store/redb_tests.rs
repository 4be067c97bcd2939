use crate::control::policy::{self, Document};
use std::io::{Seek, SeekFrom, Write};

use super::*;
use crate::attach::protocol::RateLimits;
use crate::base::ids::{NetworkId, PortId, PublicationId, ServiceId, UplinkId};
use crate::control::model::{
    Affinity, PacketSpec, PortRange, Proto, ServiceSpec, UplinkKind, UplinkSpec,
};
use crate::control::store::record::{
    EndpointRecord, HostRecord, NetworkRecord, PublicationRecord, Record, ServiceRecord,
    UplinkRecord,
};

fn snapshot() -> Snapshot {
    let network = NetworkRecord {
        id: NetworkId(3),
        name: "blue".into(),
        subnets: vec![
            ("10.20.0.0/24".parse().unwrap(), "10.20.0.1".parse().unwrap()),
            ("fd00::/64".parse().unwrap(), "fd00::1".parse().unwrap()),
        ],
        gateway_mac: "02:42:0a:14:00:01".parse().unwrap(),
        internal: false,
        isolated: true,
        icc: true,
        icc_except: Some("role=server".into()),
        guard: true,
        host: Some(HostRecord { port: PortId(9), ifname: "wharf0".into() }),
        uplink: None,
        mtu: 1500,
        host_loopback: false,
        created_ms: 7,
    };
    let packet = PacketSpec { interface: "eth0".into(), dhcp: true, ..PacketSpec::default() };
    let uplink = UplinkRecord {
        id: UplinkId(1),
        spec: UplinkSpec { name: "lan".into(), kind: UplinkKind::Packet(packet) },
        port: PortId(4),
        mac: "02:00:00:00:00:01".parse().unwrap(),
    };
    let endpoint = EndpointRecord {
        id: "0123456789abcdef".into(),
        name: "web".into(),
        network: NetworkId(3),
        ifname: "eth0".into(),
        port: PortId(5),
        mac: "02:42:0a:14:00:02".parse().unwrap(),
        addrs: vec!["10.20.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
        labels: [("a".to_owned(), "b".to_owned())].into(),
        aliases: vec!["www".into()],
        pid: Some(12),
        netns: None,
        container_id: None,
        rate: RateLimits::default(),
        since_ms: 8,
    };
    let publication = PublicationRecord {
        id: PublicationId(70_000),
        endpoint: endpoint.id.clone(),
        host_addr: Some("::1".parse().unwrap()),
        host_ports: PortRange::new(8000, 8010).unwrap(),
        ports: PortRange::new(9000, 9010).unwrap(),
        proto: Proto::Udp,
    };
    let spec = ServiceSpec {
        name: "shop".into(),
        ports: vec!["80:8080/tcp".parse().unwrap()],
        selector: [("app".to_owned(), "shop".to_owned())].into(),
        affinity: Some(Affinity::DEFAULT),
        ..ServiceSpec::default()
    };
    let service = ServiceRecord { id: ServiceId(3), spec, created_ms: 9 };
    let file = "policy: office\npriority: 7\nselect: app=web\nrules:\n\
                - allow: { to: '*.example.org', ports: [443, http/udp] }\n\
                - deny: { from: '10.0.0.0/8 except 10.1.0.0/16' }\n---\n\
                apiVersion: v1\nkind: Namespace\nmetadata: { name: prod, labels: { a: b } }\n";
    let [Document::Policy(policy), Document::Namespace(namespace)] =
        <[_; 2]>::try_from(policy::read(file).unwrap()).unwrap()
    else {
        unreachable!("in the order of the file")
    };
    Snapshot {
        networks: vec![network],
        uplinks: vec![uplink],
        endpoints: vec![endpoint],
        publications: vec![publication],
        services: vec![service],
        policies: vec![policy],
        namespaces: vec![namespace],
    }
}

fn puts(snapshot: &Snapshot) -> Vec<Change> {
    let mut changes: Vec<Change> = snapshot.networks.iter().map(Record::put).collect();
    changes.extend(snapshot.uplinks.iter().map(Record::put));
    changes.extend(snapshot.endpoints.iter().map(Record::put));
    changes.extend(snapshot.publications.iter().map(Record::put));
    changes.extend(snapshot.services.iter().map(Record::put));
    changes.extend(snapshot.policies.iter().map(Record::put));
    changes.extend(snapshot.namespaces.iter().map(Record::put));
    changes
}

#[test]
fn what_was_written_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let wanted = snapshot();
    let mut store = RedbStore::open(dir.path()).unwrap();
    assert_eq!(store.load().unwrap(), Snapshot::default());
    store.write(&puts(&wanted)).unwrap();
    drop(store);
    let mut store = RedbStore::open(dir.path()).unwrap();
    assert_eq!(store.load().unwrap(), wanted);
    store.write(&[wanted.endpoints[0].remove(), wanted.publications[0].remove()]).unwrap();
    drop(store);
    let left = RedbStore::open(dir.path()).unwrap().load().unwrap();
    assert!(left.endpoints.is_empty() && left.publications.is_empty());
    assert_eq!(left.networks, wanted.networks);
}

#[test]
fn a_second_daemon_on_the_same_state_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let first = RedbStore::open(dir.path()).unwrap();
    let error = RedbStore::open(dir.path()).unwrap_err();
    assert!(matches!(error, StoreError::InUse(_)), "{error}");
    drop(first);
    RedbStore::open(dir.path()).unwrap();
}

#[test]
fn a_damaged_store_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    let rubbish = b"this is no database ".repeat(1000);
    fs::write(&path, &rubbish).unwrap();
    let error = RedbStore::open(dir.path()).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap(), rubbish);
}

#[test]
fn a_store_whose_end_or_middle_is_lost_is_refused() {
    for damage in ["cut", "overwrite"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.redb");
        RedbStore::open(dir.path()).unwrap().write(&puts(&snapshot())).unwrap();
        let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        let length = file.metadata().unwrap().len();
        if damage == "cut" {
            file.set_len(length / 3).unwrap();
        } else {
            file.seek(SeekFrom::Start(4096)).unwrap();
            file.write_all(&vec![0xa5; (length - 4096) as usize]).unwrap();
        }
        drop(file);
        let opened =
            std::panic::catch_unwind(|| RedbStore::open(dir.path()).and_then(|s| s.load()));
        let error = opened.expect("no panic").expect_err(damage);
        assert!(matches!(error, StoreError::Corrupt { .. }), "{damage}: {error}");
    }
}

#[test]
fn a_record_that_does_not_parse_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = RedbStore::open(dir.path()).unwrap();
    let json = Some("{\"id\":1}".to_owned());
    store.write(&[Change { kind: Kind::Network, key: "1".into(), json }]).unwrap();
    let error = store.load().unwrap_err().to_string();
    assert!(error.contains("record 1 of networks"), "{error}");
}

#[test]
fn a_store_of_a_newer_schema_is_refused_with_both_versions() {
    let dir = tempfile::tempdir().unwrap();
    drop(RedbStore::open(dir.path()).unwrap());
    let database = Database::create(dir.path().join("state.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(META).unwrap().insert("schema", "7").unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = RedbStore::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("schema 7") && error.contains("knows 1"), "{error}");
}

#[test]
fn a_state_directory_that_cannot_be_made_is_one_clear_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    let error = RedbStore::open(&file.join("state")).unwrap_err().to_string();
    assert!(error.contains("file/state") && !error.contains('\n'), "{error}");
}

#[test]
fn a_daemon_killed_at_its_first_start_leaves_nothing_in_the_way() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("state.draft-4711"), b"half a page").unwrap();
    let store = RedbStore::open(dir.path()).unwrap();
    let files: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert_eq!(files, ["state.redb"]);
    drop(store);
    fs::write(dir.path().join("state.redb"), b"").unwrap();
    assert!(RedbStore::open(dir.path()).is_ok(), "an empty file is a new store");
}
