//! Options that several commands share, and the words their values are written in.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use super::output::Failure;
use crate::api::client::Client;
use crate::api::paths::RuntimeDir;
use crate::attach::protocol::{AttachRequest, RateLimit, RateLimits};
use crate::wire::mac::Mac;

/// The default network's name.
pub(crate) const DEFAULT_NETWORK: &str = "default";

/// What every command takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct Global {
    /// Directory of the daemon's sockets
    ///
    /// /run/wharf for root, $XDG_RUNTIME_DIR/wharf otherwise.
    #[arg(
        long,
        global = true,
        env = "WHARF_RUNTIME_DIR",
        value_name = "DIR",
        hide_env_values = true,
        help_heading = "Global options"
    )]
    pub(crate) runtime_dir: Option<PathBuf>,
    /// Print nothing but what was asked for
    #[arg(long, short, global = true, help_heading = "Global options")]
    pub(crate) quiet: bool,
    /// Say more about what is being done; twice for everything
    #[arg(long, short, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    pub(crate) verbose: u8,
}

impl Global {
    /// Settles where the daemon is. Before anything else: in a user namespace this process is another
    /// user, whose directory would be another one.
    pub(crate) fn settle(&mut self) {
        self.runtime_dir = Some(self.runtime_dir().path().to_owned());
    }

    /// Where the daemon is.
    pub(crate) fn runtime_dir(&self) -> RuntimeDir {
        let dir = self.runtime_dir.clone().filter(|dir| !dir.as_os_str().is_empty());
        dir.map_or_else(RuntimeDir::of_this_user, RuntimeDir::new)
    }

    /// A client of that daemon.
    pub(crate) fn client(&self) -> Client {
        Client::new(&self.runtime_dir())
    }

    /// Tells on standard error, unless `-q`.
    pub(crate) fn note(&self, text: impl std::fmt::Display) {
        if !self.quiet {
            eprintln!("{text}");
        }
    }
}

/// A listing's format.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct Format {
    /// Print JSON, whose fields are stable
    #[arg(long)]
    pub(crate) json: bool,
}

/// What can be wished for an endpoint.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct EndpointOptions {
    /// Publish a port on the host's addresses
    ///
    /// Docker's forms: `[[hostIP:]hostPort[-end]:]port[-end][/tcp|udp|sctp]`. Host port 0, or none,
    /// chooses a free one.
    #[arg(long, short = 'p', value_name = "SPEC")]
    pub(crate) publish: Vec<String>,
    /// IPv4 address, of the first network
    #[arg(long, value_name = "ADDR")]
    pub(crate) ip: Option<Ipv4Addr>,
    /// IPv6 address, of the first network
    #[arg(long, value_name = "ADDR")]
    pub(crate) ip6: Option<Ipv6Addr>,
    /// MAC address, of the first network
    #[arg(long, value_name = "MAC")]
    pub(crate) mac: Option<Mac>,
    /// Limit of bits a second, of each network
    ///
    /// `100M` for each direction, `100M/20M` for what it receives and what it sends, `-/20M` for one only.
    /// k, M and G are thousands, millions and thousands of millions.
    #[arg(long, value_name = "RATE")]
    pub(crate) rate: Option<RateOption>,
    /// Label of the container; may be repeated
    #[arg(long = "label", short = 'l', value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<Label>,
    /// Further name of the container; may be repeated
    #[arg(long = "alias", value_name = "NAME")]
    pub(crate) aliases: Vec<String>,
}

impl EndpointOptions {
    /// The request for one network; `first` carries what can be given only once.
    pub(crate) fn request(&self, network: &str, ifname: &str, first: bool) -> AttachRequest {
        let mut request = AttachRequest::new(network, ifname);
        request.labels =
            self.labels.iter().cloned().map(|l| (l.key, l.value)).collect::<BTreeMap<_, _>>();
        request.aliases.clone_from(&self.aliases);
        request.rate = self.rate.map(|rate| rate.0).unwrap_or_default();
        if first {
            request.publish.clone_from(&self.publish);
            (request.ip, request.ip6, request.mac) = (self.ip, self.ip6, self.mac);
        }
        request
    }

    /// Whether anything was wished that only makes sense on a network of ours.
    pub(crate) fn first_wish(&self) -> Option<&'static str> {
        let wishes = [
            (!self.publish.is_empty(), "--publish"),
            (self.ip.is_some(), "--ip"),
            (self.ip6.is_some(), "--ip6"),
            (self.mac.is_some(), "--mac"),
            (!self.aliases.is_empty(), "--alias"),
            (self.rate.is_some(), "--rate"),
        ];
        wishes.into_iter().find(|(wished, _)| *wished).map(|(_, name)| name)
    }
}

/// `R`, `IN/OUT`, `-/OUT`, `IN/-`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RateOption(RateLimits);

impl FromStr for RateOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (ingress, egress) = text.split_once('/').unwrap_or((text, text));
        let (ingress, egress) = (rate(ingress)?, rate(egress)?);
        if ingress.is_none() && egress.is_none() {
            return Err("leave it out for no limit".to_owned());
        }
        Ok(Self(RateLimits { ingress, egress }))
    }
}

/// `12.5M`: bits a second.
fn rate(text: &str) -> Result<Option<RateLimit>, String> {
    if text == "-" {
        return Ok(None);
    }
    let wrong = || format!("`{text}` is not a rate such as 500k, 100M or 2.5G (bits a second)");
    let number = text.strip_suffix("bit").unwrap_or(text);
    let (number, unit) = match number.char_indices().last().ok_or_else(wrong)? {
        (at, 'k' | 'K') => (&number[..at], 1_000),
        (at, 'M' | 'm') => (&number[..at], 1_000_000),
        (at, 'G' | 'g') => (&number[..at], 1_000_000_000),
        _ => (number, 1_u64),
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 9 {
        return Err(wrong());
    }
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    let part = part.parse::<u64>().map_err(|_| wrong())? * unit / 10_u64.pow(part.len() as u32);
    let rate = whole.checked_mul(unit).and_then(|bits| bits.checked_add(part)).ok_or_else(wrong)?;
    Ok(Some(RateLimit { rate, burst: None }))
}

/// `KEY=VALUE`; the value may be missing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Label {
    pub(crate) key: String,
    pub(crate) value: String,
}

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        if key.is_empty() {
            return Err("a label is written KEY=VALUE".to_owned());
        }
        Ok(Self { key: key.to_owned(), value: value.to_owned() })
    }
}

/// What `run` is to be connected to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum NetworkMode {
    /// A network of ours.
    Network(String),
    /// The host's namespace.
    Host,
    /// A namespace with nothing but loopback.
    None,
    /// The namespace of another container.
    Container(String),
}

impl FromStr for NetworkMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.split_once(':')) {
            ("", _) | (_, Some(("container", ""))) => {
                Err("a network is NAME, host, none or container:NAME".to_owned())
            }
            ("host", _) => Ok(Self::Host),
            ("none", _) => Ok(Self::None),
            (_, Some(("container", name))) => Ok(Self::Container(name.to_owned())),
            (name, _) => Ok(Self::Network(name.to_owned())),
        }
    }
}

/// What the `--network` options of one command mean together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Plan {
    /// These networks, in this order: `eth0`, `eth1`, …
    Networks(Vec<String>),
    /// The host's namespace.
    Host,
    /// A namespace with nothing but loopback.
    None,
    /// The namespace of another container.
    Container(String),
}

impl Plan {
    /// Joins them; `host`, `none` and `container:` stand alone.
    pub(crate) fn of(modes: &[NetworkMode]) -> Result<Self, Failure> {
        let mut networks = Vec::new();
        for mode in modes {
            let alone = match mode {
                NetworkMode::Network(name) => {
                    if networks.contains(name) {
                        return Err(Failure::usage(format!("network `{name}` is named twice")));
                    }
                    networks.push(name.clone());
                    continue;
                }
                NetworkMode::Host => Self::Host,
                NetworkMode::None => Self::None,
                NetworkMode::Container(name) => Self::Container(name.clone()),
            };
            if modes.len() > 1 {
                let what = "--network host, none and container:NAME stand alone";
                return Err(Failure::usage(what).hint("give either one of them, or networks"));
            }
            return Ok(alone);
        }
        if networks.is_empty() {
            networks.push(DEFAULT_NETWORK.to_owned());
        }
        Ok(Self::Networks(networks))
    }
}

/// Where a traced packet is to go: `ADDR[:PORT][/PROTO]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Destination {
    pub(crate) addr: IpAddr,
    pub(crate) port: Option<u16>,
    pub(crate) proto: String,
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || "a destination is ADDR[:PORT][/PROTO]: 10.0.0.2:80/tcp, [fd00::2]:53/udp".to_owned();
        let (rest, proto) = match text.split_once('/') {
            Some((rest, proto)) => (rest, Some(proto.to_ascii_lowercase())),
            None => (text, None),
        };
        let (addr, port) = if let Ok(addr) = rest.parse::<IpAddr>() {
            (addr, None)
        } else if let Some(inner) = rest.strip_prefix('[').and_then(|r| r.strip_suffix(']')) {
            (IpAddr::V6(inner.parse().map_err(|_| wrong())?), None)
        } else {
            let socket: std::net::SocketAddr = rest.parse().map_err(|_| wrong())?;
            (socket.ip(), Some(socket.port()))
        };
        let proto = proto.unwrap_or_else(|| if port.is_some() { "tcp" } else { "icmp" }.to_owned());
        match (proto.as_str(), port) {
            ("tcp" | "udp" | "sctp", Some(_)) | ("icmp", None) => Ok(Self { addr, port, proto }),
            ("tcp" | "udp" | "sctp", None) => {
                Err(format!("{proto} needs a port: ADDR:PORT/{proto}"))
            }
            ("icmp", Some(_)) => Err("icmp has no ports".to_owned()),
            _ => Err("the protocol is tcp, udp, sctp or icmp".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(texts: &[&str]) -> Result<Plan, Failure> {
        let modes: Vec<NetworkMode> = texts.iter().map(|t| t.parse().unwrap()).collect();
        Plan::of(&modes)
    }

    #[test]
    fn without_a_network_the_default_one_is_meant() {
        assert_eq!(plan(&[]).unwrap(), Plan::Networks(vec!["default".to_owned()]));
    }

    #[test]
    fn networks_keep_their_order_and_the_other_modes_stand_alone() {
        let two = plan(&["blue", "red"]).unwrap();
        assert_eq!(two, Plan::Networks(vec!["blue".to_owned(), "red".to_owned()]));
        assert_eq!(plan(&["host"]).unwrap(), Plan::Host);
        assert_eq!(plan(&["none"]).unwrap(), Plan::None);
        assert_eq!(plan(&["container:web"]).unwrap(), Plan::Container("web".to_owned()));
        for wrong in [&["host", "blue"][..], &["blue", "none"], &["blue", "blue"]] {
            assert_eq!(plan(wrong).unwrap_err().exit, 2, "{wrong:?}");
        }
        assert!("container:".parse::<NetworkMode>().is_err());
    }

    #[test]
    fn a_label_may_have_an_empty_value_but_no_empty_key() {
        let label: Label = "tier=web=1".parse().unwrap();
        assert_eq!((label.key.as_str(), label.value.as_str()), ("tier", "web=1"));
        assert_eq!("tier".parse::<Label>().unwrap().value, "");
        assert!("=x".parse::<Label>().is_err());
    }

    #[test]
    fn a_rate_is_read_for_one_or_both_directions() {
        let read = |text: &str| {
            let limits = text.parse::<RateOption>()?.0;
            Ok::<_, String>((limits.ingress.map(|l| l.rate), limits.egress.map(|l| l.rate)))
        };
        assert_eq!(read("100M"), Ok((Some(100_000_000), Some(100_000_000))));
        assert_eq!(read("2.5G/500kbit"), Ok((Some(2_500_000_000), Some(500_000))));
        assert_eq!(read("-/20000"), Ok((None, Some(20_000))));
        assert_eq!(read("1g/-"), Ok((Some(1_000_000_000), None)));
        for wrong in
            ["", "-", "-/-", "M", "1.M", ".5M", "1T", "-5M", "1/2/3", "99999999999999G", "é"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_destination_is_read_in_both_families() {
        let read =
            |text: &str| text.parse::<Destination>().map(|d| (d.addr.to_string(), d.port, d.proto));
        let is = |addr: &str, port, proto: &str| Ok((addr.to_owned(), port, proto.to_owned()));
        assert_eq!(read("10.0.0.2:80"), is("10.0.0.2", Some(80), "tcp"));
        assert_eq!(read("10.0.0.2:53/UDP"), is("10.0.0.2", Some(53), "udp"));
        assert_eq!(read("[fd00::2]:53/udp"), is("fd00::2", Some(53), "udp"));
        assert_eq!(read("fd00::2"), is("fd00::2", None, "icmp"));
        assert_eq!(read("[fd00::2]"), is("fd00::2", None, "icmp"));
        for wrong in ["", "web:80", "10.0.0.2/tcp", "10.0.0.2:80/icmp", "10.0.0.2:80/gre"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_the_first_network_gets_addresses_and_ports() {
        let options = EndpointOptions {
            publish: vec!["80".to_owned()],
            ip: Some(Ipv4Addr::new(10, 0, 0, 9)),
            aliases: vec!["www".to_owned()],
            ..EndpointOptions::default()
        };
        let (first, second) =
            (options.request("a", "eth0", true), options.request("b", "eth1", false));
        assert_eq!((first.publish.len(), first.ip.is_some()), (1, true));
        assert_eq!((second.publish.len(), second.ip.is_some()), (0, false));
        assert_eq!(second.aliases, ["www"]);
    }
}
