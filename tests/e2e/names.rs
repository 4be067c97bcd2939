//! The gateway as a name server, and as what stands for the host's loopback.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;

use simple_dns::rdata::RData;
use simple_dns::{
    CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE,
};
use wharf::io::netns::NetNs;
use wharf::io::process::overlay_file;

use crate::support::{self, PATIENCE, udp_in};
use crate::traffic::{NEVER, whoami_tcp, whoami_udp};
use crate::world::{BLUE, FAMILIES, RED, World, eventually};

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// More addresses than a datagram of 512 bytes holds.
const MANY: u8 = 60;

/// A resolver that knows every name to be at `addr`, but for `many.test`, which must be asked for by TCP.
fn serve_names(at: IpAddr, addr: Ipv4Addr) {
    let udp = UdpSocket::bind((at, 53)).unwrap();
    let tcp = TcpListener::bind((at, 53)).unwrap();
    std::thread::spawn(move || {
        let mut buf = [0; 1500];
        while let Ok((length, peer)) = udp.recv_from(&mut buf) {
            let _ = udp.send_to(&answer(&buf[..length], addr, false), peer);
        }
    });
    std::thread::spawn(move || {
        for stream in tcp.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut length = [0; 2];
            if stream.read_exact(&mut length).is_err() {
                continue;
            }
            let mut query = vec![0; u16::from_be_bytes(length).into()];
            let _ = stream.read_exact(&mut query);
            let reply = answer(&query, addr, true);
            let _ = stream.write_all(&u16::try_from(reply.len()).unwrap().to_be_bytes());
            let _ = stream.write_all(&reply);
        }
    });
}

fn answer(query: &[u8], addr: Ipv4Addr, whole: bool) -> Vec<u8> {
    let query = Packet::parse(query).unwrap();
    let question = &query.questions[0];
    let mut reply = Packet::new_reply(query.id());
    reply.questions.clone_from(&query.questions);
    reply.set_flags(PacketFlag::RECURSION_DESIRED | PacketFlag::RECURSION_AVAILABLE);
    let many = question.qname.to_string().eq_ignore_ascii_case("many.test");
    if many && !whole {
        reply.set_flags(PacketFlag::TRUNCATION);
    } else if question.qtype == QTYPE::TYPE(TYPE::A) {
        let count = if many { MANY } else { 1 };
        let addrs = (0..count).map(|n| Ipv4Addr::from(u32::from(addr) + u32::from(n)));
        let record = |ip: Ipv4Addr| {
            ResourceRecord::new(question.qname.clone(), CLASS::IN, 60, RData::A(ip.into()))
        };
        reply.answers = addrs.map(record).collect();
    }
    reply.build_bytes_vec_compressed().unwrap()
}

/// Asks a gateway's name server by hand.
fn ask(ns: &NetNs, gateway: IpAddr, name: &str, qtype: TYPE) -> (RCODE, Vec<IpAddr>) {
    let mut query = Packet::new_query(4711);
    let name = Name::new(name).unwrap();
    query.set_flags(PacketFlag::RECURSION_DESIRED);
    query.questions.push(Question::new(name, QTYPE::TYPE(qtype), QCLASS::CLASS(CLASS::IN), false));
    let any: IpAddr = match gateway {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = udp_in(ns, any, 0);
    socket.connect((gateway, 53)).unwrap();
    socket.send(&query.build_bytes_vec().unwrap()).unwrap();
    let mut buf = [0; 1500];
    let length = socket.recv(&mut buf).unwrap();
    let reply = Packet::parse(&buf[..length]).unwrap();
    assert_eq!(reply.id(), 4711);
    let addr = |record: &ResourceRecord<'_>| match &record.rdata {
        RData::A(a) => IpAddr::V4(a.address.into()),
        RData::AAAA(a) => IpAddr::V6(a.address.into()),
        other => panic!("{other:?}"),
    };
    (reply.rcode(), reply.answers.iter().map(addr).collect())
}

/// A world whose host asks `127.0.0.1` for names.
fn in_world(name: &str, body: impl FnOnce(&World)) {
    support::in_world(name, |dir| {
        overlay_file(Path::new(RESOLV_CONF), b"nameserver 127.0.0.1\n").unwrap();
        serve_names(Ipv4Addr::LOCALHOST.into(), [203, 0, 113, 7].into());
        let world = World::without_daemon(dir);
        world.start("--uplink sockets");
        world.ok(&format!("network create blue {BLUE}"));
        body(&world);
    });
}

/// What the C library of a container finds: the first word of the first line.
fn found(world: &World, container: &str, database: &str, name: &str) -> Option<String> {
    let output = world.output(&["exec", container, "--", "getent", database, name]);
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().next().map(str::to_owned)
}

#[test]
fn containers_find_each_other_and_the_world_by_name() {
    in_world("names::containers_find_each_other_and_the_world_by_name", |world| {
        let a = world.container("a", "--network blue --alias Shop");
        let b = world.container("b", "--network blue");
        for name in ["a", "A", "a.blue", "shop"] {
            for (database, family) in ["ahostsv4", "ahostsv6"].into_iter().zip(FAMILIES) {
                let addr = found(world, "b", database, name);
                assert_eq!(addr, Some(a.addr(family).to_string()), "{name}");
            }
        }
        let output = world.ok(&format!("exec b -- getent hosts {}", a.addrs[0]));
        assert!(output.ends_with("a.blue"), "{output}");
        assert_eq!(found(world, "b", "ahostsv4", "example.test"), Some("203.0.113.7".into()));
        let many = world.ok("exec b -- getent ahostsv4 many.test");
        let streams = many.lines().filter(|line| line.contains("STREAM")).count();
        assert_eq!(streams, usize::from(MANY), "the truncated answer was asked for by TCP");
        // Both gateways, although the host's resolver speaks one family only.
        for gateway in ["10.20.0.1", "fd20::1"] {
            let gateway: IpAddr = gateway.parse().unwrap();
            let outside = ask(&b.ns(), gateway, "example.test", TYPE::A);
            assert_eq!(outside, (RCODE::NoError, vec![[203, 0, 113, 7].into()]), "{gateway}");
            let inside = ask(&b.ns(), gateway, "a", TYPE::AAAA);
            assert_eq!(inside, (RCODE::NoError, vec![a.addr(FAMILIES[1])]), "{gateway}");
        }
        a.kill();
        eventually("its name goes with it", PATIENCE, || {
            ask(&b.ns(), "10.20.0.1".parse().unwrap(), "a", TYPE::A).1 != a.addrs[..1]
        });
    });
}

#[test]
fn an_internal_network_knows_its_own_names_only() {
    in_world("names::an_internal_network_knows_its_own_names_only", |world| {
        world.ok(&format!("network create red --internal {RED}"));
        world.container("a", "--network blue");
        let c = world.container("c", "--network red");
        let gateway: IpAddr = [10, 30, 0, 1].into();
        assert_eq!(found(world, "c", "ahostsv6", "c"), Some(c.addr(FAMILIES[1]).to_string()));
        for name in ["a", "example.test"] {
            assert_eq!(ask(&c.ns(), gateway, name, TYPE::A), (RCODE::Refused, Vec::new()));
        }
    });
}

#[test]
fn the_host_s_resolvers_are_followed_when_they_change() {
    in_world("names::the_host_s_resolvers_are_followed_when_they_change", |world| {
        let a = world.container("a", "--network blue");
        let gateway: IpAddr = [10, 20, 0, 1].into();
        let asked = || ask(&a.ns(), gateway, "example.test", TYPE::A).1;
        assert_eq!(asked(), [IpAddr::from([203, 0, 113, 7])]);
        serve_names(Ipv6Addr::LOCALHOST.into(), [203, 0, 113, 8].into());
        std::fs::write(RESOLV_CONF, "nameserver ::1\n").unwrap();
        let now = [IpAddr::from([203, 0, 113, 8])];
        eventually("the other one is asked", PATIENCE, || asked() == now);
    });
}

/// A server of the host's loopback only.
fn serve_loopback(port: u16) {
    for addr in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let (tcp, udp) = (TcpListener::bind((addr, port)), UdpSocket::bind((addr, port)));
        let (tcp, udp) = (tcp.unwrap(), udp.unwrap());
        std::thread::spawn(move || {
            for stream in tcp.incoming().flatten() {
                let peer = stream.peer_addr().unwrap();
                let _ = (&stream).write_all(peer.to_string().as_bytes());
            }
        });
        std::thread::spawn(move || {
            let mut buf = [0; 64];
            while let Ok((_, peer)) = udp.recv_from(&mut buf) {
                let _ = udp.send_to(peer.to_string().as_bytes(), peer);
            }
        });
    }
}

#[test]
fn the_host_s_loopback_is_reached_by_the_gateway_s_address_where_it_was_asked_for() {
    let name =
        "names::the_host_s_loopback_is_reached_by_the_gateway_s_address_where_it_was_asked_for";
    in_world(name, |world| {
        serve_loopback(7000);
        world.ok(&format!("network create red --host-loopback {RED}"));
        let (a, c) =
            (world.container("a", "--network blue"), world.container("c", "--network red"));
        for (gateway, other) in [("10.30.0.1", "10.20.0.1"), ("fd30::1", "fd20::1")] {
            let to = |text: &str| SocketAddr::new(text.parse().unwrap(), 7000);
            for ask in [whoami_tcp, whoami_udp] {
                let seen = ask(&c.ns(), to(gateway), PATIENCE).unwrap();
                assert!(seen.by_server.ip().is_loopback(), "{seen:?}");
                ask(&a.ns(), to(other), NEVER).expect_err("not asked for");
                ask(&a.ns(), to(gateway), NEVER).expect_err("another network's");
            }
            for name in ["host.wharf.internal", "host.docker.internal", "host.containers.internal"]
            {
                let (database, addr) = match to(gateway).ip() {
                    IpAddr::V4(ip) => ("ahostsv4", ip.to_string()),
                    IpAddr::V6(ip) => ("ahostsv6", ip.to_string()),
                };
                assert_eq!(found(world, "c", database, name), Some(addr));
            }
        }
        let gateway = "10.20.0.1".parse().unwrap();
        let asked = ask(&a.ns(), gateway, "host.wharf.internal", TYPE::A);
        assert_eq!(asked.1, [IpAddr::from([203, 0, 113, 7])], "no name of ours there");
    });
}
