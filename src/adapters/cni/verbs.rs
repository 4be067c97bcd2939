//! The verbs.

use std::collections::BTreeSet;

use serde_json::Value;

use super::attach::{Delegated, attach};
use super::conf::Conf;
use super::delegate;
use super::environment::{Environment, Verb};
use super::error::{CniError, Code};
use super::request::{self, IFNAME_LABEL, NETWORK_LABEL};
use super::result::{self, Previous, everything};
use super::version::Version;
use crate::adapters::attaching::{self, Trouble};
use crate::api::client::{Client, ClientError};
use crate::api::paths::RuntimeDir;
use crate::attach::protocol::AttachRequest;
use crate::attach::protocol::RouteSpec;
use crate::control::model::{EndpointInfo, ErrorCode};
use crate::io::fdpass::Connection;
use crate::io::netlink::Netlink;
use crate::io::netns::{NetNs, in_namespace};
use crate::io::process::{may_make_namespaces, run_as_owner_of};

/// Serves a verb; what is to be printed.
pub(super) fn run(
    verb: Verb,
    environment: &Environment,
    conf: &Conf,
    input: &[u8],
) -> Result<Option<String>, CniError> {
    let since = match verb {
        Verb::Check => Version::V04,
        Verb::Gc | Verb::Status => Version::V11,
        _ => Version::V03,
    };
    if conf.version < since {
        let name = format!("{verb:?}").to_uppercase();
        let msg = format!("config version does not allow {name}");
        return Err(CniError::new(Code::IncompatibleVersion, msg));
    }
    let call = Call { environment, conf, input, dir: runtime_dir(environment, conf) };
    match verb {
        Verb::Add => call.add().map(Some),
        Verb::Del => call.del().map(|()| None),
        Verb::Check => call.check().map(|()| None),
        Verb::Gc => call.gc().map(|()| None),
        Verb::Status => call.status().map(|()| None),
        Verb::Version => Ok(None),
    }
}

/// The configuration's word, the environment's, or the usual place.
fn runtime_dir(environment: &Environment, conf: &Conf) -> RuntimeDir {
    let given = conf.fields.runtime_dir.clone().or_else(|| environment.runtime_dir());
    given.map_or_else(RuntimeDir::of_this_user, RuntimeDir::new)
}

struct Call<'a> {
    environment: &'a Environment,
    conf: &'a Conf,
    input: &'a [u8],
    dir: RuntimeDir,
}

impl Call<'_> {
    fn client(&self) -> Client {
        Client::new(&self.dir)
    }

    fn ifname(&self) -> Result<&str, CniError> {
        request::interface(self.conf, self.environment)
    }

    /// The container's namespace, which is not the runtime's own unless it says so.
    fn namespace(&self) -> Result<NetNs, CniError> {
        let path = self.environment.netns().unwrap_or_default();
        let target = NetNs::open(&path).map_err(|error| {
            CniError::new(Code::UnknownContainer, format!("CNI_NETNS: {error}"))
        })?;
        let own = NetNs::current().ok().and_then(|own| own.id().ok());
        if own.is_some() && own == target.id().ok() && !self.environment.may_be_own_netns() {
            let msg = "plugin's netns and netns from CNI_NETNS should not be the same";
            return Err(CniError::new(Code::InvalidNamespace, msg));
        }
        Ok(target)
    }

    fn delegate(&self, verb: &str) -> Result<Option<Value>, CniError> {
        let Some(kind) = self.conf.foreign_ipam() else { return Ok(None) };
        delegate::run(self.environment, kind, verb, self.input)
    }

    fn add(&self) -> Result<String, CniError> {
        let target = self.namespace()?;
        let request = request::attach(self.conf, self.environment)?;
        if self.conf.foreign_ipam().is_none() {
            return self.add_delegated(&target, request);
        }
        // Asked before anything is leased: what follows a failure would give back what a first ADD of the
        // same interface holds.
        let there = || Netlink::open().and_then(|mut netlink| netlink.link(&request.ifname));
        if may_make_namespaces() && matches!(in_namespace(&target, there), Ok(Ok(_))) {
            return Err(Trouble::NameTaken(request.ifname).into());
        }
        let done = self.add_delegated(&target, request);
        if done.is_err() {
            // Whatever was leased would never be given back: a failed ADD need not be followed by a DEL.
            let _ = self.delegate("DEL");
        }
        done
    }

    fn add_delegated(
        &self,
        target: &NetNs,
        mut request: AttachRequest,
    ) -> Result<String, CniError> {
        let mut delegated = Delegated::default();
        if self.conf.foreign_ipam().is_some() {
            let answer = self.delegate("ADD")?.unwrap_or_default();
            let (leased, routes) = result::leased(&answer)?;
            if leased.ips.is_empty() {
                return Err(CniError::configuration("the IPAM plugin gave no address"));
            }
            request::wish(&mut request, leased.ips.iter().map(|(net, _)| net.addr()))?;
            let (defaults, further): (Vec<_>, Vec<_>) =
                routes.into_iter().partition(|route| route.dst.prefix_len() == 0);
            delegated.default_routes = defaults.iter().map(|route: &RouteSpec| route.dst).collect();
            delegated.routes = further;
            delegated.leased = leased;
        }
        let own_name = request::own_name(self.environment);
        let attached = attach(self.conf, &self.dir, target, request, own_name, &delegated)?;
        let sandbox = self.environment.netns().unwrap_or_default();
        let sandbox = sandbox.to_string_lossy();
        let result = result::of_attachment(self.conf, self.ifname()?, &sandbox, &attached);
        if result.is_err() {
            let _ = self.client().detach(&attached.endpoint, None);
        }
        Ok(result?.to_string())
    }

    /// As much as can be done: a runtime asks until this succeeds.
    fn del(&self) -> Result<(), CniError> {
        let (id, ifname) = (self.environment.container_id(), self.ifname()?);
        let macs: Vec<String> = match self.client().detach_container(id, Some(ifname)) {
            Ok(gone) => gone.iter().map(|endpoint| endpoint.mac.to_string()).collect(),
            // Without its interface the endpoint is gone, too, when the daemon comes back.
            Err(ClientError::Http(_)) => self.previous()?.into_iter().map(|p| p.mac).collect(),
            Err(error) => return Err(error.into()),
        };
        if let Some(netns) = self.environment.netns() {
            attaching::remove_interface(&netns, ifname, &macs);
        }
        self.delegate("DEL").map(drop)
    }

    /// The interface as ADD left it, if the runtime remembers.
    fn previous(&self) -> Result<Option<Previous>, CniError> {
        match &self.conf.fields.prev_result {
            Some(result) if !result.is_null() => result::previous(result, self.ifname()?),
            _ => Ok(None),
        }
    }

    fn check(&self) -> Result<(), CniError> {
        let target = self.namespace()?;
        let ifname = self.ifname()?;
        let previous = self.previous()?.ok_or_else(|| {
            CniError::configuration(format!("CHECK needs a prevResult that has {ifname}"))
        })?;
        let endpoints =
            self.client().endpoints_of(self.environment.container_id(), Some(ifname))?;
        let endpoint = endpoints.first().ok_or_else(|| {
            differs(format!("the daemon has no endpoint {ifname} of this container"))
        })?;
        let wanted = request::attach(self.conf, self.environment)?.publish;
        check_endpoint(endpoint, &previous, &wanted)?;
        let look = || look(ifname, &previous).map_err(|error| error.to_string());
        let complaint = if may_make_namespaces() {
            in_namespace(&target, look).map_err(|error| error.to_string()).and_then(|looked| looked)
        } else {
            let report = run_as_owner_of(&target, || {
                let looked = in_namespace(&target, look).map_err(|error| error.to_string());
                Ok(looked.and_then(|l| l)?.unwrap_or_default().into_bytes())
            });
            let text = report.map_err(|error| error.to_string());
            text.map(|b| Some(String::from_utf8_lossy(&b).into_owned()).filter(|t| !t.is_empty()))
        };
        match complaint {
            Ok(None) => self.delegate("CHECK").map(drop),
            Ok(Some(complaint)) => Err(differs(complaint)),
            Err(error) => Err(CniError::new(Code::Interface, error)),
        }
    }

    /// Detaches what this network no longer has for the runtime. One that cannot be detached does not
    /// keep the others.
    fn gc(&self) -> Result<(), CniError> {
        let valid = self.conf.still_valid().ok_or_else(|| {
            CniError::configuration("GC needs the list `cni.dev/valid-attachments`")
        })?;
        let valid: BTreeSet<(&str, &str)> =
            valid.iter().map(|a| (a.container_id.as_str(), a.ifname.as_str())).collect();
        let client = self.client();
        let mut failures = Vec::new();
        for endpoint in client.endpoints()? {
            let label = |name: &str| endpoint.labels.get(name).map(String::as_str);
            let ours = label(NETWORK_LABEL) == Some(&self.conf.fields.name);
            let id = endpoint.container_id.as_deref().unwrap_or_default();
            if !ours || valid.contains(&(id, label(IFNAME_LABEL).unwrap_or_default())) {
                continue;
            }
            match client.detach(&endpoint.id, None) {
                Ok(_) => {}
                // It ended by itself meanwhile.
                Err(ClientError::Refused(body)) if body.code == ErrorCode::NotFound => {}
                Err(error) => failures.push(format!("{}: {error}", endpoint.name)),
            }
        }
        if let Err(error) = self.delegate("GC")
            && error.code != Code::InvalidEnvironment as u32
        {
            failures.push(error.msg);
        }
        if failures.is_empty() {
            return Ok(());
        }
        Err(CniError::new(Code::Daemon, failures.join("; ")))
    }

    /// Whether an ADD could succeed now.
    fn status(&self) -> Result<(), CniError> {
        let not_available = |msg: String| CniError::new(Code::NotAvailable, msg);
        let network = match self.client().network(request::network_name(self.conf)) {
            Ok(network) => network,
            Err(ClientError::Refused(body)) if body.code == ErrorCode::NotFound => {
                if self.conf.fields.network.is_some() {
                    return Err(not_available(body.message));
                }
                return self.ipam_status();
            }
            Err(error) => {
                let msg = format!("the daemon does not serve: {error}");
                // Somebody keeps interfaces of containers for it: these are cut off until it is back.
                let cut_off = Connection::connect(&self.dir.holder_socket()).is_ok();
                let code = if cut_off { Code::LimitedConnectivity } else { Code::NotAvailable };
                let hint = error.hint().unwrap_or_default();
                return Err(CniError::new(code, msg).details(hint));
            }
        };
        let full = network.subnets.iter().find(|subnet| subnet.used >= subnet.capacity);
        match full {
            Some(subnet) => Err(not_available(format!(
                "no address is left in {} of network {}",
                subnet.subnet, network.name
            ))),
            None => self.ipam_status(),
        }
    }

    /// A plugin of the time before STATUS does not know it, and is taken to be ready.
    fn ipam_status(&self) -> Result<(), CniError> {
        match self.delegate("STATUS") {
            Err(error) if error.code != Code::InvalidEnvironment as u32 => {
                Err(CniError { code: error.code.max(Code::NotAvailable as u32), ..error })
            }
            _ => Ok(()),
        }
    }
}

fn differs(msg: String) -> CniError {
    CniError::new(Code::Differs, msg)
}

/// Whether the daemon's endpoint is what ADD's result says, and publishes what is to be published.
fn check_endpoint(
    endpoint: &EndpointInfo,
    previous: &Previous,
    publish: &[String],
) -> Result<(), CniError> {
    if !previous.mac.eq_ignore_ascii_case(&endpoint.mac.to_string()) {
        return Err(differs(format!(
            "the endpoint's MAC is {}, and was {}",
            endpoint.mac, previous.mac
        )));
    }
    if let Some(net) = previous.addresses.iter().find(|net| !endpoint.addresses.contains(net)) {
        return Err(differs(format!("the endpoint has lost the address {net}")));
    }
    if endpoint.published.len() < publish.len() {
        return Err(differs(format!(
            "{} publications are left of {}",
            endpoint.published.len(),
            publish.len()
        )));
    }
    Ok(())
}

/// What is wrong with the interface in the calling thread's namespace, if anything is.
fn look(
    ifname: &str,
    previous: &Previous,
) -> Result<Option<String>, crate::io::netlink::NetlinkError> {
    let mut netlink = Netlink::open()?;
    let Ok(link) = netlink.link(ifname) else {
        return Ok(Some(format!("the interface {ifname} is gone")));
    };
    let mac = link.mac.map(|mac| mac.to_string()).unwrap_or_default();
    if !mac.eq_ignore_ascii_case(&previous.mac) {
        return Ok(Some(format!("{ifname} has the MAC {mac}, and had {}", previous.mac)));
    }
    if !link.up {
        return Ok(Some(format!("{ifname} is down")));
    }
    let addresses = netlink.addresses()?;
    let has = |net: &ipnet::IpNet| addresses.iter().any(|a| a.index == link.index && a.net == *net);
    if let Some(net) = previous.addresses.iter().find(|net| !has(net)) {
        return Ok(Some(format!("{ifname} has lost the address {net}")));
    }
    let routes = netlink.routes()?;
    let families = |v6: bool| previous.addresses.iter().any(|net| net.addr().is_ipv6() == v6);
    let lost = previous.routes.iter().find(|dst| {
        let v6 = dst.addr().is_ipv6();
        families(v6) && !routes.iter().any(|route| route.destination == **dst)
    });
    Ok(lost.map(|dst| {
        let what =
            if *dst == everything(dst.addr().is_ipv6()) { "the default route" } else { "a route" };
        format!("{what} to {dst} is gone")
    }))
}
