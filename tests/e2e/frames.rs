//! Frames themselves: large ones stay whole, and what a hostile container writes is dropped by name.

use std::time::Duration;

use etherparse::PacketBuilder;
use wharf::io::netns::in_namespace;
use wharf::io::packet::PacketSocket;
use wharf::wire::addr::Family;
use wharf::wire::mac::Mac;
use wharf::wire::vnet;

use crate::support::{PATIENCE, in_world};
use crate::traffic::{Transfer, ping};
use crate::world::{BLUE, Container, FAMILIES, World, eventually};

/// Frames and bytes that a port has sent into the switch.
fn sent(world: &World, name: &str) -> (u64, u64) {
    let ports = world.json("stats --json");
    let port = ports.as_array().unwrap().iter().find(|p| p["name"] == name).unwrap();
    (port["rx_frames"].as_u64().unwrap(), port["rx_bytes"].as_u64().unwrap())
}

#[test]
fn bulk_tcp_goes_through_in_frames_far_larger_than_the_mtu() {
    in_world("frames::bulk_tcp_goes_through_in_frames_far_larger_than_the_mtu", |dir| {
        let world = World::new(dir);
        world.ok(&format!("network create blue {BLUE}"));
        let (a, b) =
            (world.container("a", "--network blue"), world.container("b", "--network blue"));
        for family in FAMILIES {
            let before = sent(&world, "a");
            let transfer = Transfer::start(&a.ns(), &b.ns(), b.addr(family));
            transfer.goes_on(32 << 20, 6 * PATIENCE);
            let bytes = transfer.finish();
            let after = sent(&world, "a");
            let (frames, sent_bytes) = (after.0 - before.0, after.1 - before.1);
            assert!(sent_bytes > bytes, "{sent_bytes} for {bytes}");
            let mean = sent_bytes / frames;
            assert!(mean > 6 * 1500, "a frame had {mean} bytes on average");
        }
    });
}

/// A container that writes whatever it likes to its interface.
struct Hostile {
    world: World,
    me: Container,
    other: Container,
    socket: PacketSocket,
    gateway: Mac,
}

impl Hostile {
    fn new(dir: &std::path::Path) -> Self {
        let world = World::new(dir);
        world.ok(&format!("network create blue {BLUE}"));
        let me = world.container("evil", "--network blue");
        let other = world.container("other", "--network blue");
        let gateway =
            world.json("network inspect blue")[0]["gateway_mac"].as_str().unwrap().parse();
        let mac = me.mac.parse().unwrap();
        let socket = in_namespace(&me.ns(), || PacketSocket::open("eth0", mac)).unwrap().unwrap();
        Self { world, me, other, socket, gateway: gateway.unwrap() }
    }

    fn mac(&self) -> Mac {
        self.me.mac.parse().unwrap()
    }

    fn to(&self) -> Mac {
        self.other.mac.parse().unwrap()
    }

    /// Writes a frame without offload metadata.
    fn send(&self, frame: &[u8]) {
        let mut bytes = vec![0; vnet::HEADER_LEN];
        bytes.extend(frame);
        self.socket.send(&bytes).unwrap();
    }

    /// A UDP packet; with the addresses of this family's pair unless the source is another one.
    fn udp(&self, family: Family, from: Mac, to: Mac, source: Option<&str>) -> Vec<u8> {
        let source = source.map_or(self.me.addr(family), |s| s.parse().unwrap());
        udp(from, to, source, self.other.addr(family))
    }

    /// Sends the frame and waits until it is counted under this name.
    #[track_caller]
    fn is_dropped(&self, what: &str, frame: &[u8], reason: &str) {
        let before = self.world.drops("evil", reason);
        self.send(frame);
        eventually(&format!("{what} is dropped as {reason}"), PATIENCE, || {
            self.world.drops("evil", reason) > before
        });
    }
}

fn udp(from: Mac, to: Mac, source: std::net::IpAddr, target: std::net::IpAddr) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(from.0, to.0);
    let mut frame = Vec::new();
    let builder = match (source, target) {
        (std::net::IpAddr::V4(s), std::net::IpAddr::V4(t)) => {
            builder.ipv4(s.octets(), t.octets(), 64)
        }
        (std::net::IpAddr::V6(s), std::net::IpAddr::V6(t)) => {
            builder.ipv6(s.octets(), t.octets(), 64)
        }
        _ => panic!("two families in one packet"),
    };
    builder.udp(1000, 2000).write(&mut frame, b"hostile").unwrap();
    frame
}

/// An ARP message (RFC 826) in which `mac` says that it has `address`.
fn arp(mac: Mac, address: [u8; 4], operation: u8) -> Vec<u8> {
    let mut frame = [&Mac::BROADCAST.0[..], &mac.0, &[0x08, 0x06]].concat();
    frame.extend([0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend(mac.0);
    frame.extend(address);
    frame.extend(Mac::BROADCAST.0);
    frame.extend(address);
    frame.resize(60, 0);
    frame
}

/// An ICMPv6 message to all nodes, with its checksum.
fn icmp6(from: Mac, source: &str, kind: u8, rest: &[u8]) -> Vec<u8> {
    let source: std::net::Ipv6Addr = source.parse().unwrap();
    let group: std::net::Ipv6Addr = "ff02::1".parse().unwrap();
    let mut frame = Vec::new();
    let head: [u8; 4] = rest[..4].try_into().unwrap();
    PacketBuilder::ethernet2(from.0, [0x33, 0x33, 0, 0, 0, 1])
        .ipv6(source.octets(), group.octets(), 255)
        .icmpv6_raw(kind, 0, head)
        .write(&mut frame, &rest[4..])
        .unwrap();
    frame
}

#[test]
fn lies_about_addresses_are_dropped_by_name() {
    in_world("frames::lies_about_addresses_are_dropped_by_name", |dir| {
        let evil = Hostile::new(dir);
        let foreign: Mac = "02:00:00:00:66:66".parse().unwrap();
        let own = evil.mac();
        for family in FAMILIES {
            let spoofed = evil.udp(family, foreign, evil.to(), None);
            evil.is_dropped("a foreign MAC", &spoofed, "guard-mac");
            let group = evil.udp(family, Mac([1, 0, 0, 0, 0, 1]), evil.to(), None);
            evil.is_dropped("a group as source", &group, "source-mac");
            let source = if family == Family::V4 { "10.20.0.200" } else { "fd20::200" };
            let spoofed = evil.udp(family, own, evil.to(), Some(source));
            evil.is_dropped("a foreign address", &spoofed, "guard-address");
            let spoofed = evil.udp(family, own, evil.gateway, Some(source));
            evil.is_dropped("a foreign address, routed", &spoofed, "guard-address");
        }
        for operation in [1, 2] {
            let lie = arp(own, [10, 20, 0, 1], operation);
            evil.is_dropped("ARP for the gateway", &lie, "guard-neighbour");
            let Some(std::net::IpAddr::V4(other)) = evil.other.addrs.first().copied() else {
                panic!("no IPv4 address")
            };
            evil.is_dropped(
                "ARP for another",
                &arp(own, other.octets(), operation),
                "guard-neighbour",
            );
        }
        // An advertisement (override) of the gateway's address, from an address of one's own.
        let fd20_1 = "fd20::1".parse::<std::net::Ipv6Addr>().unwrap().octets();
        let rest = [&[0x20, 0, 0, 0][..], &fd20_1, &[2, 1], &own.0].concat();
        let source = evil.me.addr(Family::V6).to_string();
        evil.is_dropped("NDP for the gateway", &icmp6(own, &source, 136, &rest), "guard-neighbour");
        let rest = [&[64, 0, 7, 8][..], &[0; 8]].concat();
        evil.is_dropped("a router", &icmp6(own, &source, 134, &rest), "guard-router");

        // Nobody believed any of it.
        for family in FAMILIES {
            ping(&evil.other.ns(), evil.me.addr(family), PATIENCE).unwrap();
        }
        let fdb = evil.world.ok("fdb --json");
        assert!(!fdb.contains("66:66"), "{fdb}");
    });
}

#[test]
fn malformed_frames_are_dropped_by_name_while_others_go_on() {
    in_world("frames::malformed_frames_are_dropped_by_name_while_others_go_on", |dir| {
        let evil = Hostile::new(dir);
        let (a, b) = (
            evil.world.container("a", "--network blue"),
            evil.world.container("b", "--network blue"),
        );
        let transfers = FAMILIES.map(|family| Transfer::start(&a.ns(), &b.ns(), b.addr(family)));
        let good = |family| evil.udp(family, evil.mac(), evil.to(), None);

        let mut tagged = good(Family::V4);
        tagged.splice(12..12, [0x81, 0x00, 0x00, 0x05]);
        evil.is_dropped("a VLAN tag", &tagged, "vlan-tagged");
        let mut long = good(Family::V4);
        long[16..18].copy_from_slice(&1000_u16.to_be_bytes());
        fix_ipv4_sum(&mut long);
        evil.is_dropped("more bytes promised than there are", &long, "truncated");
        let mut long = good(Family::V6);
        long[18..20].copy_from_slice(&1000_u16.to_be_bytes());
        evil.is_dropped("more bytes promised than there are", &long, "truncated");
        // Of a bridged packet that is its receiver's business.
        let mut wrong = evil.udp(Family::V4, evil.mac(), evil.gateway, None);
        wrong[24] ^= 0xff;
        evil.is_dropped("a wrong header checksum", &wrong, "ipv4-checksum");
        let mut wrong = good(Family::V4);
        wrong[14] = 0x42;
        evil.is_dropped("a header of eight bytes", &wrong, "malformed");
        for target in ["127.0.0.1", "0.0.0.0", "::1", "::"] {
            let target: std::net::IpAddr = target.parse().unwrap();
            let family = if target.is_ipv4() { Family::V4 } else { Family::V6 };
            let frame = udp(evil.mac(), evil.gateway, evil.me.addr(family), target);
            evil.is_dropped(&format!("a packet to {target}"), &frame, "martian-destination");
        }
        for transfer in &transfers {
            transfer.goes_on(4 << 20, 6 * PATIENCE);
        }
        for transfer in transfers {
            transfer.finish();
        }
    });
}

fn fix_ipv4_sum(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let words = frame[14..34].chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    frame[24..26].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

/// Headers of offload that make no sense. The kernel refuses most of them itself; whatever gets
/// through, the switch goes on and nobody is harmed.
#[test]
fn contradictory_offload_headers_harm_nobody() {
    in_world("frames::contradictory_offload_headers_harm_nobody", |dir| {
        let evil = Hostile::new(dir);
        let (a, b) = (
            evil.world.container("a", "--network blue"),
            evil.world.container("b", "--network blue"),
        );
        let transfer = Transfer::start(&a.ns(), &b.ns(), b.addr(Family::V4));
        let mut through = 0;
        for family in FAMILIES {
            let mut frame = evil.udp(family, evil.mac(), evil.to(), None);
            frame.resize(30_000, 0x5a);
            for flags in [0, 1, 2] {
                for kind in [0, 1, 3, 4, 5, 0x81, 0xff] {
                    for (header_len, size, start, offset) in [
                        (0, 0, 0, 0),
                        (54, 1, 34, 6),
                        (54, 1448, 34, 16),
                        (65_535, 65_535, 65_535, 65_535),
                        (42, 8, 34, 6),
                        (14, 1448, 29_999, 0),
                    ] {
                        let mut bytes = vec![flags, kind];
                        for field in [header_len, size, start, offset] {
                            bytes.extend(u16::to_le_bytes(field));
                        }
                        bytes.resize(vnet::HEADER_LEN, 0);
                        bytes.extend(&frame);
                        through += u32::from(evil.socket.send(&bytes).is_ok());
                    }
                }
            }
        }
        assert!(through > 0, "the kernel let nothing through at all");
        transfer.goes_on(4 << 20, 6 * PATIENCE);
        transfer.finish();
        for family in FAMILIES {
            ping(&evil.other.ns(), evil.me.addr(family), PATIENCE).unwrap();
        }
    });
}

/// A container that sends as fast as it can to nobody and to everybody.
#[test]
fn a_flood_from_one_container_leaves_the_others_their_share() {
    in_world("frames::a_flood_from_one_container_leaves_the_others_their_share", |dir| {
        let evil = Hostile::new(dir);
        let (a, b) = (
            evil.world.container("a", "--network blue"),
            evil.world.container("b", "--network blue"),
        );
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let nobody: Mac = "02:00:00:00:77:77".parse().unwrap();
                let mut bytes = vec![0; vnet::HEADER_LEN];
                bytes.extend(evil.udp(Family::V4, evil.mac(), nobody, None));
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    // A full queue is the flood's own loss.
                    let _ = evil.socket.send(&bytes);
                }
            });
            let transfer = Transfer::start(&a.ns(), &b.ns(), b.addr(Family::V4));
            transfer.goes_on(8 << 20, 6 * PATIENCE);
            eventually("the flood's budget is used up", PATIENCE, || {
                evil.world.drops("evil", "flood-limit") > 0
            });
            ping(&a.ns(), b.addr(Family::V6), Duration::from_secs(2)).unwrap();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            transfer.finish();
        });
    });
}
