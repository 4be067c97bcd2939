//! One example of every body, with every field set: what `/openapi.json` is made from.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;
use serde_json::Value;

use super::types::StopRequest;
use crate::attach::protocol::{RateLimit, RateLimits};
use crate::base::ids::{NetworkId, PortId, PublicationId, ServiceId, UplinkId};
use crate::control::model::{
    Affinity, BackendHost, BackendInfo, BackendSpec, CaptureSide, CaptureSpec, Deleted,
    EndpointInfo, EndpointState, EndpointUpdate, ErrorBody, ErrorCode, EventInfo, EventKind,
    FdbView, FlowEventView, FlowView, HealthCheck, HealthSpec, NamespaceId, NeighbourView,
    NetworkInfo, NetworkSpec, NetworkUpdate, NodeEndpoint, NodeInfo, NodeRemoved, NodeState,
    PacketSpec, Policy, PolicyApplied, PolicyFile, PolicyInfo, PolicyTest, PolicyTestReport,
    PolicyVerdict, PortRange, PortView, Proto, PublicationInfo, PublishRequest, PublishSpec,
    RuleView, ServiceInfo, ServicePort, ServiceSpec, ServiceUpdate, StatsInfo, StatusInfo,
    SubnetInfo, TraceQuery, UplinkInfo, UplinkKind, UplinkSpec,
};
use crate::control::policy;
use crate::datapath::inspect::{
    FlowCount, FlowEnd, FlowHappening, FlowInfo, PortStats, RouteInfo, TraceReport, TraceStep,
    TunnelStats, WorkerStats,
};
use crate::observe::capture::{Form, FrameView};
use crate::stage::flow::{Binding, Filtering};
use crate::stage::policy::{Action, Direction};
use crate::wire::mac::Mac;

/// One example.
pub(super) struct Example {
    /// Name of the type.
    pub(super) name: &'static str,
    /// It as JSON.
    pub(super) value: Value,
    /// Fields that a request must have; answers have all of them.
    pub(super) required: Option<&'static [&'static str]>,
}

/// All examples.
#[rustfmt::skip]
pub(super) fn all() -> Vec<Example> {
    vec![
        request("CaptureSpec", &[], &capture()),
        answer("Deleted", &Deleted { count: 1 }),
        answer("EndpointInfo", &endpoint()),
        request("EndpointUpdate", &[], &endpoint_update()),
        answer("ErrorBody", &error()),
        answer("EventInfo", &event()),
        answer("FdbView", &FdbView { network: text("blue"), mac: MAC, port: text("web"), fixed: false, age_ms: 1200 }),
        answer("FlowCount", &FlowCount { state: text("tcp-established"), flows: 12, timeout_ms: 7_440_000 }),
        answer("FlowEventView", &flow_event()),
        answer("FlowView", &flow()),
        answer("FrameView", &FrameView { time_ns: 1_767_225_600_000_000_000, port: text("web"), side: text("ingress"), length: 60, summary: text("TCP 10.20.0.2:40000 -> 10.30.0.2:80 [S]"), drop: Some(text("network-isolated")) }),
        answer("NeighbourView", &NeighbourView { port: text("lan"), addr: ip("192.0.2.1"), mac: Some(MAC), state: text("reachable") }),
        answer("NetworkInfo", &network()),
        request("NetworkSpec", &["name"], &network_spec()),
        request("NetworkUpdate", &[], &network_update()),
        answer("NodeEndpoint", &NodeEndpoint { node: text("b"), state: NodeState::Alive, id: text("00c0ffee00c0ffee"), name: text("web"), network: text("cluster"), addresses: vec![ip("10.244.2.2")], mac: MAC, labels: BTreeMap::new() }),
        answer("NodeInfo", &NodeInfo { name: text("b"), this: false, state: NodeState::Alive, subnets: vec![net("10.244.2.0/24")], addresses: vec![ip("192.0.2.7")], endpoints: 3, program: Some(text("0.1.0")), since_ms: Some(1_790_000_000_000), notes: vec![] }),
        answer("NodeRemoved", &NodeRemoved { name: text("b"), subnets: vec![net("10.244.2.0/24")], quarantine_secs: 300 }),
        answer("PolicyApplied", &PolicyApplied { policies: vec![policy_info()] }),
        request("PolicyFile", &["yaml"], &PolicyFile { yaml: text("policy: web\nrules:\n  - deny: { from: any }\n") }),
        answer("PolicyInfo", &policy_info()),
        request("PolicyTest", &["from", "to"], &PolicyTest { from: text("web"), to: text("db"), port: Some(5432), proto: Some(text("tcp")) }),
        answer("PolicyTestReport", &policy_report()),
        answer("PublicationInfo", &publication()),
        request("PublishRequest", &["publish"], &PublishRequest { publish: vec![publish_spec()] }),
        answer("RouteInfo", &RouteInfo { dst: text("0.0.0.0/0"), via: Some(ip("192.0.2.1")), to: text("lan") }),
        answer("ServiceInfo", &service()),
        request("ServiceSpec", &["name"], &service().spec),
        request("ServiceUpdate", &[], &service_update()),
        answer("StatsInfo", &stats()),
        answer("StatusInfo", &status()),
        request("StopRequest", &[], &StopRequest { release: false }),
        request("TraceQuery", &["from", "to"], &TraceQuery { from: text("web"), to: ip("10.20.0.3"), port: Some(80), proto: Some(text("tcp")) }),
        answer("TraceReport", &trace()),
        answer("UplinkInfo", &uplink()),
        request("UplinkSpec", &["name", "kind"], &UplinkSpec { name: text("lan"), kind: packet() }),
    ]
}

fn capture() -> CaptureSpec {
    CaptureSpec {
        ports: vec![text("web")],
        drops: true,
        side: Some(CaptureSide::Ingress),
        snap: Some(128),
        count: Some(10),
        segments: false,
        filter: vec![(6, 0, 0, 262_144)],
        form: Form::Lines,
    }
}

const MAC: Mac = Mac([0x02, 0x42, 0x0a, 0x14, 0, 2]);

fn answer(name: &'static str, value: &impl Serialize) -> Example {
    Example { name, value: serde_json::to_value(value).unwrap_or_default(), required: None }
}

fn request(
    name: &'static str,
    required: &'static [&'static str],
    value: &impl Serialize,
) -> Example {
    Example { required: Some(required), ..answer(name, value) }
}

fn text(text: &str) -> String {
    text.to_owned()
}

/// The examples' addresses are constants; one that did not parse would show as `0.0.0.0`.
fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED))
}

fn net(text: &str) -> ipnet::IpNet {
    text.parse().unwrap_or_default()
}

fn endpoint() -> EndpointInfo {
    EndpointInfo {
        id: text("00c0ffee00c0ffee"),
        name: text("web"),
        network: text("blue"),
        ifname: text("eth0"),
        port: PortId(4),
        mac: MAC,
        addresses: vec![net("10.20.0.2/24"), net("fd00:20::2/64")],
        gateways: vec![ip("10.20.0.1"), ip("fd00:20::1")],
        mtu: 1500,
        labels: BTreeMap::from([(text("tier"), text("front"))]),
        aliases: vec![text("www")],
        pid: Some(4711),
        netns: Some(NamespaceId { dev: 4, ino: 4_026_532_000 }),
        container_id: Some(text("5f2e6c0d9b1a")),
        rate: RateLimits {
            ingress: Some(RateLimit { rate: 100_000_000, burst: None }),
            egress: None,
        },
        state: EndpointState::Up,
        published: vec![publication()],
        since_ms: 1_795_500_000_000,
    }
}

fn error() -> ErrorBody {
    ErrorBody {
        code: ErrorCode::NotFound,
        message: text("there is no network `blue`"),
        hint: Some(text("`wharf network ls` lists them")),
    }
}

fn event() -> EventInfo {
    EventInfo {
        seq: 7,
        time_ms: 1_795_500_000_000,
        kind: EventKind::FlowsRefused,
        network: Some(text("blue")),
        endpoint: Some(text("web")),
        text: text(
            "new connections of web are refused (flow-share): it has used its share of flows",
        ),
        hint: Some(text("raise `limits.flows_per_endpoint` in the config file")),
    }
}

fn flow() -> FlowView {
    FlowView {
        from: text("web"),
        to: text("lan"),
        flow: FlowInfo {
            proto: text("tcp"),
            state: text("established"),
            initiator_port: PortId(4),
            responder_port: PortId(1),
            initiator: (ip("10.20.0.2"), 40_000),
            target: (ip("192.0.2.7"), 80),
            responder: (ip("192.0.2.7"), 80),
            seen_as: (ip("192.0.2.2"), 40_000),
            service: Some(text("shop")),
            packets: [10, 12],
            bytes: [1500, 4_000_000],
            idle_ms: 250,
            expires_ms: 7_440_000,
        },
    }
}

fn flow_event() -> FlowEventView {
    FlowEventView {
        what: FlowHappening::End(FlowEnd::Idle),
        time_ms: 1_795_500_000_000,
        duration_ms: 310_000,
        flow: flow(),
    }
}

fn policy_info() -> PolicyInfo {
    PolicyInfo {
        namespace: text("default"),
        name: text("db"),
        form: policy::Form::Kubernetes,
        select: text("app=db in namespace default"),
        endpoints: 1,
        isolates: vec![Direction::Ingress],
        rules: vec![RuleView {
            place: text("ingress[0]"),
            priority: 1000,
            action: Action::Allow,
            direction: Direction::Ingress,
            peers: vec![text("app=web in namespace default")],
            ports: vec![text("5432/tcp")],
        }],
        warnings: vec![text("default/db ingress[0]: no endpoint is app=web in namespace default")],
    }
}

fn policy_report() -> PolicyTestReport {
    PolicyTestReport {
        allowed: true,
        verdicts: vec![PolicyVerdict {
            endpoint: text("db"),
            direction: Direction::Ingress,
            action: Action::Allow,
            rule: Some(text("default/db ingress[0]")),
        }],
    }
}

fn network() -> NetworkInfo {
    NetworkInfo {
        id: NetworkId(1),
        name: text("blue"),
        subnets: vec![SubnetInfo {
            subnet: net("10.20.0.0/24"),
            gateway: ip("10.20.0.1"),
            used: 1,
            capacity: 253,
        }],
        gateway_mac: MAC,
        internal: false,
        isolated: true,
        icc: true,
        icc_except: Some(text("role=server")),
        guard: true,
        host: true,
        host_interface: Some(text("wharf0")),
        uplink: Some(text("lan")),
        mtu: 1500,
        span: false,
        host_loopback: false,
        endpoints: vec![text("web")],
        created_ms: 1_795_500_000_000,
    }
}

fn network_spec() -> NetworkSpec {
    NetworkSpec {
        subnets: vec![net("10.20.0.0/24"), net("fd00:20::/64")],
        gateways: vec![ip("10.20.0.1")],
        uplink: Some(text("lan")),
        mtu: Some(1500),
        ..NetworkSpec::named("blue")
    }
}

fn endpoint_update() -> EndpointUpdate {
    EndpointUpdate {
        name: Some(text("web")),
        labels: Some(BTreeMap::from([(text("tier"), text("front"))])),
        aliases: Some(vec![text("www")]),
    }
}

fn network_update() -> NetworkUpdate {
    NetworkUpdate {
        internal: Some(false),
        isolated: Some(true),
        icc: Some(true),
        icc_except: Some(text("role=server")),
        guard: Some(true),
        host: Some(false),
        uplink: Some(text("none")),
    }
}

fn publication() -> PublicationInfo {
    PublicationInfo {
        id: PublicationId(1),
        endpoint: text("web"),
        network: text("blue"),
        host_addr: Some(ip("192.0.2.9")),
        host_ports: PortRange::single(1180),
        ports: PortRange::single(5000),
        proto: Proto::Tcp,
    }
}

fn publish_spec() -> PublishSpec {
    PublishSpec {
        host_addr: None,
        host_ports: Some(PortRange::single(1180)),
        ports: PortRange::single(5000),
        proto: Proto::Tcp,
    }
}

fn service() -> ServiceInfo {
    let backend = |name: &str, port| BackendSpec { host: BackendHost::Name(text(name)), port };
    let spec = ServiceSpec {
        name: text("shop"),
        vips: vec![ip("10.96.0.2"), ip("fd00:10:96::2")],
        headless: false,
        ports: vec![ServicePort {
            name: Some(text("http")),
            port: 80,
            target: 8080,
            proto: Proto::Tcp,
        }],
        node_ports: vec![30_080],
        backends: vec![backend("web", None), backend("db", Some(8081))],
        selector: BTreeMap::from([(text("app"), text("shop"))]),
        network: Some(text("blue")),
        weights: BTreeMap::from([(text("web"), 9)]),
        affinity: Some(Affinity::DEFAULT),
        internal_policy: Policy::Cluster,
        external_policy: Policy::Local,
        health: Some(HealthSpec::new(HealthCheck::Http(text("/healthz")))),
    };
    ServiceInfo {
        id: ServiceId(1),
        spec,
        members: vec![BackendInfo {
            name: text("web"),
            addresses: vec![ip("10.20.0.2"), ip("fd00:20::2")],
            port: Some(8081),
            weight: 9,
            ready: true,
            unready: BTreeMap::from([(ip("fd00:20::2"), text("refused the connection"))]),
        }],
        warnings: vec![text("there is no container for the backend `db:8081`")],
        created_ms: 1_795_500_000_000,
    }
}

fn service_update() -> ServiceUpdate {
    let spec = service().spec;
    ServiceUpdate {
        backends: Some(spec.backends),
        selector: Some(spec.selector),
        weights: spec.weights,
        affinity: Some(0),
        internal_policy: Some(Policy::Cluster),
        external_policy: Some(Policy::Local),
        health: spec.health,
        no_health: false,
    }
}

fn stats() -> StatsInfo {
    StatsInfo {
        ports: vec![PortView {
            name: text("web"),
            network: text("blue"),
            stats: PortStats {
                port: Some(PortId(4)),
                rx_frames: 10,
                rx_bytes: 1500,
                tx_frames: 12,
                tx_bytes: 4_000_000,
                drops: vec![(text("guard-mac"), 3)],
            },
        }],
        workers: vec![WorkerStats {
            worker: 0,
            wakeups: 20,
            batches: 20,
            frames: 22,
            hits: 20,
            misses: 2,
            flows: 2,
            flow_bytes: 1_000_000,
            evicted_unanswered: 0,
            evicted_idle: 0,
            batch_sizes: vec![18, 2],
            tunnel: TunnelStats { receives: 3, received: 90, merged: 80, trains: 4, sent: 120 },
            sockets: vec![("tcp-open".to_owned(), 1), ("tcp-opened".to_owned(), 7)],
        }],
    }
}

fn status() -> StatusInfo {
    StatusInfo {
        version: text(env!("CARGO_PKG_VERSION")),
        pid: 4711,
        uid: 0,
        started_ms: 1_795_500_000_000,
        state_dir: text("/var/lib/wharf"),
        runtime_dir: text("/run/wharf"),
        default_uplink: Some(text("lan")),
        workers: 1,
        networks: 2,
        uplinks: 1,
        endpoints: 3,
        published_ports: 1,
        notes: vec![text("the default uplink is none")],
    }
}

fn trace() -> TraceReport {
    let step = TraceStep { stage: text("guard"), text: text("passes: the address is web's own") };
    TraceReport {
        steps: vec![step],
        verdict: text("blue and red are isolated from each other"),
        delivered: false,
        drop: Some(text("isolated")),
    }
}

fn packet() -> UplinkKind {
    UplinkKind::Packet(PacketSpec {
        interface: text("eth0"),
        addresses: vec![net("192.0.2.2/24")],
        dhcp: false,
        gateways: vec![ip("192.0.2.1")],
        share_host_address: false,
        ports: PortRange::new(1024, 65_535),
        mapping: Binding::EndpointIndependent,
        filtering: Filtering::AddressDependent,
        outbound_refresh_only: false,
        nat66: false,
    })
}

fn uplink() -> UplinkInfo {
    UplinkInfo {
        id: UplinkId(1),
        name: text("lan"),
        kind: packet(),
        port: PortId(1),
        mac: Some(MAC),
        addresses: vec![net("192.0.2.2/24")],
        gateways: vec![ip("192.0.2.1")],
        dns: vec![ip("192.0.2.1")],
        mtu: 1500,
        shared: None,
        state: text("up"),
        networks: vec![text("blue")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_constant_of_an_example_is_mistyped() {
        for example in all() {
            let text = example.value.to_string();
            assert!(!text.contains("\"0.0.0.0\""), "{}: {text}", example.name);
            assert_ne!(example.value, Value::Null, "{}", example.name);
        }
    }

    #[test]
    fn requests_are_read_back_as_they_were_written() {
        let value = |name: &str| all().into_iter().find(|e| e.name == name).unwrap().value;
        let spec: NetworkSpec = serde_json::from_value(value("NetworkSpec")).unwrap();
        assert_eq!(spec, network_spec());
        let spec: UplinkSpec = serde_json::from_value(value("UplinkSpec")).unwrap();
        assert_eq!(spec.kind, packet());
    }
}
