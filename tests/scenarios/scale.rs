//! Many of everything; figures are printed, correctness is asserted.

use wharf::base::ids::PublicationId;
use wharf::config::Delta;
use wharf::stage::service::publish::Publication;
use wharf::wire::addr::Family;
use wharf::wire::ipv6::UDP;

use crate::world::*;

#[test]
fn a_hundred_thousand_flows_between_a_thousand_ports_are_kept_apart() {
    let mut world = World::new();
    let open = NetworkOptions { open: true, ..Default::default() };
    let nets: Vec<_> = (0..5).map(|_| world.network(open)).collect();
    let hosts: Vec<Host> = (0..1_000).map(|i| world.endpoint(nets[i % 5])).collect();
    for (i, host) in hosts.iter().enumerate() {
        for k in 1..=100_usize {
            let peer = &hosts[(i + k * 5 + 1) % 1_000];
            let family = FAMILIES[k % 2];
            let frame = udp(host, host.router, 1_000 + k as u16, (peer.addr(family), 9), b"x");
            let sent = world.pass(host.port, &frame);
            assert_eq!(sent.port, peer.port);
        }
    }
    let stats = world.dp.worker_stats();
    assert_eq!(stats.flows, 100_000);
    let each = stats.flow_bytes / stats.flows;
    println!("100,000 flows take {} bytes, {each} each", stats.flow_bytes);
    assert!(each <= 256, "{each} bytes a flow, chunks and sub-tables half full included");
}

#[test]
fn twelve_thousand_published_ports_single_and_as_a_range_all_lead_home() {
    let mut world = World::new();
    let net = world.network(NetworkOptions::default());
    let (web, ranged, remote) = (world.endpoint(net), world.endpoint(net), world.uplink());
    let domain = net.into();
    let publication =
        |id, ports: std::ops::RangeInclusive<u16>, host: &Host, target_port| Publication {
            id: PublicationId(id),
            proto: UDP,
            host_addr: None,
            host_ports: ports,
            target_v4: Some(host.v4.into()),
            target_v6: Some(host.v6.into()),
            target_port,
            domain,
            endpoint: host.port,
        };
    for i in 0..12_000_u16 {
        let port = 10_000 + i;
        world.apply(Delta::Publish(publication(u32::from(i), port..=port, &web, 80)));
    }
    world.apply(Delta::Publish(publication(90_000, 30_000..=41_999, &ranged, 30_000)));
    for family in [Family::V4, Family::V6] {
        for port in (10_000..22_000).step_by(97) {
            let frame = udp(&remote, UPLINK_MAC, 7, (own(family), port), b"x");
            let there = world.pass(UPLINK_PORT, &frame);
            assert_eq!((there.port, there.dst().1), (web.port, 80));
        }
        for port in (30_000..42_000).step_by(97) {
            let frame = udp(&remote, UPLINK_MAC, 7, (own(family), port), b"x");
            let there = world.pass(UPLINK_PORT, &frame);
            assert_eq!((there.port, there.dst().1), (ranged.port, port));
        }
    }
}
