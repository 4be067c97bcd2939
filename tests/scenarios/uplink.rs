//! We as a station of the uplink's LAN.

use wharf::packet::DropReason;
use wharf::wire::addr::Family;
use wharf::wire::mac::Mac;

use crate::world::*;

#[test]
fn our_address_answers_questions_and_pings() {
    for family in FAMILIES {
        let mut world = World::new();
        world.network(NetworkOptions::default());
        let remote = world.uplink();
        let question = match own(family) {
            std::net::IpAddr::V4(ip) => arp_request(&remote, ip),
            std::net::IpAddr::V6(ip) => ndp_request(&remote, ip),
        };
        let answer = world.pass(UPLINK_PORT, &question);
        assert_eq!((answer.src_mac(), answer.dst_mac()), (UPLINK_MAC, REMOTE_MAC));
        let pong = world.pass(UPLINK_PORT, &ping(&remote, UPLINK_MAC, own(family), 5, b"x"));
        assert_eq!(pong.icmp(), if family == Family::V4 { (0, 0) } else { (129, 0) });
        pong.assert_checksums();
    }
}

#[test]
fn frames_for_other_stations_and_closed_ports_get_nowhere() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (a, remote) = (world.endpoint(net), world.uplink());
        let other = udp(&remote, Mac([2, 1, 1, 1, 1, 1]), 1, (own(family), 2), b"");
        world.dropped(UPLINK_PORT, &other, DropReason::NotForUs);
        let refused = world.pass(UPLINK_PORT, &udp(&remote, UPLINK_MAC, 1, (own(family), 2), b""));
        assert_eq!(refused.icmp(), if family == Family::V4 { (3, 3) } else { (1, 4) });
        let inside = udp(&remote, UPLINK_MAC, 1, (a.addr(family), 2), b"");
        world.dropped(UPLINK_PORT, &inside, DropReason::NotPublished);
    }
}

#[test]
fn a_question_by_arp_for_another_address_is_left_to_its_owner() {
    let mut world = World::new();
    world.network(NetworkOptions::default());
    let remote = world.uplink();
    let question = arp_request(&remote, [192, 0, 2, 200].into());
    world.dropped(UPLINK_PORT, &question, DropReason::NeighbourIgnored);
}

/// So that the station learns where we are by the way, and can answer before it has an address of the
/// link's own.
#[test]
fn a_station_is_asked_for_from_the_address_that_packets_leave_with() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (a, remote) = (world.endpoint(net), world.uplink());
        let packet = udp(&a, gateway_mac(net), 4000, (remote.addr(family), 53), b"");
        let asked = world.send(a.port, &packet);
        assert_eq!(asked.len(), 1);
        match family {
            Family::V4 => assert_eq!(asked[0].bytes[28..32], [192, 0, 2, 1]),
            Family::V6 => assert_eq!(asked[0].src().0, own(family)),
        }
    }
}
