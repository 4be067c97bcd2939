//! Control with everything real: workers, TAPs, holder, store, and the kernel's own stacks at the ends.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use wharf::attach::client::attach;
use wharf::attach::protocol::{AttachReply, AttachRequest, Attached, Hello, Refusal};
use wharf::attach::server::{Access, serve_one};
use wharf::control::config::{Config, Paths};
use wharf::control::keeper::HolderKeeper;
use wharf::control::model::{EventKind, NetworkSpec};
use wharf::control::netstate::SystemHost;
use wharf::control::outside::Keeper;
use wharf::control::store::redb::RedbStore;
use wharf::control::workers::Workers;
use wharf::control::{Control, Outside, Settings};
use wharf::io::fdpass::{Connection, Listener};
use wharf::io::netlink::Netlink;
use wharf::io::netns::NetNs;

use crate::holder::holder_command;
use crate::support::{PATIENCE, connect_in, isolated, listener_in};

/// The directory of a daemon and of its successors. Its holder ends with it.
struct Place(tempfile::TempDir);

impl Place {
    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ =
            HolderKeeper::new(self.path().join("holder.sock"), || Ok(holder_command(10))).release();
    }
}

/// What a daemon is made of, without its sockets.
struct Daemon {
    control: Arc<Mutex<Control>>,
}

impl Daemon {
    /// Starts on the state and the holder in `dir`.
    fn start(dir: &Path) -> Self {
        let paths = Paths {
            runtime_dir: dir.to_owned(),
            state_dir: dir.join("state"),
            config_file: dir.join("wharf.toml"),
        };
        let store = RedbStore::open(&paths.state_dir).unwrap();
        let keeper = HolderKeeper::new(dir.join("holder.sock"), || Ok(holder_command(10)));
        let (workers, _, notices) = Workers::start(1).unwrap();
        let config = Config::default();
        let settings = Settings {
            config,
            paths,
            clock: || 0,
            queues: 1,
            guise: wharf::config::Guise::default(),
        };
        let outside = Outside {
            store: Box::new(store),
            dataplane: Box::new(workers),
            keeper: Box::new(keeper),
            host: Box::new(SystemHost {
                queues: 1,
                sharing: wharf::control::sharing::Sharing::nowhere(),
            }),
        };
        let control = Arc::new(Mutex::new(Control::new(settings, outside).unwrap()));
        let told = Arc::downgrade(&control);
        thread::spawn(move || {
            for notice in notices {
                let Some(control) = told.upgrade() else { return };
                control.lock().unwrap().notice(notice);
            }
        });
        Self { control }
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap()
    }

    /// Ends as if killed: nothing is detached, descriptors are merely closed.
    fn kill(self) {
        // The thread that reads notices may hold it for a moment.
        let mut control = self.control;
        for _ in 0..1_000 {
            match Arc::try_unwrap(control) {
                Ok(last) => return drop(last),
                Err(again) => control = again,
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("control is still in use");
    }

    /// Attaches a namespace the way an attacher does.
    fn attach(&self, dir: &Path, ns: &NetNs, request: AttachRequest) -> Attached {
        let socket = dir.join("attach.sock");
        let _ = std::fs::remove_file(&socket);
        let listener = Listener::bind(&socket, 0o600, None).unwrap();
        let access = Access { owner: rustix::process::geteuid().as_raw(), group: None };
        let done = thread::scope(|scope| {
            scope.spawn(|| {
                let connection: Connection = listener.accept().unwrap();
                serve_one(&connection, &Hello::new(1), access, |request, taps, _| {
                    match self.control().attach(&request, taps) {
                        Ok(attached) => AttachReply::Attached(attached),
                        Err(error) => AttachReply::Refused(Refusal::from(&error)),
                    }
                })
                .unwrap();
            });
            attach(&socket, ns, request).unwrap()
        });
        done.attached
    }
}

fn blue(host: bool) -> NetworkSpec {
    let subnets = ["10.20.0.0/24", "fd20::/64"].map(|s| s.parse().unwrap()).to_vec();
    NetworkSpec { subnets, host, ..NetworkSpec::named("blue") }
}

fn named(name: &str) -> AttachRequest {
    AttachRequest { name: Some(name.to_owned()), ..AttachRequest::new("blue", "eth0") }
}

fn until(what: &str, within: Duration, mut holds: impl FnMut() -> bool) {
    const STEP: Duration = Duration::from_millis(5);
    let happened = (0..within.div_duration_f64(STEP) as u32).any(|_| {
        thread::sleep(STEP);
        holds()
    });
    assert!(happened, "{what} did not happen within {within:?}");
}

fn exchange(from: &mut TcpStream, to: &mut TcpStream) {
    from.write_all(b"ping").unwrap();
    let mut buf = [0; 4];
    to.set_read_timeout(Some(PATIENCE)).unwrap();
    to.read_exact(&mut buf).unwrap();
    assert_eq!(&buf, b"ping");
}

#[test]
fn a_container_s_end_frees_everything_within_a_second() {
    isolated("control::a_container_s_end_frees_everything_within_a_second", || {
        let dir = Place(tempfile::tempdir().unwrap());
        let daemon = Daemon::start(dir.path());
        daemon.control().create_network(&blue(false)).unwrap();
        let ns = NetNs::staging().unwrap();
        let request = AttachRequest { publish: vec!["8080:80".into()], ..named("web") };
        let attached = daemon.attach(dir.path(), &ns, request);
        assert_eq!(attached.published, ["8080:80/tcp"]);
        drop(ns);
        let gone = || daemon.control().endpoints().is_empty();
        until("the endpoint's end", Duration::from_secs(1), gone);
        let control = daemon.control();
        assert!(control.ports(None).unwrap().is_empty());
        assert_eq!(control.network("blue").unwrap().subnets[0].used, 0);
        assert_eq!(control.events(0).last().unwrap().kind, EventKind::EndpointLost);
    });
}

#[test]
fn a_connection_between_containers_survives_the_daemon() {
    isolated("control::a_connection_between_containers_survives_the_daemon", || {
        let dir = Place(tempfile::tempdir().unwrap());
        let daemon = Daemon::start(dir.path());
        daemon.control().create_network(&blue(false)).unwrap();
        let (a, b) = (NetNs::staging().unwrap(), NetNs::staging().unwrap());
        let web = daemon.attach(dir.path(), &a, named("web"));
        daemon.attach(dir.path(), &b, named("db"));
        let mut connections: Vec<(TcpStream, TcpStream)> = web
            .addresses
            .iter()
            .map(|address| {
                let (listener, to): (TcpListener, _) = listener_in(&a, address.addr());
                let client = connect_in(&b, to);
                (client, listener.accept().unwrap().0)
            })
            .collect();
        assert_eq!(connections.len(), 2, "both families");
        for (client, server) in &mut connections {
            exchange(client, server);
        }
        let before = daemon.control().endpoints();
        daemon.kill();
        let daemon = Daemon::start(dir.path());
        assert_eq!(daemon.control().endpoints(), before);
        for (client, server) in &mut connections {
            exchange(server, client);
            exchange(client, server);
        }
        let third = NetNs::staging().unwrap();
        let late = daemon.attach(dir.path(), &third, named("late"));
        assert!(before.iter().all(|e| e.mac != late.mac), "addresses stayed taken");
    });
}

#[test]
fn a_container_that_ended_while_the_daemon_was_dead_is_not_brought_back() {
    isolated(
        "control::a_container_that_ended_while_the_daemon_was_dead_is_not_brought_back",
        || {
            let dir = Place(tempfile::tempdir().unwrap());
            let daemon = Daemon::start(dir.path());
            daemon.control().create_network(&blue(false)).unwrap();
            let (a, b) = (NetNs::staging().unwrap(), NetNs::staging().unwrap());
            daemon.attach(dir.path(), &a, named("web"));
            daemon.attach(dir.path(), &b, named("db"));
            daemon.kill();
            drop(a);
            let daemon = Daemon::start(dir.path());
            until("web's end", Duration::from_secs(2), || {
                daemon.control().endpoints().iter().map(|e| e.name.as_str()).eq(["db"])
            });
            let control = daemon.control();
            let lost = control.events(0).into_iter().find(|e| e.kind == EventKind::EndpointLost);
            assert_eq!(lost.unwrap().endpoint.as_deref(), Some("web"));
        },
    );
}

#[test]
fn the_host_speaks_with_a_container_through_its_own_interface() {
    isolated("control::the_host_speaks_with_a_container_through_its_own_interface", || {
        let dir = Place(tempfile::tempdir().unwrap());
        let daemon = Daemon::start(dir.path());
        let info = daemon.control().create_network(&blue(true)).unwrap();
        let name = info.host_interface.unwrap();
        let link = Netlink::open().unwrap().link(&name).unwrap();
        assert_eq!(link.mac, Some(info.gateway_mac));
        let ns = NetNs::staging().unwrap();
        let web = daemon.attach(dir.path(), &ns, named("web"));
        for address in &web.addresses {
            let (listener, to) = listener_in(&ns, address.addr());
            let mut client = TcpStream::connect_timeout(&to, PATIENCE).expect("host to container");
            exchange(&mut client, &mut listener.accept().unwrap().0);
            let gateway: IpAddr = web
                .gateways
                .iter()
                .copied()
                .find(|g| g.is_ipv4() == address.addr().is_ipv4())
                .unwrap();
            let server = TcpListener::bind((gateway, 0)).unwrap();
            let mut client = connect_in(&ns, server.local_addr().unwrap());
            exchange(&mut client, &mut server.accept().unwrap().0);
        }
        daemon.control().remove_network("blue", true).unwrap();
        until("the end of the host's interface", PATIENCE, || {
            Netlink::open().unwrap().link(&name).is_err()
        });
        UdpSocket::bind("10.20.0.1:0").expect_err("its address is gone, too");
    });
}
