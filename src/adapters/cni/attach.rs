//! ADD's conversation with the daemon, and what the configuration makes of its answer.

use super::conf::Conf;
use super::error::CniError;
use super::request::{self, Leased};
use super::result::everything;
use crate::adapters::attaching::{self, Wish};
use crate::api::paths::RuntimeDir;
use crate::attach::protocol::{AttachRequest, Attached, RouteSpec};
use crate::io::netns::NetNs;

/// What a delegated plugin said about addresses and routes.
#[derive(Debug, Default)]
pub(super) struct Delegated {
    pub(super) leased: Leased,
    pub(super) default_routes: Vec<ipnet::IpNet>,
    pub(super) routes: Vec<RouteSpec>,
}

/// Attaches `target`. A network that the daemon does not know is made if the configuration describes it;
/// a pod's name that is taken makes way for the container's own.
pub(super) fn attach(
    conf: &Conf,
    dir: &RuntimeDir,
    target: &NetNs,
    request: AttachRequest,
    own_name: String,
    delegated: &Delegated,
) -> Result<Attached, CniError> {
    let own_name = Some(own_name).filter(|own| request.name.as_ref() != Some(own));
    let network = match conf.fields.network {
        Some(_) => None,
        None => Some(request::network(conf, &delegated.leased.ips)?),
    };
    let wish = Wish { dir, target, request, own_name, network };
    let amend = |attached: &mut Attached| amend(conf, delegated, attached);
    attaching::attach(wish, &amend).map_err(CniError::from)
}

/// The configuration's last word on what the daemon said.
fn amend(conf: &Conf, delegated: &Delegated, attached: &mut Attached) {
    if let Some(mtu) = conf.fields.mtu.filter(|mtu| *mtu > 0) {
        attached.mtu = attached.mtu.min(mtu.into());
    }
    // As the bridge plugin has it: a delegated plugin's routes say whether one is the default.
    let wanted = |v6: bool| match conf.fields.is_default_gateway {
        Some(wanted) => wanted,
        None if conf.foreign_ipam().is_some() => delegated.default_routes.contains(&everything(v6)),
        None => true,
    };
    let own: Vec<RouteSpec> = conf.routes().into_iter().chain(delegated.routes.clone()).collect();
    let described = |v6: bool| own.iter().any(|route| route.dst == everything(v6));
    attached.gateways.retain(|gateway| wanted(gateway.is_ipv6()) || described(gateway.is_ipv6()));
    for mut route in own {
        let v6 = route.dst.addr().is_ipv6();
        if route.dst == everything(v6) {
            continue;
        }
        let gateway = attached.gateways.iter().copied().find(|gateway| gateway.is_ipv6() == v6);
        route.via = route.via.or(gateway);
        if !attached.routes.contains(&route) {
            attached.routes.push(route);
        }
    }
}
