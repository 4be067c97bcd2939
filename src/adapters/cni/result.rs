//! Results: written for each version, and read back as `prevResult`.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::conf::{Conf, Dns};
use super::error::CniError;
use super::request::Leased;
use super::version::Version;
use crate::attach::protocol::{Attached, RouteSpec};

/// The result of ADD: what an earlier plugin of the chain said, and ours.
pub(super) fn of_attachment(
    conf: &Conf,
    ifname: &str,
    sandbox: &str,
    attached: &Attached,
) -> Result<Value, CniError> {
    let mut result = match &conf.fields.prev_result {
        Some(Value::Object(previous)) => previous.clone(),
        None | Some(Value::Null) => Map::new(),
        Some(_) => return Err(CniError::configuration("prevResult is not an object")),
    };
    result.insert("cniVersion".to_owned(), json!(conf.version_text));
    let mut interface = json!({ "name": ifname, "mac": attached.mac, "sandbox": sandbox });
    if conf.version >= Version::V11 {
        interface["mtu"] = json!(attached.mtu);
    }
    let at = append(&mut result, "interfaces", vec![interface])?;
    append(&mut result, "ips", ips(conf.version, attached, at))?;
    append(&mut result, "routes", routes(attached))?;
    let own = dns(conf, attached);
    result.entry("dns").and_modify(|dns| merge(dns, &own)).or_insert(own);
    Ok(Value::Object(result))
}

/// Adds to a list of the result; the number of what was there before.
fn append(
    result: &mut Map<String, Value>,
    key: &str,
    mut more: Vec<Value>,
) -> Result<usize, CniError> {
    let list = result.entry(key).or_insert(Value::Null);
    if list.is_null() {
        *list = Value::Array(Vec::new());
    }
    let list = list.as_array_mut();
    let list =
        list.ok_or_else(|| CniError::configuration(format!("{key} of prevResult is no list")))?;
    let before = list.len();
    list.append(&mut more);
    Ok(before)
}

fn ips(version: Version, attached: &Attached, interface: usize) -> Vec<Value> {
    let ip = |net: &IpNet| {
        let v4 = net.addr().is_ipv4();
        let mut ip = json!({ "address": net, "interface": interface });
        if let Some(gateway) = attached.gateways.iter().find(|g| g.is_ipv4() == v4) {
            ip["gateway"] = json!(gateway);
        }
        if version < Version::V10 {
            ip["version"] = json!(if v4 { "4" } else { "6" });
        }
        ip
    };
    attached.addresses.iter().map(ip).collect()
}

fn routes(attached: &Attached) -> Vec<Value> {
    let defaults = attached
        .gateways
        .iter()
        .map(|gateway| RouteSpec { dst: everything(gateway.is_ipv6()), via: Some(*gateway) });
    let all = defaults.chain(attached.routes.iter().copied());
    all.map(|route| match route.via {
        Some(via) => json!({ "dst": route.dst, "gw": via }),
        None => json!({ "dst": route.dst }),
    })
    .collect()
}

/// The default route's destination.
pub(super) fn everything(v6: bool) -> IpNet {
    if v6 { Ipv6Net::default().into() } else { Ipv4Net::default().into() }
}

/// What the runtime asked for, else the file, else our own name server.
fn dns(conf: &Conf, attached: &Attached) -> Value {
    let runtime = conf.runtime().dns;
    let given = [runtime.as_ref(), conf.fields.dns.as_ref()];
    let list = |read: fn(&Dns) -> &Option<Vec<String>>| {
        let mut lists = given.iter().flatten().filter_map(|dns| read(dns).as_ref());
        lists.find(|list| !list.is_empty()).cloned()
    };
    let servers = list(|dns| &dns.nameservers)
        .unwrap_or_else(|| attached.dns.iter().map(ToString::to_string).collect());
    let search = list(|dns| &dns.search).unwrap_or_else(|| attached.search.clone());
    let domain = given.iter().flatten().find_map(|dns| dns.domain.clone());
    let mut dns = json!({});
    let fields = [
        ("nameservers", json!(servers)),
        ("domain", json!(domain.unwrap_or_default())),
        ("search", json!(search)),
        ("options", json!(list(|dns| &dns.options).unwrap_or_default())),
    ];
    for (key, value) in fields {
        let empty = value.as_array().is_some_and(Vec::is_empty) || value == json!("");
        if !empty {
            dns[key] = value;
        }
    }
    dns
}

/// An earlier plugin's word goes before ours.
fn merge(dns: &mut Value, own: &Value) {
    let (Some(dns), Some(own)) = (dns.as_object_mut(), own.as_object()) else {
        *dns = own.clone();
        return;
    };
    for (key, value) in own {
        dns.entry(key).or_insert_with(|| value.clone());
    }
}

/// What a result says, as far as anybody has to read it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Parsed {
    interfaces: Option<Vec<Interface>>,
    ips: Option<Vec<Ip>>,
    routes: Option<Vec<Route>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Interface {
    name: String,
    mac: String,
    sandbox: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Ip {
    address: IpNet,
    #[serde(default)]
    gateway: Option<IpAddr>,
    #[serde(default)]
    interface: Option<usize>,
}

#[derive(Clone, Debug, Deserialize)]
struct Route {
    dst: IpNet,
    #[serde(default)]
    gw: Option<IpAddr>,
}

/// What a result says about our interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Previous {
    pub(super) mac: String,
    pub(super) addresses: Vec<IpNet>,
    /// Of all interfaces: a route does not say whose it is.
    pub(super) routes: Vec<IpNet>,
}

/// Our part of the final result of ADD. Nothing if there is no such interface in it.
pub(super) fn previous(result: &Value, ifname: &str) -> Result<Option<Previous>, CniError> {
    let parsed = parse(result)?;
    let interfaces = parsed.interfaces.unwrap_or_default();
    let ours = interfaces.iter().position(|i| i.name == ifname && !i.sandbox.is_empty());
    let Some(at) = ours else { return Ok(None) };
    let ips = parsed.ips.unwrap_or_default().into_iter().filter(|ip| ip.interface == Some(at));
    let routes = parsed.routes.unwrap_or_default().into_iter().map(|route| route.dst);
    Ok(Some(Previous {
        mac: interfaces[at].mac.clone(),
        addresses: ips.map(|ip| ip.address).collect(),
        routes: routes.collect(),
    }))
}

/// What a delegated plugin answered, with the routes of its own.
pub(super) fn leased(result: &Value) -> Result<(Leased, Vec<RouteSpec>), CniError> {
    let parsed = parse(result)?;
    let ips = parsed.ips.unwrap_or_default().into_iter().map(|ip| (ip.address, ip.gateway));
    let routes = parsed.routes.unwrap_or_default().into_iter();
    let routes = routes.map(|route| RouteSpec { dst: route.dst, via: route.gw });
    Ok((Leased { ips: ips.collect() }, routes.collect()))
}

fn parse(result: &Value) -> Result<Parsed, CniError> {
    Parsed::deserialize(result)
        .map_err(|error| CniError::configuration(format!("a result that cannot be read: {error}")))
}

/// For the fuzzer: no result makes us panic.
pub(super) fn fuzz_previous(result: &Value) {
    let _ = previous(result, "eth0");
    let _ = leased(result);
}
