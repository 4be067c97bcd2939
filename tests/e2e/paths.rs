//! What happens to packets on their way: paths with a smaller MTU, fragments, errors of hosts behind
//! the switch, cables that are pulled out and put back.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use wharf::io::netlink::Netlink;
use wharf::io::netns::{NetNs, in_namespace};
use wharf::wire::addr::Family;

use crate::support::{PATIENCE, in_world, udp_in};
use crate::traffic::{NEVER, bulk, ping, serve_whoami, whoami_tcp, whoami_udp};
use crate::world::{BLUE, FAMILIES, Lan, RED, World, eventually};

fn set_mtu(interface: &str, mtu: u32) {
    let mut netlink = Netlink::open().unwrap();
    let index = netlink.link(interface).unwrap().index;
    netlink.set_mtu(index, mtu).unwrap();
}

fn with_uplink(dir: &std::path::Path) -> World {
    let world = World::new(dir);
    world.ok(&format!("uplink create default {}", Lan::UPLINK));
    world.ok(&format!("network create blue {BLUE}"));
    world
}

/// Both ends believe in 1500 bytes; the cable in between carries less and only the switch knows.
#[test]
fn the_smaller_mtu_of_the_uplink_is_told_to_tcp_and_udp() {
    in_world("paths::the_smaller_mtu_of_the_uplink_is_told_to_tcp_and_udp", |dir| {
        let lan = Lan::new();
        set_mtu("nic0", 1400);
        let world = with_uplink(dir);
        let web = world.container("web", "--network blue");
        for family in FAMILIES {
            bulk(&web.ns(), &lan.remote, Lan::host(family), 8 << 20);
            // The kernel inside does not cut datagrams below the MTU that it knows of. Once told, it
            // does.
            let server = udp_in(&lan.remote, Lan::host(family), 7000);
            server.set_read_timeout(Some(NEVER)).unwrap();
            let client = udp_in(&web.ns(), web.addr(family), 0);
            client.connect((Lan::host(family), 7000)).unwrap();
            let before = world.drops("web", "too-big");
            let sent = [0x5a; 1452];
            eventually("a datagram of the old size arrives", PATIENCE, || {
                // The kernel's own answer to a datagram that it now knows to be too large.
                let _ = client.send(&sent);
                server.recv(&mut [0; 1500]).is_ok_and(|length| length == sent.len())
            });
            assert!(world.drops("web", "too-big") > before, "it was never too large");
        }
    });
}

#[test]
fn tcp_finds_the_smaller_mtu_of_another_network() {
    in_world("paths::tcp_finds_the_smaller_mtu_of_another_network", |dir| {
        let world = World::new(dir);
        world.ok(&format!("network create blue --isolated=false --mtu 9000 {BLUE}"));
        world.ok(&format!("network create red --isolated=false --mtu 1400 {RED}"));
        let (b, r) =
            (world.container("b", "--network blue"), world.container("r", "--network red"));
        for family in FAMILIES {
            bulk(&b.ns(), &r.ns(), r.addr(family), 8 << 20);
        }
    });
}

/// Sends a datagram that the kernel has to cut, and hears it come back.
#[track_caller]
fn exchange_large(from: &NetNs, to: SocketAddr, server: &UdpSocket) {
    let any: IpAddr = if to.is_ipv4() { [0, 0, 0, 0].into() } else { "::".parse().unwrap() };
    let client = udp_in(from, any, 0);
    client.connect(to).unwrap();
    let sent: Vec<u8> = (0..8000_u32).map(|at| (at * 7 % 251) as u8).collect();
    let mut buf = vec![0; 9000];
    // A neighbour may yet have to be asked, and only so many fragments wait for its answer.
    for _ in 0..3 {
        client.send(&sent).unwrap();
        server.set_read_timeout(Some(PATIENCE / 3)).unwrap();
        let Ok((length, peer)) = server.recv_from(&mut buf) else { continue };
        assert!(buf[..length] == sent, "the datagram differs");
        server.send_to(&sent, peer).unwrap();
        client.set_read_timeout(Some(PATIENCE / 3)).unwrap();
        let Ok(length) = client.recv(&mut buf) else { continue };
        assert!(buf[..length] == sent, "the answer differs");
        return;
    }
    panic!("no large datagram to {to} came back");
}

#[test]
fn fragments_pass_between_containers_out_and_in() {
    in_world("paths::fragments_pass_between_containers_out_and_in", |dir| {
        let lan = Lan::new();
        let world = with_uplink(dir);
        let web = world.container("web", "--network blue -p 1180:5000/udp");
        let near = world.container("near", "--network blue");
        for family in FAMILIES {
            let inside = udp_in(&web.ns(), web.addr(family), 5000);
            exchange_large(&near.ns(), (web.addr(family), 5000).into(), &inside);
            exchange_large(&lan.remote, (Lan::ours(family), 1180).into(), &inside);
            let outside = udp_in(&lan.remote, Lan::host(family), 7000);
            exchange_large(&web.ns(), (Lan::host(family), 7000).into(), &outside);
        }
    });
}

/// What a datagram to a closed port comes to.
fn refusal(from: &NetNs, to: SocketAddr) -> ErrorKind {
    let any: IpAddr = if to.is_ipv4() { [0, 0, 0, 0].into() } else { "::".parse().unwrap() };
    let client = udp_in(from, any, 0);
    client.connect(to).unwrap();
    client.send(b"anybody there?").unwrap();
    client.recv(&mut [0; 10]).unwrap_err().kind()
}

#[test]
fn a_closed_port_is_told_to_whoever_asked_in_both_directions() {
    in_world("paths::a_closed_port_is_told_to_whoever_asked_in_both_directions", |dir| {
        let lan = Lan::new();
        let world = with_uplink(dir);
        let web = world.container("web", "--network blue -p 1180:5000 -p 1180:5000/udp");
        let near = world.container("near", "--network blue");
        for family in FAMILIES {
            for (from, to) in [
                (&near.ns(), SocketAddr::from((web.addr(family), 5000))),
                (&web.ns(), (Lan::host(family), 7000).into()),
                (&lan.remote, (Lan::ours(family), 1180).into()),
                (&near.ns(), (Lan::ours(family), 1180).into()),
            ] {
                let tcp = whoami_tcp(from, to, PATIENCE).unwrap_err().kind();
                assert_eq!(tcp, ErrorKind::ConnectionRefused, "TCP to {to}");
                assert_eq!(refusal(from, to), ErrorKind::ConnectionRefused, "UDP to {to}");
            }
        }
    });
}

#[test]
fn what_has_no_way_is_told_at_once() {
    in_world("paths::what_has_no_way_is_told_at_once", |dir| {
        let _lan = Lan::new();
        let world = with_uplink(dir);
        let web = world.container("web", "--network blue");
        // Nobody on the LAN, beyond it, and an address of the network that nobody has.
        for to in ["192.0.2.200:80", "203.0.113.1:80", "[2001:db8::200]:80", "[2001:db8:1::1]:80"] {
            let error = whoami_tcp(&web.ns(), to.parse().unwrap(), 2 * PATIENCE).unwrap_err();
            let told = [ErrorKind::HostUnreachable, ErrorKind::NetworkUnreachable];
            assert!(told.contains(&error.kind()), "{to}: {error:?}");
        }
    });
}

#[test]
fn a_cable_that_is_pulled_out_and_put_back_works_again() {
    in_world("paths::a_cable_that_is_pulled_out_and_put_back_works_again", |dir| {
        let lan = Lan::new();
        let world = with_uplink(dir);
        let web = world.container("web", "--network blue -p 1180:5000");
        serve_whoami(&lan.remote, 7000);
        serve_whoami(&web.ns(), 5000);
        let index = Netlink::open().unwrap().link("nic0").unwrap().index;
        for _ in 0..3 {
            for family in FAMILIES {
                whoami_udp(&web.ns(), (Lan::host(family), 7000).into(), PATIENCE).unwrap();
                whoami_tcp(&lan.remote, (Lan::ours(family), 1180).into(), PATIENCE).unwrap();
            }
            Netlink::open().unwrap().set_down(index).unwrap();
            let to = (Lan::host(Family::V4), 7000).into();
            assert!(whoami_udp(&web.ns(), to, NEVER).is_err());
            Netlink::open().unwrap().set_up(index).unwrap();
            eventually("the carrier is back", PATIENCE, || {
                ping(&web.ns(), Lan::host(Family::V4), NEVER).is_ok()
            });
        }
        assert_eq!(world.json("uplink ls --json")[0]["state"], "works");
    });
}

/// A LAN's host may be replaced by another one with its address.
#[test]
fn a_remote_host_that_changes_its_mac_is_found_again() {
    in_world("paths::a_remote_host_that_changes_its_mac_is_found_again", |dir| {
        let lan = Lan::new();
        let world = with_uplink(dir);
        let web = world.container("web", "--network blue");
        for family in FAMILIES {
            ping(&web.ns(), Lan::host(family), PATIENCE).unwrap();
        }
        in_namespace(&lan.remote, || {
            let mut netlink = Netlink::open().unwrap();
            let index = netlink.link("lan0").unwrap().index;
            netlink.set_mac(index, "02:00:00:00:55:55".parse().unwrap()).unwrap();
        })
        .unwrap();
        // Neighbour unreachability detection (RFC 4861 7.3) takes its time, but not for ever.
        for family in FAMILIES {
            eventually("it is found again", 10 * PATIENCE, || {
                ping(&web.ns(), Lan::host(family), NEVER).is_ok()
            });
        }
    });
}
