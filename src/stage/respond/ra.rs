//! Router advertisements (RFC 4861 6.2), to who asks for a router.
//!
//! A guest shall have the address of its record. If that is the one that SLAAC would make of its MAC
//! (RFC 4862 5.5.3), the prefix may be used for that; otherwise the managed flag says that DHCPv6 gives it,
//! and no address is made of the prefix. One address, either way.

use super::guest::Guest;
use super::ndp;
use crate::base::time::Span;
use crate::packet::{DropReason, Offload, PacketBuf, Parsed};
use crate::wire::addr::Addr;
use crate::wire::icmp::v6;
use crate::wire::mac::Mac;
use crate::wire::ndp::{SOURCE_LINK_LAYER, options_are_valid};
use crate::wire::router::{MANAGED, OTHER, Told};

/// How long the router may be used without another word: the longest there is (RFC 8319).
pub const LIFETIME: u16 = u16::MAX;
/// How often it is said again, so that two may be lost.
pub const INTERVAL: Span = Span::from_secs(6 * 3_600);
/// SLAAC's prefixes have this length.
const SLAAC: u8 = 64;
/// Whether SLAAC makes the guest's address of its MAC.
fn is_autonomous(guest: &Guest<'_>) -> bool {
    let place = &guest.place;
    let made = Addr::from_prefix_and_id(place.prefix.words()[0], guest.mac.eui64());
    place.prefix_len == SLAAC && made == place.addr
}

/// Whether a router solicitation may be answered (RFC 4861 6.1.1).
///
/// # Errors
/// Why not.
pub fn check_solicitation(frame: &[u8], parsed: &Parsed) -> Result<(), DropReason> {
    const OPTIONS_AT: usize = 8;
    let options = ndp::checked(frame, parsed)?.get(OPTIONS_AT..).ok_or(DropReason::Truncated)?;
    if options_are_valid(options) { Ok(()) } else { Err(DropReason::Malformed) }
}

/// What the gateway has to say to a guest.
pub fn told(guest: &Guest<'_>) -> Told {
    let autonomous = is_autonomous(guest);
    let place = &guest.place;
    Told {
        lifetime: LIFETIME,
        flags: if autonomous { OTHER } else { MANAGED | OTHER },
        prefix: (place.prefix, place.prefix_len),
        autonomous,
        mtu: guest.mtu,
        name_server: Some(place.name_server),
        search: guest.domain_labels(),
    }
}

/// What a router says to who asked; to all on its link if he has no address yet, or without being asked
/// (RFC 4861 6.2.6).
pub fn advertisement(router: (Mac, Addr), told: &Told, solicitation: Option<&Parsed>) -> PacketBuf {
    let asker = solicitation.filter(|parsed| !parsed.src.is_unspecified());
    let everybody = (ndp::multicast(ndp::ALL_NODES), ndp::ALL_NODES);
    let to = asker.map_or(everybody, |parsed| (parsed.src_mac, parsed.src));
    let source = Some((SOURCE_LINK_LAYER, router.0));
    let frame = ndp::build(router, to, v6::ROUTER_ADVERTISEMENT, &told.body(), source);
    PacketBuf::new(&frame, Offload::NONE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::respond::guest::Place;

    fn guest(addr: &str) -> Guest<'static> {
        let parse = |text: &str| text.parse::<Addr>().unwrap();
        let (prefix, gateway) = (parse("fd20::"), parse("fd20::1"));
        let place =
            Place { addr: parse(addr), prefix, prefix_len: 64, gateway, name_server: gateway };
        let (mac, gateway_mac) = (Mac([2, 0x42, 10, 20, 0, 2]), Mac([2, 0x42, 10, 20, 0, 1]));
        Guest { mac, gateway_mac, router: parse("fe80::1"), place, mtu: 1400, domain: "blue" }
    }

    fn said(guest: &Guest<'_>, solicitation: Option<&Parsed>) -> PacketBuf {
        advertisement((guest.gateway_mac, guest.router), &told(guest), solicitation)
    }

    #[test]
    fn the_prefix_may_be_used_by_slaac_only_if_that_gives_the_recorded_address() {
        for (addr, autonomous) in [("fd20::42:aff:fe14:2", true), ("fd20::2", false)] {
            let guest = guest(addr);
            let frame = said(&guest, None);
            let parsed = Parsed::new(frame.bytes()).unwrap();
            assert_eq!((parsed.dst, parsed.ttl), ("ff02::1".parse().unwrap(), 255));
            let read = ndp::parse_router_advertisement(frame.bytes(), &parsed).unwrap();
            assert_eq!(
                (read.router, read.mac, read.mtu),
                (guest.router, Some(guest.gateway_mac), Some(1400))
            );
            assert_eq!(read.lifetime, Span::from_secs(65_535));
            let prefix = read.prefixes[0];
            assert_eq!((prefix.prefix, prefix.len), (guest.place.prefix, 64));
            assert_eq!((prefix.on_link, prefix.autonomous), (true, autonomous), "{addr}");
            let managed = parsed.l4_bytes(frame.bytes())[5] & MANAGED != 0;
            assert_eq!(managed, !autonomous);
            let bytes = frame.bytes();
            let has = |option: &[u8]| bytes.windows(option.len()).any(|window| window == option);
            let name_server =
                [&[25, 3, 0, 0, 0, 0, 255, 255][..], &guest.place.name_server.bytes()].concat();
            assert!(has(&name_server) && has(b"\x1f\x02\0\0\0\0\xff\xff\x04blue\0\0\0"));
        }
    }

    #[test]
    fn who_asked_by_an_address_is_answered_there() {
        let asked = ndp::router_solicitation((
            guest("fd20::2").mac,
            "fe80::42:aff:fe14:2".parse().unwrap(),
        ));
        let asked = Parsed::new(asked.bytes()).unwrap();
        let frame = said(&guest("fd20::2"), Some(&asked));
        let parsed = Parsed::new(frame.bytes()).unwrap();
        assert_eq!((parsed.dst, parsed.dst_mac), (asked.src, asked.src_mac));
    }
}
