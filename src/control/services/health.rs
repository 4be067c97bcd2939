//! Backends that are asked whether they serve: who, and what is known of them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::super::Control;
use super::super::error::ControlError;
use super::super::model::{EventKind, HealthCheck, HealthSpec, Proto, ServiceSpec};
use super::Member;
use crate::base::ids::PortId;
use crate::base::time::Span;
use crate::stage::service::health::{Check, Checked, Health, Verdict};

/// The longest interval, in seconds, and the most attempts that a threshold may want.
const INTERVAL_MAX: u32 = 3_600;
const THRESHOLD_MAX: u16 = 100;

/// How a backend is at one address and port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Condition {
    plug: PortId,
    ready: bool,
    /// Why it is not.
    failure: Option<String>,
}

/// What is known of a service's backends.
pub(super) type Conditions = BTreeMap<(IpAddr, u16), Condition>;

/// What can be wrong about a service's health check.
pub(super) fn check(spec: &ServiceSpec) -> Result<(), ControlError> {
    let Some(health) = &spec.health else { return Ok(()) };
    let invalid = |what: &str, hint: &str| {
        Err(ControlError::invalid(format!("the health check of `{}` {what}", spec.name), hint))
    };
    if health.interval == 0 || health.interval > INTERVAL_MAX {
        return invalid("has no such interval", "use 1 to 3600 seconds");
    }
    if health.timeout == 0 || health.timeout > health.interval {
        return invalid("has no such timeout", "use 1 second or more, at most the interval");
    }
    let good = 1..=THRESHOLD_MAX;
    if !good.contains(&health.up) || !good.contains(&health.down) {
        return invalid("has no such threshold", "use 1 to 100 attempts");
    }
    if health.port == Some(0) || (health.port.is_none() && tcp_target(spec).is_none()) {
        return invalid(
            "has no port that could be asked",
            "give the service a TCP port, or the check one: `--health-port PORT`",
        );
    }
    Ok(())
}

/// Where a service's backends take TCP connections, unless one has a port of its own.
fn tcp_target(spec: &ServiceSpec) -> Option<u16> {
    spec.ports.iter().find(|port| port.proto == Proto::Tcp).map(|port| port.target)
}

/// Where a backend is asked.
fn port_of(spec: &ServiceSpec, health: &HealthSpec, member: &Member) -> Option<u16> {
    health.port.or(member.port).or_else(|| tcp_target(spec))
}

/// Backends and how they are, as far as it is known. Only those of this node's containers are asked; who has
/// just come is `trusted` to serve before it was, or is not.
pub(super) fn apply(
    spec: &ServiceSpec,
    known: &Conditions,
    members: &mut [Member],
    trusted: bool,
) -> Conditions {
    let mut conditions = Conditions::new();
    let Some(health) = &spec.health else { return conditions };
    for member in members {
        let (Some(plug), Some(port)) = (member.plug, port_of(spec, health, member)) else {
            continue;
        };
        for addr in &member.addrs {
            let at = (*addr, port);
            let condition = known.get(&at).filter(|condition| condition.plug == plug).cloned();
            let fresh = Condition { plug, ready: trusted, failure: None };
            let condition = condition.unwrap_or(fresh);
            if !condition.ready {
                let why = condition.failure.as_deref().unwrap_or("has not been asked yet");
                member.unready.insert(*addr, why.to_owned());
            }
            conditions.insert(at, condition);
        }
    }
    conditions
}

/// The same as workers read it.
pub(super) fn compiled(
    spec: &ServiceSpec,
    conditions: &Conditions,
) -> Option<(Arc<Health>, Vec<Checked>)> {
    let health = spec.health.as_ref()?;
    let check = match &health.check {
        HealthCheck::Tcp => Check::Tcp,
        HealthCheck::Http(path) => Check::Http(path.as_str().into()),
    };
    let checked = conditions.iter().map(|((addr, port), condition)| Checked {
        plug: condition.plug,
        addr: (*addr).into(),
        port: *port,
        ready: condition.ready,
    });
    let health = Health {
        check,
        interval: Span::from_secs(health.interval.into()),
        timeout: Span::from_secs(health.timeout.into()),
        up: health.up,
        down: health.down,
    };
    Some((Arc::new(health), checked.collect()))
}

impl Control {
    /// A worker found out how a backend is.
    pub(in crate::control) fn backend_health(&mut self, verdict: Verdict) {
        let Verdict { service, addr, port, failure } = verdict;
        let addr = IpAddr::from(addr);
        let Some(state) = self.services.all.get_mut(&service) else { return };
        let Some(condition) = state.conditions.get_mut(&(addr, port)) else { return };
        let member = state.members.iter().find(|member| member.addrs.contains(&addr));
        let Some(member) = member.map(|member| member.name.clone()) else { return };
        let name = state.record.spec.name.clone();
        let at = SocketAddr::new(addr, port);
        // Another reason for what was known is worth knowing, and no event.
        let news = condition.ready || condition.failure.is_none() || failure.is_none();
        let (kind, text) = match &failure {
            None => (EventKind::BackendReady, format!("{member} serves {name} at {at}")),
            Some(why) => (
                EventKind::BackendUnready,
                format!("{member} does not serve {name} at {at}: {why}"),
            ),
        };
        condition.ready = failure.is_none();
        condition.failure = failure;
        self.send_service(service);
        if news {
            self.event(kind, None, Some(&member), text);
        }
    }
}
