//! DHCP's server side (RFC 2131): a guest's own address, whenever it asks.

use smoltcp::wire::{DHCP_CLIENT_PORT, DHCP_SERVER_PORT, DhcpMessageType, DhcpOpCode, DhcpPacket};

use super::guest::{Guest, LEASE, datagram, message};
use crate::packet::{DropReason, PacketBuf, Parsed};
use crate::wire::addr::Addr;
use crate::wire::dhcp::{
    self, DNS, DOMAIN, END, LEASE_TIME, MAGIC, MESSAGE_MIN, MESSAGE_TYPE, MTU, OPTIONS_AT,
    REQUESTED, ROUTER, SEARCH, SERVER, SUBNET_MASK, option,
};
use crate::wire::mac::Mac;

/// What the message asks for.
struct Request<'a> {
    packet: DhcpPacket<&'a [u8]>,
    kind: DhcpMessageType,
}

/// Whether a packet is a DHCP client's.
pub fn is_request(parsed: &Parsed) -> bool {
    (parsed.src_port, parsed.dst_port) == (DHCP_CLIENT_PORT, DHCP_SERVER_PORT)
        && parsed.proto == crate::wire::ipv6::UDP
        && parsed.src.is_v4()
}

/// The answer to a client's message; none if it needs none.
///
/// # Errors
/// It is none, or not that guest's.
pub fn answer(
    frame: &[u8],
    parsed: &Parsed,
    guest: &Guest<'_>,
) -> Result<Option<PacketBuf>, DropReason> {
    let payload = message(frame, parsed, (DHCP_CLIENT_PORT, DHCP_SERVER_PORT));
    let request = payload.and_then(Request::read).ok_or(DropReason::Malformed)?;
    let packet = &request.packet;
    if packet.client_hardware_address().0 != guest.mac.0 {
        return Err(DropReason::GuardMac);
    }
    let reply = match request.kind {
        DhcpMessageType::Discover => DhcpMessageType::Offer,
        DhcpMessageType::Request if request.is_for_another(guest) => return Ok(None),
        DhcpMessageType::Request if request.wanted() == Some(guest.place.addr) => {
            DhcpMessageType::Ack
        }
        DhcpMessageType::Request => DhcpMessageType::Nak,
        DhcpMessageType::Inform => DhcpMessageType::Ack,
        // What is released or declined stays the guest's all the same.
        _ => return Ok(None),
    };
    Ok(Some(request.reply(reply, guest)))
}

impl<'a> Request<'a> {
    fn read(payload: &'a [u8]) -> Option<Self> {
        let packet = DhcpPacket::new_checked(payload).ok()?;
        let usable = packet.opcode() == DhcpOpCode::Request
            && packet.hardware_len() == 6
            && packet.magic_number().to_be_bytes() == MAGIC
            // No relay agent stands between a guest and its switch.
            && packet.relay_agent_ip().is_unspecified();
        let kind = packet.options().find(|option| option.kind == MESSAGE_TYPE)?;
        let kind = DhcpMessageType::from(*kind.data.first()?);
        usable.then_some(Self { packet, kind })
    }

    fn addr(&self, kind: u8) -> Option<Addr> {
        let option = self.packet.options().find(|option| option.kind == kind)?;
        Some(Addr::from_v4_bytes(option.data.try_into().ok()?))
    }

    /// It took the offer of another server.
    fn is_for_another(&self, guest: &Guest<'_>) -> bool {
        self.addr(SERVER).is_some_and(|server| server != guest.place.gateway)
    }

    /// The address it asks for: by option, or as the one that it has (RFC 2131 4.3.2).
    fn wanted(&self) -> Option<Addr> {
        let own = Addr::from(self.packet.client_ip());
        self.addr(REQUESTED).or_else(|| (!own.is_unspecified()).then_some(own))
    }

    fn reply(&self, kind: DhcpMessageType, guest: &Guest<'_>) -> PacketBuf {
        let (packet, place) = (&self.packet, &guest.place);
        let own = Addr::from(packet.client_ip());
        let refused = kind == DhcpMessageType::Nak;
        let informed = self.kind == DhcpMessageType::Inform;
        let mut bytes = vec![0; OPTIONS_AT];
        bytes[..4].copy_from_slice(&[2, 1, 6, 0]);
        bytes[4..8].copy_from_slice(&packet.transaction_id().to_be_bytes());
        bytes[10..12].copy_from_slice(&packet.flags().bits().to_be_bytes());
        if !refused {
            bytes[12..16].copy_from_slice(&own.bytes()[12..]);
        }
        if !refused && !informed {
            bytes[16..20].copy_from_slice(&place.addr.bytes()[12..]);
        }
        bytes[28..34].copy_from_slice(&guest.mac.0);
        bytes.extend(MAGIC);
        option(&mut bytes, MESSAGE_TYPE, &[kind.into()]);
        option(&mut bytes, SERVER, &place.gateway.bytes()[12..]);
        if !refused {
            if !informed {
                option(&mut bytes, LEASE_TIME, &LEASE.to_be_bytes());
            }
            configuration(&mut bytes, guest);
        }
        bytes.push(END);
        bytes.resize(bytes.len().max(MESSAGE_MIN), 0);
        let broadcast = (Mac::BROADCAST, Addr::from_v4_bits(u32::MAX), DHCP_CLIENT_PORT);
        // RFC 2131 4.1: to where it has its address; else as it can hear it.
        let to = if refused {
            broadcast
        } else if !own.is_unspecified() {
            (guest.mac, own, DHCP_CLIENT_PORT)
        } else if packet.flags().bits() & 0x8000 != 0 {
            broadcast
        } else {
            (guest.mac, place.addr, DHCP_CLIENT_PORT)
        };
        datagram((guest.gateway_mac, place.gateway, DHCP_SERVER_PORT), to, &bytes)
    }
}

fn configuration(bytes: &mut Vec<u8>, guest: &Guest<'_>) {
    let place = &guest.place;
    option(bytes, SUBNET_MASK, &dhcp::mask(place.prefix_len).to_be_bytes());
    option(bytes, ROUTER, &place.gateway.bytes()[12..]);
    option(bytes, DNS, &place.name_server.bytes()[12..]);
    option(bytes, MTU, &guest.mtu.to_be_bytes());
    option(bytes, DOMAIN, guest.domain.as_bytes());
    option(bytes, SEARCH, &guest.domain_labels());
}

#[cfg(test)]
mod tests {
    use smoltcp::wire::{DhcpRepr, EthernetAddress, Ipv4Address};

    use super::*;
    use crate::stage::respond::guest::Place;

    const MAC: Mac = Mac([2, 0x42, 10, 20, 0, 2]);
    const XID: u32 = 0x1234_5678;

    fn guest() -> Guest<'static> {
        let addr = |last| Addr::from_v4_bytes([10, 20, 0, last]);
        let (prefix, gateway) = (addr(0), addr(1));
        let place = Place { addr: addr(2), prefix, prefix_len: 24, gateway, name_server: gateway };
        let gateway_mac = Mac([2, 0x42, 10, 20, 0, 1]);
        let router = "fe80::1".parse().unwrap();
        Guest { mac: MAC, gateway_mac, router, place, mtu: 1400, domain: "blue" }
    }

    fn repr(kind: DhcpMessageType) -> DhcpRepr<'static> {
        let none = Ipv4Address::UNSPECIFIED;
        DhcpRepr {
            message_type: kind,
            transaction_id: XID,
            secs: 0,
            client_hardware_address: EthernetAddress(MAC.0),
            client_ip: none,
            your_ip: none,
            server_ip: none,
            router: None,
            subnet_mask: None,
            relay_agent_ip: none,
            broadcast: false,
            requested_ip: None,
            client_identifier: None,
            server_identifier: None,
            parameter_request_list: None,
            dns_servers: None,
            max_size: None,
            lease_duration: None,
            renew_duration: None,
            rebind_duration: None,
            additional_options: &[],
        }
    }

    fn told(repr: &DhcpRepr<'_>) -> Result<Option<PacketBuf>, DropReason> {
        let mut message = vec![0; repr.buffer_len()];
        repr.emit(&mut DhcpPacket::new_unchecked(&mut message)).unwrap();
        let from = (MAC, Addr::from_v4_bits(0), DHCP_CLIENT_PORT);
        let to = (Mac::BROADCAST, Addr::from_v4_bits(u32::MAX), DHCP_SERVER_PORT);
        let frame = datagram(from, to, &message);
        let parsed = Parsed::new(frame.bytes()).unwrap();
        assert!(is_request(&parsed));
        answer(frame.bytes(), &parsed, &guest())
    }

    /// Kind and address of an answer, read by a codec that did not write it.
    fn said(frame: &PacketBuf) -> (DhcpMessageType, Ipv4Address) {
        let parsed = Parsed::new(frame.bytes()).unwrap();
        assert_eq!((parsed.src, parsed.src_mac), (guest().place.gateway, guest().gateway_mac));
        let payload = message(frame.bytes(), &parsed, (67, 68)).unwrap();
        let packet = DhcpPacket::new_checked(payload).unwrap();
        let repr = DhcpRepr::parse(&packet).unwrap();
        assert_eq!((repr.transaction_id, repr.client_hardware_address.0), (XID, MAC.0));
        if !matches!(repr.message_type, DhcpMessageType::Nak) {
            let gateway = Ipv4Address::new(10, 20, 0, 1);
            assert_eq!((repr.router, repr.server_identifier), (Some(gateway), Some(gateway)));
            assert_eq!(repr.subnet_mask, Some(Ipv4Address::new(255, 255, 255, 0)));
            assert_eq!(repr.dns_servers.unwrap().as_slice(), [gateway]);
            let data = |kind| packet.options().find(|o| o.kind == kind).map(|o| o.data.to_vec());
            assert_eq!(data(MTU), Some(1400_u16.to_be_bytes().to_vec()));
            assert_eq!(data(SEARCH), Some(b"\x04blue\0".to_vec()));
        }
        (repr.message_type, repr.your_ip)
    }

    const OWN: Ipv4Address = Ipv4Address::new(10, 20, 0, 2);

    #[test]
    fn a_guest_is_given_its_own_address_whatever_it_wishes() {
        let discover = DhcpRepr {
            requested_ip: Some(Ipv4Address::new(10, 20, 0, 99)),
            ..repr(DhcpMessageType::Discover)
        };
        let offer = told(&discover).unwrap().unwrap();
        assert_eq!(said(&offer), (DhcpMessageType::Offer, OWN));
        let request = DhcpRepr {
            requested_ip: Some(OWN),
            server_identifier: Some(Ipv4Address::new(10, 20, 0, 1)),
            ..repr(DhcpMessageType::Request)
        };
        assert_eq!(said(&told(&request).unwrap().unwrap()), (DhcpMessageType::Ack, OWN));
        let renewal = DhcpRepr { client_ip: OWN, ..repr(DhcpMessageType::Request) };
        assert_eq!(said(&told(&renewal).unwrap().unwrap()), (DhcpMessageType::Ack, OWN));
    }

    #[test]
    fn another_address_is_refused_and_another_server_s_client_left_alone() {
        let foreign = Some(Ipv4Address::new(192, 168, 1, 7));
        let request = DhcpRepr { requested_ip: foreign, ..repr(DhcpMessageType::Request) };
        let (kind, addr) = said(&told(&request).unwrap().unwrap());
        assert_eq!((kind, addr), (DhcpMessageType::Nak, Ipv4Address::UNSPECIFIED));
        let chosen = DhcpRepr { server_identifier: foreign, ..request };
        assert!(told(&chosen).unwrap().is_none());
    }

    #[test]
    fn who_has_an_address_is_informed_and_who_gives_one_back_is_not_answered() {
        let inform = DhcpRepr { client_ip: OWN, ..repr(DhcpMessageType::Inform) };
        let (kind, addr) = said(&told(&inform).unwrap().unwrap());
        assert_eq!((kind, addr), (DhcpMessageType::Ack, Ipv4Address::UNSPECIFIED));
        for kind in [DhcpMessageType::Release, DhcpMessageType::Decline] {
            assert!(told(&repr(kind)).unwrap().is_none());
        }
    }

    #[test]
    fn a_message_for_another_s_hardware_is_dropped() {
        let hardware = EthernetAddress([2, 0, 0, 0, 0, 9]);
        let foreign =
            DhcpRepr { client_hardware_address: hardware, ..repr(DhcpMessageType::Discover) };
        assert_eq!(told(&foreign).unwrap_err(), DropReason::GuardMac);
    }

    proptest::proptest! {
        #[test]
        fn foreign_bytes_are_survived(message in proptest::collection::vec(0_u8.., 0..400)) {
            let from = (MAC, Addr::from_v4_bits(0), DHCP_CLIENT_PORT);
            let to = (Mac::BROADCAST, Addr::from_v4_bits(u32::MAX), DHCP_SERVER_PORT);
            let frame = datagram(from, to, &message);
            let parsed = Parsed::new(frame.bytes()).unwrap();
            let _ = answer(frame.bytes(), &parsed, &guest());
        }
    }
}
