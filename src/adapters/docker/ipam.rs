//! The IPAM driver's calls.

use super::Plugin;
use super::messages::{OfAddress, OfPool, Pool, RequestPool};
use super::problem::Problem;
use crate::control::ipam::IpamError;
use ipnet::IpNet;

const KIND: &str = "RequestAddressType";
const GATEWAY: &str = "com.docker.network.gateway";

impl Plugin {
    pub(super) fn request_pool(&self, call: &RequestPool) -> Result<Pool, Problem> {
        if call.address_space.is_empty() {
            return Err(Problem::Unfit("the address space is missing".to_owned()));
        }
        if call.sub_pool.is_some() && call.pool.is_none() {
            return Err(Problem::Unfit(
                "a part of a pool (--ip-range) needs its pool (--subnet)".to_owned(),
            ));
        }
        // A subnet that somebody wishes for is his business, also beside a route of the host.
        let claims = if call.pool.is_none() { self.switch.claims()? } else { Vec::new() };
        self.change_pools(|pools| {
            pools.request(&call.address_space, call.pool, call.sub_pool, call.v6, claims)
        })
        .map(|(id, subnet)| Pool { id, subnet, data: [].into() })
    }

    pub(super) fn release_pool(&self, call: &OfPool) -> Result<(), Problem> {
        self.change_pools(|pools| {
            pools.release(&call.pool);
            Ok(())
        })
    }

    pub(super) fn request_address(&self, call: &OfAddress) -> Result<IpNet, Problem> {
        let gateway = call.options.get(KIND).and_then(|kind| kind.as_str()) == Some(GATEWAY);
        self.change_pools(|pools| pools.take(&call.pool, call.address, gateway))
    }

    pub(super) fn release_address(&self, call: &OfAddress) -> Result<(), Problem> {
        self.change_pools(|pools| {
            if let Some(addr) = call.address {
                pools.give_back(&call.pool, addr);
            }
            Ok(())
        })
    }

    /// Changes them as a whole: kept only if it could be written.
    fn change_pools<T>(
        &self,
        change: impl FnOnce(&mut super::pools::Pools) -> Result<T, IpamError>,
    ) -> Result<T, Problem> {
        let mut state = self.state();
        let done = change(&mut state.pools)?;
        self.store.write(&state)?;
        Ok(done)
    }
}
