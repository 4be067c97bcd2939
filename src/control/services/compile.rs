//! A service as workers read it.

use std::sync::Arc;

use super::Member;
use super::health::{self, Conditions};
use crate::base::time::Span;
use crate::config::Delta;
use crate::control::model::{Policy, ServiceSpec};
use crate::control::store::record::ServiceRecord;
use crate::stage::dns::{Named, Service as Srv};
use crate::stage::service::{Backend, Front, Maglev, Pool, Service, Traffic, identity};
use crate::wire::addr::Addr;

/// The domain of services' names, beside their bare ones.
const DOMAIN: &str = "svc";

pub(super) fn service(
    record: &ServiceRecord,
    members: &[Member],
    conditions: &Conditions,
) -> Delta {
    let spec = &record.spec;
    let tables = Tables::new(members);
    let vips = spec.vips.iter().copied().map(Addr::from).collect();
    let front = |(n, port): (usize, &crate::control::model::ServicePort)| Front {
        proto: port.proto.number(),
        port: port.port,
        node_port: spec.node_ports.get(n).copied(),
        pools: [false, true].map(|v6| tables.pool(members, v6, port.target)),
    };
    let traffic = |policy| match policy {
        Policy::Cluster => Traffic::Cluster,
        Policy::Local => Traffic::Local,
    };
    let service = Service {
        id: record.id,
        name: spec.name.as_str().into(),
        vips,
        fronts: spec.ports.iter().enumerate().map(front).collect(),
        affinity: spec.affinity.map(|affinity| Span::from_secs(affinity.seconds().into())),
        internal: traffic(spec.internal_policy),
        external: traffic(spec.external_policy),
        health: health::compiled(spec, conditions),
    };
    Delta::Service(Arc::new(service), Arc::new(named(spec, members)))
}

/// One table for each family, and one for both where the same members serve in both.
struct Tables([Arc<Maglev>; 2]);

impl Tables {
    fn new(members: &[Member]) -> Self {
        let of = |v6: bool| {
            let serving = members.iter().filter(|member| member.has(v6));
            serving.map(|member| (member.identity(), member.weight)).collect::<Vec<_>>()
        };
        let (v4, v6) = (of(false), of(true));
        let first = Arc::new(Maglev::new(&v4));
        let second = if v4 == v6 { Arc::clone(&first) } else { Arc::new(Maglev::new(&v6)) };
        Self([first, second])
    }

    fn pool(&self, members: &[Member], v6: bool, target: u16) -> Pool {
        let backends = members.iter().filter_map(|member| {
            Some(Backend {
                identity: member.identity(),
                name: member.name.as_str().into(),
                addr: member.addr(v6)?,
                port: member.port.unwrap_or(target),
                plug: member.plug,
                weight: member.weight,
            })
        });
        Pool::new(backends.collect(), Arc::clone(&self.0[usize::from(v6)]))
    }
}

impl Member {
    /// The same on every node that knows it.
    fn identity(&self) -> u64 {
        match self.port {
            None => identity(&self.name),
            Some(port) => identity(&format!("{}:{port}", self.name)),
        }
    }

    fn addr(&self, v6: bool) -> Option<Addr> {
        self.serving().find(|addr| addr.is_ipv6() == v6).map(Addr::from)
    }

    fn has(&self, v6: bool) -> bool {
        self.addr(v6).is_some()
    }
}

/// What a service is called: alone and below [`DOMAIN`], its ports for `SRV` queries. The name of one
/// without an address is that of its backends, each of which has one of its own, too.
fn named(spec: &ServiceSpec, members: &[Member]) -> Named {
    let name = spec.name.to_ascii_lowercase();
    let whole = format!("{name}.{DOMAIN}");
    let mut named = Named { names: vec![name.clone(), whole.clone()], ..Named::default() };
    let mut targets = Vec::new();
    if spec.headless {
        for member in members.iter().filter(|member| member.weight > 0) {
            let part =
                format!("{}.{whole}", member.name.to_ascii_lowercase().replace([':', '.'], "-"));
            for addr in member.serving().map(Addr::from) {
                named.addrs.push(addr);
                named.parts.push((part.clone(), addr));
            }
            if member.serving().next().is_some() {
                targets.push((part, member.port));
            }
        }
    } else {
        named.addrs = spec.vips.iter().copied().map(Addr::from).collect();
        targets.push((whole.clone(), None));
        named.whole.clone_from(&whole);
    }
    for port in &spec.ports {
        let label = port.name.clone().unwrap_or_else(|| port.port.to_string());
        for (target, own) in &targets {
            let number = if spec.headless { own.unwrap_or(port.target) } else { port.port };
            let service = Srv { port: number, target: target.clone() };
            for host in [&name, &whole] {
                let key = format!("_{label}._{}.{host}", port.proto);
                named.services.push((key, service.clone()));
            }
        }
    }
    named
}
