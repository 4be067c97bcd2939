//! TAPs and namespaces as the kernel really treats them.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::thread;

use rustix::event::PollFlags;
use wharf::base::time::Span;
use wharf::io::netlink::{AddressOptions, Netlink, NewRoute};
use wharf::io::netns::{NetNs, in_namespace};
use wharf::io::poller::{Poller, Ready, Token, Wish};
use wharf::io::tap::{Tap, TapError};
use wharf::wire::vnet;

use crate::support::{
    Host, PATIENCE, configure, connect_in, copy_frames, isolated, listener_in, move_new_tap,
    udp_in, wait_readable,
};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1));
const V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 1));

fn broadcast_frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; vnet::HEADER_LEN];
    frame.extend([0xff; 6]);
    frame.extend([0x02, 0, 0, 0, 0, 7]);
    frame.extend([0x88, 0xb5]); // IEEE 802: local experiments
    frame.extend(payload);
    frame
}

#[test]
fn what_one_kernel_sends_arrives_on_the_tap_and_back() {
    isolated("taps::what_one_kernel_sends_arrives_on_the_tap_and_back", || {
        let host = Host::new(&["10.9.0.1/24", "fd09::1/64"], 1);
        let tap = &host.taps[0];
        let to: IpAddr = "10.9.0.255".parse().unwrap();
        let socket = udp_in(&host.ns, V4, 0);
        socket.set_broadcast(true).unwrap();
        socket.send_to(b"hello", (to, 7)).unwrap();
        let mut buf = [0; 2048];
        loop {
            assert!(!wait_readable(tap, PATIENCE).is_empty(), "nothing came");
            let length = tap.read(&mut buf).unwrap();
            if buf[..length].ends_with(b"hello") {
                break;
            }
        }
        let before = stats(&host).rx_packets;
        let frame = broadcast_frame(&[1; 50]);
        assert_eq!(tap.write(&frame).unwrap(), frame.len());
        assert_eq!(stats(&host).rx_packets, before + 1);
    });
}

fn stats(host: &Host) -> wharf::io::netlink::LinkStats {
    in_namespace(&host.ns, || Netlink::open().unwrap().link("eth0").unwrap().stats).unwrap()
}

#[test]
fn a_moved_tap_is_renamed_and_keeps_working() {
    isolated("taps::a_moved_tap_is_renamed_and_keeps_working", || {
        let ns = NetNs::staging().unwrap();
        let taps = move_new_tap(&ns, "eth0", 2).unwrap();
        let interface = taps[0].interface().unwrap();
        assert_eq!(interface.name, "eth0");
        assert!(interface.is_multi_queue());
        let names = |ns: &NetNs| {
            in_namespace(ns, || {
                let links = Netlink::open().unwrap().links().unwrap();
                links.into_iter().map(|link| link.name).collect::<Vec<_>>()
            })
            .unwrap()
        };
        assert_eq!(names(&ns), ["lo", "eth0"]);
        assert!(!names(&NetNs::current().unwrap()).contains(&"eth0".to_owned()));
        let frame = broadcast_frame(&[2; 50]);
        let down = taps[0].write(&frame).unwrap_err();
        assert!(Tap::is_link_down_error(&down) && !Tap::is_dead_error(&down), "{down}");
        in_namespace(&ns, || configure("eth0", &[])).unwrap();
        for tap in &taps {
            assert_eq!(tap.write(&frame).unwrap(), frame.len());
        }
    });
}

#[test]
fn a_name_that_is_taken_in_the_target_refuses_the_move_and_leaves_nothing() {
    isolated(
        "taps::a_name_that_is_taken_in_the_target_refuses_the_move_and_leaves_nothing",
        || {
            let ns = NetNs::staging().unwrap();
            let first = move_new_tap(&ns, "eth0", 1).unwrap();
            assert!(move_new_tap(&ns, "eth0", 1).is_err());
            let count = || in_namespace(&ns, || Netlink::open().unwrap().links().unwrap().len());
            assert_eq!(count().unwrap(), 2);
            drop(first);
            assert_eq!(count().unwrap(), 1);
        },
    );
}

#[test]
fn when_the_namespace_dies_reading_fails_at_once() {
    isolated("taps::when_the_namespace_dies_reading_fails_at_once", || {
        let Host { ns, taps } = Host::new(&["10.9.0.1/24"], 1);
        let mut buf = [0; 2048];
        while taps[0].read(&mut buf).is_ok() {}
        drop(ns);
        let mut flags = PollFlags::IN;
        while !flags.contains(PollFlags::ERR) {
            flags = wait_readable(&taps[0], PATIENCE);
            assert!(!flags.is_empty(), "the death was never seen");
            while taps[0].read(&mut buf).is_ok() {}
        }
        let error = taps[0].read(&mut buf).unwrap_err();
        assert!(Tap::is_dead_error(&error), "{error}");
        let error = taps[0].write(&broadcast_frame(&[0; 50])).unwrap_err();
        assert!(Tap::is_dead_error(&error), "{error}");
        assert!(matches!(taps[0].interface(), Err(TapError::Unfit(_))));
    });
}

#[test]
fn a_passed_on_descriptor_is_checked_and_works() {
    isolated("taps::a_passed_on_descriptor_is_checked_and_works", || {
        let mut host = Host::new(&["10.9.0.1/24"], 1);
        let opened = host.taps.pop().unwrap();
        let uso = opened.offload().uso;
        let fd: OwnedFd = opened.into();
        let tap = Tap::from_fd(fd).unwrap();
        assert_eq!(tap.offload().uso, uso);
        let frame = broadcast_frame(&[3; 50]);
        assert_eq!(tap.write(&frame).unwrap(), frame.len());
    });
}

#[test]
fn super_frames_pass_whole_between_two_kernels_in_both_families() {
    isolated("taps::super_frames_pass_whole_between_two_kernels_in_both_families", || {
        let a = Host::new(&["10.9.0.1/24", "fd09::1/64"], 1);
        let b = Host::new(&["10.9.0.2/24", "fd09::2/64"], 1);
        let (port_a, port_b) = (&a.taps[0], &b.taps[0]);
        let (mut largest, ns_a, ns_b) = (0, a.ns, b.ns);
        thread::scope(|scope| {
            let switch = scope.spawn(|| {
                let mut largest = 0;
                copy_frames(port_a, port_b, |frame| largest = largest.max(frame.len()));
                largest
            });
            for address in [V4, V6] {
                bulk(&ns_a, &ns_b, address);
            }
            // Both kernels go, and with them the ports, and so the switch.
            drop((ns_a, ns_b));
            largest = switch.join().unwrap();
        });
        assert!(largest > 60_000, "no super-frame was seen; the largest had {largest} bytes");
    });
}

/// Moves bytes from `b` to the address of `a` and checks them.
fn bulk(a: &NetNs, b: &NetNs, address: IpAddr) {
    const CHUNK: usize = 1 << 20;
    let (listener, to) = listener_in(a, address);
    let mut sender = connect_in(b, to);
    let (mut receiver, _) = listener.accept().unwrap();
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    let pattern: Vec<u8> = (0..CHUNK).map(|i| (i % 251) as u8).collect();
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..8 {
                sender.write_all(&pattern).unwrap();
            }
        });
        let mut got = vec![0; CHUNK];
        for _ in 0..8 {
            receiver.read_exact(&mut got).unwrap();
            assert!(got == pattern, "the bytes differ");
        }
    });
}

#[test]
fn a_full_ring_shows_in_the_links_counters() {
    isolated("taps::a_full_ring_shows_in_the_links_counters", || {
        let host = Host::new(&["10.9.0.1/24"], 1);
        let socket = udp_in(&host.ns, V4, 0);
        socket.set_broadcast(true).unwrap();
        in_namespace(&host.ns, || {
            let mut netlink = Netlink::open().unwrap();
            let link = netlink.link("eth0").unwrap();
            netlink.set_txqueuelen(link.index, 100).unwrap();
            assert_eq!(netlink.link("eth0").unwrap().txqueuelen, 100);
        })
        .unwrap();
        for _ in 0..300 {
            socket.send_to(b"x", "10.9.0.255:7").unwrap();
        }
        assert!(stats(&host).tx_dropped >= 200);
    });
}

#[test]
fn addresses_and_routes_are_made_seen_and_removed() {
    isolated("taps::addresses_and_routes_are_made_seen_and_removed", || {
        let mut netlink = Netlink::open().unwrap();
        netlink.create_veth("d0", "d1", None).unwrap();
        let peer = netlink.link("d1").unwrap().index;
        netlink.set_up(peer).unwrap();
        let index = netlink.link("d0").unwrap().index;
        netlink.set_mtu(index, 1400).unwrap();
        netlink.set_mac(index, "02:42:0a:09:00:01".parse().unwrap()).unwrap();
        netlink.set_up(index).unwrap();
        for (address, gateway) in [("10.9.0.1/24", "10.9.0.254"), ("fd09::1/64", "fd09::ffff")] {
            let net: ipnet::IpNet = address.parse().unwrap();
            netlink.add_address(index, net, AddressOptions::default()).unwrap();
            let again = netlink.add_address(index, net, AddressOptions::default()).unwrap_err();
            assert!(again.is_exists(), "{again}");
            let found = netlink.addresses().unwrap();
            let found = found.iter().find(|a| a.net == net).expect("the address is listed");
            assert!(!found.tentative && found.index == index);
            let default = if net.addr().is_ipv4() { "0.0.0.0/0" } else { "::/0" };
            let route = NewRoute {
                destination: default.parse().unwrap(),
                via: Some(gateway.parse().unwrap()),
                index,
                onlink: false,
            };
            netlink.add_route(&route).unwrap();
            assert!(netlink.add_route(&route).unwrap_err().is_exists());
            let routes = netlink.routes().unwrap();
            assert!(routes.iter().any(|r| r.is_default() && r.via == route.via), "{routes:?}");
            netlink.delete_route(&route).unwrap();
            let far = NewRoute {
                via: Some(
                    if net.addr().is_ipv4() { "192.0.2.1" } else { "2001:db8::1" }.parse().unwrap(),
                ),
                onlink: true,
                ..route
            };
            let unreachable = netlink.add_route(&NewRoute { onlink: false, ..far }).unwrap_err();
            assert!(unreachable.to_string().contains("gateway"), "{unreachable}");
            netlink.add_route(&far).unwrap();
            netlink.delete_address(index, net).unwrap();
        }
        let link = netlink.link("d0").unwrap();
        assert_eq!((link.mtu, link.kind.as_deref()), (1400, Some("veth")));
        assert_eq!(link.mac.unwrap().to_string(), "02:42:0a:09:00:01");
        netlink.delete_link(index).unwrap();
        assert!(netlink.link("d0").unwrap_err().is_missing());
    });
}

#[test]
fn opening_a_name_that_belongs_to_another_device_says_so() {
    isolated("taps::opening_a_name_that_belongs_to_another_device_says_so", || {
        Netlink::open().unwrap().create_veth("d0", "d1", None).unwrap();
        assert!(matches!(Tap::open("d0", 1), Err(TapError::NameTaken(_))));
        let _one = Tap::open("t0", 1).unwrap();
        assert!(matches!(Tap::open("t0", 1), Err(TapError::NameTaken(_))));
    });
}

#[test]
fn the_poller_reports_a_port_whose_namespace_died() {
    isolated("taps::the_poller_reports_a_port_whose_namespace_died", || {
        let Host { ns, taps } = Host::new(&["10.9.0.1/24"], 1);
        let mut poller = Poller::new().unwrap();
        poller.add(&taps[0], Token(7), Wish::Read).unwrap();
        drop(ns);
        let mut ready = Vec::new();
        while !ready.iter().any(|event: &Ready| event.error) {
            ready.clear();
            poller.wait(Some(Span::from_secs(5)), &mut ready).unwrap();
            assert!(!ready.is_empty(), "the death was never reported");
            // Edge-triggered: what is there is read to its end each time.
            let mut buf = [0; 2048];
            while taps[0].read(&mut buf).is_ok() {}
        }
        assert_eq!(ready[0].token, Token(7));
    });
}
