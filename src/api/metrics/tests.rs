use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::base::ids::{PeerId, PortId};
use crate::config::BackendKind;
use crate::control::model::{EventKind, PeerView, StatusInfo};
use crate::datapath::inspect::{FlowCount, PeerInfo, PortStats};
use crate::io::own_process::Usage;
use crate::packet::DropReason;

fn text_of(word: &str) -> String {
    word.to_owned()
}

fn port(n: u64) -> PortStats {
    PortStats {
        port: Some(PortId(n as u16)),
        rx_frames: n,
        rx_bytes: 100 * n,
        tx_frames: 2 * n,
        tx_bytes: 200 * n,
        drops: vec![(text_of("guard-mac"), n), (text_of("malformed"), 0)],
    }
}

/// Everything that can be there is.
fn everything(ports: u64) -> Metrics {
    let info = PeerInfo { id: PeerId(1), mtu: 1450, heard_ms: Some(500), stats: port(1) };
    let peer = PeerView {
        name: text_of("two"),
        address: [192, 0, 2, 2].into(),
        port: 4789,
        subnets: Vec::new(),
        mac: crate::wire::mac::Mac::ZERO,
        backend: BackendKind::Vxlan,
        key: None,
        switch_port: PortId(9),
        info,
    };
    Metrics {
        status: StatusInfo {
            version: text_of("0.1.0"),
            pid: 1,
            uid: 0,
            started_ms: 1_000_500,
            state_dir: String::new(),
            runtime_dir: String::new(),
            default_uplink: None,
            workers: 1,
            networks: 1,
            uplinks: 1,
            endpoints: ports as usize,
            published_ports: 3,
            notes: Vec::new(),
        },
        usage: Usage {
            cpu_seconds: 1.5,
            resident_bytes: Some(9),
            open_descriptors: Some(7),
            descriptors_limit: Some(20_000),
        },
        now_ms: 1_001_000,
        events: vec![(EventKind::DaemonStarted, 1), (EventKind::QueueFull, 2)],
        ports: (1..=ports).map(|n| ((text_of("blue"), format!("web{n}")), port(n))).collect(),
        workers: vec![WorkerStats {
            batches: 8,
            frames: 16,
            batch_sizes: vec![5, 2, 1, 0, 0, 0, 0, 0],
            sockets: vec![
                (text_of("tcp-open"), 4),
                (text_of("tcp-resets"), 2),
                (text_of("tcp-bytes-not-taken"), 99),
            ],
            ..WorkerStats::default()
        }],
        flows: vec![FlowCount { state: text_of("tcp-established"), flows: 12, timeout_ms: 1 }],
        uplinks: vec![(text_of("default"), true)],
        peers: vec![peer],
        flows_limit: 1_000_000,
        endpoints_limit: 16_384,
    }
}

/// A family as a reader understands it.
struct Parsed {
    kind: String,
    samples: BTreeMap<String, f64>,
}

/// Reads the text as strictly as Prometheus does, and after the rules of `promtool check metrics`.
fn parse(text: &str) -> BTreeMap<String, Parsed> {
    let mut families: BTreeMap<String, Parsed> = BTreeMap::new();
    let (mut helped, mut current) = (BTreeSet::new(), String::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(!help.is_empty() && helped.insert(name.to_owned()), "{line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(helped.contains(name), "{line}: without help");
            lint(name, kind);
            name.clone_into(&mut current);
            let family = Parsed { kind: kind.to_owned(), samples: BTreeMap::new() };
            assert!(families.insert(name.to_owned(), family).is_none(), "{name} twice");
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            let family = families.get_mut(&current).unwrap();
            let suffix = name.strip_prefix(current.as_str()).expect("a sample of another family");
            let suffixes: &[&str] =
                if family.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffixes.contains(&suffix), "{line}");
            let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
            assert!(family.samples.insert(series.to_owned(), value).is_none(), "{line}: twice");
        }
    }
    families
}

fn lint(name: &str, kind: &str) {
    assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
    assert_eq!(kind == "counter", name.ends_with("_total"), "{name}: a counter ends in _total");
    for part in name.split('_') {
        let units = ["milliseconds", "ms", "kilobytes", "kb", "minutes", "percent", "bits"];
        let kinds = ["counter", "gauge", "histogram", "summary"];
        assert!(!units.contains(&part) && !kinds.contains(&part), "{name}: `{part}`");
    }
    for reserved in ["_bucket", "_sum", "_count"] {
        assert!(!name.ends_with(reserved), "{name}");
    }
    assert!(name.starts_with("wharf_") || name.starts_with("process_"), "{name}");
}

#[test]
fn what_is_written_can_be_read_and_has_proper_names() {
    let families = parse(&render(&everything(2)));
    let sample = |family: &str, series: &str| families[family].samples[series];
    let of_web = |name: &str| sample(name, &format!("{name}{{network=\"blue\",port=\"web2\"}}"));
    assert!((of_web("wharf_port_receive_bytes_total") - 200.0).abs() < 0.1);
    assert!((of_web("wharf_port_transmit_frames_total") - 4.0).abs() < 0.1);
    let drops = &families["wharf_port_drops_total"].samples;
    assert_eq!(drops.len(), 2, "reasons that never were are left out: {drops:?}");
    let hits = "wharf_worker_batch_frames_bucket{worker=\"0\",le=\"3\"}";
    assert!((sample("wharf_worker_batch_frames", hits) - 7.0).abs() < 0.1);
    let heard = "wharf_peer_heard_timestamp_seconds{node=\"two\"}";
    assert!((sample("wharf_peer_heard_timestamp_seconds", heard) - 1_000.5).abs() < 0.01);
    let kind = "wharf_events_total{kind=\"queue-full\"}";
    assert!((sample("wharf_events_total", kind) - 2.0).abs() < 0.1);
    assert!(families["wharf_socket_flows"].samples.keys().all(|s| s.contains("proto=\"tcp\"")));
}

#[test]
fn the_metrics_that_dashboard_and_alerts_ask_for_exist() {
    let families = parse(&render(&everything(1)));
    let files = ["docs/monitoring/grafana.json", "docs/monitoring/alerts.yml"];
    for file in files {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let text = std::fs::read_to_string(path).unwrap();
        let is_word = |c: char| c.is_ascii_lowercase() || c == '_';
        let words = text.split(|c| !is_word(c));
        let named: BTreeSet<&str> =
            words.filter(|w| w.starts_with("wharf_") || w.starts_with("process_")).collect();
        assert!(named.len() > 5, "{file}: {named:?}");
        for name in named {
            let family = name.strip_suffix("_bucket").unwrap_or(name);
            assert!(families.contains_key(family), "{file} asks for {name}, which is not there");
        }
    }
}

#[test]
fn names_of_every_reason_and_kind_are_labels_as_they_are() {
    let plain = |name: &str| name.chars().all(|c| c.is_ascii_lowercase() || c == '-' || c == '4');
    assert!(DropReason::all().all(|reason| plain(reason.name())));
}

#[test]
fn a_request_is_for_metrics_or_for_nothing() {
    assert_eq!(target(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"), Some("/metrics"));
    assert_eq!(target(b"GET /metrics?x=1 HTTP/1.0\r\n\r\n"), Some("/metrics"));
    assert_eq!(target(b"GET /v1/status HTTP/1.1\r\n\r\n"), Some("/v1/status"));
    for bad in [&b"POST /metrics HTTP/1.1\r\n\r\n"[..], b"GET /metrics\r\n\r\n", b"\xff\r\n\r\n"] {
        assert_eq!(target(bad), None);
    }
}
