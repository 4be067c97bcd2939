//! How the cluster network is cut: one range of each family, in subnets of one size, numbered from 0.
//! The subnets of both families with the same number belong together: a node owns a number.

use std::fmt;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::base::limits::CLUSTER_SUBNETS_MAX;
use crate::control::ipam::{check_subnet, overlaps};

/// A subnet's number within the plan.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Slot(pub u32);

/// Prefix length of a node's IPv4 subnet, if nothing else is said.
const SIZE_V4: u8 = 24;
/// The same of IPv6: what stateless configuration wants (RFC 4291 2.5.1).
const SIZE_V6: u8 = 64;

/// The plan that all nodes share: the store has it, the first node writes it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Plan {
    /// The range of each family with the prefix length of its subnets, IPv4 first.
    ranges: Vec<(IpNet, u8)>,
    /// Given to no node.
    reserved: Vec<IpNet>,
}

/// A plan as it is written. Unknown fields are a later version's, which adds none that matters here.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Written {
    network: Vec<IpNet>,
    #[serde(default)]
    size: Vec<u8>,
    #[serde(default)]
    reserved: Vec<IpNet>,
}

/// A plan that cannot be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadPlan(String);

impl Plan {
    /// Cuts `network` (at most one range of each family) into subnets of `size`, given in the same order.
    pub fn new(network: &[IpNet], size: &[u8], reserved: &[IpNet]) -> Result<Self, BadPlan> {
        if network.is_empty() || network.len() > 2 {
            return Err(BadPlan("give one range of each family, at least one".to_owned()));
        }
        if size.len() > network.len() {
            return Err(BadPlan("there are more sizes than ranges".to_owned()));
        }
        let mut ranges = Vec::new();
        for (n, net) in network.iter().enumerate() {
            check_subnet(*net).map_err(|e| BadPlan(e.to_string()))?;
            let usual = if net.addr().is_ipv4() { SIZE_V4 } else { SIZE_V6 };
            let size = size.get(n).copied().unwrap_or(usual);
            // A subnet has a gateway and an endpoint, between network and broadcast address.
            if size < net.prefix_len() || size > net.max_prefix_len() - 2 {
                return Err(BadPlan(format!("{net} cannot be cut into subnets of /{size}")));
            }
            ranges.push((*net, size));
        }
        ranges.sort_by_key(|(net, _)| net.addr().is_ipv6());
        if matches!(&ranges[..], [(a, _), (b, _)] if a.addr().is_ipv4() == b.addr().is_ipv4()) {
            return Err(BadPlan("two ranges of one family".to_owned()));
        }
        let mut reserved = reserved.to_vec();
        reserved.sort();
        for one in &reserved {
            if !ranges.iter().any(|(net, _)| net.contains(one)) {
                return Err(BadPlan(format!("{one} is reserved and lies in none of the ranges")));
            }
        }
        Ok(Self { ranges, reserved })
    }

    /// The ranges that are cut.
    pub fn ranges(&self) -> impl Iterator<Item = IpNet> {
        self.ranges.iter().map(|(net, _)| *net)
    }

    /// How many subnets there are: the family with fewer counts.
    pub fn count(&self) -> u32 {
        let bits = |(net, size): &(IpNet, u8)| u32::from(size - net.prefix_len());
        let bits = self.ranges.iter().map(bits).min().unwrap_or(0);
        1_u32.checked_shl(bits).unwrap_or(u32::MAX).min(CLUSTER_SUBNETS_MAX)
    }

    /// The subnets of a number, IPv4 first.
    pub fn subnets(&self, slot: Slot) -> Vec<IpNet> {
        self.ranges.iter().map(|(net, size)| nth(net, *size, slot.0)).collect()
    }

    /// How a number is written in the store: by its first subnet.
    pub fn key(&self, slot: Slot) -> String {
        self.subnets(slot)
            .first()
            .map(|net| format!("{}-{}", net.addr(), net.prefix_len()))
            .unwrap_or_default()
    }

    /// The number that is written so, and not otherwise: two ways to write one would be two owners.
    pub fn slot(&self, key: &str) -> Option<Slot> {
        let (addr, len) = key.rsplit_once('-')?;
        let net = IpNet::new(addr.parse().ok()?, len.parse().ok()?).ok()?;
        self.slot_of(net).filter(|slot| self.key(*slot) == key)
    }

    /// The number of a subnet of either family.
    pub fn slot_of(&self, net: IpNet) -> Option<Slot> {
        let (range, _) =
            self.ranges.iter().find(|(r, size)| r.contains(&net) && *size == net.prefix_len())?;
        let n = match (range, net) {
            (IpNet::V4(range), IpNet::V4(net)) => {
                let offset = u32::from(net.network()) - u32::from(range.network());
                u128::from(offset) >> (32 - u32::from(net.prefix_len())).min(31)
            }
            (IpNet::V6(range), IpNet::V6(net)) => {
                (u128::from(net.network()) - u128::from(range.network()))
                    >> (128 - u32::from(net.prefix_len()))
            }
            _ => return None,
        };
        let slot = Slot(u32::try_from(n).ok().filter(|n| *n < self.count())?);
        self.subnets(slot).contains(&net).then_some(slot)
    }

    /// Whether a number was set aside by hand.
    pub fn is_reserved(&self, slot: Slot) -> bool {
        let subnets = self.subnets(slot);
        self.reserved.iter().any(|r| subnets.iter().any(|net| overlaps(r, net)))
    }

    /// Numbers in the order in which a node asks for them: it begins at `start`, which nodes choose
    /// differently, so that two that start at once seldom meet.
    pub fn from(&self, start: u64) -> impl Iterator<Item = Slot> {
        let count = self.count();
        let first = (start % u64::from(count)) as u32;
        (first..count).chain(0..first).map(Slot)
    }
}

/// The `n`th subnet of a size.
fn nth(net: &IpNet, size: u8, n: u32) -> IpNet {
    match net {
        IpNet::V4(net) => {
            let addr = u32::from(net.network()) | n.checked_shl(32 - u32::from(size)).unwrap_or(0);
            Ipv4Net::new(addr.into(), size).map_or((*net).into(), Into::into)
        }
        IpNet::V6(net) => {
            let addr = u128::from(net.network()) | (u128::from(n) << (128 - u32::from(size)));
            Ipv6Net::new(addr.into(), size).map_or((*net).into(), Into::into)
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (net, size)) in self.ranges.iter().enumerate() {
            let comma = if n == 0 { "" } else { ", " };
            write!(f, "{comma}{net} in /{size}")?;
        }
        for (n, net) in self.reserved.iter().enumerate() {
            let before = if n == 0 { " without" } else { "," };
            write!(f, "{before} {net}")?;
        }
        Ok(())
    }
}

impl TryFrom<Written> for Plan {
    type Error = BadPlan;
    fn try_from(written: Written) -> Result<Self, BadPlan> {
        Self::new(&written.network, &written.size, &written.reserved)
    }
}

impl From<Plan> for Written {
    fn from(plan: Plan) -> Self {
        let (network, size) = plan.ranges.into_iter().unzip();
        Self { network, size, reserved: plan.reserved }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|t| t.parse().unwrap()).collect()
    }

    fn plan() -> Plan {
        Plan::new(&nets(&["fd10:244::/48", "10.244.0.0/16"]), &[64, 24], &nets(&["10.244.8.0/23"]))
            .unwrap()
    }

    #[test]
    fn subnets_of_both_families_share_a_number() {
        let plan = plan();
        assert_eq!(plan.count(), 256);
        assert_eq!(plan.subnets(Slot(3)), nets(&["10.244.3.0/24", "fd10:244:0:3::/64"]));
        assert_eq!(plan.key(Slot(3)), "10.244.3.0-24");
        assert_eq!(plan.slot("10.244.3.0-24"), Some(Slot(3)));
        assert_eq!(plan.slot_of("fd10:244:0:3::/64".parse().unwrap()), Some(Slot(3)));
        for foreign in
            ["10.244.3.1-24", "10.244.3.0-25", "10.245.3.0-24", "fd10:244:0:3::-64", "x", "-"]
        {
            assert_eq!(plan.slot(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn what_is_reserved_covers_every_subnet_it_touches() {
        let reserved: Vec<u32> = (0..256).filter(|n| plan().is_reserved(Slot(*n))).collect();
        assert_eq!(reserved, [8, 9]);
        assert_eq!(
            plan().to_string(),
            "10.244.0.0/16 in /24, fd10:244::/48 in /64 without 10.244.8.0/23"
        );
    }

    #[test]
    fn a_plan_that_cannot_be_says_why() {
        for (network, size, reserved, words) in [
            (&[][..], &[][..], &[][..], "one range of each family"),
            (&["10.0.0.0/16", "10.1.0.0/16"], &[], &[], "two ranges of one family"),
            (&["10.0.0.0/24"], &[16], &[], "cannot be cut into subnets of /16"),
            (&["10.0.0.0/24"], &[31], &[], "cannot be cut into subnets of /31"),
            (&["10.0.0.7/24"], &[26], &[], "the subnet would be"),
            (&["10.0.0.0/24"], &[26, 27], &[], "more sizes"),
            (&["10.0.0.0/24"], &[26], &["10.9.0.0/26"], "lies in none"),
            (&["127.0.0.0/16"], &[24], &[], "loopback"),
        ] {
            let error = Plan::new(&nets(network), size, &nets(reserved)).unwrap_err().to_string();
            assert!(error.contains(words), "{network:?}: {error}");
        }
    }

    #[test]
    fn a_written_plan_is_read_again_and_a_wrong_one_is_refused() {
        let text = serde_json::to_string(&plan()).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan());
        assert!(
            serde_json::from_str::<Plan>(r#"{"network":["10.0.0.0/24"],"size":[12]}"#).is_err()
        );
    }

    proptest! {
        #[test]
        fn numbers_and_subnets_are_one_to_one_and_disjoint(v6: bool, len in 8_u8..24, cut in 0_u8..8, a: u32, b: u32) {
            let (base, extra) = if v6 { ("fd00::", 40) } else { ("10.0.0.0", 0) };
            let net = IpNet::new(base.parse().unwrap(), len + extra).unwrap();
            let size = len + extra + cut.min(if v6 { 64 } else { 30 - len });
            let plan = Plan::new(&[net], &[size], &[]).unwrap();
            let (a, b) = (Slot(a % plan.count()), Slot(b % plan.count()));
            let (sa, sb) = (plan.subnets(a)[0], plan.subnets(b)[0]);
            prop_assert!(net.contains(&sa));
            prop_assert_eq!(plan.slot(&plan.key(a)), Some(a));
            prop_assert_eq!(a != b, !overlaps(&sa, &sb));
            prop_assert_eq!(plan.from(u64::from(a.0)).count() as u32, plan.count());
        }
    }
}
