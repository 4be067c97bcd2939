//! The holder: descriptors outlive whoever gave them.

use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use serde_json::json;
use wharf::attach::holder::{HolderClient, HolderError, listener_from_stdin, run_holder};
use wharf::base::time::Span;
use wharf::io::netlink::Netlink;
use wharf::io::netns::{NetNs, in_namespace};
use wharf::io::process::{Isolation, Network, detach, spawn};
use wharf::io::tap::Tap;

use crate::support::{Host, PATIENCE, isolated, move_new_tap, wait_readable};

/// Set for the process that [`holder_process`] is to become.
const HOLDER: &str = "WHARF_E2E_HOLDER_IDLE_SECONDS";

/// How this test's binary is started as a holder.
pub(crate) fn holder_command(idle_seconds: u64) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "holder::holder_process", "--nocapture", "--test-threads=1"]);
    command.env(HOLDER, idle_seconds.to_string());
    command
}

/// No test of its own: the holder process of the others.
#[test]
fn holder_process() {
    let Ok(idle) = std::env::var(HOLDER) else { return };
    detach().unwrap();
    // A test that fails may leave it behind.
    std::thread::spawn(|| {
        std::thread::sleep(std::time::Duration::from_mins(1));
        std::process::exit(1);
    });
    let listener = listener_from_stdin().unwrap();
    run_holder(&listener, Span::from_secs(idle.parse().unwrap())).unwrap();
    std::process::exit(0);
}

fn holder(socket: &Path, idle_seconds: u64) -> HolderClient {
    HolderClient::connect_or_spawn(socket, holder_command(idle_seconds)).unwrap()
}

#[test]
fn descriptors_come_back_after_the_client_was_killed() {
    isolated("holder::descriptors_come_back_after_the_client_was_killed", || {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("holder.sock");
        let ns = NetNs::staging().unwrap();
        // A daemon that gets a TAP and a listener, and is killed at its work.
        let isolation =
            Isolation { network: Network::Host, die_with_parent: true, new_session: false };
        let daemon = spawn(Command::new("sleep").arg("30"), isolation, || {
            let client = holder(&socket, 60);
            let taps = move_new_tap(&ns, "eth0", 2).unwrap();
            let fds: Vec<_> = taps.iter().map(AsFd::as_fd).collect();
            client.put("port/1", json!({"name": "web"}), &fds).unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            client.put("listener/1", json!(null), &[listener.as_fd()]).unwrap();
            client.put("gone", json!(1), &[listener.as_fd()]).unwrap();
            client.drop_entry("gone").unwrap();
            let address = listener.local_addr().unwrap().to_string();
            // Nothing of this may be closed orderly.
            std::mem::forget((client, taps, listener));
            Ok(address.into())
        })
        .unwrap();
        daemon.process().signal(Signal::KILL).unwrap();
        daemon.process().wait().unwrap();

        let address = String::from_utf8(daemon.report).unwrap();
        let client = HolderClient::connect(&socket).unwrap();
        assert_eq!(client.entries(), 2);
        let mut entries = client.take_all().unwrap();
        assert_eq!(entries.len(), 2);
        let tap = entries.pop().unwrap();
        assert_eq!((tap.key.as_str(), &tap.meta), ("port/1", &json!({"name": "web"})));
        let taps: Vec<Tap> = tap.fds.into_iter().map(|fd| Tap::from_fd(fd).unwrap()).collect();
        assert_eq!(taps.len(), 2);
        in_namespace(&ns, || crate::support::configure("eth0", &["10.9.0.1/24"])).unwrap();
        taps[0].write(&[0xff; 74]).unwrap_err(); // an impossible header: the kernel looked at it
        let listener: TcpListener = entries.pop().unwrap().fds.pop().unwrap().into();
        assert_eq!(listener.local_addr().unwrap().to_string(), address);
        // It still holds them: the next crash loses nothing either.
        assert_eq!(client.take_all().unwrap().len(), 2);
        client.quit().unwrap();
    });
}

#[test]
fn one_daemon_at_a_time() {
    isolated("holder::one_daemon_at_a_time", || {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("holder.sock");
        let first = holder(&socket, 60);
        let second = HolderClient::connect(&socket).unwrap_err();
        assert!(matches!(&second, HolderError::Refused(why) if why.contains("another daemon")));
        drop(first);
        HolderClient::connect(&socket).unwrap().quit().unwrap();
    });
}

#[test]
fn a_dead_tap_is_let_go_and_an_idle_holder_ends() {
    isolated("holder::a_dead_tap_is_let_go_and_an_idle_holder_ends", || {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("holder.sock");
        let client = holder(&socket, 1);
        let Host { ns, taps } = Host::new(&["10.9.0.1/24"], 1);
        client.put("port/1", json!(null), &[taps[0].as_fd()]).unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        client.put("pipe", json!(null), &[writer.as_fd()]).unwrap();
        drop((writer, client, taps, ns));
        let client = (0..500)
            .find_map(|_| {
                std::thread::sleep(std::time::Duration::from_millis(10));
                let client = HolderClient::connect(&socket).ok()?;
                (client.entries() == 1).then_some(client)
            })
            .expect("the dead TAP is let go");
        assert_eq!(client.take_all().unwrap()[0].key, "pipe");
        client.drop_entry("pipe").unwrap();
        drop(client);
        // Empty and alone: it ends, and with it the socket.
        assert!(!wait_readable(&reader, PATIENCE).is_empty());
        let ended = (0..5).any(|_| {
            // Every attempt keeps it awake for another second.
            std::thread::sleep(std::time::Duration::from_millis(1500));
            HolderClient::connect(&socket).is_err()
        });
        assert!(ended);
    });
}

#[test]
fn the_link_lives_as_long_as_the_holder_does() {
    isolated("holder::the_link_lives_as_long_as_the_holder_does", || {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("holder.sock");
        let client = holder(&socket, 60);
        let ns = NetNs::staging().unwrap();
        let fds: Vec<OwnedFd> =
            move_new_tap(&ns, "eth0", 1).unwrap().into_iter().map(OwnedFd::from).collect();
        client.put("port/1", json!(null), &[fds[0].as_fd()]).unwrap();
        drop(fds);
        let there = || in_namespace(&ns, || Netlink::open().unwrap().link("eth0").is_ok()).unwrap();
        assert!(there());
        client.put("port/1", json!(null), &[]).unwrap(); // replaced by nothing
        assert!(!there());
        client.quit().unwrap();
    });
}
