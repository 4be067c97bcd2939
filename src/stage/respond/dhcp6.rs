//! DHCPv6's server side (RFC 8415): the exact address, which SLAAC could not give.
//!
//! Guests learn by the router advertisement's managed flag that they shall ask (`ra.rs`). One address is
//! all there is to be had, so each message is answered from itself alone.

use super::guest::{Guest, LEASE, datagram, message};
use crate::packet::{DropReason, PacketBuf, Parsed};
use crate::wire::addr::Addr;
use crate::wire::ipv6;

const CLIENT_PORT: u16 = 546;
const SERVER_PORT: u16 = 547;

const SOLICIT: u8 = 1;
const ADVERTISE: u8 = 2;
const REQUEST: u8 = 3;
const CONFIRM: u8 = 4;
const RENEW: u8 = 5;
const REBIND: u8 = 6;
const REPLY: u8 = 7;
const RELEASE: u8 = 8;
const DECLINE: u8 = 9;
const INFORMATION: u8 = 11;

const CLIENT_ID: u16 = 1;
const SERVER_ID: u16 = 2;
const IA_NA: u16 = 3;
const IA_ADDR: u16 = 5;
const STATUS: u16 = 13;
const RAPID_COMMIT: u16 = 14;
const DNS: u16 = 23;
const DOMAINS: u16 = 24;

/// Status: the address is not right for the link.
const NOT_ON_LINK: u16 = 4;
/// Identifier of a server by its MAC (RFC 8415 11.4), hardware type Ethernet.
const DUID_LL: [u8; 4] = [0, 3, 0, 1];
/// An identifier has no more bytes (RFC 8415 11.1).
const DUID_MAX: usize = 130;

/// Kind and data of each option; a length beyond the end ends them.
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (head, rest) = self.0.split_first_chunk::<4>()?;
        let [a, b, c, d] = *head;
        let (data, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([c, d])))?;
        self.0 = rest;
        Some((u16::from_be_bytes([a, b]), data))
    }
}

/// Whether a packet is a DHCPv6 client's.
pub fn is_request(parsed: &Parsed) -> bool {
    (parsed.src_port, parsed.dst_port) == (CLIENT_PORT, SERVER_PORT)
        && parsed.proto == ipv6::UDP
        && !parsed.src.is_v4()
}

/// The answer to a client's message; none if it needs none.
///
/// # Errors
/// It is none.
pub fn answer(
    frame: &[u8],
    parsed: &Parsed,
    guest: &Guest<'_>,
) -> Result<Option<PacketBuf>, DropReason> {
    let payload =
        message(frame, parsed, (CLIENT_PORT, SERVER_PORT)).ok_or(DropReason::Malformed)?;
    let (head, options) = payload.split_first_chunk::<4>().ok_or(DropReason::Malformed)?;
    let option = |kind| Options(options).find(|(found, _)| *found == kind).map(|(_, data)| data);
    let server = [&DUID_LL[..], &guest.gateway_mac.0].concat();
    if option(SERVER_ID).is_some_and(|chosen| chosen != server) {
        return Ok(None);
    }
    let client = option(CLIENT_ID).filter(|id| id.len() <= DUID_MAX);
    let rapid = option(RAPID_COMMIT).is_some();
    let kind = match head[0] {
        SOLICIT if !rapid => ADVERTISE,
        SOLICIT | REQUEST | CONFIRM | RENEW | REBIND | RELEASE | DECLINE | INFORMATION => REPLY,
        _ => return Ok(None),
    };
    if client.is_none() && head[0] != INFORMATION {
        return Err(DropReason::Malformed);
    }
    let mut bytes = vec![kind, head[1], head[2], head[3]];
    if let Some(client) = client {
        put(&mut bytes, CLIENT_ID, client);
    }
    put(&mut bytes, SERVER_ID, &server);
    match head[0] {
        SOLICIT | REQUEST | RENEW | REBIND => {
            if rapid && kind == REPLY {
                put(&mut bytes, RAPID_COMMIT, &[]);
            }
            addresses(&mut bytes, options, guest);
        }
        CONFIRM if !confirmed(options, guest) => {
            put(&mut bytes, STATUS, &NOT_ON_LINK.to_be_bytes());
        }
        // What is released or declined stays the guest's all the same. Zero: success.
        CONFIRM | RELEASE | DECLINE => put(&mut bytes, STATUS, &[0, 0]),
        _ => {}
    }
    put(&mut bytes, DNS, &guest.place.name_server.bytes());
    put(&mut bytes, DOMAINS, &guest.domain_labels());
    let from = (guest.gateway_mac, guest.router, SERVER_PORT);
    Ok(Some(datagram(from, (parsed.src_mac, parsed.src, CLIENT_PORT), &bytes)))
}

fn put(bytes: &mut Vec<u8>, kind: u16, data: &[u8]) {
    bytes.extend(kind.to_be_bytes());
    bytes.extend((data.len() as u16).to_be_bytes());
    bytes.extend(data);
}

/// The address, in the first association that was asked for; there is none for others.
fn addresses(bytes: &mut Vec<u8>, options: &[u8], guest: &Guest<'_>) {
    let Some(id) = Options(options).find(|(kind, _)| *kind == IA_NA) else { return };
    let Some(id) = id.1.first_chunk::<4>() else { return };
    let renew = [(LEASE / 2).to_be_bytes(), (LEASE / 5 * 4).to_be_bytes()];
    let mut association = [id, &renew[0], &renew[1]].map(<[u8; 4]>::as_slice).concat();
    let life = LEASE.to_be_bytes();
    put(&mut association, IA_ADDR, &[&guest.place.addr.bytes()[..], &life, &life].concat());
    put(bytes, IA_NA, &association);
}

/// Whether all addresses that a guest has kept are its own.
fn confirmed(options: &[u8], guest: &Guest<'_>) -> bool {
    let associations = Options(options).filter(|(kind, _)| *kind == IA_NA);
    let kept = associations.flat_map(|(_, data)| Options(data.get(12..).unwrap_or_default()));
    let mut addrs = kept
        .filter(|(kind, _)| *kind == IA_ADDR)
        .filter_map(|(_, data)| data.first_chunk().map(|bytes| Addr::from_v6_bytes(*bytes)));
    addrs.all(|addr| addr == guest.place.addr)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::respond::guest::Place;
    use crate::wire::mac::Mac;

    const MAC: Mac = Mac([2, 0x42, 10, 20, 0, 2]);
    const CLIENT: [u8; 4] = [0, 4, 7, 7];

    fn guest() -> Guest<'static> {
        let addr = |text: &str| text.parse::<Addr>().unwrap();
        let (prefix, gateway) = (addr("fd20::"), addr("fd20::1"));
        let place =
            Place { addr: addr("fd20::2"), prefix, prefix_len: 64, gateway, name_server: gateway };
        let gateway_mac = Mac([2, 0x42, 10, 20, 0, 1]);
        Guest { mac: MAC, gateway_mac, router: addr("fe80::1"), place, mtu: 1500, domain: "blue" }
    }

    fn told(kind: u8, options: &[(u16, &[u8])]) -> Result<Option<Vec<u8>>, DropReason> {
        let mut message_bytes = vec![kind, 1, 2, 3];
        for (kind, data) in options {
            put(&mut message_bytes, *kind, data);
        }
        let from = (MAC, "fe80::2".parse().unwrap(), CLIENT_PORT);
        let to = (Mac([0x33, 0x33, 0, 1, 0, 2]), "ff02::1:2".parse().unwrap(), SERVER_PORT);
        let frame = datagram(from, to, &message_bytes);
        let parsed = Parsed::new(frame.bytes()).unwrap();
        assert!(is_request(&parsed));
        let reply = answer(frame.bytes(), &parsed, &guest())?;
        Ok(reply.map(|reply| {
            let parsed = Parsed::new(reply.bytes()).unwrap();
            assert_eq!((parsed.dst, parsed.dst_mac), (from.1, MAC));
            message(reply.bytes(), &parsed, (SERVER_PORT, CLIENT_PORT)).unwrap().to_vec()
        }))
    }

    fn option(message: &[u8], kind: u16) -> Option<&[u8]> {
        assert_eq!(message[1..4], [1, 2, 3]);
        Options(&message[4..]).find(|(found, _)| *found == kind).map(|(_, data)| data)
    }

    const ASSOCIATION: [u8; 12] = [9, 9, 9, 9, 0, 0, 0, 0, 0, 0, 0, 0];

    #[test]
    fn a_guest_is_given_its_own_address_by_two_messages_or_four() {
        for (kind, options, said) in [
            (SOLICIT, &[][..], ADVERTISE),
            (SOLICIT, &[(RAPID_COMMIT, &[][..])][..], REPLY),
            (REQUEST, &[][..], REPLY),
            (RENEW, &[][..], REPLY),
            (REBIND, &[][..], REPLY),
        ] {
            let common = [(CLIENT_ID, &CLIENT[..]), (IA_NA, &ASSOCIATION[..])];
            let reply = told(kind, &[&common[..], options].concat()).unwrap().unwrap();
            assert_eq!(reply[0], said);
            assert_eq!(option(&reply, CLIENT_ID), Some(&CLIENT[..]));
            assert_eq!(option(&reply, RAPID_COMMIT).is_some(), !options.is_empty());
            let association = option(&reply, IA_NA).unwrap();
            assert_eq!(association[..4], [9; 4]);
            let (kind, addr) = Options(&association[12..]).next().unwrap();
            assert_eq!((kind, &addr[..16]), (IA_ADDR, &guest().place.addr.bytes()[..]));
            assert_eq!(option(&reply, DNS), Some(&guest().place.gateway.bytes()[..]));
            assert_eq!(option(&reply, DOMAINS), Some(&b"\x04blue\0"[..]));
        }
    }

    #[test]
    fn a_kept_address_is_confirmed_if_it_is_the_guest_s() {
        for (addr, status) in [("fd20::2", 0), ("fd20::9", 4)] {
            let addr: Addr = addr.parse().unwrap();
            let mut association = ASSOCIATION.to_vec();
            put(&mut association, IA_ADDR, &[&addr.bytes()[..], &[0; 8]].concat());
            let reply = told(CONFIRM, &[(CLIENT_ID, &CLIENT), (IA_NA, &association)]);
            assert_eq!(option(&reply.unwrap().unwrap(), STATUS), Some(&[0, status][..]));
        }
    }

    #[test]
    fn who_only_wants_to_know_is_told_and_who_chose_another_server_is_left_alone() {
        let reply = told(INFORMATION, &[]).unwrap().unwrap();
        assert!(option(&reply, IA_NA).is_none() && option(&reply, DNS).is_some());
        let other = [(CLIENT_ID, &CLIENT[..]), (SERVER_ID, &[1, 2, 3][..])];
        assert_eq!(told(REQUEST, &other), Ok(None));
        assert_eq!(told(SOLICIT, &[]), Err(DropReason::Malformed), "nobody asks");
        assert_eq!(told(12, &[]), Ok(None), "a relay's");
    }

    proptest::proptest! {
        #[test]
        fn foreign_bytes_are_survived(kind in 0_u8..14, message in proptest::collection::vec(0_u8.., 0..100)) {
            let options = [(CLIENT_ID, &CLIENT[..]), (IA_NA, &message[..]), (0xffff, &message[..])];
            let _ = told(kind, &options);
        }
    }
}
