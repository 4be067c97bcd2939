//! The store on real file systems: full, read-only, and under a daemon that is killed at its work.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::mount::{MountFlags, mount, mount_remount};
use wharf::attach::protocol::RateLimits;
use wharf::base::ids::{PortId, PublicationId};
use wharf::control::model::{PortRange, Proto};
use wharf::control::store::record::{EndpointRecord, PublicationRecord, Record};
use wharf::control::store::redb::RedbStore;
use wharf::control::store::{Store, StoreError};
use wharf::wire::mac::Mac;

use crate::support::isolated;

/// Set for the process that [`writer_process`] is to become: the state directory.
const WRITER: &str = "WHARF_E2E_STORE_WRITER";

fn endpoint(number: u32) -> EndpointRecord {
    EndpointRecord {
        id: format!("{number:016x}"),
        name: format!("c{number}"),
        network: wharf::base::ids::NetworkId(0),
        ifname: "eth0".into(),
        port: PortId(number as u16),
        mac: Mac::ZERO,
        addrs: vec!["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
        labels: [("label".to_owned(), "x".repeat(500))].into(),
        aliases: Vec::new(),
        pid: None,
        netns: None,
        container_id: None,
        rate: RateLimits::default(),
        since_ms: 0,
    }
}

fn publication(number: u32) -> PublicationRecord {
    PublicationRecord {
        id: PublicationId(number),
        endpoint: format!("{number:016x}"),
        host_addr: None,
        host_ports: PortRange::single(80),
        ports: PortRange::single(80),
        proto: Proto::Tcp,
    }
}

fn write(store: &mut RedbStore, number: u32) -> Result<(), StoreError> {
    store.write(&[endpoint(number).put(), publication(number).put()])
}

/// A small file system of its own at `dir`, in the test's mount namespace.
fn small_disk(dir: &Path) {
    let options = c"size=3m";
    mount("tmpfs", dir, "tmpfs", MountFlags::empty(), Some(options)).expect("a tmpfs");
}

#[test]
fn a_full_disk_loses_nothing_and_the_store_works_again_when_there_is_space() {
    isolated(
        "store::a_full_disk_loses_nothing_and_the_store_works_again_when_there_is_space",
        || {
            let dir = tempfile::tempdir().unwrap();
            small_disk(dir.path());
            let mut store = RedbStore::open(&dir.path().join("state")).unwrap();
            write(&mut store, 0).unwrap();
            let ballast = dir.path().join("ballast");
            let mut file = File::create(&ballast).unwrap();
            while file.write_all(&[0; 4096]).is_ok() {}
            let mut written = 1;
            let error = loop {
                match write(&mut store, written) {
                    Ok(()) => written += 1,
                    Err(error) => break error,
                }
                assert!(written < 10_000, "the disk never filled");
            };
            assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
            drop(file);
            fs::remove_file(&ballast).unwrap();
            write(&mut store, written).unwrap();
            drop(store);
            let store = RedbStore::open(&dir.path().join("state")).unwrap();
            let snapshot = store.load().unwrap();
            assert_eq!(snapshot.endpoints.len(), written as usize + 1);
            assert_eq!(snapshot.publications.len(), written as usize + 1);
        },
    );
}

#[test]
fn a_read_only_state_directory_is_one_clear_line() {
    isolated("store::a_read_only_state_directory_is_one_clear_line", || {
        let dir = tempfile::tempdir().unwrap();
        small_disk(dir.path());
        let state = dir.path().join("state");
        write(&mut RedbStore::open(&state).unwrap(), 0).unwrap();
        mount_remount(dir.path(), MountFlags::RDONLY, "").unwrap();
        for place in [state, dir.path().join("elsewhere")] {
            let error = RedbStore::open(&place).unwrap_err();
            assert!(matches!(error, StoreError::ReadOnly(_)), "{error:?}");
            assert!(error.to_string().contains("--state-dir"), "{error}");
        }
    });
}

/// No test of its own: the daemon that the next one kills.
#[test]
fn writer_process() {
    let Ok(dir) = std::env::var(WRITER) else { return };
    let mut store = RedbStore::open(Path::new(&dir)).unwrap();
    for number in 0..1_000_000 {
        write(&mut store, number).unwrap();
    }
}

#[test]
fn a_killed_daemon_leaves_a_store_that_opens_and_no_half_of_anything() {
    let dir = tempfile::tempdir().unwrap();
    let mut most = 0;
    for millis in [30, 50, 80, 120, 170] {
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::writer_process", "--test-threads=1"])
            .env(WRITER, dir.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(millis));
        writer.kill().unwrap();
        writer.wait().unwrap();
        let snapshot = RedbStore::open(dir.path()).unwrap().load().unwrap();
        let endpoints = snapshot.endpoints.iter().map(|e| e.id.clone());
        let mut publishers: Vec<_> =
            snapshot.publications.into_iter().map(|p| p.endpoint).collect();
        publishers.sort();
        assert_eq!(endpoints.collect::<Vec<_>>(), publishers);
        most = most.max(publishers.len());
    }
    assert!(most > 0, "the writer never came to write");
}
