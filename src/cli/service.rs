//! `wharf service`: create, ls, inspect, update, rm.

use std::net::IpAddr;

use clap::{Args, Subcommand};

use super::human::{list, or_dash};
use super::options::{Format, Global, Label};
use super::output::{Failure, Outcome, json, line, listing, table};
use crate::control::model::{
    Affinity, BackendSpec, HealthCheck, HealthSpec, Policy, ServiceInfo, ServicePort, ServiceSpec,
    ServiceUpdate,
};

/// What can be done with services.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Make a service
    Create(Create),
    /// List the services
    #[command(visible_alias = "list")]
    Ls(Format),
    /// Show services in full, as JSON
    Inspect {
        /// Services
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Change a service
    Update(Update),
    /// Remove services
    #[command(visible_alias = "remove")]
    Rm {
        /// Services
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

/// `wharf service create`
#[derive(Args, Debug)]
pub(crate) struct Create {
    /// Its name
    name: String,
    /// Address: `auto`, `none` (headless: its name gives the backends' own), or one of each family
    #[arg(long, value_name = "ADDR", default_value = "auto")]
    vip: Vec<Vip>,
    /// Port `[NAME=]PORT[:TARGET][/tcp|udp]`; may be repeated
    #[arg(long = "port", short = 'p', value_name = "PORT")]
    ports: Vec<ServicePort>,
    /// Port of the node for each port in their order, or `auto` for all: 30000 to 32767
    #[arg(long = "node-port", value_name = "PORT")]
    node_ports: Vec<NodePort>,
    /// Only containers on this network are backends
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// Let a client stay with its backend: `client-ip[:SECONDS]`
    #[arg(long, value_name = "AFFINITY")]
    affinity: Option<Affinity>,
    #[command(flatten)]
    common: Common,
}

/// What can be given and changed.
#[derive(Args, Debug)]
struct Common {
    /// Backend: `NAME[:PORT]` or `ADDRESS[:PORT]`; may be repeated
    #[arg(long = "backend", value_name = "BACKEND")]
    backends: Vec<BackendSpec>,
    /// Label that makes a container a backend; if repeated, it must have all
    #[arg(long = "backend-selector", value_name = "KEY=VALUE")]
    selector: Vec<Label>,
    /// Weight of a backend, 0 (no new connection) to 100; 1 if not given
    #[arg(long = "weight", value_name = "NAME=WEIGHT")]
    weights: Vec<Weight>,
    /// Who serves its address: `cluster` or `local` (backends on the client's node)
    #[arg(long, value_name = "POLICY", value_parser = policy)]
    internal_policy: Option<Policy>,
    /// Who serves its node ports: `cluster` or `local` (backends on the node asked)
    #[arg(long, value_name = "POLICY", value_parser = policy)]
    external_policy: Option<Policy>,
    #[command(flatten)]
    health: HealthOptions,
}

/// `wharf service update`
#[derive(Args, Debug)]
pub(crate) struct Update {
    /// The service
    name: String,
    /// Let a client stay with its backend: `client-ip[:SECONDS]`, or `none`
    #[arg(long, value_name = "AFFINITY", value_parser = affinity_or_none)]
    affinity: Option<u32>,
    #[command(flatten)]
    common: Common,
}

/// How backends are asked whether they serve.
#[derive(Args, Debug)]
struct HealthOptions {
    /// Ask backends whether they serve: `tcp`, `http:/PATH`, or `none`
    #[arg(long, value_name = "CHECK")]
    health: Option<Asked>,
    /// At this port, in place of the one they serve at
    #[arg(long, value_name = "PORT", requires = "health")]
    health_port: Option<u16>,
    /// Seconds from one attempt to the next; 10 if not given
    #[arg(long, value_name = "SECONDS", requires = "health")]
    health_interval: Option<u32>,
    /// Seconds that an attempt may take; 1 if not given
    #[arg(long, value_name = "SECONDS", requires = "health")]
    health_timeout: Option<u32>,
    /// Successes in a row that make a backend ready; 1 if not given
    #[arg(long, value_name = "N", requires = "health")]
    health_up: Option<u16>,
    /// Failures in a row after which it is not; 3 if not given
    #[arg(long, value_name = "N", requires = "health")]
    health_down: Option<u16>,
}

/// What `--health` says.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Asked {
    None,
    Check(HealthCheck),
}

impl std::str::FromStr for Asked {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::None);
        }
        text.parse().map(Self::Check).map_err(|_| "use tcp, http:/PATH or none".to_owned())
    }
}

impl HealthOptions {
    fn spec(&self) -> Option<HealthSpec> {
        let Some(Asked::Check(check)) = &self.health else { return None };
        let usual = HealthSpec::new(check.clone());
        Some(HealthSpec {
            port: self.health_port,
            interval: self.health_interval.unwrap_or(usual.interval),
            timeout: self.health_timeout.unwrap_or(usual.timeout),
            up: self.health_up.unwrap_or(usual.up),
            down: self.health_down.unwrap_or(usual.down),
            ..usual
        })
    }
}

/// What `--vip` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Vip {
    Auto,
    None,
    Addr(IpAddr),
}

impl std::str::FromStr for Vip {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "none" => Ok(Self::None),
            addr => addr.parse().map(Self::Addr).map_err(|_| "use auto, none or an address".into()),
        }
    }
}

/// What `--node-port` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum NodePort {
    Auto,
    Port(u16),
}

impl std::str::FromStr for NodePort {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        text.parse().map(Self::Port).map_err(|_| "use auto or a port".into())
    }
}

/// `NAME=WEIGHT`.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Weight(String, u16);

impl std::str::FromStr for Weight {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.rsplit_once('=').and_then(|(name, n)| Some((name, n.parse().ok()?)));
        let (name, weight) = parsed.ok_or("a weight is written NAME=0 to NAME=100")?;
        Ok(Self(name.to_owned(), weight))
    }
}

fn policy(text: &str) -> Result<Policy, String> {
    match text {
        "cluster" => Ok(Policy::Cluster),
        "local" => Ok(Policy::Local),
        _ => Err("use cluster or local".to_owned()),
    }
}

fn affinity_or_none(text: &str) -> Result<u32, String> {
    if text == "none" {
        return Ok(0);
    }
    text.parse::<Affinity>().map(Affinity::seconds).map_err(|error| error.to_string())
}

impl Create {
    fn spec(self) -> ServiceSpec {
        let common = self.common;
        let health = common.health.spec();
        let auto = self.node_ports.contains(&NodePort::Auto);
        let chosen = |port: &NodePort| match port {
            NodePort::Auto => 0,
            NodePort::Port(port) => *port,
        };
        let mut node_ports: Vec<u16> = self.node_ports.iter().map(chosen).collect();
        if auto {
            node_ports.resize(self.ports.len(), 0);
        }
        let addr = |vip: &Vip| match vip {
            Vip::Addr(addr) => Some(*addr),
            Vip::Auto | Vip::None => None,
        };
        ServiceSpec {
            name: self.name,
            vips: self.vip.iter().filter_map(addr).collect(),
            headless: self.vip.contains(&Vip::None),
            ports: self.ports,
            node_ports,
            backends: common.backends,
            selector: common.selector.into_iter().map(|l| (l.key, l.value)).collect(),
            network: self.network,
            weights: common.weights.into_iter().map(|Weight(name, n)| (name, n)).collect(),
            affinity: self.affinity,
            internal_policy: common.internal_policy.unwrap_or_default(),
            external_policy: common.external_policy.unwrap_or_default(),
            health,
        }
    }
}

impl Update {
    fn change(self) -> ServiceUpdate {
        let common = self.common;
        let selector: std::collections::BTreeMap<_, _> =
            common.selector.into_iter().map(|l| (l.key, l.value)).collect();
        ServiceUpdate {
            backends: Some(common.backends).filter(|backends| !backends.is_empty()),
            selector: Some(selector).filter(|selector| !selector.is_empty()),
            weights: common.weights.into_iter().map(|Weight(name, n)| (name, n)).collect(),
            affinity: self.affinity,
            internal_policy: common.internal_policy,
            external_policy: common.external_policy,
            no_health: common.health.health == Some(Asked::None),
            health: common.health.spec(),
        }
    }
}

/// Runs `wharf service …`.
pub(crate) fn run(global: &Global, command: Command) -> Outcome {
    let client = global.client();
    match command {
        Command::Create(create) => {
            let service = client.create_service(&create.spec())?;
            warn(global, &service);
            line(&or_dash(Some(list(service.spec.vips.iter())).filter(|vips| !vips.is_empty())))?;
            Ok(0)
        }
        Command::Ls(format) => {
            let services = client.services()?;
            listing(format.json, &services, || services_table(&services))
        }
        Command::Inspect { names } => {
            let found: Result<Vec<_>, _> = names.iter().map(|name| client.service(name)).collect();
            json(&found?)?;
            Ok(0)
        }
        Command::Update(update) => {
            let name = update.name.clone();
            let change = update.change();
            if change == ServiceUpdate::default() {
                return Err(Failure::usage("nothing to change").hint("name at least one option"));
            }
            warn(global, &client.update_service(&name, &change)?);
            Ok(0)
        }
        Command::Rm { names } => {
            for name in &names {
                client.remove_service(name)?;
                if names.len() > 1 {
                    line(name)?;
                }
            }
            Ok(0)
        }
    }
}

fn warn(global: &Global, service: &ServiceInfo) {
    for warning in &service.warnings {
        global.note(format_args!("warning: service {}: {warning}", service.spec.name));
    }
}

fn services_table(services: &[ServiceInfo]) -> String {
    let rows = services.iter().map(|service| {
        let spec = &service.spec;
        let ready = service.members.iter().filter(|member| member.ready).count();
        let vips = if spec.headless { "headless".to_owned() } else { list(spec.vips.iter()) };
        [
            spec.name.clone(),
            vips,
            list(spec.ports.iter()),
            list(spec.node_ports.iter()),
            format!("{ready}/{}", service.members.len()),
        ]
    });
    table(["NAME", "ADDRESSES", "PORTS", "NODE PORTS", ">READY"], rows.collect())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        command: Command,
    }

    fn created(words: &str) -> ServiceSpec {
        let line = Line::try_parse_from(["wharf", "create"].into_iter().chain(words.split(' ')));
        let Command::Create(create) = line.unwrap_or_else(|e| panic!("{e}")).command else {
            panic!("not create")
        };
        create.spec()
    }

    #[test]
    fn a_command_line_becomes_a_service() {
        let spec = created(
            "web --port 80:8080/tcp --port 53/udp --node-port 30080 --node-port auto \
             --backend-selector app=web --backend db:81 --weight db=9 --affinity client-ip:60 \
             --external-policy local --health http:/up --health-interval 5 --health-down 2",
        );
        assert_eq!((spec.vips.len(), spec.headless, spec.ports.len()), (0, false, 2));
        assert_eq!((spec.node_ports, spec.weights["db"]), (vec![30_080, 0], 9));
        assert_eq!((spec.selector["app"].as_str(), spec.backends.len()), ("web", 1));
        assert_eq!(spec.affinity.map(Affinity::seconds), Some(60));
        assert_eq!((spec.internal_policy, spec.external_policy), (Policy::Cluster, Policy::Local));
        let health = spec.health.unwrap();
        assert_eq!(health.check, HealthCheck::Http("/up".to_owned()));
        assert_eq!((health.interval, health.timeout, health.up, health.down), (5, 1, 1, 2));
        assert!(created("web --vip none").headless);
        assert_eq!(created("web --vip 10.96.0.9 -p 80").vips.len(), 1);
    }
}
