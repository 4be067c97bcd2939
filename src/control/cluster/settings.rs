//! `[cluster]` of the config file.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::plan::Plan;
use super::records::{Backend, is_node_name};
use crate::base::key::PublicKey;
use crate::base::time::Span;
use crate::config::BackendKind;
use crate::control::store::etcd::{Endpoint, Login, TlsFiles};
use crate::io::wireguard;
use crate::wire::mac::Mac;

/// `[cluster]`. Only `endpoints` must be there, and `network` on one node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterConfig {
    /// Members of etcd.
    pub endpoints: Vec<String>,
    /// How the store is used.
    #[serde(default)]
    pub layout: Layout,
    /// What all keys begin with; `/wharf`, or `/coreos.com/network` in Flannel's layout.
    #[serde(default)]
    pub prefix: Option<String>,
    /// The range that is cut into subnets, one of each family; the cluster's own if not given.
    #[serde(default)]
    pub network: Vec<IpNet>,
    /// Prefix length of a node's subnet, in the order of `network`; 24 and 64.
    #[serde(default)]
    pub size: Vec<u8>,
    /// Ranges that no node gets.
    #[serde(default)]
    pub reserved: Vec<IpNet>,
    /// This node's name; the host's if not given.
    #[serde(default)]
    pub node: Option<String>,
    /// This node's subnet, chosen by hand.
    #[serde(default)]
    pub subnet: Option<IpNet>,
    /// What the network is called on this node; `cluster`.
    #[serde(default)]
    pub name: Option<String>,
    /// Where tunnels to this node end; the address towards etcd if not given.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// How packets between nodes are wrapped; VXLAN.
    #[serde(default)]
    pub backend: BackendKind,
    /// With WireGuard: say something every so many seconds, for a node behind a NAT or a firewall.
    #[serde(default)]
    pub keep_alive: Option<u16>,
    /// VXLAN's network identifier; 1. Flannel's layout has its own.
    #[serde(default)]
    pub vni: Option<u32>,
    /// UDP port of tunnels to this node; 4789, or 51820 with WireGuard. Flannel's layout has its own.
    #[serde(default)]
    pub port: Option<u16>,
    /// Write Flannel's `subnet.env` there.
    #[serde(default)]
    pub subnet_env: Option<PathBuf>,
    /// Seconds after which a silent node's routes are withdrawn; 15.
    #[serde(default)]
    pub liveness: Option<u64>,
    /// Seconds for which a removed node's subnet is given to nobody; 300.
    #[serde(default)]
    pub quarantine: Option<u64>,
    /// etcd's user.
    #[serde(default)]
    pub user: Option<String>,
    /// A file with its password in the first line.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// Certificates.
    #[serde(default)]
    pub tls: TlsFiles,
}

/// How the store is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Our own way: ownership does not expire.
    #[default]
    Wharf,
    /// Flannel's keys and leases, among Flannel's own daemons.
    Flannel,
}

/// What the config file leaves out.
const PREFIX: &str = "/wharf";
const FLANNEL_PREFIX: &str = "/coreos.com/network";
/// RFC 7348's port.
const PORT: u16 = 4789;
const VNI: u32 = 1;
const NAME: &str = "cluster";
const LIVENESS: u64 = 15;
const QUARANTINE: u64 = 300;

impl ClusterConfig {
    /// Says which key makes no sense.
    pub fn check(&self) -> Result<(), String> {
        if self.endpoints.is_empty() {
            return Err("`cluster.endpoints` names no member of etcd".to_owned());
        }
        self.members().map_err(|e| format!("`cluster.endpoints`: {e}"))?;
        self.plan().map_err(|e| format!("`cluster.network`: {e}"))?;
        if self.node.as_deref().is_some_and(|name| !is_node_name(name)) {
            return Err(
                "`cluster.node` must be made of letters, digits, `-`, `_` and `.`".to_owned()
            );
        }
        let meaningless = !self.network.is_empty()
            || self.subnet.is_some()
            || self.vni.is_some()
            || self.backend != BackendKind::Vxlan
            || self.port.is_some();
        if self.layout == Layout::Flannel && meaningless {
            return Err("`cluster`: with Flannel's layout the network, `backend`, `vni` and `port` are what Flannel's configuration says".to_owned());
        }
        if self.vni.is_some_and(|vni| vni >= 1 << 24) || self.port == Some(0) {
            return Err("`cluster.vni` has 24 bits, and `cluster.port` is not 0".to_owned());
        }
        if self.liveness.is_some_and(|secs| !(3..=3_600).contains(&secs)) {
            return Err("`cluster.liveness` must be 3 to 3600 seconds".to_owned());
        }
        if self.quarantine.is_some_and(|secs| !(1..=604_800).contains(&secs)) {
            return Err("`cluster.quarantine` must be 1 to 604800 seconds".to_owned());
        }
        if self.user.is_some() != self.password_file.is_some() {
            return Err("`cluster.user` and `cluster.password_file` go together".to_owned());
        }
        if self.tls.cert.is_some() != self.tls.key.is_some() {
            return Err("`cluster.tls`: `cert` and `key` go together".to_owned());
        }
        Ok(())
    }

    /// Members of etcd.
    pub fn members(&self) -> Result<Vec<Endpoint>, String> {
        self.endpoints.iter().map(|text| text.parse()).collect()
    }

    /// The plan, if one is given.
    pub fn plan(&self) -> Result<Option<Plan>, String> {
        if self.network.is_empty() {
            return match (&self.size[..], &self.reserved[..]) {
                ([], []) => Ok(None),
                _ => Err("`size` and `reserved` mean nothing without `network`".to_owned()),
            };
        }
        Plan::new(&self.network, &self.size, &self.reserved).map(Some).map_err(|e| e.to_string())
    }

    /// The end of this node's tunnels. Its MAC follows from the node's identity.
    pub fn end(&self, identity: &str, key: Option<PublicKey>) -> Backend {
        if let Some(key) = key {
            return Backend::Wireguard { key, port: self.port.unwrap_or(wireguard::PORT) };
        }
        let hash = identity.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
            (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)
        });
        let [a, b, c, d, ..] = hash.to_be_bytes();
        let mac = Mac([0x02, 0x57, a, b, c, d]);
        Backend::Vxlan { vni: self.vni.unwrap_or(VNI), port: self.port.unwrap_or(PORT), mac }
    }

    /// What the network is called on this node.
    pub fn network_name(&self) -> &str {
        self.name.as_deref().unwrap_or(NAME)
    }

    /// This node's name.
    pub fn node_name(&self) -> String {
        let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        self.node.clone().unwrap_or_else(host)
    }

    /// How long a silent node counts as alive.
    pub fn liveness(&self) -> Span {
        Span::from_secs(self.liveness.unwrap_or(LIVENESS))
    }

    /// How long a removed node's subnet is nobody's.
    pub fn quarantine(&self) -> Span {
        Span::from_secs(self.quarantine.unwrap_or(QUARANTINE))
    }

    /// Who we are to etcd; reads the password.
    pub fn login(&self) -> Result<Login, String> {
        let user = match (&self.user, &self.password_file) {
            (Some(user), Some(file)) => Some((user.clone(), password(file)?)),
            _ => None,
        };
        let usual = if self.layout == Layout::Flannel { FLANNEL_PREFIX } else { PREFIX };
        let prefix = self.prefix.as_deref().unwrap_or(usual).trim_end_matches('/');
        Ok(Login { tls: self.tls.clone(), user, prefix: format!("{prefix}/") })
    }
}

fn password(file: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| format!("cannot read `cluster.password_file` {}: {e}", file.display()))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::config::Config;

    fn parse(text: &str) -> Result<ClusterConfig, String> {
        let config = Config::parse(Path::new("wharf.toml"), text).map_err(|e| e.to_string())?;
        config.cluster.ok_or_else(|| "no cluster".to_owned())
    }

    #[test]
    fn endpoints_and_a_network_are_enough() {
        let text = "[cluster]\nendpoints = [\"http://10.0.0.1:2379\", \"https://etcd2\"]\n\
                    network = [\"10.244.0.0/16\", \"fd10::/48\"]\n";
        let config = parse(text).unwrap();
        assert_eq!(config.plan().unwrap().unwrap().count(), 256);
        assert_eq!(config.login().unwrap().prefix, "/wharf/");
        assert_eq!((config.liveness(), config.network_name()), (Span::from_secs(15), "cluster"));
        assert!(!config.node_name().is_empty());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (rest, words) in [
            ("", "missing field `endpoints`"),
            ("endpoints = []", "names no member"),
            ("endpoints = [\"ftp://x\"]", "no endpoint of etcd"),
            ("endpoints = [\"http://x\"]\nsize = [24]", "without `network`"),
            ("endpoints = [\"http://x\"]\nnetwork = [\"10.0.0.0/8\"]\nsize = [4]", "cannot be cut"),
            ("endpoints = [\"http://x\"]\nnode = \"a/b\"", "`cluster.node`"),
            ("endpoints = [\"http://x\"]\nliveness = 1", "`cluster.liveness`"),
            ("endpoints = [\"http://x\"]\nquarantine = 0", "`cluster.quarantine`"),
            ("endpoints = [\"http://x\"]\nuser = \"a\"", "go together"),
            ("endpoints = [\"http://x\"]\ntls.cert = \"/c\"", "go together"),
            ("endpoints = [\"http://x\"]\nttl = 3", "unknown field `ttl`"),
        ] {
            let error = parse(&format!("[cluster]\n{rest}\n")).unwrap_err();
            assert!(error.contains(words), "{rest}: {error}");
        }
    }
}
