//! Addresses: which ranges networks take, which addresses endpoints get.
//!
//! Pure: what the host already uses is handed in, and so is chance. [`pools`] picks a range for a
//! network that named none; [`range`] gives out the addresses of one subnet.

pub mod pools;
pub mod range;

use std::net::IpAddr;

use ipnet::IpNet;

use crate::wire::mac::Mac;

/// Why an address or a range cannot be had. `holder` is who has it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IpamError {
    /// Host bits are set.
    #[error(
        "{given} is an address with a prefix length, not a subnet; the subnet would be {subnet}"
    )]
    HostBits {
        /// As given.
        given: IpNet,
        /// What was probably meant.
        subnet: IpNet,
    },
    /// A range nobody can live in.
    #[error("{subnet} cannot be a container network: it is {why}")]
    Unusable {
        /// The range.
        subnet: IpNet,
        /// The reason.
        why: &'static str,
    },
    /// No room for a gateway and an endpoint.
    #[error("{0} has no room for a gateway and one endpoint")]
    TooSmall(IpNet),
    /// Not in the subnet.
    #[error("{addr} does not lie in {subnets}")]
    Outside {
        /// The address.
        addr: IpAddr,
        /// The network's subnets.
        subnets: String,
    },
    /// Network, broadcast or anycast address.
    #[error("{addr} is the {what} of {subnet} and cannot be given to anyone")]
    Reserved {
        /// The address.
        addr: IpAddr,
        /// Its range.
        subnet: IpNet,
        /// What it is there.
        what: &'static str,
    },
    /// Somebody has it.
    #[error("{addr} is taken by {holder}")]
    Taken {
        /// The address.
        addr: IpAddr,
        /// Who has it.
        holder: String,
    },
    /// No address is left.
    #[error("no address is left in {subnet}: all {used} are taken")]
    Full {
        /// The range.
        subnet: IpNet,
        /// How many are given out.
        used: u64,
    },
    /// Two ranges overlap.
    #[error("{subnet} overlaps {other}, which belongs to {holder}")]
    Overlap {
        /// The range asked for.
        subnet: IpNet,
        /// The range that is there.
        other: IpNet,
        /// Who has it.
        holder: String,
    },
    /// All pools are used up.
    #[error("no free range is left in the address pools; in the way are: {in_the_way}")]
    PoolsExhausted {
        /// Ranges and their holders.
        in_the_way: String,
    },
    /// A pool that cannot be divided.
    #[error("the pool {base} cannot be divided into subnets of /{size}")]
    BadPool {
        /// The pool.
        base: IpNet,
        /// The length of its subnets.
        size: u8,
    },
}

/// A range and who has it, for people: `route via eth0`, `network blue`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claim {
    /// The range.
    pub net: IpNet,
    /// Who has it.
    pub holder: String,
}

/// Whether two ranges share an address. Ranges of different families never do.
pub fn overlaps(a: &IpNet, b: &IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// Ranges that mean something to every kernel (RFC 6890), whatever a switch says.
const UNUSABLE: [(&str, &str); 9] = [
    ("0.0.0.0/8", "\"this network\" (RFC 791)"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
    ("::/8", "reserved (loopback and mapped addresses)"),
    ("64:ff9b::/96", "NAT64's prefix"),
    ("fe80::/10", "link-local"),
    ("ff00::/8", "multicast"),
];

/// Refuses ranges that no container network can have.
pub fn check_subnet(subnet: IpNet) -> Result<(), IpamError> {
    if subnet.addr() != subnet.network() {
        return Err(IpamError::HostBits { given: subnet, subnet: subnet.trunc() });
    }
    for (range, why) in UNUSABLE {
        let range: IpNet = range.parse().unwrap_or(subnet);
        if overlaps(&range, &subnet) {
            return Err(IpamError::Unusable { subnet, why });
        }
    }
    if subnet.prefix_len() == subnet.max_prefix_len() {
        return Err(IpamError::TooSmall(subnet));
    }
    Ok(())
}

/// Docker's MAC for a station: `02:42:` and its IPv4 address, or the last four bytes of its IPv6
/// address where it has no IPv4 one.
pub fn mac_for(addrs: &[IpAddr]) -> Option<Mac> {
    let v4 = addrs.iter().find(|a| a.is_ipv4()).or_else(|| addrs.first())?;
    Some(match v4 {
        IpAddr::V4(ip) => Mac::from_ipv4(*ip),
        IpAddr::V6(ip) => {
            let o = ip.octets();
            Mac([0x02, 0x42, o[12], o[13], o[14], o[15]])
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_mean_something_else_are_refused_in_words() {
        for (subnet, words) in [
            ("10.20.0.5/24", "the subnet would be 10.20.0.0/24"),
            ("fd00::1/64", "the subnet would be fd00::/64"),
            ("127.1.0.0/16", "loopback"),
            ("169.254.0.0/16", "link-local"),
            ("224.0.0.0/8", "multicast"),
            ("0.0.0.0/0", "this network"),
            ("::/0", "reserved"),
            ("::ffff:10.0.0.0/120", "mapped"),
            ("fe80::/64", "link-local"),
            ("ff02::/16", "multicast"),
            ("10.0.0.1/32", "no room"),
            ("fd00::1/128", "no room"),
        ] {
            let error = check_subnet(subnet.parse().unwrap()).expect_err(subnet).to_string();
            assert!(error.contains(words), "{subnet}: {error}");
        }
        for subnet in ["10.0.0.0/31", "172.17.0.0/16", "fd00::/64", "2001:db8::/127"] {
            assert_eq!(check_subnet(subnet.parse().unwrap()), Ok(()), "{subnet}");
        }
    }

    #[test]
    fn the_mac_follows_docker_s_rule_in_both_families() {
        let addrs = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<_>>();
        let mac = |texts: &[&str]| mac_for(&addrs(texts)).unwrap().to_string();
        assert_eq!(mac(&["fd00::2", "172.17.0.10"]), "02:42:ac:11:00:0a");
        assert_eq!(mac(&["fd00::1:2"]), "02:42:00:01:00:02");
        assert_eq!(mac_for(&[]), None);
    }
}
