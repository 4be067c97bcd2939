//! The configuration on standard input.
//!
//! Unknown keys are let pass, so that a conflist of the `bridge` plugin works when only its `type` is
//! changed. Go writes empty lists as `null`, so every list may be that.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use super::error::CniError;
use super::version::{self, Version};
use crate::attach::protocol::{RateLimit, RateLimits, RouteSpec};
use crate::wire::mac::Mac;

/// A configuration whose version is spoken and whose network has a name.
#[derive(Clone, Debug)]
pub(super) struct Conf {
    pub(super) version: Version,
    /// The version as it was written: results and errors repeat it.
    pub(super) version_text: String,
    pub(super) fields: Fields,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Fields {
    cni_version: Option<String>,
    pub(super) name: String,
    /// A network of the daemon that exists already; without it one of this name is made at first use.
    pub(super) network: Option<String>,
    pub(super) runtime_dir: Option<PathBuf>,
    /// A name for our interface other than `CNI_IFNAME`, which in a chain an earlier plugin may have taken.
    pub(super) interface_name: Option<String>,
    pub(super) mtu: Option<u16>,
    pub(super) internal: Option<bool>,
    pub(super) isolated: Option<bool>,
    pub(super) icc: Option<bool>,
    pub(super) host: Option<bool>,
    pub(super) uplink: Option<String>,
    pub(super) is_default_gateway: Option<bool>,
    pub(super) ipam: Option<Ipam>,
    pub(super) dns: Option<Dns>,
    pub(super) args: Option<Args>,
    pub(super) runtime_config: Option<RuntimeConfig>,
    pub(super) prev_result: Option<Value>,
    #[serde(rename = "cni.dev/valid-attachments")]
    valid_attachments: Option<Vec<Attachment>>,
    #[serde(rename = "cni.dev/attachments")]
    attachments: Option<Vec<Attachment>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Ipam {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    ranges: Option<Vec<Vec<Range>>>,
    #[serde(flatten)]
    single: SingleRange,
    pub(super) routes: Option<Vec<Route>>,
}

/// The oldest form: one range, written into `ipam` itself.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SingleRange {
    subnet: Option<IpNet>,
    range_start: Option<IpAddr>,
    range_end: Option<IpAddr>,
    gateway: Option<IpAddr>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(clippy::struct_field_names, reason = "the words of the protocol")]
pub(super) struct Range {
    pub(super) subnet: IpNet,
    #[serde(default)]
    pub(super) range_start: Option<IpAddr>,
    #[serde(default)]
    pub(super) range_end: Option<IpAddr>,
    #[serde(default)]
    pub(super) gateway: Option<IpAddr>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub(super) struct Route {
    pub(super) dst: IpNet,
    #[serde(default)]
    pub(super) gw: Option<IpAddr>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Dns {
    /// `servers` in `runtimeConfig`.
    #[serde(alias = "servers")]
    pub(super) nameservers: Option<Vec<String>>,
    pub(super) domain: Option<String>,
    #[serde(alias = "searches")]
    pub(super) search: Option<Vec<String>>,
    pub(super) options: Option<Vec<String>>,
}

/// `args.cni`, which the conventions have for what is not a capability.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Args {
    cni: Option<CniArgs>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct CniArgs {
    ips: Option<Vec<String>>,
    labels: Option<Vec<Label>>,
}

#[derive(Clone, Debug, Deserialize)]
struct Label {
    key: String,
    value: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RuntimeConfig {
    pub(super) port_mappings: Option<Vec<PortMapping>>,
    pub(super) bandwidth: Option<Bandwidth>,
    ip_ranges: Option<Vec<Vec<Range>>>,
    ips: Option<Vec<String>>,
    pub(super) mac: Option<Mac>,
    pub(super) dns: Option<Dns>,
    pub(super) aliases: Option<Aliases>,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PortMapping {
    #[serde(default)]
    pub(super) host_port: i64,
    pub(super) container_port: i64,
    #[serde(default)]
    pub(super) protocol: Option<String>,
    #[serde(default, rename = "hostIP")]
    pub(super) host_ip: Option<String>,
}

/// Bits a second, and bits; from the container's point of view.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Bandwidth {
    ingress_rate: u64,
    ingress_burst: u64,
    egress_rate: u64,
    egress_burst: u64,
}

/// The conventions say a list; Podman says lists by network.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Aliases {
    List(Vec<String>),
    ByNetwork(BTreeMap<String, Vec<String>>),
}

/// One that is still wanted (GC).
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub(super) struct Attachment {
    #[serde(rename = "containerID")]
    pub(super) container_id: String,
    pub(super) ifname: String,
}

/// Reads a configuration. `version` becomes its version as soon as that is known.
pub(super) fn parse(input: &[u8], version: &mut String) -> Result<Conf, CniError> {
    let fields: Fields = serde_json::from_slice(input).map_err(|error| CniError::decode(&error))?;
    let (known, text) = version::of_configuration(fields.cni_version.as_deref())?;
    text.clone_into(version);
    check_name(&fields.name)?;
    Ok(Conf { version: known, version_text: text.to_owned(), fields })
}

fn check_name(name: &str) -> Result<(), CniError> {
    if name.is_empty() {
        return Err(CniError::configuration("missing network name"));
    }
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    if name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.bytes().all(inner) {
        return Ok(());
    }
    Err(CniError::configuration("invalid characters found in network name").details(name))
}

impl Conf {
    pub(super) fn runtime(&self) -> RuntimeConfig {
        self.fields.runtime_config.clone().unwrap_or_default()
    }

    /// The plugin that gives addresses, if it is not ourselves.
    pub(super) fn foreign_ipam(&self) -> Option<&str> {
        let kind = self.fields.ipam.as_ref()?.kind.as_deref()?;
        Some(kind).filter(|kind| !kind.is_empty() && *kind != "wharf" && *kind != "wharf-cni")
    }

    /// Ranges to choose from: one list for each address. The runtime's go before the file's.
    pub(super) fn ranges(&self) -> Vec<Vec<Range>> {
        let given = self.fields.runtime_config.as_ref().and_then(|r| r.ip_ranges.clone());
        if let Some(given) = given.filter(|sets| !sets.is_empty()) {
            return given;
        }
        let Some(ipam) = &self.fields.ipam else { return Vec::new() };
        let mut sets = ipam.ranges.clone().unwrap_or_default();
        let SingleRange { subnet, range_start, range_end, gateway } = ipam.single;
        if let Some(subnet) = subnet {
            sets.insert(0, vec![Range { subnet, range_start, range_end, gateway }]);
        }
        sets.retain(|set| !set.is_empty());
        sets
    }

    /// Addresses that are asked for by name.
    pub(super) fn wished(&self) -> Result<Vec<IpAddr>, CniError> {
        let runtime = self.fields.runtime_config.as_ref().and_then(|r| r.ips.as_ref());
        let args = self.fields.args.as_ref().and_then(|a| a.cni.as_ref());
        let args = args.and_then(|a| a.ips.as_ref());
        let texts = runtime.or(args).into_iter().flatten();
        texts.map(|text| address(text)).collect()
    }

    pub(super) fn labels(&self) -> impl Iterator<Item = (String, String)> {
        let args = self.fields.args.as_ref().and_then(|a| a.cni.as_ref());
        let labels = args.and_then(|a| a.labels.as_ref()).into_iter().flatten();
        labels.map(|label| (label.key.clone(), label.value.clone()))
    }

    pub(super) fn routes(&self) -> Vec<RouteSpec> {
        let routes = self.fields.ipam.as_ref().and_then(|ipam| ipam.routes.as_ref());
        let routes = routes.into_iter().flatten();
        routes.map(|route| RouteSpec { dst: route.dst, via: route.gw }).collect()
    }

    /// Attachments that are still wanted; nothing if the runtime said nothing.
    pub(super) fn still_valid(&self) -> Option<&[Attachment]> {
        let fields = &self.fields;
        fields.valid_attachments.as_deref().or(fields.attachments.as_deref())
    }
}

impl Bandwidth {
    /// A rate of nothing is no limit.
    pub(super) fn limits(self) -> Result<RateLimits, CniError> {
        let limit = |what: &str, rate: u64, burst: u64| match (rate, burst) {
            (0, 0) => Ok(None),
            (0, _) => {
                Err(CniError::configuration(format!("bandwidth: {what}Burst without a rate")))
            }
            (rate, burst) => Ok(Some(RateLimit { rate, burst: Some(burst).filter(|b| *b > 0) })),
        };
        Ok(RateLimits {
            ingress: limit("ingress", self.ingress_rate, self.ingress_burst)?,
            egress: limit("egress", self.egress_rate, self.egress_burst)?,
        })
    }
}

impl Aliases {
    pub(super) fn on(&self, network: &str) -> Vec<String> {
        match self {
            Self::List(all) => all.clone(),
            Self::ByNetwork(all) => all.get(network).cloned().unwrap_or_default(),
        }
    }
}

/// An address with or without a prefix length.
fn address(text: &str) -> Result<IpAddr, CniError> {
    let addr = text.split_once('/').map_or(text, |(addr, _)| addr);
    addr.parse().map_err(|_| CniError::configuration(format!("`{text}` in ips is no address")))
}

/// Reads anything as a configuration, for the fuzzer: it must never panic.
#[doc(hidden)]
pub fn fuzz_configuration(input: &[u8]) {
    let mut version = String::new();
    let Ok(conf) = parse(input, &mut version) else { return };
    let environment = super::Environment::read(|name| match name {
        "CNI_CONTAINERID" => Some("fuzz".to_owned()),
        "CNI_IFNAME" => Some("eth0".to_owned()),
        _ => None,
    });
    let _ = super::request::attach(&conf, &environment);
    let _ = super::request::network(&conf, &[]);
    let _ = version::report(input);
    if let Some(previous) = &conf.fields.prev_result {
        super::result::fuzz_previous(previous);
    }
}
