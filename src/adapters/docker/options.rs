//! What `docker network create` can be told: Docker's own options of its bridge driver, and ours.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use serde_json::Value;

use super::messages::{CreateNetwork, IpamData, Options, PortBinding};
use super::problem::Problem;
use super::state::Network;
use crate::control::model::{NetworkSpec, PortRange, Proto, PublishSpec};

/// Where Docker puts the user's options.
const GENERIC: &str = "com.docker.network.generic";
const INTERNAL: &str = "com.docker.network.internal";
/// Where it puts a sandbox's published ports.
const PORTMAP: &str = "com.docker.network.portmap";

const ICC: &str = "com.docker.network.bridge.enable_icc";
const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
const MTU: &str = "com.docker.network.driver.mtu";
const MODES: [&str; 2] =
    ["com.docker.network.bridge.gateway_mode_ipv4", "com.docker.network.bridge.gateway_mode_ipv6"];

/// Digits of Docker's identity that name a network for which no name was given.
const SHORT_ID: usize = 12;

/// What a network is to be.
pub(super) fn network(call: &CreateNetwork) -> Result<Network, Problem> {
    if call.network.len() < SHORT_ID || !call.network.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(Problem::Unfit(format!("`{}` is no identity of a network", call.network)));
    }
    let name = format!("docker-{}", &call.network[..SHORT_ID]);
    let mut network = Network { spec: NetworkSpec::named(&name), host_binding: None };
    network.spec.internal = call.options.get(INTERNAL).is_some_and(is_true);
    subnets(&mut network.spec, &call.v4, &call.v6)?;
    let mut modes = BTreeMap::new();
    for (key, value) in generic(&call.options) {
        let Some((index, _)) = MODES.iter().enumerate().find(|(_, mode)| **mode == key) else {
            apply(&mut network, &key, &value)?;
            continue;
        };
        modes.insert(index, value);
    }
    for (index, value) in modes {
        apply_mode(&mut network.spec, MODES[index], &value)?;
    }
    Ok(network)
}

fn subnets(spec: &mut NetworkSpec, v4: &[IpamData], v6: &[IpamData]) -> Result<(), Problem> {
    for data in [v4, v6] {
        if data.len() > 1 {
            return Err(Problem::Unfit(
                "a network has at most one subnet of each family: give --subnet once for IPv4 and \
                 once for IPv6"
                    .to_owned(),
            ));
        }
        for data in data {
            // The null IPAM driver's pool is everything.
            if let Some(pool) = data.pool.filter(|pool| pool.prefix_len() != 0) {
                spec.subnets.push(pool);
                spec.gateways.extend(data.gateway.map(|gateway| gateway.addr()));
            }
        }
    }
    if spec.subnets.is_empty() {
        return Err(Problem::Unfit(
            "a network needs a subnet: use --ipam-driver wharf, or Docker's default".to_owned(),
        ));
    }
    Ok(())
}

/// The user's options as text; whoever speaks to Docker's API may have given numbers.
fn generic(options: &Options) -> BTreeMap<String, String> {
    let Some(Value::Object(fields)) = options.get(GENERIC) else { return BTreeMap::new() };
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    fields.iter().map(|(key, value)| (key.clone(), text(value))).collect()
}

fn apply(network: &mut Network, key: &str, value: &str) -> Result<(), Problem> {
    let bad = |why: &str| Problem::Option {
        key: key.to_owned(),
        value: value.to_owned(),
        why: why.to_owned(),
    };
    let yes_or_no = || boolean(value).ok_or_else(|| bad("give true or false"));
    let spec = &mut network.spec;
    match key {
        ICC => spec.icc = yes_or_no()?,
        MTU => {
            let mtu: u16 = value.parse().map_err(|_| bad("give a number of bytes up to 65535"))?;
            spec.mtu = (mtu != 0).then_some(mtu);
        }
        HOST_BINDING => {
            let addr: Ipv4Addr = value.parse().map_err(|_| bad("give an IPv4 address"))?;
            network.host_binding = (!addr.is_unspecified()).then_some(IpAddr::V4(addr));
        }
        "wharf.name" => value.clone_into(&mut spec.name),
        "wharf.uplink" => spec.uplink = Some(value.to_owned()),
        "wharf.isolated" => spec.isolated = yes_or_no()?,
        "wharf.guard" => spec.guard = yes_or_no()?,
        "wharf.host" => spec.host = yes_or_no()?,
        key if key.starts_with("wharf.") => {
            return Err(bad(
                "wharf's options are wharf.name, wharf.uplink, wharf.isolated, wharf.guard and wharf.host",
            ));
        }
        // Others of Docker's are about its bridge, and other drivers pass them over, too.
        _ => tracing::info!("the option {key}={value} means nothing here"),
    }
    Ok(())
}

fn apply_mode(spec: &mut NetworkSpec, key: &str, value: &str) -> Result<(), Problem> {
    let bad = |why: &str| Problem::Option {
        key: key.to_owned(),
        value: value.to_owned(),
        why: why.to_owned(),
    };
    match value {
        "" | "nat" => {}
        // Whoever has a route reaches every port: also other networks that allow it.
        "nat-unprotected" => spec.isolated = false,
        // What Docker means is a bridge without an address of the host's, which is what an internal
        // network is here anyway.
        "isolated" if spec.internal => {}
        "isolated" => return Err(bad("it goes with --internal")),
        "routed" => {
            return Err(bad(
                "containers leave by sockets of the host, or with the address of an uplink: use nat, \
                 and publish ports",
            ));
        }
        _ => return Err(bad("the modes are nat, nat-unprotected and isolated")),
    }
    Ok(())
}

/// The published ports of a sandbox, in our words.
pub(super) fn ports(
    options: &Options,
    host_binding: Option<IpAddr>,
) -> Result<Vec<PublishSpec>, Problem> {
    let Some(bindings) = options.get(PORTMAP).filter(|value| !value.is_null()) else {
        return Ok(Vec::new());
    };
    let bindings: Vec<PortBinding> = serde_json::from_value(bindings.clone())?;
    bindings.iter().map(|binding| port(binding, host_binding)).collect()
}

fn port(binding: &PortBinding, host_binding: Option<IpAddr>) -> Result<PublishSpec, Problem> {
    let bad = |why: &str| {
        let text = format!("{}:{} of protocol {}", binding.host_port, binding.port, binding.proto);
        Problem::Port(text, why.to_owned())
    };
    let proto = [Proto::Tcp, Proto::Udp, Proto::Sctp].into_iter();
    let proto = proto.into_iter().find(|proto| proto.number() == binding.proto);
    let proto = proto.ok_or_else(|| bad("only tcp, udp and sctp have ports"))?;
    let ports = PortRange::new(binding.port, binding.port);
    let ports = ports.ok_or_else(|| bad("the container's port is missing"))?;
    let host_ports = match (binding.host_port, binding.host_port_end) {
        (0, _) => None,
        (first, 0) => PortRange::new(first, first),
        (first, last) => Some(
            PortRange::new(first, last).ok_or_else(|| bad("the range ends before it starts"))?,
        ),
    };
    let host_addr = match binding.host_ip {
        None | Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) if host_binding.is_some() => host_binding,
        other => other,
    };
    Ok(PublishSpec { host_addr, host_ports, ports, proto })
}

fn is_true(value: &Value) -> bool {
    value.as_bool().or_else(|| value.as_str().and_then(boolean)).unwrap_or(false)
}

/// As Go reads it (`strconv.ParseBool`).
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn call(options: &Value) -> Result<Network, Problem> {
        let call = json!({
            "NetworkID": "0123456789abcdef",
            "IPv4Data": [{"Pool": "10.1.0.0/16", "Gateway": "10.1.0.1/16"}],
            "IPv6Data": [{"Pool": "fd01::/64", "Gateway": "fd01::1/64"}],
            "Options": options,
        });
        network(&serde_json::from_value(call).unwrap())
    }

    #[test]
    fn docker_s_own_options_and_ours_say_what_a_network_is() {
        let made = call(&json!({
            "com.docker.network.internal": true,
            "com.docker.network.generic": {
                "com.docker.network.bridge.enable_icc": "false",
                "com.docker.network.driver.mtu": 1400,
                "com.docker.network.bridge.host_binding_ipv4": "127.0.0.1",
                "com.docker.network.bridge.gateway_mode_ipv4": "isolated",
                "com.docker.network.bridge.name": "br-x",
                "wharf.name": "blue",
                "wharf.uplink": "lan",
                "wharf.isolated": "0",
            },
        }))
        .unwrap();
        let spec = &made.spec;
        assert_eq!((spec.name.as_str(), spec.uplink.as_deref()), ("blue", Some("lan")));
        assert!(spec.internal && !spec.icc && !spec.isolated && spec.guard && !spec.host);
        assert_eq!(spec.mtu, Some(1400));
        assert_eq!(spec.subnets, ["10.1.0.0/16".parse().unwrap(), "fd01::/64".parse().unwrap()]);
        assert_eq!(
            spec.gateways,
            ["10.1.0.1".parse::<IpAddr>().unwrap(), "fd01::1".parse().unwrap()]
        );
        assert_eq!(made.host_binding, "127.0.0.1".parse().ok());
        let plain = call(&json!({})).unwrap();
        assert_eq!(plain.spec.name, "docker-0123456789ab");
        assert!(plain.spec.icc && plain.spec.isolated && !plain.spec.internal);
    }

    #[test]
    fn an_option_that_makes_no_sense_is_quoted_with_what_would() {
        for (key, value, words) in [
            ("com.docker.network.bridge.enable_icc", "maybe", "true or false"),
            ("com.docker.network.driver.mtu", "70000", "65535"),
            ("com.docker.network.bridge.host_binding_ipv4", "::1", "IPv4 address"),
            ("com.docker.network.bridge.gateway_mode_ipv4", "isolated", "--internal"),
            ("com.docker.network.bridge.gateway_mode_ipv6", "routed", "publish"),
            ("com.docker.network.bridge.gateway_mode_ipv6", "bridge", "nat-unprotected"),
            ("wharf.nmae", "blue", "wharf.name"),
        ] {
            let error = call(&json!({"com.docker.network.generic": {key: value}})).unwrap_err();
            let error = error.to_string();
            assert!(error.contains(&format!("{key}={value}")) && error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_network_without_a_subnet_or_with_two_of_a_family_is_refused() {
        let made = |v4: Value| {
            let call = json!({"NetworkID": "0123456789abcdef", "IPv4Data": v4});
            network(&serde_json::from_value(call).unwrap()).map_err(|error| error.to_string())
        };
        let error = made(json!([{"Pool": "0.0.0.0/0"}])).unwrap_err();
        assert!(error.contains("--ipam-driver wharf"), "{error}");
        let two = json!([{"Pool": "10.1.0.0/16"}, {"Pool": "10.2.0.0/16"}]);
        assert!(made(two).unwrap_err().contains("at most one"));
        let call = CreateNetwork { network: "../../etc".to_owned(), ..CreateNetwork::default() };
        assert!(matches!(network(&call), Err(Problem::Unfit(_))));
    }

    #[test]
    fn every_form_of_a_published_port_is_understood() {
        let read = |binding: Value, host: Option<&str>| {
            let options = [(PORTMAP.to_owned(), json!([binding]))].into();
            let read = ports(&options, host.map(|host| host.parse().unwrap()));
            read.map(|specs| specs[0].to_string()).map_err(|error| error.to_string())
        };
        let tcp = |ip: &str, host: u16, end: u16| json!({"Proto": 6, "Port": 80, "HostIP": ip, "HostPort": host, "HostPortEnd": end});
        for (binding, host, wanted) in [
            (tcp("", 8080, 8080), None, "8080:80/tcp"),
            (tcp("", 8080, 0), None, "8080:80/tcp"),
            (tcp("", 0, 0), None, "80/tcp"),
            (tcp("", 8000, 8010), None, "8000-8010:80/tcp"),
            (tcp("127.0.0.1", 0, 0), None, "127.0.0.1::80/tcp"),
            (tcp("::1", 8080, 8080), None, "[::1]:8080:80/tcp"),
            (tcp("0.0.0.0", 8080, 8080), None, "0.0.0.0:8080:80/tcp"),
            (tcp("0.0.0.0", 8080, 8080), Some("192.0.2.1"), "192.0.2.1:8080:80/tcp"),
            (tcp("", 8080, 8080), Some("192.0.2.1"), "192.0.2.1:8080:80/tcp"),
            (tcp("::1", 8080, 8080), Some("192.0.2.1"), "[::1]:8080:80/tcp"),
            (json!({"Proto": 17, "Port": 53, "HostPort": 53}), None, "53:53/udp"),
            (json!({"Proto": 132, "Port": 5}), None, "5/sctp"),
        ] {
            assert_eq!(read(binding.clone(), host).as_deref(), Ok(wanted), "{binding}");
        }
        assert!(read(json!({"Proto": 1, "Port": 5}), None).unwrap_err().contains("sctp"));
        assert!(read(json!({"Proto": 6}), None).unwrap_err().contains("missing"));
        assert!(read(tcp("", 9, 8), None).unwrap_err().contains("ends before"));
        assert!(read(json!("x"), None).is_err());
        assert!(ports(&Options::new(), None).unwrap().is_empty());
        assert!(ports(&[(PORTMAP.to_owned(), Value::Null)].into(), None).unwrap().is_empty());
    }
}
