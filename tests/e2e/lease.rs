//! The uplink that asks its LAN for everything: DHCP for IPv4, router advertisements for IPv6. Both
//! are served by the test, byte by byte.

use std::net::{IpAddr, Ipv6Addr, SocketAddrV6, UdpSocket};
use std::sync::mpsc::{Receiver, channel};

use rustix::net::{AddressFamily, SocketType, ipproto, socket, sockopt};
use wharf::io::netlink::{AddressOptions, Netlink, NewRoute};
use wharf::io::netns::in_namespace;

use crate::support::{PATIENCE, in_world};
use crate::traffic::{serve_whoami, whoami_tcp, whoami_udp};
use crate::world::{BLUE, Lan, World, eventually};

/// Beyond the LAN, behind the router.
const FAR: [&str; 2] = ["203.0.113.7/32", "2001:db8:ffff::7/128"];

/// What a client asked a DHCP server for.
type Asked = (u8, Vec<u8>);

/// A DHCP server on the remote host, which gives 192.0.2.77. It tells kind and frame of each request.
fn serve_dhcp(lan: &Lan) -> Receiver<Asked> {
    let (tell, asked) = channel();
    let socket = in_namespace(&lan.remote, || {
        // Broadcasts need a way out.
        let mut netlink = Netlink::open().unwrap();
        let index = netlink.link("lan0").unwrap().index;
        let destination = "0.0.0.0/0".parse().unwrap();
        netlink.add_route(&NewRoute { destination, via: None, index, onlink: false }).unwrap();
        UdpSocket::bind("0.0.0.0:67").unwrap()
    });
    let socket = socket.unwrap();
    socket.set_broadcast(true).unwrap();
    std::thread::spawn(move || {
        let mut buf = [0; 1500];
        while let Ok((length, _)) = socket.recv_from(&mut buf) {
            let request = &buf[..length];
            let kind = option(request, 53).expect("a message type")[0];
            if let Some(answer) = dhcp_answer(request, kind) {
                socket.send_to(&answer, "255.255.255.255:68").unwrap();
            }
            if tell.send((kind, request.to_vec())).is_err() {
                return;
            }
        }
    });
    asked
}

/// RFC 2131: an offer for a discovery, an acknowledgement for a request.
fn dhcp_answer(request: &[u8], kind: u8) -> Option<Vec<u8>> {
    let answer = match kind {
        1 => 2,
        3 => 5,
        _ => return None,
    };
    let mut message = request[..240].to_vec();
    message[0] = 2; // a reply
    message[16..20].copy_from_slice(&[192, 0, 2, 77]); // your address
    message[20..24].copy_from_slice(&[192, 0, 2, 9]); // the next server
    for option in [
        &[53, 1, answer][..],
        &[54, 4, 192, 0, 2, 9],                // who answers
        &[51, 4, 0, 0, 0x0e, 0x10],            // for an hour
        &[1, 4, 255, 255, 255, 0],             // the LAN's mask
        &[3, 4, 192, 0, 2, 9],                 // router
        &[6, 8, 192, 0, 2, 53, 192, 0, 2, 54], // name servers
        &[26, 2, 0x05, 0x78],                  // MTU 1400
        &[255],
    ] {
        message.extend(option);
    }
    Some(message)
}

/// An option of a DHCP message, after the fixed part and the magic number.
fn option(message: &[u8], wanted: u8) -> Option<&[u8]> {
    let mut rest = message.get(240..)?;
    loop {
        match *rest.first()? {
            0 => rest = &rest[1..],
            255 => return None,
            code => {
                let length = usize::from(*rest.get(1)?);
                let value = rest.get(2..2 + length)?;
                if code == wanted {
                    return Some(value);
                }
                rest = &rest[2 + length..];
            }
        }
    }
}

/// Sends a router advertisement (RFC 4861) with the prefix 2001:db8:7::/64 to everybody on the LAN.
fn advertise(lan: &Lan, lifetime_secs: u16) {
    in_namespace(&lan.remote, || {
        let index = Netlink::open().unwrap().link("lan0").unwrap().index;
        let raw = socket(AddressFamily::INET6, SocketType::RAW, Some(ipproto::ICMPV6)).unwrap();
        sockopt::set_ipv6_multicast_hops(&raw, 255).unwrap();
        let mut message = vec![134, 0, 0, 0, 64, 0];
        message.extend(lifetime_secs.to_be_bytes());
        message.extend([0; 8]);
        // The prefix: on the link, and to make addresses of; valid for an hour.
        message.extend([3, 4, 64, 0xc0, 0, 0, 0x0e, 0x10, 0, 0, 0x0e, 0x10, 0, 0, 0, 0]);
        message.extend("2001:db8:7::".parse::<Ipv6Addr>().unwrap().octets());
        let all_nodes: Ipv6Addr = "ff02::1".parse().unwrap();
        let to = SocketAddrV6::new(all_nodes, 0, 0, index);
        UdpSocket::from(raw).send_to(&message, to).unwrap();
    })
    .unwrap();
}

/// Gives the remote host addresses that are not of the LAN.
fn make_far_addresses(lan: &Lan) {
    in_namespace(&lan.remote, || {
        for address in FAR {
            let address = address.parse().unwrap();
            let mut netlink = Netlink::open().unwrap();
            let index = netlink.link("lo").unwrap().index;
            netlink.add_address(index, address, AddressOptions::default()).unwrap();
        }
    })
    .unwrap();
}

fn far(at: usize) -> IpAddr {
    FAR[at].split('/').next().unwrap().parse().unwrap()
}

fn addresses(world: &World) -> Vec<String> {
    let uplinks = world.json("uplink ls --json");
    let addresses = uplinks[0]["addresses"].as_array().unwrap().iter();
    addresses.map(|a| a.as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_uplink_takes_address_router_and_name_servers_from_dhcp() {
    in_world("lease::an_uplink_takes_address_router_and_name_servers_from_dhcp", |dir| {
        let lan = Lan::new();
        make_far_addresses(&lan);
        let asked = serve_dhcp(&lan);
        let world = World::new(dir);
        world.ok("uplink create default --packet nic0 --address dhcp");
        world.ok(&format!("network create blue {BLUE}"));
        eventually("a lease", PATIENCE, || addresses(&world) == ["192.0.2.77/24"]);
        let kinds: Vec<u8> = asked.try_iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, [1, 3], "discover, request");
        let uplink = &world.json("uplink ls --json")[0];
        assert_eq!(uplink["gateways"][0], "192.0.2.9");
        assert_eq!((&uplink["state"], &uplink["mtu"]), (&"works".into(), &1400.into()));
        assert!(world.ok("events").contains("has the address 192.0.2.77/24"));

        // Beyond the LAN it goes through the router.
        let web = world.container("web", "--network blue -p 1180:5000");
        serve_whoami(&lan.remote, 7000);
        let seen = whoami_tcp(&web.ns(), (far(0), 7000).into(), PATIENCE).unwrap();
        assert_eq!(seen.by_server.ip().to_string(), "192.0.2.77");
        // And in: the address answers for itself on the LAN.
        serve_whoami(&web.ns(), 5000);
        whoami_tcp(&lan.remote, "192.0.2.77:1180".parse().unwrap(), PATIENCE).unwrap();
        // Containers ask the gateway, which knows them and asks the LAN's name servers about the rest.
        let resolver = world.ok("run --network blue -- cat /etc/resolv.conf");
        assert!(resolver.starts_with("nameserver 10.20.0.1\nnameserver fd20::1"), "{resolver}");
        assert!(!resolver.contains("192.0.2.53"), "{resolver}");
        assert_eq!(uplink["dns"], serde_json::json!(["192.0.2.53", "192.0.2.54"]));
    });
}

#[test]
fn an_uplink_makes_its_ipv6_address_of_an_advertised_prefix() {
    in_world("lease::an_uplink_makes_its_ipv6_address_of_an_advertised_prefix", |dir| {
        let lan = Lan::with_remote(&["192.0.2.9/24", "2001:db8:7::9/64"]);
        make_far_addresses(&lan);
        let world = World::new(dir);
        world.ok("uplink create default --packet nic0 --address dhcp");
        world.ok(&format!("network create blue {BLUE}"));
        assert_eq!(world.json("uplink ls --json")[0]["state"], "waits for an address");
        // The remote host's own link-local address, which it must send from, may yet be new.
        eventually("an address", PATIENCE, || {
            advertise(&lan, 1800);
            addresses(&world).len() == 1
        });
        let ours = addresses(&world)[0].split('/').next().unwrap().to_owned();
        assert!(ours.starts_with("2001:db8:7:"), "{ours}");
        let ours: IpAddr = ours.parse().unwrap();

        let web = world.container("web", "--network blue -p 1180:5000");
        serve_whoami(&lan.remote, 7000);
        let near = "2001:db8:7::9".parse().unwrap();
        whoami_udp(&web.ns(), (near, 7000).into(), PATIENCE).unwrap();
        for to in [near, far(1)] {
            let seen = whoami_tcp(&web.ns(), (to, 7000).into(), PATIENCE).unwrap();
            assert_eq!(seen.by_server.ip(), ours);
        }
        serve_whoami(&web.ns(), 5000);
        whoami_tcp(&lan.remote, (ours, 1180).into(), PATIENCE).unwrap();

        // A router that resigns is no way beyond the LAN any more.
        advertise(&lan, 0);
        eventually("no router", PATIENCE, || {
            world.json("uplink ls --json")[0]["gateways"].as_array().unwrap().is_empty()
        });
        assert!(whoami_tcp(&web.ns(), (far(1), 7000).into(), crate::traffic::NEVER).is_err());
        whoami_tcp(&web.ns(), "[2001:db8:7::9]:7000".parse().unwrap(), PATIENCE).unwrap();
    });
}

#[test]
fn a_daemon_can_be_started_with_an_uplink_that_waits_for_its_address() {
    in_world("lease::a_daemon_can_be_started_with_an_uplink_that_waits_for_its_address", |dir| {
        let lan = Lan::new();
        let _asked = serve_dhcp(&lan);
        let world = World::without_daemon(dir);
        world.start("--uplink packet:nic0");
        eventually("a lease", PATIENCE, || addresses(&world) == ["192.0.2.77/24"]);
        assert_eq!(world.json("status --json")["default_uplink"], "default");
        // Again after a kill.
        world.kill_daemon();
        world.start("--uplink packet:nic0");
        eventually("a lease", PATIENCE, || addresses(&world) == ["192.0.2.77/24"]);
    });
}
