//! What the uplink's LAN gives: an address by DHCP, and one by router advertisements.

use etherparse::PacketBuilder;
use smoltcp::wire::{DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr, EthernetAddress};
use wharf::datapath::{Datapath, Event, FrameRef, Lan, Output};
use wharf::packet::{FrameBatch, Offload};
use wharf::wire::addr::Family;

use crate::world::*;

/// What leaves, and what is told.
fn call(
    world: &mut World,
    act: impl FnOnce(&mut Datapath, &mut Output),
) -> (Vec<Vec<u8>>, Vec<Lan>) {
    let mut out = Output::default();
    act(&mut world.dp, &mut out);
    let sent = out.frames.drain(..).map(|sent| match sent.frame {
        FrameRef::Owned(owned) => {
            assert_eq!(sent.port, UPLINK_PORT);
            owned.bytes().to_vec()
        }
        FrameRef::Batch(_) => panic!("the switch speaks for itself"),
    });
    let told = out.events.drain(..).map(|event| {
        let Event::Configured(uplink, lan) = event else { panic!("{event:?}") };
        assert_eq!(uplink, UPLINK);
        lan
    });
    (sent.collect(), told.collect())
}

fn receive(world: &mut World, frame: &[u8]) -> (Vec<Vec<u8>>, Vec<Lan>) {
    let mut batch = FrameBatch::new();
    assert!(batch.push(frame, Offload::NONE));
    let now = world.now;
    call(world, |dp, out| dp.frames(now, UPLINK_PORT, &mut batch, out))
}

/// Kind and number of the DHCP message among these frames.
fn dhcp_question(frames: &[Vec<u8>]) -> (DhcpMessageType, u32) {
    let mut found = frames.iter().filter(|f| f[12..14] == [8, 0] && f[36..38] == [0, 67]);
    let frame = found.next().expect("a DHCP message leaves");
    let packet = DhcpPacket::new_checked(&frame[42..]).expect("a DHCP message");
    let repr = DhcpRepr::parse(&packet).expect("a DHCP message");
    (repr.message_type, repr.transaction_id)
}

/// An answer of the server 192.0.2.254 that gives 192.0.2.77/24.
fn dhcp_answer(transaction_id: u32, kind: DhcpMessageType) -> Vec<u8> {
    let repr = DhcpRepr {
        message_type: kind,
        transaction_id,
        secs: 0,
        client_hardware_address: EthernetAddress(UPLINK_MAC.0),
        client_ip: [0, 0, 0, 0].into(),
        your_ip: [192, 0, 2, 77].into(),
        server_ip: [192, 0, 2, 254].into(),
        router: Some([192, 0, 2, 254].into()),
        subnet_mask: Some([255, 255, 255, 0].into()),
        relay_agent_ip: [0, 0, 0, 0].into(),
        broadcast: false,
        requested_ip: None,
        client_identifier: None,
        server_identifier: Some([192, 0, 2, 254].into()),
        parameter_request_list: None,
        dns_servers: None,
        max_size: None,
        lease_duration: Some(3_600),
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[DhcpOption { kind: 6, data: &[192, 0, 2, 53] }],
    };
    let mut message = vec![0; repr.buffer_len()];
    repr.emit(&mut DhcpPacket::new_unchecked(&mut message)).unwrap();
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(REMOTE_MAC.0, UPLINK_MAC.0)
        .ipv4([192, 0, 2, 254], [192, 0, 2, 77], 64)
        .udp(67, 68)
        .write(&mut frame, &message)
        .unwrap();
    frame
}

fn unconfigured() -> World {
    let mut world = World::new();
    world.network(NetworkOptions::default());
    world.uplink();
    world.change_uplink(|uplink| {
        uplink.addrs.clear();
        uplink.routers.clear();
    });
    world
}

#[test]
fn an_uplink_gets_its_address_by_dhcp_and_renews_it() {
    let mut world = unconfigured();
    let now = world.now;
    let (sent, _) = call(&mut world, |dp, out| dp.configure(now, UPLINK, UPLINK_PORT, out));
    let (kind, id) = dhcp_question(&sent);
    assert_eq!(kind, DhcpMessageType::Discover);
    let (sent, told) = receive(&mut world, &dhcp_answer(id, DhcpMessageType::Offer));
    assert_eq!(told, []);
    let (kind, id) = dhcp_question(&sent);
    assert_eq!(kind, DhcpMessageType::Request);
    let (_, told) = receive(&mut world, &dhcp_answer(id, DhcpMessageType::Ack));
    let expected = Lan {
        addrs: vec![([192, 0, 2, 77].map(u8::from), 24)]
            .into_iter()
            .map(|(a, len)| (std::net::IpAddr::from(a).into(), len))
            .collect(),
        routers: vec![std::net::IpAddr::from([192, 0, 2, 254]).into()],
        dns: vec![std::net::IpAddr::from([192, 0, 2, 53]).into()],
        mtu: None,
    };
    assert_eq!(told, [expected]);
    // Half of the time later it asks again, and by itself: deadlines bring it there.
    let begun = world.now;
    let mut renewed = Vec::new();
    for _ in 0..100 {
        let next = world.dp.next_deadline(world.now).expect("a lease has an end");
        world.now = next;
        let (sent, _) = call(&mut world, |dp, out| dp.tick(next, out));
        renewed.extend(sent.into_iter().filter(|f| f[12..14] == [8, 0]));
        if !renewed.is_empty() {
            break;
        }
    }
    assert_eq!(dhcp_question(&renewed).0, DhcpMessageType::Request);
    let after = (world.now - begun).as_millis() / 1_000;
    assert!((1_700..=1_900).contains(&after), "after {after} s of 3,600");
}

#[test]
fn an_uplink_takes_its_ipv6_address_and_router_from_advertisements() {
    let mut world = unconfigured();
    let now = world.now;
    let (sent, _) = call(&mut world, |dp, out| dp.configure(now, UPLINK, UPLINK_PORT, out));
    let asks = |f: &Vec<u8>| f[12..14] == [0x86, 0xdd] && f[54] == 133;
    assert!(sent.iter().any(asks), "a router solicitation leaves");
    let router: std::net::Ipv6Addr = "fe80::1".parse().unwrap();
    let mut body = vec![64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    body.extend_from_slice(&[3, 4, 64, 0xc0, 0, 0, 14, 16, 0, 0, 14, 16, 0, 0, 0, 0]);
    let prefix: std::net::Ipv6Addr = "2001:db8:77::".parse().unwrap();
    body.extend_from_slice(&prefix.octets());
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(REMOTE_MAC.0, [0x33, 0x33, 0, 0, 0, 1])
        .ipv6(router.octets(), "ff02::1".parse::<std::net::Ipv6Addr>().unwrap().octets(), 255)
        .icmpv6_raw(134, 0, body[..4].try_into().unwrap())
        .write(&mut frame, &body[4..])
        .unwrap();
    let (_, told) = receive(&mut world, &frame);
    assert_eq!(told.len(), 1);
    let (addr, len) = told[0].addrs[0];
    assert_eq!((addr.to_string().as_str(), len), ("2001:db8:77:0:aa:ff:fe00:1", 64));
    assert_eq!(told[0].routers, [std::net::IpAddr::from(router).into()]);
}

#[test]
fn a_new_address_on_the_uplink_ends_what_was_translated_to_the_old_one_and_a_new_router_is_used() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (a, remote) = (world.endpoint(net), world.uplink());
        let frame = udp(&a, a.router, 5_000, (remote.addr(family), 53), b"x");
        world.pass_resolving(a.port, &frame, &remote);
        world.pass(a.port, &frame);
        let renumbered: std::net::IpAddr = match family {
            Family::V4 => [192, 0, 2, 2].into(),
            Family::V6 => "2001:db8:1::2".parse().unwrap(),
        };
        world.change_uplink(|uplink| {
            for (addr, _) in uplink.addrs.iter_mut().filter(|(a, _)| a.family() == family) {
                *addr = renumbered.into();
            }
        });
        let there = world.pass(a.port, &frame);
        assert_eq!(there.src().0, renumbered, "not the address that is no longer ours");
        let back = world.pass(UPLINK_PORT, &udp_reply(&remote, &there, b"y"));
        assert_eq!(back.port, a.port);
    }
}

#[test]
fn flows_follow_the_uplink_to_another_router() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (a, _) = (world.endpoint(net), world.uplink());
        let (far, other): (std::net::IpAddr, std::net::IpAddr) = match family {
            Family::V4 => ([198, 51, 100, 1].into(), [192, 0, 2, 253].into()),
            Family::V6 => ("2001:db8:99::1".parse().unwrap(), "2001:db8:1::fd".parse().unwrap()),
        };
        let frame = udp(&a, a.router, 5_000, (far, 53), b"x");
        let router = |mac| Host {
            port: UPLINK_PORT,
            mac: wharf::wire::mac::Mac([2, 0xee, 0, 0, 1, mac]),
            v4: [192, 0, 2, 254].into(),
            v6: "2001:db8:1::fe".parse().unwrap(),
            router: UPLINK_MAC,
        };
        let first = world.pass_resolving(a.port, &frame, &router(1));
        assert_eq!(first.dst_mac(), router(1).mac);
        world.change_uplink(|uplink| {
            for addr in uplink.routers.iter_mut().filter(|a| a.family() == family) {
                *addr = other.into();
            }
        });
        let second = world.pass_resolving(a.port, &frame, &router(2));
        assert_eq!((second.dst_mac(), second.src()), (router(2).mac, first.src()));
        assert_eq!(world.dp.worker_stats().flows, 1);
    }
}
