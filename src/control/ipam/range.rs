//! The addresses of one subnet.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::{IpamError, check_subnet};

/// Who has which address of a subnet. Given out in sequence, so that an address that was just freed is
/// not somebody else's a moment later, while caches elsewhere still say otherwise.
#[derive(Clone, Debug)]
pub struct AddressRange {
    subnet: IpNet,
    gateway: IpAddr,
    /// First and last address an endpoint may have, as numbers.
    first: u128,
    last: u128,
    holders: BTreeMap<u128, String>,
    /// Where the search begins.
    next: u128,
}

impl AddressRange {
    /// A subnet whose gateway is `gateway`, or its first address.
    pub fn new(subnet: IpNet, gateway: Option<IpAddr>) -> Result<Self, IpamError> {
        check_subnet(subnet)?;
        let (first, last) = usable(&subnet);
        let gateway = gateway.unwrap_or_else(|| to_ip(first, &subnet));
        let mut range =
            Self { subnet, gateway, first, last, holders: BTreeMap::new(), next: first };
        range.check(gateway)?;
        range.holders.insert(number(gateway), "the gateway".to_owned());
        Ok(range)
    }

    /// The subnet.
    pub fn subnet(&self) -> IpNet {
        self.subnet
    }

    /// The gateway.
    pub fn gateway(&self) -> IpAddr {
        self.gateway
    }

    /// Addresses that endpoints hold.
    pub fn used(&self) -> u64 {
        self.holders.len() as u64 - 1
    }

    /// Takes the next free address.
    pub fn allocate(&mut self, holder: &str) -> Result<IpAddr, IpamError> {
        let (first, last) = (to_ip(self.first, &self.subnet), to_ip(self.last, &self.subnet));
        let used = self.used();
        self.allocate_in(first, last, holder).map_err(|error| match error {
            IpamError::Full { subnet, .. } => IpamError::Full { subnet, used },
            other => other,
        })
    }

    /// Takes the next free address of those from `first` to `last`, as far as they lie in the subnet.
    pub fn allocate_in(
        &mut self,
        first: IpAddr,
        last: IpAddr,
        holder: &str,
    ) -> Result<IpAddr, IpamError> {
        let (first, last) = (number(first).max(self.first), number(last).min(self.last));
        let next = self.next.clamp(first, last.max(first));
        let free = self.free_in(next, last).or_else(|| self.free_in(first, next.min(last)));
        let Some(free) = free else {
            let used = if first > last { 0 } else { self.holders.range(first..=last).count() };
            return Err(IpamError::Full { subnet: self.subnet, used: used as u64 });
        };
        self.holders.insert(free, holder.to_owned());
        self.next = if free == self.last { self.first } else { free + 1 };
        Ok(to_ip(free, &self.subnet))
    }

    /// Addresses that endpoints can hold.
    pub fn capacity(&self) -> u64 {
        u64::try_from(self.last - self.first).unwrap_or(u64::MAX)
    }

    /// Takes this address and no other.
    pub fn reserve(&mut self, addr: IpAddr, holder: &str) -> Result<(), IpamError> {
        self.check(addr)?;
        if let Some(holder) = self.holders.get(&number(addr)) {
            return Err(IpamError::Taken { addr, holder: holder.clone() });
        }
        self.holders.insert(number(addr), holder.to_owned());
        Ok(())
    }

    /// Gives an address back. The gateway's stays.
    pub fn release(&mut self, addr: IpAddr) {
        if addr != self.gateway && self.subnet.contains(&addr) {
            self.holders.remove(&number(addr));
        }
    }

    /// The first number of `from..=to` that nobody holds. Costs the run of held ones before it.
    fn free_in(&self, from: u128, to: u128) -> Option<u128> {
        if from > to {
            return None;
        }
        let mut candidate = from;
        for held in self.holders.range(from..=to).map(|(n, _)| *n) {
            if held != candidate {
                break;
            }
            candidate = held.checked_add(1)?;
        }
        (candidate <= to).then_some(candidate)
    }

    fn check(&self, addr: IpAddr) -> Result<(), IpamError> {
        let subnet = self.subnet;
        if !subnet.contains(&addr) {
            return Err(IpamError::Outside { addr, subnets: subnet.to_string() });
        }
        let what = match number(addr) {
            n if n < self.first && subnet.addr().is_ipv4() => "network address",
            n if n < self.first => "routers' anycast address",
            n if n > self.last => "broadcast address",
            _ => return Ok(()),
        };
        Err(IpamError::Reserved { addr, subnet, what })
    }
}

/// First and last address that an endpoint may have, as numbers: not the network and broadcast address of IPv4 (RFC 919), not IPv6's
/// routers' anycast address (RFC 4291 2.6.1), but both of a point-to-point range (RFC 3021, 6164).
pub fn usable(subnet: &IpNet) -> (u128, u128) {
    let (first, last) = (number(subnet.network()), number(subnet.broadcast()));
    match subnet {
        _ if subnet.prefix_len() + 1 == subnet.max_prefix_len() => (first, last),
        IpNet::V4(_) => (first + 1, last - 1),
        IpNet::V6(_) => (first + 1, last),
    }
}

/// An address as a number.
pub fn number(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

/// The address of a number that came out of `subnet`.
pub fn to_ip(number: u128, subnet: &IpNet) -> IpAddr {
    match subnet {
        IpNet::V4(_) => Ipv4Addr::from(number as u32).into(),
        IpNet::V6(_) => Ipv6Addr::from(number).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn range(subnet: &str) -> AddressRange {
        AddressRange::new(subnet.parse().unwrap(), None).unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_gateway_is_the_first_address_and_the_first_endpoint_gets_the_second() {
        for (subnet, gateway, first) in [
            ("172.17.0.0/16", "172.17.0.1", "172.17.0.2"),
            ("fd00::/64", "fd00::1", "fd00::2"),
            ("10.0.0.0/31", "10.0.0.0", "10.0.0.1"),
            ("fd00::/127", "fd00::", "fd00::1"),
        ] {
            let mut range = range(subnet);
            assert_eq!(range.gateway(), ip(gateway));
            assert_eq!(range.allocate("web"), Ok(ip(first)));
        }
    }

    #[test]
    fn a_freed_address_is_given_out_again_last() {
        for (subnet, addrs) in [
            ("10.0.0.0/29", ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]),
            ("fd00::/125", ["fd00::2", "fd00::3", "fd00::4", "fd00::5", "fd00::6"]),
        ] {
            let mut range = range(subnet);
            assert_eq!(range.allocate("a"), Ok(ip(addrs[0])));
            range.release(ip(addrs[0]));
            for addr in &addrs[1..] {
                assert_eq!(range.allocate("b"), Ok(ip(addr)));
            }
            let mut rest = Vec::new();
            while let Ok(addr) = range.allocate("c") {
                rest.push(addr);
            }
            assert!(rest.contains(&ip(addrs[0])), "{rest:?}");
            let full = range.allocate("d").unwrap_err().to_string();
            assert!(full.contains("no address is left in") && full.contains(subnet), "{full}");
        }
    }

    #[test]
    fn a_fixed_address_is_refused_with_its_holder_or_the_reason() {
        let mut v4 = range("10.20.0.0/24");
        v4.reserve(ip("10.20.0.9"), "web").unwrap();
        let mut v6 = range("fd00::/64");
        v6.reserve(ip("fd00::9"), "web").unwrap();
        for (in_v4, addr, words) in [
            (true, "10.20.0.9", "taken by web"),
            (false, "fd00::9", "taken by web"),
            (true, "10.20.0.1", "taken by the gateway"),
            (false, "fd00::1", "taken by the gateway"),
            (true, "10.20.0.0", "network address"),
            (false, "fd00::", "anycast"),
            (true, "10.20.0.255", "broadcast"),
            (true, "10.20.1.9", "does not lie in 10.20.0.0/24"),
            (false, "fd00:1::9", "does not lie in fd00::/64"),
            (true, "fd00::9", "does not lie in"),
        ] {
            let range = if in_v4 { &mut v4 } else { &mut v6 };
            let error = range.reserve(ip(addr), "x").unwrap_err().to_string();
            assert!(error.contains(words), "{addr}: {error}");
        }
    }

    #[test]
    fn the_gateway_must_be_an_address_of_the_subnet_and_is_never_freed() {
        let new = |g: &str| AddressRange::new("10.20.0.0/24".parse().unwrap(), Some(ip(g)));
        for bad in ["10.20.1.1", "10.20.0.0", "10.20.0.255", "fd00::1"] {
            assert!(new(bad).is_err(), "{bad}");
        }
        let mut range = new("10.20.0.254").unwrap();
        range.release(ip("10.20.0.254"));
        assert!(range.reserve(ip("10.20.0.254"), "x").is_err());
        assert_eq!(range.allocate("x"), Ok(ip("10.20.0.1")));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Allocate,
        Reserve(u8),
        Release(u8),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => Just(Step::Allocate),
            1 => (0_u8..20).prop_map(Step::Reserve),
            2 => (0_u8..20).prop_map(Step::Release),
        ];
        proptest::collection::vec(step, 0..80)
    }

    proptest! {
        #[test]
        fn it_behaves_as_a_plain_set(v6: bool, steps in steps()) {
            let (subnet, base) = if v6 { ("fd00::/124", ip("fd00::")) } else { ("10.0.0.0/28", ip("10.0.0.0")) };
            let mut range = range(subnet);
            let at = |n: u8| to_ip(number(base) + u128::from(n), &subnet.parse().unwrap());
            let allowed: BTreeSet<u8> = if v6 { (2..16).collect() } else { (2..15).collect() };
            let mut taken = BTreeSet::new();
            for step in steps {
                match step {
                    Step::Allocate => {
                        let Ok(addr) = range.allocate("x") else {
                            prop_assert_eq!(&taken, &allowed);
                            continue;
                        };
                        let n = (number(addr) - number(base)) as u8;
                        prop_assert!(allowed.contains(&n) && taken.insert(n), "{}", addr);
                    }
                    Step::Reserve(n) => {
                        let free = allowed.contains(&n) && !taken.contains(&n);
                        prop_assert_eq!(range.reserve(at(n), "x").is_ok(), free);
                        if free {
                            taken.insert(n);
                        }
                    }
                    Step::Release(n) => {
                        range.release(at(n));
                        taken.remove(&n);
                    }
                }
                prop_assert_eq!(range.used(), taken.len() as u64);
            }
        }
    }
}
