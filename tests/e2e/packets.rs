//! Packet sockets on real veth pairs.

use std::io::{ErrorKind, Read, Write};
use std::net::IpAddr;
use std::thread;

use wharf::io::netlink::Netlink;
use wharf::io::netns::{NetNs, in_namespace};
use wharf::io::packet::{PacketError, PacketSocket};
use wharf::wire::mac::Mac;
use wharf::wire::vnet;

use crate::support::{
    PATIENCE, configure, connect_in, isolated, listener_in, udp_in, wait_readable,
};

/// Two namespaces and a cable: `lan` with an address, `nic` without one in the middle of nowhere.
struct Cable {
    lan: NetNs,
    lan_mac: Mac,
    nic: NetNs,
    nic_mac: Mac,
}

impl Cable {
    fn new(lan_addresses: &[&str]) -> Self {
        let (lan, nic) = (NetNs::staging().unwrap(), NetNs::staging().unwrap());
        in_namespace(&lan, || {
            Netlink::open().unwrap().create_veth("lan0", "nic0", Some(&nic)).unwrap();
            configure("lan0", lan_addresses);
        })
        .unwrap();
        in_namespace(&nic, || configure("nic0", &[])).unwrap();
        let mac = |ns: &NetNs, name: &str| {
            in_namespace(ns, || Netlink::open().unwrap().link(name).unwrap().mac.unwrap()).unwrap()
        };
        let (lan_mac, nic_mac) = (mac(&lan, "lan0"), mac(&nic, "nic0"));
        Self { lan, lan_mac, nic, nic_mac }
    }

    fn socket(&self, mac: Mac) -> PacketSocket {
        in_namespace(&self.nic, || PacketSocket::open("nic0", mac)).unwrap().unwrap()
    }
}

fn frame(to: Mac, from: Mac, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; vnet::HEADER_LEN];
    frame.extend(to.0);
    frame.extend(from.0);
    frame.extend([0x88, 0xb5]); // IEEE 802: local experiments
    frame.extend(payload);
    frame
}

/// Sends raw frames from the LAN's side.
fn send_from_lan(cable: &Cable, frames: &[Vec<u8>]) {
    let lan = in_namespace(&cable.lan, || PacketSocket::open("lan0", cable.lan_mac));
    let lan = lan.unwrap().unwrap();
    for frame in frames {
        lan.send(frame).unwrap();
    }
}

/// The mark of a frame that ends a test's sequence: frames on a cable keep their order.
const LAST: u8 = 99;

/// What is received of the experimental kind up to the frame [`LAST`], by its first payload byte; the
/// kernels say things of their own in between.
fn received(socket: &PacketSocket) -> Vec<u8> {
    let mut seen = Vec::new();
    let mut arena = vec![0; 8 * 2048];
    loop {
        assert!(!wait_readable(socket, PATIENCE).is_empty(), "the last frame never came: {seen:?}");
        let mut bufs: Vec<&mut [u8]> = arena.chunks_mut(2048).collect();
        let mut lengths = [0; 8];
        let count = match socket.recv_batch(&mut bufs, &mut lengths) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            other => other.unwrap(),
        };
        for (buf, length) in bufs.iter().zip(lengths).take(count) {
            match mark(&buf[..length]) {
                Some(LAST) => return seen,
                Some(mark) => seen.push(mark),
                None => {}
            }
        }
    }
}

fn mark(received: &[u8]) -> Option<u8> {
    let frame = received.get(vnet::HEADER_LEN..)?;
    if frame.get(12..14)? == [0x88, 0xb5] { frame.get(14).copied() } else { None }
}

#[test]
fn only_frames_to_our_address_and_to_groups_are_received() {
    isolated("packets::only_frames_to_our_address_and_to_groups_are_received", || {
        let cable = Cable::new(&[]);
        let ours: Mac = "02:42:c0:00:02:01".parse().unwrap();
        let other: Mac = "02:42:c0:00:02:02".parse().unwrap();
        let near: Mac = "02:42:c0:00:ff:01".parse().unwrap();
        let group: Mac = "33:33:00:00:00:01".parse().unwrap();
        let socket = cable.socket(ours);
        let to = |mac, mark| frame(mac, cable.lan_mac, &[mark; 50]);
        send_from_lan(
            &cable,
            &[
                to(ours, 1),
                to(other, 2),
                to(near, 3),
                to(Mac::BROADCAST, 4),
                to(group, 5),
                to(cable.nic_mac, 6),
                to(Mac::BROADCAST, LAST),
            ],
        );
        assert_eq!(received(&socket), [1, 4, 5]);
        // What this side sends itself is not shown to it.
        socket.send(&frame(Mac::BROADCAST, ours, &[7; 50])).unwrap();
        send_from_lan(&cable, &[to(ours, 8), to(ours, LAST)]);
        assert_eq!(received(&socket), [8]);
        assert!(socket.take_stats().unwrap().packets >= 6);
        assert!(socket.receive_bytes() > 200_000);
    });
}

#[test]
fn a_frame_with_a_vlan_tag_is_not_received_as_one_without() {
    isolated("packets::a_frame_with_a_vlan_tag_is_not_received_as_one_without", || {
        let cable = Cable::new(&[]);
        let socket = cable.socket(cable.nic_mac);
        let mut tagged = frame(cable.nic_mac, cable.lan_mac, &[1; 50]);
        let at = vnet::HEADER_LEN + 12;
        tagged.splice(at..at, [0x81, 0x00, 0x00, 0x05]);
        let last = frame(cable.nic_mac, cable.lan_mac, &[LAST; 50]);
        send_from_lan(&cable, &[tagged, frame(cable.nic_mac, cable.lan_mac, &[2; 50]), last]);
        assert_eq!(received(&socket), [2]);
    });
}

#[test]
fn a_frame_larger_than_its_buffer_is_told_and_the_next_one_is_received() {
    isolated(
        "packets::a_frame_larger_than_its_buffer_is_told_and_the_next_one_is_received",
        || {
            let cable = Cable::new(&[]);
            let socket = cable.socket(cable.nic_mac);
            let large = frame(cable.nic_mac, cable.lan_mac, &[1; 1000]);
            let small = frame(cable.nic_mac, cable.lan_mac, &[2; 50]);
            send_from_lan(&cable, &[large, small]);
            let mut buf = [0; 200];
            let error = first_error(&socket, &mut buf);
            assert!(PacketSocket::is_frame_error(&error), "{error}");
            loop {
                assert!(!wait_readable(&socket, PATIENCE).is_empty(), "the small frame is lost");
                if socket.recv(&mut buf).is_ok_and(|length| mark(&buf[..length]) == Some(2)) {
                    break;
                }
            }
        },
    );
}

/// The first error that is not about there being nothing yet.
fn first_error(socket: &PacketSocket, buf: &mut [u8]) -> std::io::Error {
    loop {
        assert!(!wait_readable(socket, PATIENCE).is_empty(), "neither a frame nor an error came");
        match socket.recv(buf) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => return error,
            _ => {}
        }
    }
}

/// A kernel's TCP through two packet sockets and a plain copy: super-frames in both directions.
#[test]
fn super_frames_pass_from_cable_to_cable_in_both_families() {
    isolated("packets::super_frames_pass_from_cable_to_cable_in_both_families", || {
        let a = Cable::new(&["10.8.0.1/24", "fd08::1/64"]);
        let b = Cable::new(&["10.8.0.2/24", "fd08::2/64"]);
        // Each side answers for the kernel behind the other.
        let (port_a, port_b) = (a.socket(b.lan_mac), b.socket(a.lan_mac));
        let stop = std::sync::atomic::AtomicBool::new(false);
        thread::scope(|scope| {
            let switch = scope.spawn(|| copy(&port_a, &port_b, &stop));
            for address in ["10.8.0.1", "fd08::1"] {
                let address: IpAddr = address.parse().unwrap();
                transfer(&a.lan, &b.lan, address);
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            let poke = udp_in(&a.lan, "10.8.0.1".parse().unwrap(), 0);
            poke.send_to(b"end", "10.8.0.2:9").unwrap();
            let largest = switch.join().unwrap();
            assert!(largest > 30_000, "no super-frame was seen; the largest had {largest} bytes");
        });
        // Each kernel took the other for its neighbour.
        let neighbours =
            in_namespace(&a.lan, || Netlink::open().unwrap().neighbours().unwrap()).unwrap();
        for address in ["10.8.0.2", "fd08::2"] {
            let address: IpAddr = address.parse().unwrap();
            let found = neighbours.iter().find(|n| n.address == address).unwrap();
            assert_eq!(found.mac, Some(b.lan_mac));
        }
        assert_eq!(port_a.take_stats().unwrap().drops + port_b.take_stats().unwrap().drops, 0);
    });
}

fn copy(a: &PacketSocket, b: &PacketSocket, stop: &std::sync::atomic::AtomicBool) -> usize {
    let mut buf = vec![0; 70_000];
    let mut largest = 0;
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        for (from, to) in [(a, b), (b, a)] {
            while let Ok(length) = from.recv(&mut buf) {
                largest = largest.max(length);
                to.send(&buf[..length]).unwrap();
            }
        }
        let mut fds = [a, b].map(|s| rustix::event::PollFd::new(s, rustix::event::PollFlags::IN));
        let timeout = PATIENCE.try_into().unwrap();
        rustix::event::poll(&mut fds, Some(&timeout)).unwrap();
    }
    largest
}

fn transfer(a: &NetNs, b: &NetNs, address: IpAddr) {
    let (listener, to) = listener_in(a, address);
    let mut sender = connect_in(b, to);
    let (mut receiver, _) = listener.accept().unwrap();
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    let sent: Vec<u8> = (0..4 << 20).map(|i: u32| (i % 251) as u8).collect();
    let mut got = vec![0; sent.len()];
    thread::scope(|scope| {
        scope.spawn(|| sender.write_all(&sent).unwrap());
        receiver.read_exact(&mut got).unwrap();
    });
    assert!(got == sent, "the bytes differ");
}

#[test]
fn an_interface_that_goes_down_is_told_and_comes_back() {
    isolated("packets::an_interface_that_goes_down_is_told_and_comes_back", || {
        let cable = Cable::new(&[]);
        let socket = cable.socket(cable.nic_mac);
        let set = |up: bool| {
            in_namespace(&cable.nic, || {
                let mut netlink = Netlink::open().unwrap();
                let index = netlink.link("nic0").unwrap().index;
                if up { netlink.set_up(index).unwrap() } else { netlink.set_down(index).unwrap() }
            })
            .unwrap();
        };
        set(false);
        let error = first_error(&socket, &mut [0; 2048]);
        assert!(PacketSocket::is_down_error(&error), "{error}");
        let ours = frame(Mac::BROADCAST, cable.nic_mac, &[1; 50]);
        assert!(PacketSocket::is_down_error(&socket.send(&ours).unwrap_err()));
        set(true);
        socket.send(&ours).unwrap();
        let from_lan = |mark| frame(cable.nic_mac, cable.lan_mac, &[mark; 50]);
        send_from_lan(&cable, &[from_lan(9), from_lan(LAST)]);
        assert_eq!(received(&socket), [9]);
    });
}

#[test]
fn what_is_no_ethernet_interface_is_refused() {
    isolated("packets::what_is_no_ethernet_interface_is_refused", || {
        let mac: Mac = "02:00:00:00:00:01".parse().unwrap();
        assert!(matches!(PacketSocket::open("lo", mac), Err(PacketError::NotEthernet(_))));
        assert!(matches!(PacketSocket::open("nope0", mac), Err(PacketError::Interface(_))));
    });
}
