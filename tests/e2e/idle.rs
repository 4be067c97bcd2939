//! A daemon whose flows are idle sleeps.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use wharf::io::netlink::Netlink;
use wharf::io::netns::{NetNs, in_namespace};
use wharf::io::process::prepare_network;
use wharf::wire::addr::Family;

use crate::support::{PATIENCE, configure, in_world};
use crate::traffic::{ask_udp, serve_whoami};
use crate::world::{FAMILIES, World, eventually};

/// Flows, a quarter of them for each protocol and family.
const FLOWS: usize = 100;
/// How long the daemon is watched.
const WATCHED: Duration = Duration::from_secs(10);
/// Six a minute.
const WAKEUPS_MAX: u64 = 1;

/// A remote host behind a cable.
fn remote() -> NetNs {
    let remote = NetNs::staging().unwrap();
    Netlink::open().unwrap().create_veth("nic0", "lan0", Some(&remote)).unwrap();
    configure("nic0", &["192.0.2.1/24", "2001:db8::1/64"]);
    in_namespace(&remote, || {
        configure("lan0", &["192.0.2.9/24", "2001:db8::9/64"]);
        prepare_network().unwrap();
    })
    .unwrap();
    remote
}

/// Threads of a process: their names, and how often each has been switched to.
fn threads(pid: u64) -> BTreeMap<String, (String, u64)> {
    let mut threads = BTreeMap::new();
    for task in fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task")).unwrap() {
        let task = task.unwrap();
        let read = |name| fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let status = read("status");
        let switches = status.lines().filter_map(|line| {
            let (name, number) = line.split_once(':')?;
            name.ends_with("voluntary_ctxt_switches").then(|| number.trim().parse::<u64>().unwrap())
        });
        let (number, switches) = (task.file_name().to_string_lossy().into_owned(), switches.sum());
        threads.insert(number, (read("comm").trim().to_owned(), switches));
    }
    threads
}

fn sleeps(world: &World) {
    let remote = remote();
    serve_whoami(&remote, 7000);
    let container = world.container("quiet", "").ns();
    let (mut streams, mut sockets) = (Vec::new(), Vec::new());
    for n in 0..FLOWS / 2 {
        let address = match FAMILIES[n % 2] {
            Family::V4 => "192.0.2.9:7000",
            Family::V6 => "[2001:db8::9]:7000",
        };
        let to: SocketAddr = address.parse().unwrap();
        let connect = || TcpStream::connect_timeout(&to, PATIENCE).unwrap();
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let (stream, socket) =
            in_namespace(&container, || (connect(), UdpSocket::bind(any).unwrap())).unwrap();
        socket.connect(to).unwrap();
        ask_udp(&socket, PATIENCE).unwrap();
        streams.push(stream);
        sockets.push(socket);
    }
    let pid = world.json("status --json")["pid"].as_u64().unwrap();
    // Helpers of the API end by themselves when nobody asks.
    eventually("the helpers have ended", Duration::from_secs(20), || {
        !threads(pid).values().any(|(name, _)| name.starts_with("tokio"))
    });
    let before = threads(pid);
    std::thread::sleep(WATCHED);
    let after = threads(pid);
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    let woken = after.iter().map(|(number, (_, count))| count - before[number].1);
    assert!(woken.sum::<u64>() <= WAKEUPS_MAX, "{before:?}\n{after:?}");
    for socket in &sockets {
        ask_udp(socket, PATIENCE).unwrap();
    }
}

#[test]
fn a_daemon_with_a_hundred_idle_flows_is_woken_six_times_a_minute_at_most() {
    let name = "idle::a_daemon_with_a_hundred_idle_flows_is_woken_six_times_a_minute_at_most";
    in_world(name, |dir| sleeps(&World::started_by(dir, &[])));
}

#[test]
fn and_so_is_that_of_an_ordinary_user() {
    let name = "idle::and_so_is_that_of_an_ordinary_user";
    in_world(name, |dir| sleeps(&World::started_by(dir, &World::UNPRIVILEGED)));
}
