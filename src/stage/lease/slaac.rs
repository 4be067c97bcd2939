//! Stateless address autoconfiguration (RFC 4862) and the list of default routers (RFC 4861 6.3).
//!
//! The interface identifier is made of the MAC (EUI-64): the uplink is a router's leg, not a person's
//! laptop, so an address that stays the same is what one wants. All lists are bounded: a station that
//! advertises a thousand prefixes gets the first few.

use crate::base::limits::ADVERTISED_ADDRESSES_MAX;
use crate::base::time::{Span, Time};
use crate::wire::addr::Addr;
use crate::wire::mac::Mac;
use crate::wire::router::{Prefix, RouterAdvertisement};

/// RFC 4861 section 10.
const SOLICITATIONS_MAX: u8 = 3;
const SOLICITATION_INTERVAL: Span = Span::from_secs(4);
/// RFC 4862 5.5.3 e: nobody can make an address end sooner.
const TWO_HOURS: Span = Span::from_secs(7200);

/// What changed, or is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SlaacEvent {
    /// Ask for a router.
    Solicit,
    /// A new address. Its prefix is on the link if `on_link`.
    AddressAdded {
        /// The address.
        addr: Addr,
        /// Length of its prefix.
        prefix_len: u8,
        /// Whether stations of the prefix are reached without the router.
        on_link: bool,
    },
    /// An address is no longer valid.
    AddressRemoved(Addr),
    /// A new default router, or one with another MAC.
    RouterAdded {
        /// Its link-local address.
        addr: Addr,
        /// Its MAC, if it said so.
        mac: Option<Mac>,
    },
    /// A router is no default router any more.
    RouterRemoved(Addr),
}

/// An address made of an advertised prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address {
    /// The address.
    pub addr: Addr,
    /// New flows should use it until then.
    pub preferred_until: Time,
    /// It must not be used after.
    pub valid_until: Time,
}

/// A default router.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Router {
    /// Its link-local address.
    pub addr: Addr,
    /// Its MAC, if it said so.
    pub mac: Option<Mac>,
    /// Until when.
    pub until: Time,
}

/// The IPv6 configuration of one uplink.
#[derive(Clone, Debug)]
pub struct Slaac {
    mac: Mac,
    addrs: Vec<Address>,
    routers: Vec<Router>,
    /// MTU of the link, as last advertised.
    mtu: Option<u32>,
    solicited: u8,
    solicit_at: Option<Time>,
}

/// `fe80::` and the MAC's interface identifier.
pub fn link_local(mac: Mac) -> Addr {
    Addr::from_prefix_and_id(0xfe80 << 48, mac.eui64())
}

impl Slaac {
    /// No address yet; asks for a router at once.
    pub fn new(mac: Mac) -> Self {
        Self {
            mac,
            addrs: Vec::new(),
            routers: Vec::new(),
            mtu: None,
            solicited: 0,
            solicit_at: Some(Time::ZERO),
        }
    }

    /// Takes in an advertisement.
    pub fn handle(&mut self, now: Time, advertisement: &RouterAdvertisement) -> Vec<SlaacEvent> {
        let mut events = Vec::new();
        // RFC 4861 6.3.7: who has been told need not ask.
        self.solicit_at = None;
        self.mtu = advertisement.mtu.or(self.mtu);
        events.extend(self.router(now, advertisement));
        for prefix in &advertisement.prefixes {
            events.extend(self.prefix(now, prefix));
        }
        events
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Time) -> Vec<SlaacEvent> {
        let mut events = Vec::new();
        if self.solicit_at.is_some_and(|at| at <= now) {
            self.solicited += 1;
            let again = self.solicited < SOLICITATIONS_MAX;
            self.solicit_at = again.then_some(now + SOLICITATION_INTERVAL);
            events.push(SlaacEvent::Solicit);
        }
        let gone = self.addrs.extract_if(.., |a| a.valid_until <= now);
        events.extend(gone.map(|a| SlaacEvent::AddressRemoved(a.addr)));
        let gone = self.routers.extract_if(.., |r| r.until <= now);
        events.extend(gone.map(|r| SlaacEvent::RouterRemoved(r.addr)));
        events
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn next_deadline(&self) -> Option<Time> {
        let ends = self.addrs.iter().map(|a| a.valid_until);
        ends.chain(self.routers.iter().map(|r| r.until)).chain(self.solicit_at).min()
    }

    /// The addresses, those made of earlier prefixes first.
    pub fn addresses(&self) -> &[Address] {
        &self.addrs
    }

    /// The default routers; the first is used while it is reachable.
    pub fn routers(&self) -> &[Router] {
        &self.routers
    }

    /// MTU of the link, as last advertised.
    pub fn mtu(&self) -> Option<u32> {
        self.mtu
    }

    fn router(&mut self, now: Time, from: &RouterAdvertisement) -> Option<SlaacEvent> {
        let (addr, until) = (from.router, now + from.lifetime);
        let full = self.routers.len() >= ADVERTISED_ADDRESSES_MAX;
        match self.routers.iter_mut().find(|r| r.addr == addr) {
            Some(_) if from.lifetime == Span::ZERO => {
                self.routers.retain(|r| r.addr != addr);
                Some(SlaacEvent::RouterRemoved(addr))
            }
            Some(router) => {
                let mac = from.mac.or(router.mac);
                let changed = mac != router.mac;
                (router.mac, router.until) = (mac, until);
                changed.then_some(SlaacEvent::RouterAdded { addr, mac })
            }
            None if full || from.lifetime == Span::ZERO => None,
            None => {
                self.routers.push(Router { addr, mac: from.mac, until });
                Some(SlaacEvent::RouterAdded { addr, mac: from.mac })
            }
        }
    }

    /// RFC 4862 5.5.3.
    fn prefix(&mut self, now: Time, prefix: &Prefix) -> Option<SlaacEvent> {
        let usable = prefix.autonomous
            && prefix.len == 64
            && prefix.preferred <= prefix.valid
            && !prefix.prefix.is_link_local()
            && !prefix.prefix.is_multicast_or_broadcast()
            && prefix.prefix.words()[0] != 0;
        if !usable {
            return None;
        }
        let addr = Addr::from_prefix_and_id(prefix.prefix.words()[0], self.mac.eui64());
        let preferred_until = now + prefix.preferred;
        if let Some(known) = self.addrs.iter_mut().find(|a| a.addr == addr) {
            let remaining = known.valid_until.since(now);
            if prefix.valid > TWO_HOURS || prefix.valid > remaining {
                known.valid_until = now + prefix.valid;
            } else if remaining > TWO_HOURS {
                known.valid_until = now + TWO_HOURS;
            }
            known.preferred_until = preferred_until;
            return None;
        }
        if prefix.valid == Span::ZERO || self.addrs.len() >= ADVERTISED_ADDRESSES_MAX {
            return None;
        }
        self.addrs.push(Address { addr, preferred_until, valid_until: now + prefix.valid });
        Some(SlaacEvent::AddressAdded { addr, prefix_len: prefix.len, on_link: prefix.on_link })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([0x02, 0x42, 172, 17, 0, 2]);

    fn addr(text: &str) -> Addr {
        text.parse().unwrap()
    }

    fn at(secs: u64) -> Time {
        Time::ZERO + Span::from_secs(secs)
    }

    fn advertisement(lifetime: u64, valid: u64, preferred: u64) -> RouterAdvertisement {
        RouterAdvertisement {
            router: addr("fe80::1"),
            mac: Some(Mac([2; 6])),
            lifetime: Span::from_secs(lifetime),
            mtu: Some(1400),
            prefixes: vec![Prefix {
                prefix: addr("2001:db8:1::"),
                len: 64,
                on_link: true,
                autonomous: true,
                valid: Span::from_secs(valid),
                preferred: Span::from_secs(preferred),
            }],
        }
    }

    const OURS: &str = "2001:db8:1:0:42:acff:fe11:2";

    #[test]
    fn an_advertised_prefix_becomes_an_address_and_its_sender_a_router() {
        let mut slaac = Slaac::new(MAC);
        let events = slaac.handle(at(0), &advertisement(1800, 86400, 14400));
        let added = SlaacEvent::AddressAdded { addr: addr(OURS), prefix_len: 64, on_link: true };
        let router = SlaacEvent::RouterAdded { addr: addr("fe80::1"), mac: Some(Mac([2; 6])) };
        assert_eq!(events, [router, added]);
        assert_eq!(slaac.mtu(), Some(1400));
        assert!(slaac.handle(at(1), &advertisement(1800, 86400, 14400)).is_empty());
        assert_eq!(link_local(MAC), addr("fe80::42:acff:fe11:2"));
    }

    #[test]
    fn a_router_is_asked_for_three_times_or_until_one_answers() {
        let mut slaac = Slaac::new(MAC);
        let asked = (0..60).filter(|s| slaac.tick(at(*s)).contains(&SlaacEvent::Solicit));
        assert_eq!(asked.collect::<Vec<_>>(), [0, 4, 8]);
        assert_eq!(slaac.next_deadline(), None);
        let mut slaac = Slaac::new(MAC);
        slaac.tick(at(0));
        slaac.handle(at(1), &advertisement(1800, 86400, 14400));
        assert!(slaac.tick(at(4)).is_empty());
    }

    #[test]
    fn routers_and_addresses_end_with_their_lifetimes() {
        let mut slaac = Slaac::new(MAC);
        slaac.handle(at(0), &advertisement(100, 300, 200));
        assert_eq!(slaac.next_deadline(), Some(at(100)));
        assert_eq!(slaac.tick(at(100)), [SlaacEvent::RouterRemoved(addr("fe80::1"))]);
        assert_eq!(slaac.tick(at(300)), [SlaacEvent::AddressRemoved(addr(OURS))]);
        assert!(slaac.addresses().is_empty() && slaac.routers().is_empty());
    }

    #[test]
    fn a_router_may_resign_at_once_but_an_address_lives_two_hours_more() {
        let mut slaac = Slaac::new(MAC);
        slaac.handle(at(0), &advertisement(1800, 86400, 14400));
        let events = slaac.handle(at(10), &advertisement(0, 0, 0));
        assert_eq!(events, [SlaacEvent::RouterRemoved(addr("fe80::1"))]);
        let [ours] = slaac.addresses() else { panic!() };
        assert_eq!((ours.preferred_until, ours.valid_until), (at(10), at(7210)));
        slaac.handle(at(1000), &advertisement(0, 1, 0));
        assert_eq!(slaac.addresses()[0].valid_until, at(7210), "nor any sooner");
    }

    #[test]
    fn unusable_prefixes_make_no_address() {
        type Change = fn(&mut Prefix);
        let changes: [(&str, Change); 6] = [
            ("not autonomous", |p| p.autonomous = false),
            ("not 64 bits", |p| p.len = 56),
            ("link-local", |p| p.prefix = "fe80::".parse().unwrap()),
            ("a group", |p| p.prefix = "ff02::".parse().unwrap()),
            ("preferred for longer than valid", |p| p.preferred = Span::from_secs(86401)),
            ("over", |p| (p.valid, p.preferred) = (Span::ZERO, Span::ZERO)),
        ];
        for (why, change) in changes {
            let mut advertisement = advertisement(0, 86400, 14400);
            change(&mut advertisement.prefixes[0]);
            assert!(Slaac::new(MAC).handle(at(0), &advertisement).is_empty(), "{why}");
        }
    }

    #[test]
    fn a_flood_of_routers_and_prefixes_is_bounded() {
        let mut slaac = Slaac::new(MAC);
        for n in 0..1000_u64 {
            let mut one = advertisement(1800, 86400, 14400);
            one.router = Addr::from_prefix_and_id(0xfe80 << 48, n + 1);
            one.prefixes[0].prefix = Addr::from_prefix_and_id(0x2001_0db8_0000_0000 + n, 0);
            slaac.handle(at(0), &one);
        }
        assert_eq!(slaac.routers().len(), ADVERTISED_ADDRESSES_MAX);
        assert_eq!(slaac.addresses().len(), ADVERTISED_ADDRESSES_MAX);
    }
}
