//! Attaching: the client against a daemon's end that says what the test wants.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};

use rustix::process::Signal;
use wharf::attach::client::{AttachError, attach, reattach};
use wharf::attach::protocol::{
    AttachReply, AttachRequest, Attached, Hello, Refusal, RefusalCode, RouteSpec,
};
use wharf::attach::server::{Access, ServeError, serve_one};
use wharf::io::fdpass::Listener;
use wharf::io::netlink::{Link, Netlink, Route};
use wharf::io::netns::{NetNs, in_namespace};
use wharf::io::process::{Isolation, Network, prepare_network, run_as_owner_of, spawn};
use wharf::io::tap::Tap;

use crate::support::{
    PATIENCE, connect_in, copy_frames, give_up_capabilities, in_one_thread, isolated, listener_in,
    udp_in, wait_readable,
};

/// A daemon that gives each attacher the next of its answers and keeps the TAPs.
struct Daemon {
    socket: PathBuf,
    taps: Receiver<Vec<Tap>>,
    thread: JoinHandle<Vec<Result<Attached, ServeError>>>,
    _dir: tempfile::TempDir,
}

impl Daemon {
    fn start(queues: usize, replies: Vec<AttachReply>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("attach.sock");
        let listener = Listener::bind(&socket, 0o600, None).unwrap();
        let (keep, taps) = channel();
        let access = Access { owner: rustix::process::geteuid().as_raw(), group: None };
        let thread = thread::spawn(move || {
            let serve = |reply: AttachReply| {
                let connection = listener.accept().unwrap();
                serve_one(&connection, &Hello::new(queues), access, |request, taps, peer| {
                    assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
                    assert!(request.netns.is_some());
                    if matches!(reply, AttachReply::Attached(_)) {
                        keep.send(taps).unwrap();
                    }
                    reply
                })
            };
            replies.into_iter().map(serve).collect()
        });
        Self { socket, taps, thread, _dir: dir }
    }
}

fn assigned(number: u8) -> Attached {
    Attached {
        endpoint: format!("e{number}"),
        name: format!("c{number}"),
        mac: format!("02:42:0a:09:00:{number:02x}").parse().unwrap(),
        addresses: vec![
            format!("10.9.0.{number}/24").parse().unwrap(),
            format!("fd09::{number:x}/64").parse().unwrap(),
        ],
        gateways: vec!["10.9.0.254".parse().unwrap(), "fd09::ff".parse().unwrap()],
        routes: vec![],
        dns: vec![],
        search: vec![],
        mtu: 1400,
        txqueuelen: 2000,
        published: vec![],
    }
}

fn links(ns: &NetNs) -> Vec<Link> {
    in_namespace(ns, || Netlink::open().unwrap().links().unwrap()).unwrap()
}

fn routes(ns: &NetNs) -> Vec<Route> {
    in_namespace(ns, || Netlink::open().unwrap().routes().unwrap()).unwrap()
}

fn only_loopback(ns: &NetNs) {
    let names: Vec<_> = links(ns).into_iter().map(|link| link.name).collect();
    assert_eq!(names, ["lo"]);
}

#[test]
fn two_containers_reach_each_other_at_once_in_both_families() {
    isolated("attach::two_containers_reach_each_other_at_once_in_both_families", || {
        let replies = [1, 2].map(|n| AttachReply::Attached(assigned(n))).to_vec();
        let daemon = Daemon::start(2, replies);
        let (a, b) = (NetNs::staging().unwrap(), NetNs::staging().unwrap());
        for ns in [&a, &b] {
            let done = attach(&daemon.socket, ns, AttachRequest::new("blue", "eth0")).unwrap();
            assert_eq!(done.warnings, Vec::<String>::new());
        }
        let (mut taps_a, mut taps_b) = (daemon.taps.recv().unwrap(), daemon.taps.recv().unwrap());
        assert_eq!((taps_a.len(), taps_b.len()), (2, 2));
        // All queues: the kernel chooses one by the flow.
        let pairs = [(taps_a.remove(0), taps_b.remove(0)), (taps_a.remove(0), taps_b.remove(0))];
        let copiers: Vec<_> = pairs
            .into_iter()
            .map(|(x, y)| thread::spawn(move || copy_frames(&x, &y, |_| {})))
            .collect();
        for address in ["10.9.0.1", "fd09::1"] {
            let address: IpAddr = address.parse().unwrap();
            let (listener, to) = listener_in(&a, address);
            drop(connect_in(&b, to));
            drop(listener);
            let receiver = udp_in(&a, address, 0);
            let from = if address.is_ipv4() { "10.9.0.2" } else { "fd09::2" };
            let sender = udp_in(&b, from.parse().unwrap(), 0);
            sender.send_to(b"hello", receiver.local_addr().unwrap()).unwrap();
            let mut buf = [0; 16];
            assert_eq!(receiver.recv_from(&mut buf).unwrap().0, 5);
        }
        drop((a, b));
        for copier in copiers {
            copier.join().unwrap();
        }
        assert!(daemon.thread.join().unwrap().iter().all(Result::is_ok));
    });
}

#[test]
fn the_link_becomes_what_the_daemon_said() {
    isolated("attach::the_link_becomes_what_the_daemon_said", || {
        let mut reply = assigned(5);
        let dst = "10.77.0.0/16".parse().unwrap();
        reply.routes.push(RouteSpec { dst, via: Some("10.9.0.253".parse().unwrap()) });
        let daemon = Daemon::start(1, vec![AttachReply::Attached(reply.clone())]);
        let ns = NetNs::staging().unwrap();
        attach(&daemon.socket, &ns, AttachRequest::new("blue", "eth0")).unwrap();
        let link = links(&ns).into_iter().find(|link| link.name == "eth0").unwrap();
        assert!(link.up && link.carrier);
        assert_eq!((link.mac, link.mtu, link.txqueuelen), (Some(reply.mac), 1400, 2000));
        let addresses = in_namespace(&ns, || Netlink::open().unwrap().addresses().unwrap());
        let mut nets: Vec<_> = addresses
            .unwrap()
            .into_iter()
            .filter(|a| a.index == link.index)
            // The kernel finishes its own link-local address a moment later.
            .inspect(|a| assert!(!a.tentative || a.link_local, "{a:?}"))
            .map(|a| a.net.to_string())
            .collect();
        nets.sort();
        assert_eq!(nets, ["10.9.0.5/24", "fd09::5/64", "fe80::42:aff:fe09:5/64"]);
        let routes = routes(&ns);
        for gateway in &reply.gateways {
            assert!(routes.iter().any(|r| r.is_default() && r.via == Some(*gateway)));
        }
        assert!(routes.iter().any(|r| r.destination == dst));
    });
}

#[test]
fn a_second_network_keeps_the_default_route_of_the_first() {
    isolated("attach::a_second_network_keeps_the_default_route_of_the_first", || {
        let mut second = assigned(7);
        second.addresses = vec!["10.10.0.7/24".parse().unwrap(), "fd10::7/64".parse().unwrap()];
        second.gateways = vec!["10.10.0.1".parse().unwrap(), "fd10::1".parse().unwrap()];
        let replies = vec![AttachReply::Attached(assigned(6)), AttachReply::Attached(second)];
        let daemon = Daemon::start(1, replies);
        let ns = NetNs::staging().unwrap();
        attach(&daemon.socket, &ns, AttachRequest::new("blue", "eth0")).unwrap();
        attach(&daemon.socket, &ns, AttachRequest::new("green", "eth1")).unwrap();
        let mut gateways: Vec<_> =
            routes(&ns).iter().filter(|r| r.is_default()).filter_map(|r| r.via).collect();
        gateways.sort();
        assert_eq!(gateways, assigned(6).gateways);
    });
}

#[test]
fn a_refusal_is_passed_on_and_leaves_no_link() {
    isolated("attach::a_refusal_is_passed_on_and_leaves_no_link", || {
        let refusal = Refusal::new(RefusalCode::Conflict, "10.9.0.5 belongs to `web`");
        let daemon = Daemon::start(1, vec![AttachReply::Refused(refusal.clone())]);
        let ns = NetNs::staging().unwrap();
        let error = attach(&daemon.socket, &ns, AttachRequest::new("blue", "eth0")).unwrap_err();
        assert!(matches!(error, AttachError::Refused(r) if r == refusal));
        only_loopback(&ns);
    });
}

#[test]
fn a_link_that_cannot_be_configured_is_removed_and_the_daemon_sees_it() {
    isolated("attach::a_link_that_cannot_be_configured_is_removed_and_the_daemon_sees_it", || {
        let mut impossible = assigned(5);
        impossible.mtu = 20;
        let daemon = Daemon::start(1, vec![AttachReply::Attached(impossible)]);
        let ns = NetNs::staging().unwrap();
        let error = attach(&daemon.socket, &ns, AttachRequest::new("blue", "eth0")).unwrap_err();
        assert!(error.to_string().contains("MTU of 20"), "{error}");
        only_loopback(&ns);
        let taps = daemon.taps.recv().unwrap();
        assert!(!wait_readable(&taps[0], PATIENCE).is_empty());
        assert!(Tap::is_dead_error(&taps[0].read(&mut [0; 2048]).unwrap_err()));
    });
}

#[test]
fn a_taken_interface_name_fails_before_the_daemon_is_asked() {
    isolated("attach::a_taken_interface_name_fails_before_the_daemon_is_asked", || {
        let reply = AttachReply::Attached(assigned(5));
        let daemon = Daemon::start(1, vec![reply]);
        let ns = NetNs::staging().unwrap();
        in_namespace(&ns, || Netlink::open().unwrap().create_veth("eth0", "v1", None))
            .unwrap()
            .unwrap();
        let error = attach(&daemon.socket, &ns, AttachRequest::new("blue", "eth0")).unwrap_err();
        assert!(matches!(&error, AttachError::NameTaken(name) if name == "eth0"), "{error}");
        assert!(error.to_string().contains("--ifname"));
        assert_eq!(links(&ns).len(), 3);
        assert!(daemon.taps.recv().is_err(), "the daemon was asked");
        let served = daemon.thread.join().unwrap();
        assert!(matches!(served[0], Err(ServeError::Connection(_))));
    });
}

#[test]
fn a_daemon_that_is_not_there_or_dies_leaves_no_link() {
    isolated("attach::a_daemon_that_is_not_there_or_dies_leaves_no_link", || {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("attach.sock");
        let ns = NetNs::staging().unwrap();
        let request = || AttachRequest::new("blue", "eth0");
        let error = attach(&path, &ns, request()).unwrap_err();
        assert!(error.to_string().contains("is it running"), "{error}");
        let listener = Listener::bind(&path, 0o600, None).unwrap();
        let daemon = thread::spawn(move || {
            let connection = listener.accept().unwrap();
            let hello = wharf::attach::protocol::Greeting::Hello(Hello::new(1));
            connection.send(&wharf::attach::protocol::to_bytes(&hello), &[]).unwrap();
            connection.recv().unwrap().fds.len()
        });
        assert!(matches!(attach(&path, &ns, request()), Err(AttachError::Daemon(_))));
        assert_eq!(daemon.join().unwrap(), 1);
        only_loopback(&ns);
    });
}

/// What `wharf run` does: the command's process attaches itself, before it becomes the command.
#[test]
fn an_ordinary_user_s_command_is_attached_before_it_starts() {
    isolated("attach::an_ordinary_user_s_command_is_attached_before_it_starts", || {
        let daemon = Daemon::start(1, vec![AttachReply::Attached(assigned(5))]);
        let report = in_one_thread(|| {
            give_up_capabilities();
            let isolation =
                Isolation { network: Network::New, die_with_parent: true, new_session: false };
            let child = spawn(Command::new("sleep").arg("30"), isolation, || {
                prepare_network().map_err(|e| e.to_string())?;
                let own = NetNs::current().map_err(|e| e.to_string())?;
                let done = attach(&daemon.socket, &own, AttachRequest::new("blue", "eth0"))
                    .map_err(|e| e.to_string())?;
                serde_json::to_vec(&done.warnings).map_err(|e| e.to_string())
            })
            .map_err(|e| e.to_string())?;
            let taps = Path::new("/proc").join(child.process().pid().to_string()).join("net/dev");
            let devices = std::fs::read_to_string(taps).unwrap();
            assert!(devices.contains("eth0"), "{devices}");
            let report = child.report.clone();
            child.process().signal(Signal::KILL).unwrap();
            child.process().wait().unwrap();
            Ok(report)
        });
        assert_eq!(report, b"[]");
        // The command was killed, so its namespace goes, and with it the port.
        let taps = daemon.taps.recv().unwrap();
        let mut buf = vec![0; 70_000];
        loop {
            assert!(!wait_readable(&taps[0], PATIENCE).is_empty(), "the port never died");
            match taps[0].read(&mut buf) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => break assert!(Tap::is_dead_error(&error), "{error}"),
            }
        }
    });
}

#[test]
fn a_lost_port_is_replaced_by_one_that_looks_the_same() {
    isolated("attach::a_lost_port_is_replaced_by_one_that_looks_the_same", || {
        let daemon = Daemon::start(1, vec![AttachReply::Attached(assigned(5))]);
        let ns = NetNs::staging().unwrap();
        let done = attach(&daemon.socket, &ns, AttachRequest::new("blue", "eth0")).unwrap();
        let seen = |ns: &NetNs| {
            let link = links(ns).into_iter().find(|link| link.name == "eth0").unwrap();
            (link.mac, link.mtu, link.up, routes(ns).len())
        };
        let before = seen(&ns);
        drop(daemon.taps.recv().unwrap());
        only_loopback(&ns);
        let (taps, warnings) = reattach(&ns, "eth0", 2, &done.attached).unwrap();
        assert_eq!((taps.len(), warnings), (2, vec![]));
        assert_eq!(seen(&ns), before);
    });
}

#[test]
fn a_namespace_of_which_only_the_path_is_known_is_attached_as_its_owner() {
    isolated(
        "attach::a_namespace_of_which_only_the_path_is_known_is_attached_as_its_owner",
        || {
            let replies = vec![AttachReply::Attached(assigned(5)); 2];
            let daemon = Daemon::start(1, replies);
            in_one_thread(|| {
                give_up_capabilities();
                let isolation =
                    Isolation { network: Network::New, die_with_parent: true, new_session: false };
                let child = spawn(Command::new("sleep").arg("30"), isolation, || Ok(Vec::new()))
                    .map_err(|e| e.to_string())?;
                let path = format!("/proc/{}/ns/net", child.process().pid());
                let ns = NetNs::open(Path::new(&path)).unwrap();
                // Without entering the owner's user namespace it is refused, and it is said why.
                let refused = attach(&daemon.socket, &ns, AttachRequest::new("blue", "eth0"));
                assert!(refused.unwrap_err().to_string().contains("root"));
                run_as_owner_of(&ns, || {
                    attach(&daemon.socket, &ns, AttachRequest::new("blue", "eth0"))
                        .map(|_| Vec::new())
                        .map_err(|e| e.to_string())
                })
                .map_err(|e| e.to_string())?;
                let devices = std::fs::read_to_string(path.replace("ns/net", "net/dev")).unwrap();
                assert!(devices.contains("eth0"), "{devices}");
                child.process().signal(Signal::KILL).unwrap();
                child.process().wait().unwrap();
                Ok(Vec::new())
            });
        },
    );
}
