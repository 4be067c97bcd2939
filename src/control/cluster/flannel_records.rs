//! Flannel's keys and values, as its own code reads and writes them (version 3 of etcd's interface).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::plan::Plan;
use super::records::{AliveRecord, Backend, VERSION};
use crate::wire::mac::Mac;

/// The key of the configuration.
pub(super) const CONFIG: &str = "config";
/// Where leases are.
pub(super) const SUBNETS: &str = "subnets/";
/// The kernel's port for VXLAN from before the RFC, which Flannel takes on Linux.
const PORT: u16 = 8472;
/// Flannel's network identifier.
const VNI: u32 = 1;

/// `config`
#[derive(Deserialize, Debug)]
#[serde(rename_all = "PascalCase")]
struct ConfigRecord {
    #[serde(rename = "EnableIPv4")]
    enable_ipv4: Option<bool>,
    #[serde(rename = "EnableIPv6", default)]
    enable_ipv6: bool,
    network: Option<Ipv4Net>,
    #[serde(rename = "IPv6Network")]
    ipv6_network: Option<Ipv6Net>,
    subnet_len: Option<u8>,
    subnet_min: Option<Ipv4Addr>,
    subnet_max: Option<Ipv4Addr>,
    #[serde(rename = "IPv6SubnetLen")]
    ipv6_subnet_len: Option<u8>,
    backend: Option<BackendRecord>,
}

#[derive(Deserialize, Debug)]
#[serde(rename_all = "PascalCase")]
struct BackendRecord {
    #[serde(rename = "Type", default)]
    kind: String,
    #[serde(rename = "VNI")]
    vni: Option<u32>,
    port: Option<u16>,
}

/// A Flannel cluster's configuration.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct FlannelConfig {
    /// The network, cut.
    pub(super) plan: Plan,
    /// The first and the last subnet that are given out.
    pub(super) bounds: (u32, u32),
    /// The tunnels.
    pub(super) vni: u32,
    /// Their port.
    pub(super) port: u16,
}

impl FlannelConfig {
    /// Reads the configuration, with Flannel's defaults.
    pub(super) fn read(value: &[u8]) -> Result<Self, String> {
        let record: ConfigRecord = serde_json::from_slice(value).map_err(|e| e.to_string())?;
        let network = record.network.filter(|_| record.enable_ipv4.unwrap_or(true));
        let network = network.ok_or("it has no IPv4 network, and a lease's key begins with one")?;
        let backend = record.backend.as_ref().filter(|backend| backend.kind == "vxlan");
        let backend = backend.ok_or(
            "its backend is not vxlan, the only one that this program shares with Flannel",
        )?;
        // A longer network than /22 is cut in four.
        let usual = |len: u8, size: u8| if len > size - 2 { len + 2 } else { size };
        let size = record.subnet_len.unwrap_or_else(|| usual(network.prefix_len(), 24));
        let (mut nets, mut sizes) = (vec![IpNet::V4(network)], vec![size]);
        if let Some(v6) = record.ipv6_network.filter(|_| record.enable_ipv6) {
            nets.push(v6.into());
            sizes.push(record.ipv6_subnet_len.unwrap_or_else(|| usual(v6.prefix_len(), 64)));
        }
        let plan = Plan::new(&nets, &sizes, &[]).map_err(|e| e.to_string())?;
        let number = |addr: Option<Ipv4Addr>, name: &str| {
            let slot = |addr| {
                let net = Ipv4Net::new(addr, size).ok()?;
                plan.slot_of(net.into()).map(|slot| slot.0)
            };
            addr.map(|addr| slot(addr).ok_or(format!("`{name}` is no subnet of the network")))
                .transpose()
        };
        let first = number(record.subnet_min, "SubnetMin")?.unwrap_or(1);
        let last = number(record.subnet_max, "SubnetMax")?.unwrap_or(plan.count() - 1);
        let (vni, port) =
            (backend.vni.unwrap_or(VNI), backend.port.filter(|port| *port != 0).unwrap_or(PORT));
        Ok(Self { plan, bounds: (first, last), vni, port })
    }
}

/// `subnets/…`, the value.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(super) struct LeaseRecord {
    #[serde(rename = "PublicIP")]
    pub(super) public_ip: Ipv4Addr,
    #[serde(rename = "PublicIPv6", default)]
    pub(super) public_ipv6: Option<Ipv6Addr>,
    #[serde(rename = "BackendType", default, skip_serializing_if = "Option::is_none")]
    pub(super) backend_type: Option<String>,
    #[serde(rename = "BackendData", default, skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<VxlanData>,
    #[serde(rename = "BackendV6Data", default, skip_serializing_if = "Option::is_none")]
    pub(super) v6_data: Option<VxlanData>,
}

/// What Flannel's vxlan backend says of a node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(super) struct VxlanData {
    #[serde(rename = "VNI", default)]
    pub(super) vni: u32,
    #[serde(rename = "VtepMAC")]
    pub(super) mac: Mac,
}

impl LeaseRecord {
    /// A node's own.
    pub(super) fn of(addresses: &[IpAddr], vni: u32, mac: Mac, dual: bool) -> Option<Self> {
        let v4 =
            addresses.iter().find_map(|a| if let IpAddr::V4(a) = a { Some(*a) } else { None })?;
        let v6 = addresses.iter().find_map(|a| if let IpAddr::V6(a) = a { Some(*a) } else { None });
        let data = Some(VxlanData { vni, mac });
        let v6_data = data.filter(|_| dual);
        Some(Self {
            public_ip: v4,
            public_ipv6: v6,
            backend_type: Some("vxlan".to_owned()),
            data,
            v6_data,
        })
    }

    /// How the node is reached, in our words; none if it has no VXLAN.
    pub(super) fn alive(&self, port: u16) -> Option<AliveRecord> {
        let data = self.data.filter(|_| self.backend_type.as_deref() == Some("vxlan"))?;
        let addresses = [Some(IpAddr::V4(self.public_ip)), self.public_ipv6.map(IpAddr::V6)];
        let name = self.public_ip.to_string();
        Some(AliveRecord {
            v: VERSION,
            identity: name.clone(),
            instance: name,
            seat: String::new(),
            addresses: addresses.into_iter().flatten().collect(),
            backend: Some(Backend::Vxlan { vni: data.vni, port, mac: data.mac }),
            program: "flannel".to_owned(),
            since_ms: 0,
        })
    }
}

/// A lease's key: `10.42.5.0-24`, of both families `10.42.5.0-24&2001:cafe:42:5::-64`.
pub(super) fn key(nets: &[IpNet]) -> String {
    let parts: Vec<String> =
        nets.iter().map(|net| format!("{}-{}", net.network(), net.prefix_len())).collect();
    parts.join("&")
}

/// The subnets of such a key.
pub(super) fn nets(key: &str) -> Option<Vec<IpNet>> {
    let net = |part: &str| {
        let (addr, len) = part.rsplit_once('-')?;
        let net = IpNet::new(addr.parse().ok()?, len.parse().ok()?).ok()?;
        (net.network() == net.addr()).then_some(net)
    };
    let nets: Vec<IpNet> = key.split('&').map(net).collect::<Option<_>>()?;
    let good = matches!(nets[..], [IpNet::V4(_)] | [IpNet::V4(_), IpNet::V6(_)]);
    good.then_some(nets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_has_flannel_s_defaults() {
        let text = r#"{"Network":"10.42.0.0/16","Backend":{"Type":"vxlan"}}"#;
        let config = FlannelConfig::read(text.as_bytes()).unwrap();
        assert_eq!(config.plan.to_string(), "10.42.0.0/16 in /24");
        assert_eq!((config.bounds, config.vni, config.port), ((1, 255), 1, 8472));
        let text = r#"{"Network":"10.42.0.0/23","SubnetLen":26,"SubnetMin":"10.42.0.128","SubnetMax":"10.42.1.64",
            "EnableIPv6":true,"IPv6Network":"2001:cafe:42::/56","Backend":{"Type":"vxlan","VNI":7,"Port":4789}}"#;
        let config = FlannelConfig::read(text.as_bytes()).unwrap();
        assert_eq!(config.plan.to_string(), "10.42.0.0/23 in /26, 2001:cafe:42::/56 in /64");
        assert_eq!((config.bounds, config.vni, config.port), ((2, 5), 7, 4789));
        let small = r#"{"Network":"10.42.0.0/24","Backend":{"Type":"vxlan"}}"#;
        assert_eq!(
            FlannelConfig::read(small.as_bytes()).unwrap().plan.to_string(),
            "10.42.0.0/24 in /26"
        );
    }

    #[test]
    fn what_cannot_be_shared_is_said() {
        for (text, words) in [
            (r#"{"Network":"10.42.0.0/16","Backend":{"Type":"udp"}}"#, "not vxlan"),
            (r#"{"Network":"10.42.0.0/16"}"#, "not vxlan"),
            (r#"{"EnableIPv4":false,"Backend":{"Type":"vxlan"}}"#, "no IPv4"),
            (
                r#"{"Network":"10.42.0.0/16","SubnetMin":"10.42.0.9","Backend":{"Type":"vxlan"}}"#,
                "SubnetMin",
            ),
            ("{", "EOF"),
        ] {
            let error = FlannelConfig::read(text.as_bytes()).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn keys_of_one_and_of_two_families() {
        for text in ["10.42.5.0-24", "10.42.5.0-24&2001:cafe:42:5::-64"] {
            assert_eq!(key(&nets(text).unwrap()), text);
        }
        for text in
            ["", "10.42.5.1-24", "10.42.5.0-33", "2001:cafe::-64", "10.42.5.0-24&10.42.6.0-24", "x"]
        {
            assert_eq!(nets(text), None, "{text}");
        }
    }

    #[test]
    fn a_lease_is_written_as_flannel_writes_it() {
        let mac = Mac([0xc6, 0xd2, 0, 0, 0, 1]);
        let record = LeaseRecord::of(&["192.168.64.3".parse().unwrap()], 1, mac, false).unwrap();
        let text = r#"{"PublicIP":"192.168.64.3","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:d2:00:00:00:01"}}"#;
        assert_eq!(serde_json::to_string(&record).unwrap(), text);
        assert_eq!(serde_json::from_str::<LeaseRecord>(text).unwrap(), record);
        // The udp backend has neither type nor data.
        let udp: LeaseRecord = serde_json::from_str(r#"{"PublicIP":"192.168.64.3"}"#).unwrap();
        assert_eq!(udp.alive(8472), None);
        assert_eq!(record.alive(8472).unwrap().addresses.len(), 1);
    }
}
