//! What Docker says and wants to hear: libnetwork's remote network driver and remote IPAM driver, field by
//! field. The names are Go's, whose encoder writes `null` for whatever is empty.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// Options by their key, of any kind.
pub(super) type Options = BTreeMap<String, Value>;

/// Absent, `null` and empty are the same.
fn lenient<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Text that stands for something, or is empty.
fn parsed<'de, D, T>(from: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let text: Option<String> = Option::deserialize(from)?;
    match text.as_deref() {
        None | Some("") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|error| {
            serde::de::Error::custom(format!("`{text}` was not understood: {error}"))
        }),
    }
}

/// One pool of a network that is created.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct IpamData {
    /// The subnet.
    #[serde(deserialize_with = "parsed")]
    pub(super) pool: Option<IpNet>,
    /// The gateway, with the subnet's length.
    #[serde(deserialize_with = "parsed")]
    pub(super) gateway: Option<IpNet>,
}

/// `NetworkDriver.CreateNetwork`
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
pub(super) struct CreateNetwork {
    /// Sixty-four hexadecimal digits.
    #[serde(rename = "NetworkID")]
    pub(super) network: String,
    /// Docker's own, and under `com.docker.network.generic` the user's `-o`.
    #[serde(rename = "Options", deserialize_with = "lenient", default)]
    pub(super) options: Options,
    /// Pools of IPv4.
    #[serde(rename = "IPv4Data", deserialize_with = "lenient", default)]
    pub(super) v4: Vec<IpamData>,
    /// Pools of IPv6.
    #[serde(rename = "IPv6Data", deserialize_with = "lenient", default)]
    pub(super) v6: Vec<IpamData>,
}

/// A call about a network.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
pub(super) struct OfNetwork {
    /// Which.
    #[serde(rename = "NetworkID")]
    pub(super) network: String,
}

/// A call about an endpoint: its identity, and Docker's options where a call has some.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
pub(super) struct OfEndpoint {
    /// Its network.
    #[serde(rename = "NetworkID")]
    pub(super) network: String,
    /// Which.
    #[serde(rename = "EndpointID")]
    pub(super) endpoint: String,
    /// Ports and labels of the sandbox.
    #[serde(rename = "Options", deserialize_with = "lenient", default)]
    pub(super) options: Options,
}

/// An interface as Docker has planned it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Interface {
    /// IPv4 address, with the subnet's length.
    #[serde(rename = "Address", deserialize_with = "parsed", default)]
    pub(super) v4: Option<IpNet>,
    /// IPv6 address, with the subnet's length.
    #[serde(rename = "AddressIPv6", deserialize_with = "parsed")]
    pub(super) v6: Option<IpNet>,
    /// MAC address that the user wishes.
    #[serde(rename = "MacAddress", deserialize_with = "parsed")]
    pub(super) mac: Option<crate::wire::mac::Mac>,
}

/// `NetworkDriver.CreateEndpoint`
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
pub(super) struct CreateEndpoint {
    /// Its network.
    #[serde(rename = "NetworkID")]
    pub(super) network: String,
    /// Which.
    #[serde(rename = "EndpointID")]
    pub(super) endpoint: String,
    /// What is settled of it.
    #[serde(rename = "Interface", deserialize_with = "lenient", default)]
    pub(super) interface: Interface,
}

/// `NetworkDriver.Join`
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
pub(super) struct Join {
    /// Its network.
    #[serde(rename = "NetworkID")]
    pub(super) network: String,
    /// Which.
    #[serde(rename = "EndpointID")]
    pub(super) endpoint: String,
    /// Where the namespace is or will be: with runc it does not exist yet.
    #[serde(rename = "SandboxKey", default)]
    pub(super) sandbox: String,
}

/// The answer to it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Joined {
    /// The link to be moved.
    pub(super) interface_name: InterfaceName,
    /// Router of IPv4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) gateway: Option<Ipv4Addr>,
    /// Router of IPv6.
    #[serde(rename = "GatewayIPv6", skip_serializing_if = "Option::is_none")]
    pub(super) gateway_v6: Option<Ipv6Addr>,
    /// Without a gateway Docker adds an interface on a bridge of its own, unless told not to.
    pub(super) disable_gateway_service: bool,
}

/// What Docker renames.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct InterfaceName {
    /// The link's name in Docker's own namespace.
    pub(super) src_name: String,
    /// What its name in the container begins with.
    pub(super) dst_prefix: String,
}

/// A published port as Docker describes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct PortBinding {
    /// IANA's number of the protocol.
    pub(super) proto: u8,
    /// The container's port.
    pub(super) port: u16,
    /// The host's address; none or unspecified for all.
    #[serde(rename = "HostIP", deserialize_with = "parsed")]
    pub(super) host_ip: Option<IpAddr>,
    /// The host's first port; zero for any.
    pub(super) host_port: u16,
    /// The host's last port, of which one is to be chosen.
    pub(super) host_port_end: u16,
}

/// `IpamDriver.RequestPool`
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct RequestPool {
    /// One of those that we named.
    pub(super) address_space: String,
    /// The subnet; any if none.
    #[serde(deserialize_with = "parsed", default)]
    pub(super) pool: Option<IpNet>,
    /// The part of it from which addresses are given.
    #[serde(deserialize_with = "parsed", default)]
    pub(super) sub_pool: Option<IpNet>,
    /// Which family is meant when no subnet is given.
    #[serde(default)]
    pub(super) v6: bool,
}

/// The answer to it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Pool {
    /// What names it from now on.
    #[serde(rename = "PoolID")]
    pub(super) id: String,
    /// The subnet.
    #[serde(rename = "Pool")]
    pub(super) subnet: IpNet,
    /// For the driver's own use.
    pub(super) data: BTreeMap<String, String>,
}

/// A call about a pool.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
pub(super) struct OfPool {
    /// Which.
    #[serde(rename = "PoolID")]
    pub(super) pool: String,
}

/// `IpamDriver.RequestAddress` and `ReleaseAddress`
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
pub(super) struct OfAddress {
    /// Of which pool.
    #[serde(rename = "PoolID")]
    pub(super) pool: String,
    /// Which; any if none.
    #[serde(rename = "Address", deserialize_with = "parsed", default)]
    pub(super) address: Option<IpAddr>,
    /// What it is for.
    #[serde(rename = "Options", deserialize_with = "lenient", default)]
    pub(super) options: Options,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_what_go_writes_for_nothing() {
        let text = r#"{"NetworkID":"n","Options":null,"IPv4Data":null,"IPv6Data":null}"#;
        let call: CreateNetwork = serde_json::from_str(text).unwrap();
        assert_eq!(call, CreateNetwork { network: "n".to_owned(), ..CreateNetwork::default() });
        let text = r#"{"NetworkID":"n","EndpointID":"e","Interface":null,"Options":{}}"#;
        let call: CreateEndpoint = serde_json::from_str(text).unwrap();
        assert_eq!(call.interface, Interface::default());
    }

    #[test]
    fn fields_that_are_not_known_are_passed_over() {
        let text = r#"{"NetworkID":"n","New":{"a":[1]},"IPv4Data":[{"AddressSpace":"s",
            "Pool":"10.1.0.0/16","Gateway":"10.1.0.1/16","AuxAddresses":{"x":"10.1.0.9/16"}}]}"#;
        let call: CreateNetwork = serde_json::from_str(text).unwrap();
        assert_eq!(call.v4[0].pool, "10.1.0.0/16".parse().ok());
        assert_eq!(call.v4[0].gateway, "10.1.0.1/16".parse().ok());
    }

    #[test]
    fn what_is_no_address_is_quoted() {
        let text = r#"{"EndpointID":"e","Interface":{"Address":"10.1.0.300/16"}}"#;
        let error = serde_json::from_str::<CreateEndpoint>(text).unwrap_err().to_string();
        assert!(error.contains("10.1.0.300/16"), "{error}");
    }

    #[test]
    fn ports_come_in_docker_s_form() {
        let text = r#"{"Proto":6,"IP":"","Port":80,"HostIP":"0.0.0.0","HostPort":8080,"HostPortEnd":8090}"#;
        let binding: PortBinding = serde_json::from_str(text).unwrap();
        let host_ip = Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let wanted =
            PortBinding { proto: 6, port: 80, host_ip, host_port: 8080, host_port_end: 8090 };
        assert_eq!(binding, wanted);
    }
}
