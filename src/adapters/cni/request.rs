//! From a configuration to what the daemon is asked for. Pure.

use std::net::IpAddr;

use ipnet::IpNet;

use super::conf::{Conf, PortMapping, Range};
use super::environment::{Environment, check_ifname};
use super::error::{CniError, Code};
use crate::attach::protocol::{AddressSpan, AttachRequest};
use crate::control::model::NetworkSpec;

/// Label of an endpoint: the runtime's name of its network.
pub(super) const NETWORK_LABEL: &str = "dev.cni.network";
/// Label of an endpoint: the runtime's name of its interface.
pub(super) const IFNAME_LABEL: &str = "dev.cni.ifname";
/// Characters of a container's id that make its name.
const SHORT_ID: usize = 12;
/// Longest name of a container.
const NAME_MAX: usize = crate::base::limits::NAME_MAX;
/// Arguments of Kubernetes' runtimes and Podman, and the labels that they become.
const POD_NAME: &str = "K8S_POD_NAME";
const POD_LABELS: [(&str, &str); 3] = [
    (POD_NAME, "io.kubernetes.pod.name"),
    ("K8S_POD_NAMESPACE", "io.kubernetes.pod.namespace"),
    ("K8S_POD_UID", "io.kubernetes.pod.uid"),
];

/// What a delegated plugin gave.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Leased {
    /// Addresses with their subnets' lengths, each with its gateway.
    pub(super) ips: Vec<(IpNet, Option<IpAddr>)>,
}

/// The name of the daemon's network.
pub(super) fn network_name(conf: &Conf) -> &str {
    conf.fields.network.as_deref().unwrap_or(&conf.fields.name)
}

/// The name of our interface in the container.
pub(super) fn interface<'a>(
    conf: &'a Conf,
    environment: &'a Environment,
) -> Result<&'a str, CniError> {
    let Some(name) = conf.fields.interface_name.as_deref() else { return Ok(environment.ifname()) };
    check_ifname("interfaceName", name)
        .map_err(|error| CniError::configuration(error.msg))
        .map(|()| name)
}

/// A name that is the container's own for certain, should the one in the request be somebody else's.
pub(super) fn own_name(environment: &Environment) -> String {
    environment.container_id().chars().take(SHORT_ID).collect()
}

/// The request for an attachment, but for what a delegated plugin has to say.
pub(super) fn attach(conf: &Conf, environment: &Environment) -> Result<AttachRequest, CniError> {
    let ifname = interface(conf, environment)?;
    let runtime = conf.runtime();
    let mut request = AttachRequest::new(network_name(conf), ifname);
    let args = environment.args()?;
    let pod = args.get(POD_NAME).filter(|name| is_name(name));
    request.name = Some(pod.map_or_else(|| own_name(environment), |name| (*name).to_owned()));
    request.container_id = Some(environment.container_id().to_owned());
    request.labels.extend(conf.labels());
    for (argument, label) in POD_LABELS {
        if let Some(value) = args.get(argument) {
            request.labels.insert(label.to_owned(), (*value).to_owned());
        }
    }
    request.labels.insert(NETWORK_LABEL.to_owned(), conf.fields.name.clone());
    request.labels.insert(IFNAME_LABEL.to_owned(), environment.ifname().to_owned());
    request.aliases = runtime.aliases.map(|a| a.on(&conf.fields.name)).unwrap_or_default();
    // An alias that is the name already would be refused as taken, and one that DNS has no use for.
    request.aliases.retain(|alias| is_name(alias));
    request.mac = runtime.mac;
    request.publish = publish(runtime.port_mappings.unwrap_or_default())?;
    request.rate = runtime.bandwidth.unwrap_or_default().limits()?;
    if conf.foreign_ipam().is_none() {
        wish(&mut request, conf.wished()?)?;
        request.within = spans(conf)?;
    }
    Ok(request)
}

/// Addresses by name: at most one of each family.
pub(super) fn wish(
    request: &mut AttachRequest,
    addresses: impl IntoIterator<Item = IpAddr>,
) -> Result<(), CniError> {
    for addr in addresses {
        let twice = match addr {
            IpAddr::V4(v4) => request.ip.replace(v4).is_some(),
            IpAddr::V6(v6) => request.ip6.replace(v6).is_some(),
        };
        if twice {
            let msg =
                format!("{addr} is a second address of its family; an interface has one of each");
            return Err(CniError::configuration(msg));
        }
    }
    Ok(())
}

/// The network, as the configuration describes it.
pub(super) fn network(
    conf: &Conf,
    leased: &[(IpNet, Option<IpAddr>)],
) -> Result<NetworkSpec, CniError> {
    let fields = &conf.fields;
    let mut spec = NetworkSpec::named(&fields.name);
    if conf.foreign_ipam().is_some() {
        for (net, gateway) in leased {
            spec.subnets.push(net.trunc());
            spec.gateways.extend(gateway);
        }
    } else {
        for set in subnets(conf)? {
            spec.subnets.push(set.subnet.trunc());
            spec.gateways.extend(set.gateway);
        }
    }
    spec.internal = fields.internal.unwrap_or(spec.internal);
    spec.isolated = fields.isolated.unwrap_or(spec.isolated);
    spec.icc = fields.icc.unwrap_or(spec.icc);
    spec.host = fields.host.unwrap_or(spec.host);
    spec.uplink.clone_from(&fields.uplink);
    // Go writes what was left out as 0.
    spec.mtu = fields.mtu.filter(|mtu| *mtu > 0);
    Ok(spec)
}

/// Where addresses may be chosen. Each set of ranges is one address, and lies in one subnet.
fn spans(conf: &Conf) -> Result<Vec<AddressSpan>, CniError> {
    subnets(conf)?;
    let ranges = conf.ranges();
    let spans = ranges.iter().flatten().map(|range| {
        let subnet = range.subnet.trunc();
        let first = range.range_start.unwrap_or(subnet.network());
        let last = range.range_end.unwrap_or(subnet.broadcast());
        if !subnet.contains(&first) || !subnet.contains(&last) {
            let msg = format!("the range from {first} to {last} does not lie in {subnet}");
            return Err(CniError::configuration(msg));
        }
        if first > last {
            let msg = format!("the range from {first} to {last} ends before it begins");
            return Err(CniError::configuration(msg));
        }
        Ok(AddressSpan { first, last })
    });
    spans.collect()
}

/// The first range of each set, which names its subnet.
fn subnets(conf: &Conf) -> Result<Vec<Range>, CniError> {
    let mut firsts: Vec<Range> = Vec::new();
    for set in conf.ranges() {
        let Some(first) = set.first().copied() else { continue };
        if let Some(other) = set.iter().find(|range| range.subnet.trunc() != first.subnet.trunc()) {
            let msg = format!(
                "a set of ranges has both {} and {}: a network has one subnet of each family",
                first.subnet, other.subnet
            );
            return Err(CniError::configuration(msg));
        }
        let v4 = first.subnet.addr().is_ipv4();
        if let Some(other) = firsts.iter().find(|range| range.subnet.addr().is_ipv4() == v4) {
            let msg = format!(
                "{} and {} are of one family: a network has one subnet of each",
                other.subnet, first.subnet
            );
            return Err(CniError::configuration(msg));
        }
        firsts.push(first);
    }
    Ok(firsts)
}

/// Docker's words for port mappings. Runtimes list every port of a range; neighbours become a range
/// again, which is one publication instead of hundreds.
fn publish(mappings: Vec<PortMapping>) -> Result<Vec<String>, CniError> {
    let mut ports = mappings.into_iter().map(port).collect::<Result<Vec<_>, _>>()?;
    ports.sort();
    ports.dedup();
    let mut runs: Vec<(Port, u16)> = Vec::new();
    for port in ports {
        match runs.last_mut() {
            Some((first, more)) if first.is_followed_by(&port, *more) => *more += 1,
            _ => runs.push((port, 0)),
        }
    }
    Ok(runs.into_iter().map(|(first, more)| first.in_words(more)).collect())
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Port {
    proto: String,
    host_ip: Option<IpAddr>,
    host: u16,
    container: u16,
}

fn port(mapping: PortMapping) -> Result<Port, CniError> {
    let proto = mapping.protocol.filter(|proto| !proto.is_empty());
    let proto = proto.map_or_else(|| "tcp".to_owned(), |proto| proto.to_ascii_lowercase());
    if !["tcp", "udp", "sctp"].contains(&proto.as_str()) {
        let msg = format!("portMappings: protocol `{proto}` is not one of tcp, udp and sctp");
        return Err(CniError::new(Code::UnsupportedField, msg));
    }
    let number = |what: &str, value: i64, least: u16| {
        u16::try_from(value).ok().filter(|port| *port >= least).ok_or_else(|| {
            CniError::configuration(format!("portMappings: {what} {value} is not a port"))
        })
    };
    let host_ip = match mapping.host_ip.as_deref() {
        None | Some("") => None,
        Some(text) => Some(text.parse().map_err(|_| {
            CniError::configuration(format!("portMappings: hostIP `{text}` is no address"))
        })?),
    };
    Ok(Port {
        host: number("hostPort", mapping.host_port, 0)?,
        container: number("containerPort", mapping.container_port, 1)?,
        proto,
        host_ip,
    })
}

impl Port {
    /// Whether `other` comes right after a run that begins here and has `more` ports besides.
    fn is_followed_by(&self, other: &Self, more: u16) -> bool {
        let next = |port: u16| port.checked_add(more)?.checked_add(1);
        // Port 0 lets the daemon choose, and has no neighbour.
        self.host != 0
            && self.proto == other.proto
            && self.host_ip == other.host_ip
            && next(self.host) == Some(other.host)
            && next(self.container) == Some(other.container)
    }

    fn in_words(&self, more: u16) -> String {
        let host_ip = match self.host_ip {
            None => String::new(),
            Some(IpAddr::V4(v4)) => format!("{v4}:"),
            Some(IpAddr::V6(v6)) => format!("[{v6}]:"),
        };
        let range = |first: u16| {
            if more == 0 { first.to_string() } else { format!("{first}-{}", first + more) }
        };
        format!("{host_ip}{}:{}/{}", range(self.host), range(self.container), self.proto)
    }
}

fn is_name(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    text.len() <= NAME_MAX
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(inner)
}
