use super::*;
use crate::control::model::{FlowQuery, TraceQuery};
use crate::datapath::inspect::{
    FdbInfo, FlowFilter, FlowInfo, PortStats, TraceReport, TraceRequest,
};

fn flow(from: PortId, to: PortId) -> FlowInfo {
    FlowInfo {
        proto: "tcp".into(),
        state: "established".into(),
        initiator_port: from,
        responder_port: to,
        initiator: (ip("10.20.0.2"), 1),
        target: (ip("10.20.0.3"), 80),
        responder: (ip("10.20.0.3"), 80),
        seen_as: (ip("10.20.0.2"), 1),
        service: None,
        packets: [1, 1],
        bytes: [60, 60],
        idle_ms: 0,
        expires_ms: 1,
    }
}

#[test]
fn flows_are_asked_for_by_port_and_shown_by_name() {
    let (daemon, mut control) = running();
    attach(&mut control, "web");
    attach(&mut control, "db");
    let port = |control: &Control, name: &str| control.endpoint(name).unwrap()[0].port;
    let (web, db) = (port(&control, "web"), port(&control, "db"));
    daemon.fake.world().answers = vec![Answer::Flows(vec![flow(web, db), flow(db, PortId(999))])];
    let query = FlowQuery {
        endpoint: Some("web".into()),
        proto: Some("TCP".into()),
        ..FlowQuery::default()
    };
    let flows = control.flows(&query).unwrap();
    assert_eq!((flows[0].from.as_str(), flows[0].to.as_str()), ("web", "db"));
    assert_eq!(flows[1].to, "port999");
    let asked = daemon.fake.world().asked.pop();
    let Some(Query::Flows(FlowFilter { port: Some(asked), proto, .. })) = asked else {
        panic!("{asked:?}");
    };
    assert_eq!((asked, proto.as_deref()), (web, Some("tcp")));
    let nobody = FlowQuery { endpoint: Some("nobody".into()), ..FlowQuery::default() };
    assert_eq!(control.flows(&nobody).unwrap_err().code(), ErrorCode::NotFound);
    daemon.fake.world().answers = vec![Answer::Flushed(2), Answer::Flushed(3)];
    assert_eq!(control.flush_flows(&FlowQuery::default()).unwrap(), 5);
}

#[test]
fn what_several_workers_know_is_one_listing() {
    let (daemon, mut control) = running();
    attach(&mut control, "web");
    let info = control.endpoint("web").unwrap().remove(0);
    let domain = control.network("blue").unwrap().id.0;
    let entry = |age_ms| FdbInfo { domain, mac: info.mac, port: info.port, fixed: false, age_ms };
    daemon.fake.world().answers = vec![Answer::Fdb(vec![entry(9)]), Answer::Fdb(vec![entry(4)])];
    let fdb = control.fdb().unwrap();
    assert_eq!((fdb.len(), fdb[0].age_ms), (1, 4));
    assert_eq!((fdb[0].network.as_str(), fdb[0].port.as_str()), ("blue", "web"));
    let stats = |n: u64| PortStats {
        port: Some(info.port),
        rx_frames: n,
        drops: vec![("guard-mac".into(), n)],
        ..PortStats::default()
    };
    daemon.fake.world().answers =
        vec![Answer::Ports(vec![stats(1)]), Answer::Ports(vec![stats(2)])];
    let sums = control.stats().unwrap().ports;
    assert_eq!((sums.len(), sums[0].stats.rx_frames), (1, 3));
    assert_eq!(sums[0].stats.drops, [("guard-mac".to_owned(), 3)]);
    assert_eq!((sums[0].name.as_str(), sums[0].network.as_str()), ("web", "blue"));
}

#[test]
fn a_trace_starts_at_the_interface_whose_family_fits() {
    let (daemon, mut control) = running();
    control.create_network(&network("six", &["fd06::/64"])).unwrap();
    control.create_network(&network("four", &["10.4.0.0/24"])).unwrap();
    for (n, on) in ["six", "four"].into_iter().enumerate() {
        let wish = AttachRequest {
            network: on.into(),
            ifname: format!("eth{n}"),
            netns: Some(netns(1)),
            ..request("web")
        };
        control.attach(&wish, Vec::new()).unwrap();
    }
    let report =
        TraceReport { steps: vec![], verdict: "forward".into(), delivered: true, drop: None };
    daemon.fake.world().answers = vec![Answer::Trace(report.clone())];
    let four = control.endpoint("web").unwrap()[1].port;
    let query = |to: &str, port, proto: Option<&str>| TraceQuery {
        from: "web".into(),
        to: ip(to),
        port,
        proto: proto.map(str::to_owned),
    };
    assert_eq!(control.trace(&query("10.4.0.9", Some(80), None)).unwrap(), report);
    let asked = daemon.fake.world().asked.pop();
    let Some(Query::Trace(TraceRequest { from, proto, .. })) = asked else { panic!("{asked:?}") };
    assert_eq!((from, proto.as_str()), (four, "tcp"));
    for (bad, words) in [
        (query("10.4.0.9", None, Some("tcp")), "needs a port"),
        (query("10.4.0.9", Some(1), Some("icmp")), "has no port"),
        (query("fd06::9", Some(1), Some("gre")), "`gre` cannot be traced"),
    ] {
        let error = control.trace(&bad).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    control.detach("web", Some("six"), "asked").unwrap();
    let error = control.trace(&query("fd06::9", None, None)).unwrap_err().to_string();
    assert!(error.contains("no IPv6 address"), "{error}");
}
