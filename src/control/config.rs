//! The daemon's own configuration: the config file and where things are by default.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::cluster::ClusterConfig;
use super::ipam::check_subnet;
use super::ipam::pools::{Pool, docker_pools};
use super::model::{NetworkSpec, NodeSpec, PeerSpec, PortRange, UplinkSpec};
use super::tuning::FlowTimeouts;
use crate::base::limits;

/// `wharf.toml`. Every key is optional.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Worker threads; one by default.
    pub workers: Option<usize>,
    /// The uplink named `default`: `sockets` (if this is not given), `packet:INTERFACE` or `none`.
    pub default_uplink: Option<String>,
    /// MTU of networks that name none; 1500 by default.
    pub mtu: Option<u16>,
    /// Name servers that are asked about what is outside, in place of the host's.
    pub dns: Vec<IpAddr>,
    /// Host ports to choose from when a publication names none.
    pub publish_ports: Option<PortRange>,
    /// Bounds.
    pub limits: Limits,
    /// How long idle flows live.
    pub timeouts: FlowTimeouts,
    /// Whether TCP connections that began before the daemon are followed from their middle on (true, if
    /// this is not given), so that they survive its restart.
    pub pick_up: Option<bool>,
    /// Where metrics are answered besides the API's socket, without asking who it is; nowhere if this is
    /// not given.
    pub metrics: Option<SocketAddr>,
    /// The cluster this node is part of.
    pub cluster: Option<ClusterConfig>,
    /// Address pools; Docker's by default.
    #[serde(rename = "pool")]
    pub pools: Vec<Pool>,
    /// Where services' addresses are chosen from, at most one range of each family; Kubernetes' by default.
    pub service_pools: Vec<IpNet>,
    /// Uplinks that shall exist.
    #[serde(rename = "uplink")]
    pub uplinks: Vec<UplinkSpec>,
    /// Networks that shall exist.
    #[serde(rename = "network")]
    pub networks: Vec<NetworkSpec>,
    /// This node's end of the tunnels to other nodes.
    pub node: Option<NodeSpec>,
    /// Other nodes.
    #[serde(rename = "peer")]
    pub peers: Vec<PeerSpec>,
}

/// Bounds that can be set lower (or, for flows, higher) than they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Flows of each worker.
    pub flows: usize,
    /// Of these, flows that one endpoint may begin.
    pub flows_per_endpoint: usize,
    /// Outside ports that one endpoint may have, on all uplinks and in all protocols.
    pub ports_per_endpoint: usize,
    /// Endpoints of this daemon.
    pub endpoints: usize,
    /// Publications of this daemon.
    pub publications: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            flows: limits::FLOWS_MAX,
            flows_per_endpoint: limits::FLOWS_PER_PORT_MAX,
            ports_per_endpoint: limits::MAPPINGS_PER_PORT_MAX,
            endpoints: limits::ENDPOINTS_MAX,
            publications: limits::PUBLICATIONS_MAX,
        }
    }
}

/// Why a config file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read the configuration {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not what a config file may be.
    #[error("{path}, line {line}, at `{text}`: {message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where, from 1.
        line: usize,
        /// The line.
        text: String,
        /// What is wrong.
        message: String,
    },
    /// A value that parses and makes no sense.
    #[error("{path}: {message}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Which key and why.
        message: String,
    },
}

impl Config {
    /// Reads a file that must exist.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(path, &text)
    }

    /// Reads a file if it exists.
    pub fn load_default(path: &Path) -> Result<Self, ConfigError> {
        match Self::load(path) {
            Err(ConfigError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(Self::default())
            }
            other => other,
        }
    }

    /// Reads a text; `path` is for messages.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|e| parse_error(path, text, &e))?;
        let path = path.to_owned();
        config.check().map_err(|message| ConfigError::Invalid { path, message })?;
        Ok(config)
    }

    /// The pools to cut subnets from. Docker's fill in for a family that has none; IPv6 without a pool
    /// takes a random unique local range.
    pub fn address_pools(&self) -> Vec<Pool> {
        let mut pools = self.pools.clone();
        if !pools.iter().any(|p| p.base.addr().is_ipv4()) {
            pools.extend(docker_pools());
        }
        pools
    }

    /// Where services' addresses are chosen from.
    pub fn service_pools(&self) -> Vec<IpNet> {
        if !self.service_pools.is_empty() {
            return self.service_pools.clone();
        }
        let default = ["10.96.0.0/16", "fd00:10:96::/112"];
        default.into_iter().filter_map(|net| net.parse().ok()).collect()
    }

    /// Host ports to choose from.
    pub fn published_from(&self) -> PortRange {
        // IANA's dynamic ports, which Docker falls back to, too.
        self.publish_ports.or(PortRange::new(49_153, 65_535)).unwrap_or(PortRange::single(65_535))
    }

    fn check(&self) -> Result<(), String> {
        if self.limits.flows > limits::FLOWS_CEILING {
            return Err(format!("`limits.flows` must be at most {}", limits::FLOWS_CEILING));
        }
        if self.workers == Some(0) || self.workers.is_some_and(|n| n > limits::WORKERS_MAX) {
            return Err(format!("`workers` must be 1 to {}", limits::WORKERS_MAX));
        }
        if let Some(uplink) = &self.default_uplink {
            DefaultUplink::parse(uplink).map_err(|e| format!("`default_uplink`: {e}"))?;
        }
        for pool in &self.pools {
            pool.check().map_err(|e| format!("`pool`: {e}"))?;
        }
        for (n, pool) in self.service_pools.iter().enumerate() {
            let twin = |other: &IpNet| other.addr().is_ipv4() == pool.addr().is_ipv4();
            if self.service_pools[..n].iter().any(twin) {
                return Err("`service_pools`: one range of each family at most".to_owned());
            }
            check_subnet(*pool).map_err(|e| format!("`service_pools`: {e}"))?;
        }
        self.timeouts.check()?;
        self.cluster.as_ref().map_or(Ok(()), ClusterConfig::check)?;
        if self.cluster.is_some() && (self.node.is_some() || !self.peers.is_empty()) {
            return Err("`cluster` says who the nodes are: leave `node` and `peer` out".to_owned());
        }
        no_twins("network", self.networks.iter().map(|n| &n.name))?;
        no_twins("peer", self.peers.iter().map(|p| &p.name))?;
        no_twins("uplink", self.uplinks.iter().map(|u| &u.name))
    }
}

fn no_twins<'a>(key: &str, names: impl Iterator<Item = &'a String>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(format!("`{key}`: the name `{name}` occurs twice"));
        }
    }
    Ok(())
}

fn parse_error(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let start = error.span().map_or(0, |s| s.start.min(text.len()));
    let line = text.bytes().take(start).filter(|b| *b == b'\n').count();
    ConfigError::Parse {
        path: path.to_owned(),
        line: line + 1,
        text: text.lines().nth(line).unwrap_or_default().trim().to_owned(),
        message: error.message().replace('\n', ", "),
    }
}

/// What `--uplink` and the key `default_uplink` say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DefaultUplink {
    /// No way out.
    None,
    /// Sockets of the host.
    Sockets,
    /// A packet socket on this interface, configured by DHCP.
    Packet(String),
}

impl DefaultUplink {
    /// Reads `none`, `sockets` or `packet:INTERFACE`.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "none" => Ok(Self::None),
            None if text == "sockets" => Ok(Self::Sockets),
            Some(("packet", interface)) if !interface.is_empty() => {
                Ok(Self::Packet(interface.to_owned()))
            }
            _ => Err(format!("`{text}` is no uplink; use none, sockets or packet:INTERFACE")),
        }
    }
}

/// Where the daemon's things are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Paths {
    /// Sockets.
    pub runtime_dir: PathBuf,
    /// The store.
    pub state_dir: PathBuf,
    /// The config file.
    pub config_file: PathBuf,
}

impl Paths {
    /// The defaults of the calling user.
    pub fn of_this_user() -> Self {
        Self::of(rustix::process::geteuid().as_raw(), |key| std::env::var_os(key))
    }

    /// The defaults of a user with this environment: the system's directories for root, the XDG ones
    /// for everybody else. Without `XDG_RUNTIME_DIR` (su, cron, a bare container) sockets go below
    /// `/tmp`, in a directory that carries the user's number.
    pub fn of(uid: u32, env: impl Fn(&str) -> Option<OsString>) -> Self {
        if uid == 0 {
            return Self {
                runtime_dir: "/run/wharf".into(),
                state_dir: "/var/lib/wharf".into(),
                config_file: "/etc/wharf/wharf.toml".into(),
            };
        }
        // The XDG specification: a relative path is to be ignored.
        let absolute = |key: &str| env(key).map(PathBuf::from).filter(|p| p.is_absolute());
        let home = absolute("HOME").unwrap_or_else(|| format!("/tmp/wharf-{uid}").into());
        let below = |key: &str, default: &str| absolute(key).unwrap_or_else(|| home.join(default));
        Self {
            runtime_dir: absolute("XDG_RUNTIME_DIR")
                .map_or_else(|| format!("/tmp/wharf-{uid}").into(), |d| d.join("wharf")),
            state_dir: below("XDG_STATE_HOME", ".local/state").join("wharf"),
            config_file: below("XDG_CONFIG_HOME", ".config").join("wharf/wharf.toml"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("wharf.toml"), text).map_err(|e| e.to_string())
    }

    #[test]
    fn a_whole_file_is_read() {
        let config = parse(
            r#"
            workers = 2
            default_uplink = "none"
            dns = ["9.9.9.9", "2620:fe::fe"]
            publish_ports = "40000-40100"
            [limits]
            flows = 1000
            [[pool]]
            base = "10.10.0.0/16"
            size = 24
            [[network]]
            name = "blue"
            subnets = ["10.20.0.0/24", "fd00::/64"]
            isolated = false
            [[uplink]]
            name = "lan"
            kind.packet = { interface = "eth1", addresses = ["192.168.7.2/24"] }
            "#,
        )
        .unwrap();
        assert_eq!(config.workers, Some(2));
        assert_eq!(config.limits.flows, 1000);
        assert_eq!(config.limits.endpoints, limits::ENDPOINTS_MAX);
        assert!(!config.networks[0].isolated && config.networks[0].guard);
        assert_eq!(config.address_pools().len(), 1);
        assert_eq!(config.published_from().to_string(), "40000-40100");
        assert_eq!(config.uplinks[0].name, "lan");
    }

    #[test]
    fn an_empty_file_gives_docker_s_pools() {
        assert_eq!(parse("").unwrap().address_pools(), docker_pools());
    }

    #[test]
    fn what_is_wrong_is_named_with_key_and_line() {
        for (text, words) in [
            ("workers = 1\nworker = 2\n", vec!["line 2", "unknown field `worker`"]),
            ("[[network]]\nname = \"a\"\nisolate = true\n", vec!["line 3", "`isolate`"]),
            ("mtu = \"big\"\n", vec!["line 1", "mtu", "invalid type"]),
            ("\n\nworkers = \n", vec!["line 3"]),
            ("[[network]]\nname = \"a\"\nsubnets = [\"10.0.0.0\"]\n", vec!["line 3", "subnets"]),
            ("workers = 0\n", vec!["`workers`"]),
            ("[limits]\nflows = 8388608\n", vec!["`limits.flows`"]),
            ("default_uplink = \"wlan0\"\n", vec!["`default_uplink`", "packet:INTERFACE"]),
            ("[[pool]]\nbase = \"10.0.0.0/24\"\nsize = 16\n", vec!["`pool`", "cannot be divided"]),
            ("[[network]]\nname = \"a\"\n[[network]]\nname = \"a\"\n", vec!["`a` occurs twice"]),
        ] {
            let error = parse(text).expect_err(text);
            for word in words {
                assert!(error.contains(word), "{text}: {error}");
            }
            assert!(error.starts_with("wharf.toml") && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_an_error_only_if_it_was_asked_for() {
        let path = Path::new("/nonexistent/wharf.toml");
        assert!(Config::load(path).unwrap_err().to_string().contains("/nonexistent/wharf.toml"));
        assert_eq!(Config::load_default(path).unwrap(), Config::default());
    }

    #[test]
    fn defaults_are_the_system_s_for_root_and_xdg_s_for_others() {
        let root = Paths::of(0, |_| None);
        assert_eq!(root.state_dir, Path::new("/var/lib/wharf"));
        let user = Paths::of(1000, |key| match key {
            "HOME" => Some("/home/u".into()),
            "XDG_RUNTIME_DIR" => Some("/run/user/1000".into()),
            "XDG_CONFIG_HOME" => Some("relative".into()),
            _ => None,
        });
        assert_eq!(user.runtime_dir, Path::new("/run/user/1000/wharf"));
        assert_eq!(user.state_dir, Path::new("/home/u/.local/state/wharf"));
        assert_eq!(user.config_file, Path::new("/home/u/.config/wharf/wharf.toml"));
        let bare = Paths::of(1000, |_| None);
        assert_eq!(bare.runtime_dir, Path::new("/tmp/wharf-1000"));
    }
}
