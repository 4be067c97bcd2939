//! Which range a network takes that named none.

use std::net::Ipv6Addr;

use ipnet::{IpNet, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::{Claim, IpamError, check_subnet, overlaps};

/// A range to cut subnets from, as in Docker's `default-address-pools`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// The range.
    pub base: IpNet,
    /// Prefix length of the subnets cut from it.
    pub size: u8,
}

/// Holders named in the message when all pools are used up; the rest is counted.
const HOLDERS_NAMED: usize = 8;
/// Tries to find a random range that is free: the second is needed once in 2⁴⁰ networks.
const RANDOM_TRIES: usize = 16;

/// Docker's local pools (moby `ipamutils`): fifteen /16 and sixteen /20.
pub fn docker_pools() -> Vec<Pool> {
    const BASES: [(&str, u8); 7] = [
        ("172.17.0.0/16", 16),
        ("172.18.0.0/16", 16),
        ("172.19.0.0/16", 16),
        ("172.20.0.0/14", 16),
        ("172.24.0.0/14", 16),
        ("172.28.0.0/14", 16),
        ("192.168.0.0/16", 20),
    ];
    let pool = |(base, size): (&str, u8)| base.parse().ok().map(|base| Pool { base, size });
    BASES.into_iter().filter_map(pool).collect()
}

impl Pool {
    /// Refuses pools that give no usable subnet.
    pub fn check(&self) -> Result<(), IpamError> {
        let bad = || IpamError::BadPool { base: self.base, size: self.size };
        if self.size < self.base.prefix_len() || self.size >= self.base.max_prefix_len() {
            return Err(bad());
        }
        check_subnet(self.base)
    }
}

/// Whether a claim says "everything" rather than "this range": a default route, or the pair of /1
/// that VPN clients put over it. Were they claims, a host with a VPN could have no network at all.
pub fn is_catch_all(claim: &Claim) -> bool {
    claim.net.prefix_len() < 8
}

/// The first subnet of the pools of one family that collides with no claim.
pub fn first_free(pools: &[Pool], v6: bool, claims: &[Claim]) -> Result<IpNet, IpamError> {
    let mut in_the_way: Vec<&Claim> = Vec::new();
    for pool in pools.iter().filter(|p| matches!(p.base, IpNet::V6(_)) == v6) {
        pool.check()?;
        let mut at = bits(&pool.base);
        let end = last_bits(&pool.base);
        while at <= end {
            let Some(candidate) = net_at(at, pool.size, v6) else { break };
            let clash = |c: &&Claim| !is_catch_all(c) && overlaps(&c.net, &candidate);
            let Some(claim) = claims.iter().find(clash) else { return Ok(candidate) };
            if !in_the_way.contains(&claim) {
                in_the_way.push(claim);
            }
            // Past the larger of the two: a claim of the whole pool costs one step, not 2²⁰.
            at = match last_bits(&claim.net).max(last_bits(&candidate)).checked_add(1) {
                Some(next) => next,
                None => break,
            };
        }
    }
    Err(IpamError::PoolsExhausted { in_the_way: describe(&in_the_way) })
}

/// A random unique local /64 (RFC 4193): `fd`, forty random bits, subnet 0.
pub fn random_ula(
    claims: &[Claim],
    mut random: impl FnMut() -> [u8; 5],
) -> Result<IpNet, IpamError> {
    for _ in 0..RANDOM_TRIES {
        let [a, b, c, d, e] = random();
        let prefix = Ipv6Addr::from([0xfd, a, b, c, d, e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let net = IpNet::V6(Ipv6Net::new_assert(prefix, 64));
        if !claims.iter().any(|c| !is_catch_all(c) && overlaps(&c.net, &net)) {
            return Ok(net);
        }
    }
    let ula = claims.iter().filter(|c| matches!(c.net, IpNet::V6(_))).collect::<Vec<_>>();
    Err(IpamError::PoolsExhausted { in_the_way: describe(&ula) })
}

fn describe(claims: &[&Claim]) -> String {
    if claims.is_empty() {
        return "nothing, but no pool of this family is configured".to_owned();
    }
    let named = claims.iter().take(HOLDERS_NAMED).map(|c| format!("{} ({})", c.net, c.holder));
    let text = named.collect::<Vec<_>>().join(", ");
    match claims.len().saturating_sub(HOLDERS_NAMED) {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

fn bits(net: &IpNet) -> u128 {
    match net {
        IpNet::V4(net) => u128::from(u32::from(net.network())),
        IpNet::V6(net) => u128::from(net.network()),
    }
}

fn last_bits(net: &IpNet) -> u128 {
    match net {
        IpNet::V4(net) => u128::from(u32::from(net.broadcast())),
        IpNet::V6(net) => u128::from(net.broadcast()),
    }
}

fn net_at(bits: u128, len: u8, v6: bool) -> Option<IpNet> {
    let addr = if v6 {
        Ipv6Addr::from(bits).into()
    } else {
        std::net::Ipv4Addr::from(u32::try_from(bits).ok()?).into()
    };
    IpNet::new(addr, len).ok().map(|n| n.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(net: &str, holder: &str) -> Claim {
        Claim { net: net.parse().unwrap(), holder: holder.to_owned() }
    }

    fn pool(base: &str, size: u8) -> Pool {
        Pool { base: base.parse().unwrap(), size }
    }

    #[test]
    fn the_first_network_is_docker_s_and_the_pools_give_thirty_one() {
        let mut claims = Vec::new();
        while let Ok(net) = first_free(&docker_pools(), false, &claims) {
            claims.push(Claim { net, holder: format!("network {}", claims.len()) });
        }
        assert_eq!(claims[0].net.to_string(), "172.17.0.0/16");
        assert_eq!(claims[14].net.to_string(), "172.31.0.0/16");
        assert_eq!(claims[15].net.to_string(), "192.168.0.0/20");
        assert_eq!(claims.len(), 31);
    }

    #[test]
    fn a_range_that_a_route_of_the_host_touches_is_passed_over() {
        let taken =
            [claim("172.17.4.0/24", "route via eth0"), claim("172.18.0.0/15", "route via tun0")];
        let net = first_free(&docker_pools(), false, &taken).unwrap();
        assert_eq!(net.to_string(), "172.20.0.0/16");
    }

    #[test]
    fn a_default_route_and_a_vpn_s_pair_of_halves_are_in_nobody_s_way() {
        let vpn = [
            claim("0.0.0.0/0", "route via eth0"),
            claim("0.0.0.0/1", "route via tun0"),
            claim("128.0.0.0/1", "route via tun0"),
            claim("::/0", "route via eth0"),
        ];
        assert_eq!(first_free(&docker_pools(), false, &vpn).unwrap().to_string(), "172.17.0.0/16");
        assert!(random_ula(&vpn, || [1, 2, 3, 4, 5]).is_ok());
    }

    #[test]
    fn when_the_pools_are_used_up_the_message_names_what_is_in_the_way() {
        let pools = [pool("10.0.0.0/23", 24), pool("fd00::/63", 64)];
        let taken = [
            claim("10.0.0.0/8", "route via tun0"),
            claim("fd00::/64", "network a"),
            claim("fd00:0:0:1::/64", "network b"),
        ];
        let v4 = first_free(&pools, false, &taken).unwrap_err().to_string();
        assert!(v4.contains("10.0.0.0/8 (route via tun0)"), "{v4}");
        let v6 = first_free(&pools, true, &taken).unwrap_err().to_string();
        assert!(v6.contains("network a") && v6.contains("network b"), "{v6}");
        let none = first_free(&[], false, &[]).unwrap_err().to_string();
        assert!(none.contains("no pool of this family"), "{none}");
    }

    #[test]
    fn a_claim_of_a_whole_large_pool_is_passed_in_one_step() {
        let pools = [pool("fd00::/16", 127), pool("10.0.0.0/8", 31)];
        let taken = [claim("fd00::/16", "network a"), claim("10.0.0.0/9", "network b")];
        assert!(first_free(&pools, true, &taken).is_err());
        assert_eq!(first_free(&pools, false, &taken).unwrap().to_string(), "10.128.0.0/31");
    }

    #[test]
    fn a_random_range_is_a_ula_and_avoids_what_is_taken() {
        let taken = [claim("fd01:203:405::/48", "route via eth0")];
        let mut tries = [[1, 2, 3, 4, 5], [9, 9, 9, 9, 9]].into_iter();
        let net = random_ula(&taken, || tries.next().unwrap()).unwrap();
        assert_eq!(net.to_string(), "fd09:909:909::/64");
        assert!(random_ula(&taken, || [1, 2, 3, 4, 5]).is_err());
    }

    #[test]
    fn a_pool_that_cannot_be_divided_is_refused() {
        for (base, size) in
            [("10.0.0.0/16", 8), ("10.0.0.0/16", 32), ("fd00::/64", 128), ("127.0.0.0/8", 16)]
        {
            assert!(pool(base, size).check().is_err(), "{base} {size}");
        }
    }
}
