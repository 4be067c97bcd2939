use proptest::prelude::*;
use smoltcp::wire::DhcpOption;

use super::*;
use crate::wire::ipv4::Ipv4;
use crate::wire::ipv6;
use zerocopy::FromBytes;

const MAC: Mac = Mac([0x02, 0x42, 172, 17, 0, 9]);
const SERVER_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

fn addr(text: &str) -> Addr {
    text.parse().unwrap()
}

fn at(secs: u64) -> Time {
    Time::ZERO + Span::from_secs(secs)
}

/// A message of the client as the server sees it.
#[derive(Debug)]
struct Seen {
    kind: DhcpMessageType,
    xid: u32,
    ciaddr: Addr,
    requested: Option<Addr>,
    server: Option<Addr>,
    dst: Addr,
    dst_mac: Mac,
    src: Addr,
}

fn seen(frame: &PacketBuf) -> Seen {
    let parsed = Parsed::new(frame.bytes()).unwrap();
    assert_eq!((parsed.src_port, parsed.dst_port, parsed.src_mac), (68, 67, MAC));
    let (_, udp) = etherparse::UdpHeader::from_slice(parsed.l4_bytes(frame.bytes())).unwrap();
    let (ip, _) = Ipv4::ref_from_prefix(&frame.bytes()[14..]).unwrap();
    let pseudo = crate::wire::checksum::pseudo_header(
        parsed.src,
        parsed.dst,
        ipv6::UDP,
        parsed.l4_len() as u32,
    );
    let sum = crate::wire::checksum::sum(parsed.l4_bytes(frame.bytes()));
    assert_eq!(crate::wire::checksum::add(pseudo, sum), 0xffff);
    assert_eq!(crate::wire::checksum::sum(&frame.bytes()[14..34]), 0xffff);
    assert!(udp.len() >= 300);
    let packet = DhcpPacket::new_checked(udp).unwrap();
    let repr = DhcpRepr::parse(&packet).unwrap();
    assert_eq!(repr.client_hardware_address.0, MAC.0);
    Seen {
        kind: repr.message_type,
        xid: repr.transaction_id,
        ciaddr: repr.client_ip.into(),
        requested: repr.requested_ip.map(Addr::from),
        server: repr.server_identifier.map(Addr::from),
        dst: ip.dst_addr(),
        dst_mac: parsed.dst_mac,
        src: ip.src_addr(),
    }
}

/// An answer for 192.168.1.50/24 from 192.168.1.1, with these lifetimes and more options.
fn answer(kind: DhcpMessageType, xid: u32, lease: u32, more: &[DhcpOption<'_>]) -> PacketBuf {
    let server = addr("192.168.1.1").v4();
    let mut options = vec![DhcpOption { kind: 3, data: &[192, 168, 1, 1, 192, 168, 1, 2] }];
    options.extend_from_slice(more);
    let repr = DhcpRepr {
        message_type: kind,
        transaction_id: xid,
        your_ip: addr("192.168.1.50").v4().unwrap(),
        subnet_mask: Some([255, 255, 255, 0].into()),
        server_identifier: server,
        lease_duration: Some(lease),
        parameter_request_list: None,
        client_identifier: None,
        max_size: None,
        additional_options: &options,
        ..codec::template(MAC)
    };
    let mut message = vec![0; repr.buffer_len() + 16];
    repr.emit(&mut DhcpPacket::new_unchecked(&mut message)).unwrap();
    let (from, to) = ((SERVER_MAC, addr("192.168.1.1")), (MAC, addr("192.168.1.50")));
    codec::frame(from, to, (67, 68), &message)
}

fn give(client: &mut DhcpClient, now: Time, frame: &PacketBuf) -> Option<LeaseEvent> {
    client.handle(now, frame.bytes(), &Parsed::new(frame.bytes()).unwrap())
}

/// A client that got its address at `now`.
fn bound(now: Time, lease: u32) -> (DhcpClient, LeaseEvent) {
    let mut client = DhcpClient::new(MAC, 1);
    let discover = seen(&client.tick(now).unwrap());
    assert_eq!(
        give(&mut client, now, &answer(DhcpMessageType::Offer, discover.xid, lease, &[])),
        None
    );
    let request = seen(&client.tick(now).unwrap());
    let ack = answer(DhcpMessageType::Ack, request.xid, lease, &[]);
    let event = give(&mut client, now, &ack).unwrap();
    (client, event)
}

#[test]
fn an_address_is_got_in_four_messages() {
    let mut client = DhcpClient::new(MAC, 1);
    let discover = seen(&client.tick(at(1)).unwrap());
    assert_eq!(discover.kind, DhcpMessageType::Discover);
    assert_eq!((discover.src, discover.dst), (addr("0.0.0.0"), addr("255.255.255.255")));
    assert_eq!(discover.dst_mac, Mac::BROADCAST);
    assert!(client.tick(at(1)).is_none());
    give(&mut client, at(2), &answer(DhcpMessageType::Offer, discover.xid, 3600, &[]));
    assert_eq!(client.next_deadline(), at(2), "it is taken at once");
    let request = seen(&client.tick(at(2)).unwrap());
    assert_eq!(request.kind, DhcpMessageType::Request);
    assert_eq!(request.requested, Some(addr("192.168.1.50")));
    assert_eq!((request.server, request.ciaddr), (Some(addr("192.168.1.1")), addr("0.0.0.0")));
    assert_eq!((request.xid, request.dst), (discover.xid, addr("255.255.255.255")));
    let more =
        [DhcpOption { kind: 26, data: &[5, 120] }, DhcpOption { kind: 6, data: &[8, 8, 8, 8] }];
    let ack = answer(DhcpMessageType::Ack, request.xid, 3600, &more);
    let wanted = LeaseEvent::Bound {
        addr: addr("192.168.1.50"),
        prefix_len: 24,
        routers: vec![addr("192.168.1.1"), addr("192.168.1.2")],
        dns: vec![addr("8.8.8.8")],
        mtu: Some(1400),
        expires: at(3603),
    };
    assert_eq!(give(&mut client, at(3), &ack), Some(wanted));
    assert_eq!(client.next_deadline(), at(3 + 1800));
}

#[test]
fn silence_is_met_with_longer_and_longer_waits() {
    let mut client = DhcpClient::new(MAC, 1);
    let mut waits = Vec::new();
    let mut now = at(0);
    for _ in 0..7 {
        assert_eq!(seen(&client.tick(now).unwrap()).kind, DhcpMessageType::Discover);
        waits.push(client.next_deadline().since(now).as_secs_f64());
        now = client.next_deadline();
    }
    for (wait, wanted) in waits.iter().zip([4.0, 8.0, 16.0, 32.0, 64.0, 64.0, 64.0]) {
        assert!((wait - wanted).abs() <= 1.0, "{waits:?}");
    }
}

#[test]
fn an_offer_whose_server_went_silent_is_given_up() {
    let mut client = DhcpClient::new(MAC, 1);
    let discover = seen(&client.tick(at(0)).unwrap());
    give(&mut client, at(0), &answer(DhcpMessageType::Offer, discover.xid, 3600, &[]));
    let mut kinds = Vec::new();
    for _ in 0..5 {
        let now = client.next_deadline();
        kinds.push(seen(&client.tick(now).unwrap()).kind);
    }
    assert_eq!(kinds[..4], [DhcpMessageType::Request; 4]);
    assert_eq!(kinds[4], DhcpMessageType::Discover);
}

#[test]
fn a_lease_is_renewed_with_its_server_at_half_time() {
    let (mut client, _) = bound(at(0), 3600);
    assert!(client.tick(at(1799)).is_none());
    let renewal = seen(&client.tick(at(1800)).unwrap());
    assert_eq!((renewal.kind, renewal.ciaddr), (DhcpMessageType::Request, addr("192.168.1.50")));
    assert_eq!((renewal.dst, renewal.dst_mac), (addr("192.168.1.1"), SERVER_MAC));
    assert_eq!((renewal.requested, renewal.server), (None, None), "RFC 2131 table 5");
    let event = give(&mut client, at(1801), &answer(DhcpMessageType::Ack, renewal.xid, 3600, &[]));
    assert!(matches!(event, Some(LeaseEvent::Bound { expires, .. }) if expires == at(1801 + 3600)));
}

#[test]
fn a_lease_that_its_server_forgot_is_asked_of_everybody_and_then_lost() {
    let (mut client, _) = bound(at(0), 3600);
    let mut asked = Vec::new();
    while client.take_lost().is_none() {
        let now = client.next_deadline();
        let message = seen(&client.tick(now).unwrap());
        asked.push((now, message.dst == addr("192.168.1.1"), message.kind));
        assert!(asked.len() < 30, "{asked:?}");
    }
    let (last, renewals) = asked.split_last().unwrap();
    assert_eq!((last.0, last.2), (at(3600), DhcpMessageType::Discover));
    for (now, unicast, kind) in renewals {
        assert_eq!(*unicast, *now < at(3150), "T2 is 7/8");
        assert_eq!(*kind, DhcpMessageType::Request);
    }
    assert_eq!(client.take_lost(), None, "told once");
}

#[test]
fn a_refusal_ends_a_lease_at_once() {
    let (mut client, _) = bound(at(0), 3600);
    let renewal = seen(&client.tick(at(1800)).unwrap());
    let nak = answer(DhcpMessageType::Nak, renewal.xid, 0, &[]);
    assert_eq!(give(&mut client, at(1801), &nak), Some(LeaseEvent::Lost));
    assert_eq!(seen(&client.tick(at(1801)).unwrap()).kind, DhcpMessageType::Discover);
}

#[test]
fn a_lease_can_be_given_back() {
    let (mut client, _) = bound(at(0), 3600);
    let release = seen(&client.release(at(5)).unwrap());
    assert_eq!((release.kind, release.ciaddr), (DhcpMessageType::Release, addr("192.168.1.50")));
    assert_eq!(release.server, Some(addr("192.168.1.1")));
    assert!(client.release(at(6)).is_none(), "only once");
}

#[test]
fn a_lease_of_no_time_does_not_make_a_storm() {
    let (mut client, event) = bound(at(0), 0);
    assert!(matches!(event, LeaseEvent::Bound { expires, .. } if expires == at(60)));
    let sent = (0..60_000).filter(|ms| client.tick(Time::ZERO + Span::from_millis(*ms)).is_some());
    assert!(sent.count() <= 3);
}

#[test]
fn answers_to_others_are_not_taken() {
    let mut client = DhcpClient::new(MAC, 1);
    let xid = seen(&client.tick(at(0)).unwrap()).xid;
    let offer = answer(DhcpMessageType::Offer, xid, 3600, &[]);
    let mut changed = |position: usize, value: u8| {
        let mut bytes = offer.bytes().to_vec();
        bytes[position] ^= value;
        // No checksum, so that only the change counts.
        bytes[40..42].fill(0);
        let frame = PacketBuf::new(&bytes, crate::packet::Offload::NONE);
        give(&mut client, at(0), &frame);
        client.state == State::Requesting
    };
    assert!(!changed(42 + 4, 1), "another transaction");
    assert!(!changed(42 + 28, 1), "another station");
    assert!(!changed(42, 3), "a question");
    assert!(!changed(35, 1), "not from a server's port");
    assert!(changed(41, 0), "and the very same, unchanged, is taken");
}

#[test]
fn a_wrong_checksum_is_refused_and_an_unfinished_one_is_not() {
    for (unfinished, taken) in [(false, false), (true, true)] {
        let mut client = DhcpClient::new(MAC, 1);
        let xid = seen(&client.tick(at(0)).unwrap()).xid;
        let offer = answer(DhcpMessageType::Offer, xid, 3600, &[]);
        let parsed = Parsed::new(offer.bytes()).unwrap();
        let pseudo = crate::wire::checksum::pseudo_header(
            parsed.src,
            parsed.dst,
            ipv6::UDP,
            parsed.l4_len() as u32,
        );
        let field = if unfinished { pseudo } else { pseudo ^ 0x5555 };
        let mut bytes = offer.bytes().to_vec();
        bytes[40..42].copy_from_slice(&field.to_be_bytes());
        give(&mut client, at(0), &PacketBuf::new(&bytes, crate::packet::Offload::NONE));
        assert_eq!(client.state == State::Requesting, taken);
    }
}

#[test]
fn a_classless_default_route_replaces_the_router_option() {
    let mut client = DhcpClient::new(MAC, 1);
    let xid = seen(&client.tick(at(0)).unwrap()).xid;
    // 10.0.0.0/8 via .7, then 0.0.0.0/0 via .254.
    let routes = [8, 10, 192, 168, 1, 7, 0, 192, 168, 1, 254];
    let more = [DhcpOption { kind: 121, data: &routes }];
    give(&mut client, at(0), &answer(DhcpMessageType::Offer, xid, 3600, &more));
    client.tick(at(0));
    let event = give(&mut client, at(0), &answer(DhcpMessageType::Ack, xid, 3600, &more));
    let Some(LeaseEvent::Bound { routers, .. }) = event else { panic!("{event:?}") };
    assert_eq!(routers, [addr("192.168.1.254")]);
}

proptest! {
    #[test]
    fn no_message_makes_it_panic(changes in prop::collection::vec((0_usize..300, any::<u8>()), 0..20), cut in 0_usize..300) {
        let mut client = DhcpClient::new(MAC, 1);
        let xid = seen(&client.tick(at(0)).unwrap()).xid;
        for kind in [DhcpMessageType::Offer, DhcpMessageType::Ack] {
            let routes = [8, 10, 192, 168, 1, 7, 0, 192, 168, 1, 254];
            let frame = answer(kind, xid, 3600, &[DhcpOption { kind: 121, data: &routes }]);
            let mut payload = frame.bytes()[42..].to_vec();
            for (position, value) in &changes {
                if let Some(byte) = payload.get_mut(*position) {
                    *byte = *value;
                }
            }
            payload.truncate(payload.len().saturating_sub(cut));
            let (from, to) = ((SERVER_MAC, addr("192.168.1.1")), (MAC, addr("192.168.1.50")));
            give(&mut client, at(1), &codec::frame(from, to, (67, 68), &payload));
            client.tick(at(2));
        }
    }
}
