//! The network driver's calls.
//!
//! dockerd moves the link itself, after `Join` has named it: with runc the container's namespace does not
//! exist yet at that time. So the TAP is made in dockerd's own namespace, under a name that follows from
//! the endpoint's identity, and only there Wharf does less than for others: no address, no route, not even
//! up. Its descriptor is the daemon's as ever, with a duplicate at the holder; the plugin keeps none, and
//! may end and start at any time.
//!
//! Docker takes the link back out of the container between `Leave` and `DeleteEndpoint`, so the endpoint is
//! detached in the latter. Calls are repeated by Docker when an answer got lost: each may come twice.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde_json::{Value, json};

use super::messages::{
    CreateEndpoint, CreateNetwork, InterfaceName, Join, Joined, OfEndpoint, OfNetwork,
};
use super::options;
use super::problem::Problem;
use super::state::{Endpoint, Membership, Network};
use super::{Plugin, State};
use crate::attach::protocol::{AttachRequest, Attached};
use crate::control::ipam::mac_for;
use crate::control::model::{ErrorCode, PublishSpec};

/// How interfaces in a container are called, before their number.
const PREFIX: &str = "eth";
/// Links outside are `wh` and so many digits of the endpoint's identity: fifteen bytes are a link's name.
const LINK_DIGITS: usize = 11;

impl Plugin {
    pub(super) fn create_network(&self, call: &CreateNetwork) -> Result<(), Problem> {
        let network = options::network(call)?;
        let mut state = self.state();
        match state.networks.get(&call.network) {
            Some(known) if *known == network => {
                return self.make_sure_of(&network);
            }
            Some(_) => return Err(Problem::NetworkExists(call.network.clone())),
            None => {}
        }
        self.switch.create_network(&network.spec)?;
        let name = network.spec.name.clone();
        state.networks.insert(call.network.clone(), network);
        self.store.write(&state).inspect_err(|_| {
            state.networks.remove(&call.network);
            let _ = self.switch.remove_network(&name);
        })
    }

    pub(super) fn delete_network(&self, call: &OfNetwork) -> Result<(), Problem> {
        let mut state = self.state();
        let Some(network) = state.networks.get(&call.network).cloned() else { return Ok(()) };
        let left: Vec<String> = state
            .endpoints
            .iter()
            .filter(|(_, e)| e.network == call.network)
            .map(|(id, _)| id.clone())
            .collect();
        for endpoint in left {
            self.remove(&mut state, &endpoint)?;
        }
        gone_is_fine(self.switch.remove_network(&network.spec.name))?;
        state.networks.remove(&call.network);
        self.store.write(&state)
    }

    /// A network that Docker has and Wharf lost, with its state directory say, is made again.
    fn make_sure_of(&self, network: &Network) -> Result<(), Problem> {
        match self.switch.create_network(&network.spec) {
            Err(Problem::Wharf { code: Some(ErrorCode::Exists), .. }) => Ok(()),
            other => other,
        }
    }

    /// The answer's fields are those that Docker left to us: the MAC, unless the user wished for one.
    pub(super) fn create_endpoint(&self, call: &CreateEndpoint) -> Result<Value, Problem> {
        let mut state = self.state();
        known(&state, &call.network)?;
        let addresses: Vec<IpNet> =
            [call.interface.v4, call.interface.v6].into_iter().flatten().collect();
        let addrs: Vec<IpAddr> = addresses.iter().map(IpNet::addr).collect();
        let Some(mac) = call.interface.mac.or_else(|| mac_for(&addrs)) else {
            return Err(Problem::Unfit(
                "Docker gave the endpoint no address: use --ipam-driver wharf, or Docker's default"
                    .to_owned(),
            ));
        };
        let endpoint = Endpoint {
            network: call.network.clone(),
            addresses,
            mac,
            joined: None,
            published: Vec::new(),
        };
        match state.endpoints.get(&call.endpoint) {
            Some(known) if !known.is_as(&endpoint) => {
                return Err(Problem::EndpointExists(call.endpoint.clone()));
            }
            Some(_) => {}
            None if call.endpoint.len() < LINK_DIGITS || !call.endpoint.is_ascii() => {
                return Err(Problem::Unfit(format!("`{}` is no identity", call.endpoint)));
            }
            None => {
                state.endpoints.insert(call.endpoint.clone(), endpoint);
                self.store
                    .write(&state)
                    .inspect_err(|_| drop(state.endpoints.remove(&call.endpoint)))?;
            }
        }
        Ok(match call.interface.mac {
            Some(_) => json!({ "Interface": {} }),
            None => json!({ "Interface": { "MacAddress": mac } }),
        })
    }

    pub(super) fn delete_endpoint(&self, call: &OfEndpoint) -> Result<(), Problem> {
        self.remove(&mut self.state(), &call.endpoint)
    }

    fn remove(&self, state: &mut State, id: &str) -> Result<(), Problem> {
        let Some(endpoint) = state.endpoints.get(id) else { return Ok(()) };
        if let Some(joined) = &endpoint.joined {
            gone_is_fine(self.switch.detach(&joined.endpoint))?;
        }
        state.endpoints.remove(id);
        self.store.write(state)
    }

    /// What `docker inspect` may show.
    pub(super) fn endpoint_info(&self, call: &OfEndpoint) -> Result<Value, Problem> {
        let state = self.state();
        let endpoint = state.endpoints.get(&call.endpoint);
        let endpoint = endpoint.ok_or_else(|| Problem::NoEndpoint(call.endpoint.clone()))?;
        let published: Vec<String> = endpoint.published.iter().map(ToString::to_string).collect();
        Ok(json!({ "Value": {
            "com.docker.network.endpoint.macaddress": endpoint.mac,
            "wharf.endpoint": endpoint.joined.as_ref().map(|joined| &joined.endpoint),
            "wharf.published": published,
        }}))
    }

    pub(super) fn join(&self, call: &Join) -> Result<Joined, Problem> {
        let mut state = self.state();
        let network = known(&state, &call.network)?.clone();
        let endpoint = state.endpoints.get(&call.endpoint);
        let endpoint = endpoint.ok_or_else(|| Problem::NoEndpoint(call.endpoint.clone()))?;
        if let Some(joined) = &endpoint.joined
            && self.switch.has_endpoint(&joined.endpoint)?
        {
            // The answer was lost, or it is somebody else who asks.
            if joined.sandbox == call.sandbox && self.switch.has_link(&joined.link) {
                return Ok(answer(&network, endpoint, &joined.link));
            }
            return Err(Problem::JoinedAlready {
                endpoint: call.endpoint.clone(),
                sandbox: joined.sandbox.clone(),
            });
        }
        let attached = self.attach(&network, endpoint, call)?;
        let link = link_name(&call.endpoint);
        let reply = answer(&network, endpoint, &link);
        let (sandbox, id) = (call.sandbox.clone(), attached.endpoint.clone());
        if let Some(endpoint) = state.endpoints.get_mut(&call.endpoint) {
            endpoint.joined = Some(Membership { sandbox, link, endpoint: attached.endpoint });
        }
        self.store.write(&state).inspect_err(|_| {
            let _ = self.switch.detach(&id);
        })?;
        Ok(reply)
    }

    fn attach(
        &self,
        network: &Network,
        endpoint: &Endpoint,
        call: &Join,
    ) -> Result<Attached, Problem> {
        // Docker names nobody; what all endpoints of a container have in common is their sandbox.
        let name = call.sandbox.rsplit('/').next().filter(|name| !name.is_empty());
        let mut request = AttachRequest::new(&network.spec.name, &link_name(&call.endpoint));
        request.name = name.map(ToOwned::to_owned);
        request.container_id = name.map(ToOwned::to_owned);
        request.mac = Some(endpoint.mac);
        (request.ip, request.ip6) = endpoint.split();
        match self.switch.attach(request.clone()) {
            Err(error) if error.is_missing() => {
                self.make_sure_of(network)?;
                self.switch.attach(request)
            }
            other => other,
        }
    }

    /// Traffic has ended, but the link is still in the container: it is Docker's to take out.
    pub(super) fn leave(&self, call: &OfEndpoint) -> Result<(), Problem> {
        let mut state = self.state();
        if !state.endpoints.contains_key(&call.endpoint) {
            return Err(Problem::NoEndpoint(call.endpoint.clone()));
        }
        self.withdraw(&mut state, &call.endpoint)
    }

    /// Publishes the container's ports at this endpoint: it has become the container's way out.
    pub(super) fn program(&self, call: &OfEndpoint) -> Result<(), Problem> {
        let mut state = self.state();
        let host_binding = known(&state, &call.network)?.host_binding;
        let endpoint = state.endpoints.get(&call.endpoint);
        let endpoint = endpoint.ok_or_else(|| Problem::NoEndpoint(call.endpoint.clone()))?;
        let joined = endpoint.joined.as_ref();
        let id = joined.ok_or_else(|| Problem::NotJoined(call.endpoint.clone()))?.endpoint.clone();
        let wanted = options::ports(&call.options, host_binding)?;
        self.withdraw(&mut state, &call.endpoint)?;
        if wanted.is_empty() {
            return Ok(());
        }
        let published = self.switch.publish(&id, &wanted)?;
        let specs = published.iter().map(|p| PublishSpec {
            host_addr: p.host_addr,
            host_ports: Some(p.host_ports),
            ports: p.ports,
            proto: p.proto,
        });
        if let Some(endpoint) = state.endpoints.get_mut(&call.endpoint) {
            endpoint.published = specs.collect();
        }
        self.store.write(&state)
    }

    /// Takes back what was published: another endpoint has become the container's way out, or none.
    pub(super) fn revoke(&self, call: &OfEndpoint) -> Result<(), Problem> {
        self.withdraw(&mut self.state(), &call.endpoint)
    }

    fn withdraw(&self, state: &mut State, id: &str) -> Result<(), Problem> {
        let Some(endpoint) = state.endpoints.get_mut(id) else { return Ok(()) };
        let published = std::mem::take(&mut endpoint.published);
        if published.is_empty() {
            return Ok(());
        }
        if let Some(joined) = &endpoint.joined {
            for spec in &published {
                // Somebody may have taken it back by hand.
                match self.switch.unpublish(&joined.endpoint, spec) {
                    Err(Problem::Wharf {
                        code: Some(ErrorCode::NotFound | ErrorCode::Invalid),
                        ..
                    }) => {}
                    other => other?,
                }
            }
        }
        self.store.write(state)
    }
}

fn known<'a>(state: &'a State, network: &str) -> Result<&'a Network, Problem> {
    state.networks.get(network).ok_or_else(|| Problem::NoNetwork(network.to_owned()))
}

fn link_name(endpoint: &str) -> String {
    format!("wh{}", endpoint.get(..LINK_DIGITS).unwrap_or(endpoint))
}

/// Without a gateway Docker would add an interface on a bridge of its own; on an internal network it does
/// not, and a gateway there would become the container's default route.
fn answer(network: &Network, endpoint: &Endpoint, link: &str) -> Joined {
    let gateways = || network.spec.gateways.iter().filter(|_| !network.spec.internal);
    let (v4, v6) = endpoint.split();
    let gateway: Option<Ipv4Addr> = gateways().find_map(|gateway| match gateway {
        IpAddr::V4(ip) => v4.map(|_| *ip),
        IpAddr::V6(_) => None,
    });
    let gateway_v6: Option<Ipv6Addr> = gateways().find_map(|gateway| match gateway {
        IpAddr::V6(ip) => v6.map(|_| *ip),
        IpAddr::V4(_) => None,
    });
    Joined {
        interface_name: InterfaceName { src_name: link.to_owned(), dst_prefix: PREFIX.to_owned() },
        gateway,
        gateway_v6,
        disable_gateway_service: !network.spec.internal
            && gateway.is_none()
            && gateway_v6.is_none(),
    }
}

/// What is gone already need not be removed.
fn gone_is_fine(result: Result<(), Problem>) -> Result<(), Problem> {
    match result {
        Err(error) if error.is_missing() => Ok(()),
        other => other,
    }
}

impl Endpoint {
    /// Whether Docker means the same one.
    fn is_as(&self, other: &Self) -> bool {
        (&self.network, &self.addresses, self.mac) == (&other.network, &other.addresses, other.mac)
    }

    fn split(&self) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
        let v4 = self.addresses.iter().find_map(|net| match net.addr() {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        });
        let v6 = self.addresses.iter().find_map(|net| match net.addr() {
            IpAddr::V6(ip) => Some(ip),
            IpAddr::V4(_) => None,
        });
        (v4, v6)
    }
}
