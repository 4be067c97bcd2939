//! Published ports have real listening sockets, whatever the network's way out is.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use wharf::io::features::Feature;
use wharf::io::netlink::Netlink;
use wharf::io::netns::{NetNs, in_namespace};
use wharf::io::process::prepare_network;
use wharf::io::sysctl;
use wharf::wire::addr::Family;

use crate::support::{self, PATIENCE, configure, isolated};
use crate::traffic::{NEVER, ping, serve_whoami, whoami_tcp, whoami_udp};
use crate::world::{BLUE, Container, FAMILIES, RED, World, eventually};

/// Ports of the container, and the host's ports that lead to it.
const INSIDE: u16 = 5000;
const PUBLISHED: &str = "-p 1180:5000 -p 1180:5000/udp";

/// A host, which is the test's own namespace, and a remote one with a cable between them.
struct Outside {
    remote: NetNs,
    host: NetNs,
}

impl Outside {
    fn new() -> Self {
        let (remote, host) = (NetNs::staging().unwrap(), NetNs::current().unwrap());
        Netlink::open().unwrap().create_veth("nic0", "lan0", Some(&remote)).unwrap();
        configure("nic0", &["192.0.2.1/24", "2001:db8::1/64"]);
        in_namespace(&remote, || {
            configure("lan0", &["192.0.2.9/24", "2001:db8::9/64"]);
            prepare_network().unwrap();
        })
        .unwrap();
        Self { remote, host }
    }

    fn address(family: Family) -> IpAddr {
        match family {
            Family::V4 => Ipv4Addr::new(192, 0, 2, 1).into(),
            Family::V6 => "2001:db8::1".parse().unwrap(),
        }
    }
}

fn loopback(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    }
}

fn gateway(family: Family) -> IpAddr {
    match family {
        Family::V4 => [10, 20, 0, 1].into(),
        Family::V6 => "fd20::1".parse().unwrap(),
    }
}

/// A world with the network `blue`, started with these options.
fn in_world(name: &str, uplink: &str, body: impl FnOnce(&World, &Outside)) {
    support::in_world(name, |dir| furnished(dir, uplink, body));
}

fn furnished(dir: &Path, uplink: &str, body: impl FnOnce(&World, &Outside)) {
    let outside = Outside::new();
    let world = World::without_daemon(dir);
    world.start(uplink);
    world.ok(&format!("network create blue {BLUE}"));
    body(&world, &outside);
}

/// Ends its containers and its daemon, however the test ends.
struct Ended<'a>(&'a World);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        for name in ["web", "other"] {
            let _ = self.0.output(&["stop", "--time", "0", name]);
        }
        let _ = self.0.output(&["daemon", "stop", "--release"]);
    }
}

fn web(world: &World) -> Container {
    let web = world.container("web", &format!("--network blue {PUBLISHED}"));
    serve_whoami(&web.ns(), INSIDE);
    web
}

/// Asks by TCP and by UDP, and gives the address that the container saw, which must be the same.
#[track_caller]
fn seen(ns: &NetNs, to: SocketAddr) -> IpAddr {
    let [tcp, udp] = [whoami_tcp, whoami_udp].map(|ask| {
        let seen = ask(ns, to, PATIENCE).unwrap_or_else(|error| panic!("{to}: {error}"));
        seen.by_server.ip()
    });
    assert_eq!(tcp, udp, "{to}");
    tcp
}

fn everybody_reaches_it(world: &World, outside: &Outside) {
    web(world);
    for family in FAMILIES {
        let to = SocketAddr::new(Outside::address(family), 1180);
        let remote: IpAddr = match family {
            Family::V4 => [192, 0, 2, 9].into(),
            Family::V6 => "2001:db8::9".parse().unwrap(),
        };
        assert_eq!(seen(&outside.remote, to), remote, "the client's true address");
        assert_eq!(seen(&outside.host, to), gateway(family), "the host by its address");
        let to = SocketAddr::new(loopback(family), 1180);
        assert_eq!(seen(&outside.host, to), gateway(family), "the host by its loopback");
    }
}

#[test]
fn with_a_socket_uplink_remote_hosts_and_the_host_itself_reach_a_published_port() {
    in_world(
        "published::with_a_socket_uplink_remote_hosts_and_the_host_itself_reach_a_published_port",
        "--uplink sockets",
        everybody_reaches_it,
    );
}

#[test]
fn without_an_uplink_remote_hosts_and_the_host_itself_reach_a_published_port() {
    in_world(
        "published::without_an_uplink_remote_hosts_and_the_host_itself_reach_a_published_port",
        "--uplink none",
        everybody_reaches_it,
    );
}

#[test]
fn with_a_packet_uplink_the_lan_and_the_host_reach_a_published_port_each_its_own_way() {
    let name = "published::with_a_packet_uplink_the_lan_and_the_host_reach_a_published_port_each_its_own_way";
    in_world(name, "--uplink none", |world, outside| {
        world.ok(
            "uplink create default --packet nic0 --address 192.0.2.2/24 --address 2001:db8::2/64",
        );
        everybody_reaches_it(world, outside);
        for (family, ours) in FAMILIES.into_iter().zip(["192.0.2.2:1180", "[2001:db8::2]:1180"]) {
            // In the pipeline, past the host.
            let client = seen(&outside.remote, ours.parse().unwrap());
            assert_eq!(client.is_ipv4(), family == Family::V4);
            assert_ne!(client, gateway(family));
        }
    });
}

#[test]
fn a_publication_is_where_it_was_asked_for_until_it_is_taken_back() {
    let name = "published::a_publication_is_where_it_was_asked_for_until_it_is_taken_back";
    in_world(name, "--uplink sockets", |world, outside| {
        let web = world.container("web", "--network blue");
        serve_whoami(&web.ns(), INSIDE);
        let printed = world.ok("publish web 127.0.0.1:1181:5000 [::1]:1181:5000/udp 5000 5000/udp");
        for family in FAMILIES {
            let to = SocketAddr::new(Outside::address(family), 1181);
            for ask in [whoami_tcp, whoami_udp] {
                ask(&outside.remote, to, NEVER).expect_err("only on loopback");
            }
        }
        let host = &outside.host;
        whoami_tcp(host, (Ipv4Addr::LOCALHOST, 1181).into(), PATIENCE).unwrap();
        whoami_udp(host, (Ipv6Addr::LOCALHOST, 1181).into(), PATIENCE).unwrap();
        whoami_tcp(host, (Ipv6Addr::LOCALHOST, 1181).into(), NEVER).unwrap_err();
        let lines = printed.lines();
        let mut chosen = lines.filter_map(|l| l.strip_prefix("*:")?.strip_suffix("->5000/tcp"));
        let chosen = chosen.next().and_then(|port| port.parse().ok());
        let chosen: u16 = chosen.unwrap_or_else(|| panic!("a chosen port is not in: {printed}"));
        for family in FAMILIES {
            let to = SocketAddr::new(Outside::address(family), chosen);
            whoami_tcp(&outside.remote, to, PATIENCE).unwrap();
        }
        world.ok("unpublish web 5000 5000/udp");
        eventually("the socket is closed", PATIENCE, || {
            whoami_tcp(host, (Ipv4Addr::LOCALHOST, chosen).into(), NEVER).is_err()
        });
        let to = SocketAddr::new(Outside::address(Family::V4), chosen);
        let refused = whoami_tcp(&outside.remote, to, PATIENCE).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    });
}

/// From the container itself, from its neighbour, and from another network.
#[test]
fn containers_reach_a_published_port_by_the_host_s_address() {
    let name = "published::containers_reach_a_published_port_by_the_host_s_address";
    in_world(name, "--uplink sockets", |world, _outside| {
        world.ok(&format!("network create red {RED}"));
        let web = web(world);
        let [near, far] = [("near", "blue"), ("far", "red")]
            .map(|(name, network)| world.container(name, &format!("--network {network}")));
        for family in FAMILIES {
            let to = SocketAddr::new(Outside::address(family), 1180);
            assert_eq!(seen(&far.ns(), to), far.addr(family), "the client's true address");
            // Else its answers would not come back this way.
            assert_eq!(seen(&near.ns(), to), gateway(family), "a neighbour's");
            assert_eq!(seen(&web.ns(), to), gateway(family), "its own");
        }
    });
}

#[test]
fn a_client_is_reset_when_nobody_listens_inside() {
    let name = "published::a_client_is_reset_when_nobody_listens_inside";
    in_world(name, "--uplink sockets", |world, outside| {
        world.container("web", &format!("--network blue {PUBLISHED}"));
        for family in FAMILIES {
            let to = SocketAddr::new(Outside::address(family), 1180);
            let read = || {
                let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.read(&mut [0])
            };
            let error = in_namespace(&outside.remote, read).unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{to}");
        }
    });
}

/// `localhost` is `::1` first, and many a server listens on `0.0.0.0` alone.
#[test]
fn a_server_of_one_family_is_reached_by_clients_of_both() {
    let name = "published::a_server_of_one_family_is_reached_by_clients_of_both";
    in_world(name, "--uplink sockets", |world, outside| {
        let web = world.container("web", &format!("--network blue {PUBLISHED}"));
        for served in FAMILIES {
            let listen = || TcpListener::bind(SocketAddr::new(web.addr(served), INSIDE)).unwrap();
            let server = in_namespace(&web.ns(), listen).unwrap();
            for asked in FAMILIES {
                for (ns, host) in
                    [(&outside.host, loopback(asked)), (&outside.remote, Outside::address(asked))]
                {
                    let to = SocketAddr::new(host, 1180);
                    let client =
                        in_namespace(ns, || TcpStream::connect_timeout(&to, PATIENCE)).unwrap();
                    let (mut inside, _) = server.accept().unwrap();
                    inside.write_all(b"hello").unwrap();
                    drop(inside);
                    let mut said = String::new();
                    client.unwrap().read_to_string(&mut said).unwrap();
                    assert_eq!(said, "hello", "{to}, served over {served:?}");
                }
            }
        }
    });
}

#[test]
fn what_keeps_a_port_from_being_listened_on_is_the_answer() {
    let name = "published::what_keeps_a_port_from_being_listened_on_is_the_answer";
    in_world(name, "--uplink sockets", |world, _| {
        let _other = UdpSocket::bind("127.0.0.1:1190").unwrap();
        let run = |spec: &str| world.refused(&format!("run --network blue -p {spec} -- true"));
        run("1190:80/udp").says(125, &["port 1190", "in use by another program", "ss -lntup"]);
        run("203.0.113.1:80:80").says(125, &["no address 203.0.113.1"]);
        world.container("web", "--network blue -p 1191:80");
        run("1191:80").says(125, &["`web` publishes 1191"]);
        assert_eq!(world.names(), ["web"], "nothing is left of those");
        if !rustix::process::getuid().is_root() {
            return;
        }
        sysctl::set(Path::new("ipv4/ip_unprivileged_port_start"), "1024").unwrap();
        let low = World::unprivileged(&world.path("low"));
        low.ok(&format!("network create blue {BLUE}"));
        let refused = low.refused("run --network blue -p 81:80 -- true");
        refused.says(125, &["port 81 is privileged", "ip_unprivileged_port_start"]);
    });
}

#[test]
fn published_ports_answer_again_after_the_daemon_was_killed() {
    let name = "published::published_ports_answer_again_after_the_daemon_was_killed";
    in_world(name, "--uplink sockets", |world, outside| {
        web(world);
        world.kill_daemon();
        world.start("--uplink sockets");
        for family in FAMILIES {
            seen(&outside.remote, SocketAddr::new(Outside::address(family), 1180));
        }
    });
}

/// A line of `/proc/PID/status`, in KiB.
fn resident_kib(pid: u64) -> u64 {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"));
    let status = status.unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a bound in real time")]
fn twelve_thousand_ports_are_published_in_a_second_and_fifty_megabytes() {
    let name = "published::twelve_thousand_ports_are_published_in_a_second_and_fifty_megabytes";
    in_world(name, "--uplink sockets", |world, outside| {
        let web = world.container("web", "--network blue");
        serve_whoami(&web.ns(), INSIDE);
        let pid = world.json("status --json")["pid"].as_u64().unwrap();
        let (before, start) = (resident_kib(pid), Instant::now());
        world.ok("publish -q web 20000-31999:3000-14999");
        let took = start.elapsed();
        // The worker has taken them all in when the last one answers.
        let to = SocketAddr::new(Outside::address(Family::V6), 22_000);
        whoami_tcp(&outside.remote, to, PATIENCE).unwrap();
        let ready = start.elapsed();
        let after = resident_kib(pid);
        println!(
            "12,000 ports: {took:?}, served after {ready:?}, {before} KiB before, {after} KiB after"
        );
        assert!(took < Duration::from_secs(1), "{took:?}");
        assert!(after < 50 * 1024, "{after} KiB");
        let start = Instant::now();
        world.ok("detach web");
        println!("closed after {:?}", start.elapsed());
    });
}

#[test]
fn containers_ping_by_ping_sockets_or_by_raw_ones_or_are_told_that_they_may_not() {
    let name =
        "published::containers_ping_by_ping_sockets_or_by_raw_ones_or_are_told_that_they_may_not";
    // Not where everybody may have ping sockets: an ordinary user could not forbid them again.
    let dir = || tempfile::tempdir().unwrap();
    isolated(name, || {
        furnished(dir().path(), "--uplink sockets", |world, _outside| {
            let _end = Ended(world);
            let remotes: [IpAddr; 2] =
                ["192.0.2.9", "2001:db8::9"].map(|text| text.parse().unwrap());
            let low = World::unprivileged(&world.path("low"));
            let _low_end = Ended(&low);
            low.ok(&format!("network create blue {RED} --uplink default"));
            low.ok("uplink create default --sockets");
            for (world, may) in [(world, true), (&low, false)] {
                let web = world.container("web", "--network blue");
                for remote in remotes {
                    let pinged = ping(&web.ns(), remote, PATIENCE);
                    assert_eq!(pinged.is_ok(), may, "{remote}: {pinged:?}");
                    let code = pinged.err().and_then(|error| error.raw_os_error());
                    assert!(
                        may || [Some(13), Some(113)].contains(&code),
                        "at once, and why: {code:?}"
                    );
                }
            }
            // Several at once, each with its own answer.
            let web = world.running("web");
            std::thread::scope(|scope| {
                for remote in remotes.into_iter().cycle().take(8) {
                    let ns = web.ns();
                    scope.spawn(move || ping(&ns, remote, PATIENCE).unwrap());
                }
            });
            // A fresh namespace permits ping sockets to nobody; this permits them to the test's user.
            sysctl::set(Path::new("ipv4/ping_group_range"), "0 0").unwrap();
            let other = low.container("other", "--network blue");
            for remote in remotes {
                let pinged = ping(&other.ns(), remote, PATIENCE);
                assert_eq!(pinged.is_ok(), Feature::PingSockets.is_allowed(), "{pinged:?}");
            }
        });
    });
}

/// `wharf run -p 8080:8000 -- python3 -m http.server 8000`, and nothing before it.
#[test]
fn a_newcomer_needs_nothing_but_run() {
    support::in_world("published::a_newcomer_needs_nothing_but_run", |dir| {
        let outside = Outside::new();
        for starter in [&[][..], &World::UNPRIVILEGED[..]] {
            let world = World::started_by(dir, starter);
            let web = world.container("web", "-p 8080:5000");
            serve_whoami(&web.ns(), INSIDE);
            for family in FAMILIES {
                for ns in [&outside.remote, &outside.host] {
                    let to = SocketAddr::new(Outside::address(family), 8080);
                    whoami_tcp(ns, to, PATIENCE).unwrap();
                }
                let to = SocketAddr::new(loopback(family), 8080);
                whoami_tcp(&outside.host, to, PATIENCE).unwrap();
            }
            let daemon = world.daemon();
            world.ok("stop -t 0 web");
            assert!(daemon.ended_within(4 * PATIENCE).unwrap(), "it ends with its last container");
        }
    });
}
