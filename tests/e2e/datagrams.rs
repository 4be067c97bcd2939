//! Datagrams through the host's sockets: large ones, errors of the way, and published ports.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType, ipproto, socket, sockopt};
use wharf::io::netlink::Netlink;
use wharf::io::netns::{NetNs, in_namespace};
use wharf::io::process::prepare_network;
use wharf::io::sysctl;
use wharf::wire::addr::Family;

use crate::support::{PATIENCE, configure, in_world, udp_in};
use crate::world::{BLUE, Container, FAMILIES, World};

/// MTU of the link behind the router.
const NARROW: u16 = 1_400;

/// The host, which is the test's own namespace, a router, and a far host behind it.
struct Way {
    far: NetNs,
    router: NetNs,
}

impl Way {
    fn new() -> Self {
        let (router, far) = (NetNs::staging().unwrap(), NetNs::staging().unwrap());
        Netlink::open().unwrap().create_veth("nic0", "lan0", Some(&router)).unwrap();
        configure("nic0", &["192.0.2.1/24", "2001:db8::1/64"]);
        in_namespace(&router, || {
            Netlink::open().unwrap().create_veth("lan1", "far0", Some(&far)).unwrap();
            configure("lan0", &["192.0.2.9/24", "2001:db8::9/64"]);
            configure("lan1", &["198.51.100.9/24", "2001:db8:1::9/64"]);
            prepare_network().unwrap();
            sysctl::set(Path::new("ipv4/ip_forward"), "1").unwrap();
            sysctl::set(Path::new("ipv6/conf/all/forwarding"), "1").unwrap();
            ip("link set lan1 mtu 1400");
        })
        .unwrap();
        in_namespace(&far, || {
            configure("far0", &["198.51.100.2/24", "2001:db8:1::2/64"]);
            ip("link set far0 mtu 1400");
            ip("route add default via 198.51.100.9");
            ip("-6 route add default via 2001:db8:1::9");
        })
        .unwrap();
        ip("route add default via 192.0.2.9");
        ip("-6 route add default via 2001:db8::9");
        Self { far, router }
    }

    fn router(family: Family) -> IpAddr {
        by_family(family, "192.0.2.9", "2001:db8::9")
    }

    fn far(family: Family) -> IpAddr {
        by_family(family, "198.51.100.2", "2001:db8:1::2")
    }

    fn host(family: Family) -> IpAddr {
        by_family(family, "192.0.2.1", "2001:db8::1")
    }
}

fn by_family(family: Family, v4: &str, v6: &str) -> IpAddr {
    if family == Family::V4 { v4 } else { v6 }.parse().unwrap()
}

fn ip(words: &str) {
    run("ip", words);
}

fn tc(words: &str) {
    run("tc", words);
}

fn run(program: &str, words: &str) {
    let output = Command::new(program).args(words.split(' ')).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {words}: {said}");
}

fn world(name: &str, options: &str, body: impl FnOnce(&World, &Way, &Container)) {
    in_world(name, |dir| {
        let way = Way::new();
        let world = World::without_daemon(dir);
        world.start("--uplink sockets");
        world.ok(&format!("network create blue {BLUE}"));
        let container = world.container("web", &format!("--network blue {options}"));
        body(&world, &way, &container);
    });
}

/// Sends a datagram that does not repeat itself there and has it sent back.
fn there_and_back(
    client: &UdpSocket,
    server: &UdpSocket,
    to: SocketAddr,
    len: usize,
) -> SocketAddr {
    let sent: Vec<u8> = (0..len).map(|n| (n * n / 7) as u8).collect();
    let mut buf = vec![0; 70_000];
    client.send_to(&sent, to).unwrap();
    let (n, seen) = server.recv_from(&mut buf).unwrap();
    assert!(buf[..n] == sent, "there: {n} bytes of {len}");
    server.send_to(&buf[..n], seen).unwrap();
    let (n, answered) = client.recv_from(&mut buf).unwrap();
    assert!(buf[..n] == sent, "back: {n} bytes of {len}");
    assert_eq!(answered, to);
    seen
}

#[test]
fn datagrams_larger_than_any_mtu_pass_both_ways_whoever_asks() {
    let name = "datagrams::datagrams_larger_than_any_mtu_pass_both_ways_whoever_asks";
    world(name, "-p 1180:5000/udp", |_world, way, container| {
        let ns = container.ns();
        for family in FAMILIES {
            let server = udp_in(&way.router, Way::router(family), 0);
            let client = udp_in(&ns, container.addr(family), 0);
            let published = udp_in(&ns, container.addr(family), 5000);
            let outside = udp_in(&way.router, Way::router(family), 0);
            for len in [1, 1_400, 1_472, 1_473, 8_192, 40_000, 65_000] {
                there_and_back(&client, &server, server.local_addr().unwrap(), len);
                let to = (Way::host(family), 1180).into();
                let seen = there_and_back(&outside, &published, to, len);
                assert_eq!(seen, outside.local_addr().unwrap(), "the true client");
            }
        }
    });
}

/// A socket that hears the errors that reach a namespace.
fn listen_to_errors(ns: &NetNs, family: Family) -> UdpSocket {
    let (of, protocol) = match family {
        Family::V4 => (AddressFamily::INET, ipproto::ICMP),
        Family::V6 => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    let open = || socket(of, SocketType::RAW, Some(protocol)).unwrap();
    let socket = UdpSocket::from(in_namespace(ns, open).unwrap());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// The next error of this type: who sent it, its code, its MTU, and the quoted packet's end.
fn next_error(socket: &UdpSocket, family: Family, kind: u8) -> (IpAddr, u8, u16, Vec<u8>) {
    let mut buf = [0; 2048];
    loop {
        let (n, from) = socket.recv_from(&mut buf).unwrap();
        let message = &buf[if family == Family::V4 { 20 } else { 0 }..n];
        if message[0] == kind {
            let mtu = u16::from_be_bytes([message[6], message[7]]);
            return (from.ip(), message[1], mtu, message[8..].to_vec());
        }
    }
}

/// The ports of a quoted UDP packet.
fn quoted_ports(quoted: &[u8], family: Family) -> (u16, u16) {
    let l4 = &quoted[if family == Family::V4 { 20 } else { 40 }..];
    (u16::from_be_bytes([l4[0], l4[1]]), u16::from_be_bytes([l4[2], l4[3]]))
}

#[test]
fn each_hop_of_the_way_answers_a_traceroute_for_itself() {
    let name = "datagrams::each_hop_of_the_way_answers_a_traceroute_for_itself";
    world(name, "", |_world, _way, container| {
        let ns = container.ns();
        for family in FAMILIES {
            let (exceeded, unreachable, port) = match family {
                Family::V4 => (11, 3, 3),
                Family::V6 => (3, 1, 4),
            };
            let errors = listen_to_errors(&ns, family);
            let client = udp_in(&ns, container.addr(family), 0);
            let own = client.local_addr().unwrap().port();
            let gateway = by_family(family, "10.20.0.1", "fd20::1");
            let hops = [
                (1, exceeded, 0, gateway),
                (2, exceeded, 0, Way::router(family)),
                (3, unreachable, port, Way::far(family)),
            ];
            for (ttl, kind, code, expected) in hops {
                match family {
                    Family::V4 => client.set_ttl(ttl).unwrap(),
                    Family::V6 => {
                        sockopt::set_ipv6_unicast_hops(&client, Some(ttl as u8)).unwrap();
                    }
                }
                let asked = 33_434 + ttl as u16;
                client.send_to(b"probe", (Way::far(family), asked)).unwrap();
                let (from, got, _, quoted) = next_error(&errors, family, kind);
                assert_eq!((from, got), (expected, code), "hop {ttl}");
                assert_eq!(quoted_ports(&quoted, family), (own, asked), "the packet itself");
                // Linux tells a socket of what it sent some time ago.
                let _ = client.recv_from(&mut [0]);
            }
        }
    });
}

#[test]
fn each_hop_of_the_way_answers_a_ping_that_goes_no_further() {
    let name = "datagrams::each_hop_of_the_way_answers_a_ping_that_goes_no_further";
    world(name, "", |_world, _way, container| {
        let ns = container.ns();
        for family in FAMILIES {
            let far = Way::far(family).to_string();
            let gateway = by_family(family, "10.20.0.1", "fd20::1");
            for (ttl, hop) in [("1", gateway), ("2", Way::router(family))] {
                let run =
                    || Command::new("ping").args(["-n", "-c1", "-W5", "-t", ttl, &far]).output();
                let output = in_namespace(&ns, run).unwrap().expect("ping runs");
                let text = String::from_utf8_lossy(&output.stdout);
                let said = text.lines().find(|line| line.starts_with("From ")).unwrap_or_default();
                let exceeded = said.contains("Time to live exceeded") || said.contains("Hop limit");
                assert!(said.contains(&hop.to_string()) && exceeded, "hop {ttl}: {text}");
            }
        }
    });
}

#[test]
fn a_narrow_link_on_the_way_is_told_to_the_container_with_its_mtu() {
    let name = "datagrams::a_narrow_link_on_the_way_is_told_to_the_container_with_its_mtu";
    world(name, "", |_world, way, container| {
        let ns = container.ns();
        for family in FAMILIES {
            let errors = listen_to_errors(&ns, family);
            let server = udp_in(&way.far, Way::far(family), 0);
            let client = udp_in(&ns, container.addr(family), 0);
            let to = server.local_addr().unwrap();
            client.send_to(&[1; 1_440], to).unwrap();
            let (kind, code) = if family == Family::V4 { (3, 4) } else { (2, 0) };
            let (from, got, mtu, quoted) = next_error(&errors, family, kind);
            assert_eq!((from, got, mtu), (Way::router(family), code, NARROW));
            let own = client.local_addr().unwrap().port();
            assert_eq!(quoted_ports(&quoted, family), (own, to.port()));
            there_and_back(&client, &server, to, 1_440);
        }
    });
}

#[test]
fn a_narrow_link_of_the_host_itself_is_told_to_the_container_at_once() {
    let name = "datagrams::a_narrow_link_of_the_host_itself_is_told_to_the_container_at_once";
    world(name, "", |_world, way, container| {
        let ns = container.ns();
        ip("link set nic0 mtu 1400");
        for family in FAMILIES {
            let errors = listen_to_errors(&ns, family);
            let server = udp_in(&way.router, Way::router(family), 0);
            let client = udp_in(&ns, container.addr(family), 0);
            let to = server.local_addr().unwrap();
            client.send_to(&[1; 1_440], to).unwrap();
            let (kind, code) = if family == Family::V4 { (3, 4) } else { (2, 0) };
            let (from, got, mtu, quoted) = next_error(&errors, family, kind);
            let gateway = by_family(family, "10.20.0.1", "fd20::1");
            assert_eq!((from, got, mtu), (gateway, code, NARROW));
            let own = client.local_addr().unwrap().port();
            assert_eq!(quoted_ports(&quoted, family), (own, to.port()));
            // The container cuts the next one itself, so the host may.
            client.send_to(&[2; 1_440], to).unwrap();
            assert_eq!(server.recv_from(&mut [0; 2_000]).unwrap().0, 1_440);
        }
    });
}

/// RFC 6555: who has no IPv6 must hear so at once, by datagram as by connection.
#[test]
fn a_datagram_in_ipv6_is_unreachable_at_once_where_the_host_has_none() {
    let name = "datagrams::a_datagram_in_ipv6_is_unreachable_at_once_where_the_host_has_none";
    world(name, "", |_world, way, container| {
        let ns = container.ns();
        let (of, kind, no_route) = (Family::V6, 1, 0);
        let errors = listen_to_errors(&ns, of);
        let gateway = by_family(of, "10.20.0.1", "fd20::1");
        let fails_at_once = |what: &str| {
            let client = udp_in(&ns, container.addr(of), 0);
            let own = client.local_addr().unwrap().port();
            let start = Instant::now();
            client.send_to(b"x", (Way::far(of), 4_433)).unwrap();
            let (from, code, _, quoted) = next_error(&errors, of, kind);
            assert_eq!((from, code), (gateway, no_route), "{what}");
            assert_eq!(quoted_ports(&quoted, of), (own, 4_433), "{what}");
            assert!(start.elapsed() < Duration::from_secs(1), "{what}: {:?}", start.elapsed());
        };
        ip("-6 route del default");
        fails_at_once("no route");
        ip("-6 addr flush dev nic0");
        fails_at_once("no address");
        std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
        fails_at_once("no IPv6 at all");
        let server = udp_in(&way.router, Way::router(Family::V4), 0);
        let client = udp_in(&ns, container.addr(Family::V4), 0);
        there_and_back(&client, &server, server.local_addr().unwrap(), 100);
    });
}

/// Bytes that wait in the host's socket of a port, errors and all.
fn waiting_at(port: u16) -> u64 {
    let table = std::fs::read_to_string("/proc/net/udp6").unwrap();
    let local = format!(":{port:04X} ");
    let line = table.lines().find(|line| line.contains(&local)).expect("the port is bound");
    let queues = line.split_whitespace().nth(4).unwrap();
    u64::from_str_radix(queues.split_once(':').unwrap().1, 16).unwrap()
}

#[test]
fn a_server_learns_that_its_client_has_gone_and_such_errors_do_not_fill_its_port() {
    let name =
        "datagrams::a_server_learns_that_its_client_has_gone_and_such_errors_do_not_fill_its_port";
    world(name, "-p 1180:5000/udp", |_world, way, container| {
        let ns = container.ns();
        for family in FAMILIES {
            let (kind, code) = if family == Family::V4 { (3, 3) } else { (1, 4) };
            let errors = listen_to_errors(&ns, family);
            let server = udp_in(&ns, container.addr(family), 5000);
            let client = udp_in(&way.far, Way::far(family), 0);
            let own = client.local_addr().unwrap();
            client.send_to(b"question", (Way::host(family), 1180)).unwrap();
            let (_, seen) = server.recv_from(&mut [0; 100]).unwrap();
            assert_eq!(seen, own);
            drop(client);
            server.send_to(b"answer", seen).unwrap();
            let (from, got, _, quoted) = next_error(&errors, family, kind);
            assert_eq!((from, got), (own.ip(), code));
            assert_eq!(quoted_ports(&quoted, family), (5000, own.port()));
            assert_eq!(waiting_at(1180), 0, "the port's buffer is for datagrams");
        }
    });
}

#[test]
fn an_answer_that_may_not_be_cut_is_not_and_the_server_is_told_how_narrow_the_way_is() {
    let name = "datagrams::an_answer_that_may_not_be_cut_is_not_and_the_server_is_told_how_narrow_the_way_is";
    world(name, "-p 1180:5000/udp", |_world, way, container| {
        let ns = container.ns();
        for family in FAMILIES {
            let errors = listen_to_errors(&ns, family);
            let server = udp_in(&ns, container.addr(family), 5000);
            let client = udp_in(&way.far, Way::far(family), 0);
            client.send_to(b"question", (Way::host(family), 1180)).unwrap();
            let (_, seen) = server.recv_from(&mut [0; 100]).unwrap();
            server.send_to(&[1; 1_440], seen).unwrap();
            let (kind, code) = if family == Family::V4 { (3, 4) } else { (2, 0) };
            let (from, got, mtu, quoted) = next_error(&errors, family, kind);
            assert_eq!((from, got, mtu), (Way::router(family), code, NARROW));
            assert_eq!(quoted_ports(&quoted, family), (5000, seen.port()));
            // The server's kernel cuts the next one itself, so the host may.
            server.send_to(&[2; 1_440], seen).unwrap();
            let mut buf = [0; 2_000];
            let (n, answered) = client.recv_from(&mut buf).unwrap();
            assert_eq!((n, buf[0]), (1_440, 2), "and the first one has not arrived in pieces");
            assert_eq!(answered, (Way::host(family), 1180).into());
        }
    });
}

#[test]
fn what_a_full_socket_of_the_host_does_not_take_is_counted() {
    let name = "datagrams::what_a_full_socket_of_the_host_does_not_take_is_counted";
    world(name, "", |world, way, container| {
        let ns = container.ns();
        for family in FAMILIES {
            let server = udp_in(&way.router, Way::router(family), 0);
            let client = udp_in(&ns, container.addr(family), 0);
            let to = server.local_addr().unwrap();
            // The router is known by now: nobody could ask for it behind all that will wait.
            there_and_back(&client, &server, to, 100);
            // The whole buffer waits at the device.
            tc("qdisc add dev nic0 root tbf rate 64kbit burst 3000 limit 50000000");
            let before = world.drops("web", "socket-full");
            let counted = || {
                for _ in 0..500 {
                    let _ = client.send_to(&[1; 1_400], to);
                }
                world.drops("web", "socket-full") > before
            };
            crate::world::eventually("the buffer is full", Duration::from_secs(20), counted);
            tc("qdisc del dev nic0 root");
        }
    });
}

#[test]
fn two_publications_of_one_port_show_one_client_under_two_ports() {
    let name = "datagrams::two_publications_of_one_port_show_one_client_under_two_ports";
    world(name, "-p 1180-1181:5000-5001/udp -p 1190:5000/udp", |_world, way, container| {
        let ns = container.ns();
        for family in FAMILIES {
            let [first, second] =
                [5000, 5001].map(|port| udp_in(&ns, container.addr(family), port));
            let client = udp_in(&way.far, Way::far(family), 0);
            let own = client.local_addr().unwrap();
            let at = |port| (Way::host(family), port).into();
            assert_eq!(there_and_back(&client, &first, at(1180), 100), own);
            assert_eq!(there_and_back(&client, &second, at(1181), 100), own, "a range");
            let other = there_and_back(&client, &first, at(1190), 100);
            assert_eq!(other.ip(), own.ip());
            assert_ne!(other.port(), own.port(), "the container can tell them apart");
            // Each answer still goes where its question came from.
            assert_eq!(there_and_back(&client, &first, at(1180), 100), own);
        }
    });
}

#[test]
fn a_publication_on_loopback_stays_there_and_one_nobody_serves_is_silent() {
    let name = "datagrams::a_publication_on_loopback_stays_there_and_one_nobody_serves_is_silent";
    let options = "-p 127.0.0.1:1180:5000/udp -p [::1]:1180:5000/udp -p 1181:5009/udp";
    world(name, options, |_world, way, container| {
        let (ns, host) = (container.ns(), NetNs::current().unwrap());
        for family in FAMILIES {
            let server = udp_in(&ns, container.addr(family), 5000);
            let loopback = by_family(family, "127.0.0.1", "::1");
            let client = udp_in(&host, loopback, 0);
            there_and_back(&client, &server, (loopback, 1180).into(), 100);
            let outside = udp_in(&way.far, Way::far(family), 0);
            outside.connect((Way::host(family), 1180)).unwrap();
            outside.send(b"x").unwrap();
            let refused = outside.recv(&mut [0]).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "no such socket");
            // A bound socket cannot refuse one client's datagram: see docs.
            let silent = udp_in(&way.far, Way::far(family), 0);
            silent.connect((Way::host(family), 1181)).unwrap();
            silent.send(b"x").unwrap();
            silent.set_read_timeout(Some(crate::traffic::NEVER)).unwrap();
            let nothing = silent.recv(&mut [0]).unwrap_err();
            assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
        }
    });
}
