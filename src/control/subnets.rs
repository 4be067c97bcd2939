//! The subnets of a new network: checked, or chosen from the pools.

use std::net::IpAddr;

use ipnet::IpNet;

use super::error::ControlError;
use super::ipam::range::AddressRange;
use super::ipam::{Claim, IpamError, overlaps, pools};
use super::model::NetworkSpec;
use super::networks::in_words;
use super::{Control, random};

impl Control {
    /// The subnets and gateways of a new network: those asked for, or one of each family.
    pub(super) fn choose_subnets(
        &self,
        spec: &NetworkSpec,
    ) -> Result<Vec<(IpNet, IpAddr)>, ControlError> {
        let mut claims = self.claims();
        claims.extend(self.vip_claims());
        if spec.host {
            // The host gets a route to the subnet: it must not hide one that it has.
            claims.extend(
                self.outside.host.routes()?.into_iter().filter(|c| !pools::is_catch_all(c)),
            );
        }
        let mut subnets = spec.subnets.clone();
        for (n, subnet) in subnets.iter().enumerate() {
            super::ipam::check_subnet(*subnet)?;
            if subnets[..n].iter().any(|s| s.addr().is_ipv4() == subnet.addr().is_ipv4()) {
                return Err(ControlError::invalid(
                    "a network has at most one subnet of each family",
                    "make a second network for the other one",
                ));
            }
            if let Some(claim) = claims.iter().find(|c| overlaps(&c.net, subnet)) {
                let (other, holder) = (claim.net, claim.holder.clone());
                return Err(IpamError::Overlap { subnet: *subnet, other, holder }.into());
            }
        }
        if subnets.is_empty() {
            claims.extend(self.outside.host.routes()?);
            let pools = self.settings.config.address_pools();
            subnets.push(pools::first_free(&pools, false, &claims)?);
            subnets.push(choose_v6(&pools, &claims)?);
        }
        pair_gateways(&subnets, &spec.gateways)
    }

    /// Ranges that networks and uplinks of this daemon have.
    pub(super) fn claims(&self) -> Vec<Claim> {
        let networks = self.state.networks.values().flat_map(|n| {
            let holder = format!("network {}", n.record.name);
            n.record.subnets.iter().map(move |(net, _)| Claim { net: *net, holder: holder.clone() })
        });
        let uplinks = self.state.uplinks.values().flat_map(|u| {
            let holder = format!("uplink {}", u.record.spec.name);
            u.nets().into_iter().map(move |net| Claim { net, holder: holder.clone() })
        });
        networks.chain(uplinks).chain(self.nodes.claims()).collect()
    }
}

/// Each gateway belongs to one subnet; a subnet without one takes its first address.
fn pair_gateways(
    subnets: &[IpNet],
    gateways: &[IpAddr],
) -> Result<Vec<(IpNet, IpAddr)>, ControlError> {
    for gateway in gateways {
        if !subnets.iter().any(|s| s.contains(gateway)) {
            let subnets = in_words(subnets.iter().map(IpNet::to_string));
            return Err(IpamError::Outside { addr: *gateway, subnets }.into());
        }
    }
    let mut pairs = Vec::with_capacity(subnets.len());
    for subnet in subnets {
        let mut mine = gateways.iter().filter(|g| subnet.contains(*g));
        let gateway = mine.next().copied();
        if mine.next().is_some() {
            return Err(ControlError::invalid(
                format!("{subnet} was given two gateways"),
                "give one for each subnet",
            ));
        }
        pairs.push((*subnet, AddressRange::new(*subnet, gateway)?.gateway()));
    }
    Ok(pairs)
}

/// A range of the pools, or a random unique local one.
fn choose_v6(pools: &[pools::Pool], claims: &[Claim]) -> Result<IpNet, ControlError> {
    if pools.iter().any(|p| p.base.addr().is_ipv6()) {
        return Ok(pools::first_free(pools, true, claims)?);
    }
    let seed: [u8; 5] = random::bytes()?;
    Ok(pools::random_ula(claims, || random::bytes().unwrap_or(seed))?)
}
