//! Addresses for Docker: which subnets its networks have, and which addresses are given out of them.
//!
//! A pool's name says what the pool is (`wharf-local/10.1.0.0/16`, or `…>10.1.2.0/24` where addresses come
//! from a part of it). So one that is not known any more is made anew from its name.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::control::ipam::pools::{docker_pools, first_free, random_ula};
use crate::control::ipam::range::{number, to_ip, usable};
use crate::control::ipam::{Claim, IpamError, check_subnet, overlaps};

/// The address space of one host.
pub(super) const LOCAL: &str = "wharf-local";
/// The address space of a cluster, which Docker asks for and we do not use.
pub(super) const GLOBAL: &str = "wharf-global";

/// All pools by name.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Pools(BTreeMap<String, Pool>);

/// A subnet and who has what of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Pool {
    subnet: IpNet,
    /// Where addresses come from that nobody wished for.
    part: IpNet,
    /// Askers that did not give it back yet.
    users: u32,
    taken: BTreeSet<IpAddr>,
    /// Where the search begins: an address that was just freed is not somebody else's a moment later.
    next: Option<IpAddr>,
}

impl Pools {
    /// A pool of this subnet, or of a free one, which collides with none of `claims`.
    pub(super) fn request(
        &mut self,
        space: &str,
        subnet: Option<IpNet>,
        part: Option<IpNet>,
        v6: bool,
        mut claims: Vec<Claim>,
    ) -> Result<(String, IpNet), IpamError> {
        let held =
            |subnet: IpNet| Claim { net: subnet, holder: "another Docker network".to_owned() };
        claims.extend(self.0.values().map(|pool| held(pool.subnet)));
        let subnet = match subnet {
            Some(subnet) => {
                check_subnet(subnet)?;
                subnet
            }
            None if v6 => random_ula(&claims, || {
                let mut bytes = [0; 5];
                // Without chance there is one candidate, and the next network is refused in words.
                let _ = crate::io::random::fill(&mut bytes);
                bytes
            })?,
            None => first_free(&docker_pools(), false, &claims)?,
        };
        let part = part.unwrap_or(subnet);
        if !subnet.contains(&part) {
            let subnets = subnet.to_string();
            return Err(IpamError::Outside { addr: part.addr(), subnets });
        }
        let id = name_of(space, subnet, part);
        let clash =
            self.0.iter().find(|(other, pool)| **other != id && overlaps(&pool.subnet, &subnet));
        if let Some((_, other)) = clash {
            let holder = "another Docker network".to_owned();
            return Err(IpamError::Overlap { subnet, other: other.subnet, holder });
        }
        let pool = self.0.entry(id.clone()).or_insert_with(|| Pool::new(subnet, part));
        pool.users += 1;
        Ok((id, subnet))
    }

    /// Gives a pool back.
    pub(super) fn release(&mut self, id: &str) {
        let Some(pool) = self.0.get_mut(id) else { return };
        pool.users = pool.users.saturating_sub(1);
        if pool.users == 0 {
            self.0.remove(id);
        }
    }

    /// Takes this address, or the next free one; a gateway's is looked for from the subnet's beginning.
    pub(super) fn take(
        &mut self,
        id: &str,
        wished: Option<IpAddr>,
        gateway: bool,
    ) -> Result<IpNet, IpamError> {
        if !self.0.contains_key(id)
            && let Some((subnet, part)) = parse_name(id)
        {
            self.0.insert(id.to_owned(), Pool { users: 1, ..Pool::new(subnet, part) });
        }
        let nowhere =
            || IpamError::PoolsExhausted { in_the_way: format!("no pool is called {id}") };
        let pool = self.0.get_mut(id).ok_or_else(nowhere)?;
        let addr = match wished {
            Some(addr) => pool.reserve(addr)?,
            None => pool.allocate(gateway)?,
        };
        // The length is the subnet's own, which is valid.
        Ok(IpNet::new(addr, pool.subnet.prefix_len()).unwrap_or_else(|_| addr.into()))
    }

    /// Gives an address back.
    pub(super) fn give_back(&mut self, id: &str, addr: IpAddr) {
        if let Some(pool) = self.0.get_mut(id) {
            pool.taken.remove(&addr);
        }
    }
}

fn name_of(space: &str, subnet: IpNet, part: IpNet) -> String {
    if part == subnet { format!("{space}/{subnet}") } else { format!("{space}/{subnet}>{part}") }
}

fn parse_name(id: &str) -> Option<(IpNet, IpNet)> {
    let (_, rest) = id.split_once('/')?;
    let (subnet, part) = rest.split_once('>').unwrap_or((rest, rest));
    let (subnet, part) = (subnet.parse().ok()?, part.parse().ok()?);
    check_subnet(subnet).ok()?;
    subnet.contains(&part).then_some((subnet, part))
}

impl Pool {
    fn new(subnet: IpNet, part: IpNet) -> Self {
        Self { subnet, part, users: 0, taken: BTreeSet::new(), next: None }
    }

    fn reserve(&mut self, addr: IpAddr) -> Result<IpAddr, IpamError> {
        let subnet = self.subnet;
        if !subnet.contains(&addr) {
            return Err(IpamError::Outside { addr, subnets: subnet.to_string() });
        }
        let (first, last) = usable(&subnet);
        if number(addr) < first || number(addr) > last {
            let what = if number(addr) < first { "network address" } else { "broadcast address" };
            return Err(IpamError::Reserved { addr, subnet, what });
        }
        if !self.taken.insert(addr) {
            let holder = "the gateway or a container".to_owned();
            return Err(IpamError::Taken { addr, holder });
        }
        Ok(addr)
    }

    fn allocate(&mut self, gateway: bool) -> Result<IpAddr, IpamError> {
        let (lowest, highest) = usable(&self.subnet);
        // Of a part, its first and last address are ordinary ones.
        let within =
            |net: &IpNet| (number(net.network()).max(lowest), number(net.broadcast()).min(highest));
        let (first, last) = within(if gateway { &self.subnet } else { &self.part });
        let used = self.taken.len() as u64;
        let full = IpamError::Full { subnet: self.part, used };
        if first > last {
            return Err(full); // a part that is the network address alone, say
        }
        let from = self.next.filter(|_| !gateway).map_or(first, number).clamp(first, last);
        let found = self.free_in(from, last).or_else(|| self.free_in(first, from));
        let addr = to_ip(found.ok_or(full)?, &self.subnet);
        self.taken.insert(addr);
        if !gateway {
            self.next = number(addr).checked_add(1).map(|n| to_ip(n, &self.subnet));
        }
        Ok(addr)
    }

    /// The first free number of `from..=to`. Costs the run of taken ones before it.
    fn free_in(&self, from: u128, to: u128) -> Option<u128> {
        let mut candidate = from;
        for taken in self.taken.range(to_ip(from, &self.subnet)..=to_ip(to, &self.subnet)) {
            if number(*taken) != candidate {
                break;
            }
            candidate = candidate.checked_add(1)?;
        }
        (candidate <= to).then_some(candidate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(pools: &mut Pools, subnet: &str, part: Option<&str>) -> Result<String, IpamError> {
        let (subnet, part) = (subnet.parse().ok(), part.map(|p| p.parse().unwrap()));
        pools.request(LOCAL, subnet, part, false, Vec::new()).map(|(id, _)| id)
    }

    fn take(pools: &mut Pools, id: &str, wished: &str) -> Result<String, IpamError> {
        pools.take(id, wished.parse().ok(), false).map(|net| net.to_string())
    }

    #[test]
    fn a_pool_that_nobody_named_collides_with_nothing_and_each_is_another() {
        let mut pools = Pools::default();
        let holder = "a route of the host, via eth0".to_owned();
        let claims =
            || vec![Claim { net: "172.17.0.0/16".parse().unwrap(), holder: holder.clone() }];
        let mut ask = |v6| pools.request(LOCAL, None, None, v6, claims()).unwrap().1.to_string();
        assert_eq!(ask(false), "172.18.0.0/16");
        assert_eq!(ask(false), "172.19.0.0/16");
        let (one, two) = (ask(true), ask(true));
        assert!(one.starts_with("fd") && one.ends_with("/64") && one != two, "{one} {two}");
    }

    #[test]
    fn the_same_pool_asked_for_twice_is_one_pool_until_both_gave_it_back() {
        let mut pools = Pools::default();
        let id = ask(&mut pools, "10.1.0.0/16", None).unwrap();
        assert_eq!(ask(&mut pools, "10.1.0.0/16", None).unwrap(), id);
        let other = ask(&mut pools, "10.1.2.0/24", None).unwrap_err().to_string();
        assert!(other.contains("10.1.0.0/16"), "{other}");
        pools.release(&id);
        assert!(ask(&mut pools, "10.1.2.0/24", None).is_err());
        pools.release(&id);
        pools.release(&id);
        assert!(ask(&mut pools, "10.1.2.0/24", None).is_ok());
    }

    #[test]
    fn addresses_are_given_in_sequence_and_a_freed_one_only_at_the_end() {
        for (subnet, wanted) in [("10.1.0.0/29", "10.1.0."), ("fd01::/125", "fd01::")] {
            let mut pools = Pools::default();
            let id = ask(&mut pools, subnet, None).unwrap();
            let gateway = pools.take(&id, None, true).unwrap().addr();
            assert_eq!(gateway.to_string(), format!("{wanted}1"));
            let first = take(&mut pools, &id, "").unwrap();
            assert!(first.starts_with(&format!("{wanted}2/")), "{first}");
            pools.give_back(&id, format!("{wanted}2").parse().unwrap());
            let rest: Vec<String> = std::iter::from_fn(|| take(&mut pools, &id, "").ok()).collect();
            assert!(rest[0].starts_with(&format!("{wanted}3/")), "{rest:?}");
            assert!(rest.last().unwrap().starts_with(&format!("{wanted}2/")), "{rest:?}");
            assert!(matches!(take(&mut pools, &id, ""), Err(IpamError::Full { .. })));
        }
    }

    #[test]
    fn a_part_of_the_subnet_is_where_containers_live_and_wishes_may_leave_it() {
        let mut pools = Pools::default();
        let id = ask(&mut pools, "10.1.0.0/16", Some("10.1.2.0/30")).unwrap();
        assert_eq!(pools.take(&id, None, true).unwrap().to_string(), "10.1.0.1/16");
        let given: Vec<String> = std::iter::from_fn(|| take(&mut pools, &id, "").ok()).collect();
        assert_eq!(given, ["10.1.2.0/16", "10.1.2.1/16", "10.1.2.2/16", "10.1.2.3/16"]);
        assert_eq!(take(&mut pools, &id, "10.1.7.7").unwrap(), "10.1.7.7/16");
        let id = ask(&mut pools, "10.4.0.0/16", Some("10.4.0.0/32")).unwrap();
        assert!(matches!(take(&mut pools, &id, ""), Err(IpamError::Full { .. })));
        assert!(matches!(
            ask(&mut pools, "10.2.0.0/16", Some("10.3.0.0/24")),
            Err(IpamError::Outside { .. })
        ));
    }

    #[test]
    fn a_wish_that_cannot_be_is_refused_by_its_reason() {
        let mut pools = Pools::default();
        let id = ask(&mut pools, "10.1.0.0/16", None).unwrap();
        take(&mut pools, &id, "10.1.0.5").unwrap();
        for (wish, words) in [
            ("10.1.0.5", "container"),
            ("10.2.0.5", "10.1.0.0/16"),
            ("10.1.0.0", "network address"),
            ("10.1.255.255", "broadcast address"),
        ] {
            let error = take(&mut pools, &id, wish).unwrap_err().to_string();
            assert!(error.contains(words), "{wish}: {error}");
        }
    }

    #[test]
    fn a_forgotten_pool_is_known_by_its_name() {
        let mut pools = Pools::default();
        assert_eq!(
            take(&mut pools, "wharf-local/10.9.0.0/16>10.9.5.0/24", "").unwrap(),
            "10.9.5.0/16"
        );
        for rubbish in
            ["", "wharf-local", "wharf-local/x", "s/10.9.0.1/16", "s/10.9.0.0/16>10.8.0.0/24"]
        {
            assert!(take(&mut pools, rubbish, "").is_err(), "{rubbish}");
        }
        pools.give_back("nobody", "10.9.5.0".parse().unwrap());
        pools.release("nobody");
    }
}
