//! `/metrics`: what is counted, for Prometheus. On the API's socket for whoever may use it, and at a TCP
//! address for anybody who reaches that, if the config file names one.
//!
//! Labels are bounded: names of things that exist (ports, networks, uplinks, nodes), reasons, states and
//! kinds. No address, and nothing that traffic could make up, is one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::server::{Problem, Service};
use crate::base::limits::METRICS_READERS_MAX;
use crate::control::metrics::Metrics;
use crate::datapath::inspect::WorkerStats;
use crate::observe::prometheus::{CONTENT_TYPE, Exposition, Kind};

/// How long one reader may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a request's head. A scraper's has two hundred.
const HEAD_MAX: usize = 8 * 1024;
/// Sizes of batches by powers of two: the largest size of each class.
const BATCH_CLASSES: [u64; 8] = [1, 3, 7, 15, 31, 63, 127, u64::MAX];

/// Gathers and writes all of it.
pub(super) async fn text(service: &Service) -> Result<String, Problem> {
    let metrics = service.with_control(|control| control.metrics()).await?;
    Ok(render(&metrics))
}

/// The text.
pub fn render(metrics: &Metrics) -> String {
    let mut text = Exposition::default();
    daemon(&mut text, metrics);
    ports(&mut text, metrics);
    flows(&mut text, metrics);
    workers(&mut text, &metrics.workers);
    sockets(&mut text, &metrics.workers);
    peers(&mut text, metrics);
    process(&mut text, metrics);
    text.into_text()
}

fn daemon(text: &mut Exposition, metrics: &Metrics) {
    let status = &metrics.status;
    text.family("wharf_build_info", Kind::Gauge, "The daemon's version.")
        .sample(&[("version", &status.version)], 1);
    let gauges: [(_, _, u64); 7] = [
        ("wharf_networks", "Networks.", status.networks as u64),
        ("wharf_endpoints", "Endpoints: interfaces of containers.", status.endpoints as u64),
        ("wharf_endpoints_limit", "Endpoints that there may be.", metrics.endpoints_limit as u64),
        ("wharf_published_ports", "Published ports.", status.published_ports),
        ("wharf_workers", "Worker threads.", status.workers as u64),
        ("wharf_flows_limit", "Flows that a worker may have.", metrics.flows_limit as u64),
        (
            "wharf_notes",
            "Sentences that `wharf status` has for a person.",
            status.notes.len() as u64,
        ),
    ];
    for (name, help, value) in gauges {
        text.single(name, Kind::Gauge, help, value);
    }
    let mut up = text.family("wharf_uplink_up", Kind::Gauge, "Whether an uplink works.");
    for (name, works) in &metrics.uplinks {
        up.sample(&[("uplink", name)], u8::from(*works));
    }
    let help = "What happened, by kind: the kinds of `wharf events`.";
    let mut events = text.family("wharf_events_total", Kind::Counter, help);
    for (kind, count) in &metrics.events {
        events.sample(&[("kind", &kind.name())], count);
    }
}

fn ports(text: &mut Exposition, metrics: &Metrics) {
    type Count = fn(&crate::datapath::inspect::PortStats) -> u64;
    let families: [(_, _, Count); 4] = [
        ("wharf_port_receive_frames_total", "Frames that came from a port.", |s| s.rx_frames),
        ("wharf_port_receive_bytes_total", "Bytes that came from a port.", |s| s.rx_bytes),
        ("wharf_port_transmit_frames_total", "Frames handed to a port.", |s| s.tx_frames),
        ("wharf_port_transmit_bytes_total", "Bytes handed to a port.", |s| s.tx_bytes),
    ];
    for (name, help, count) in families {
        let mut family = text.family(name, Kind::Counter, help);
        for ((network, port), stats) in &metrics.ports {
            family.sample(&[("network", network), ("port", port)], count(stats));
        }
    }
    let help = "Frames dropped, at the port that they came from (or were meant for), by reason.";
    let mut drops = text.family("wharf_port_drops_total", Kind::Counter, help);
    for ((network, port), stats) in &metrics.ports {
        for (reason, count) in stats.drops.iter().filter(|(_, count)| *count > 0) {
            drops.sample(&[("network", network), ("port", port), ("reason", reason)], count);
        }
    }
}

fn flows(text: &mut Exposition, metrics: &Metrics) {
    let mut flows = text.family("wharf_flows", Kind::Gauge, "Flows, by protocol and state.");
    for count in &metrics.flows {
        flows.sample(&[("state", &count.state)], count.flows);
    }
}

fn workers(text: &mut Exposition, workers: &[WorkerStats]) {
    type Count = fn(&WorkerStats) -> u64;
    let families: [(_, _, _, Count); 12] = [
        (
            "wharf_tunnel_receives_total",
            Kind::Counter,
            "Trains and single datagrams received.",
            |w| w.tunnel.receives,
        ),
        (
            "wharf_tunnel_received_datagrams_total",
            Kind::Counter,
            "Datagrams received from other nodes.",
            |w| w.tunnel.received,
        ),
        (
            "wharf_tunnel_merged_datagrams_total",
            Kind::Counter,
            "Datagrams joined to the one before as a segment of a super-frame.",
            |w| w.tunnel.merged,
        ),
        ("wharf_tunnel_trains_total", Kind::Counter, "Trains and single datagrams sent.", |w| {
            w.tunnel.trains
        }),
        (
            "wharf_tunnel_sent_datagrams_total",
            Kind::Counter,
            "Datagrams sent to other nodes.",
            |w| w.tunnel.sent,
        ),
        ("wharf_worker_wakeups_total", Kind::Counter, "Times a worker was woken.", |w| w.wakeups),
        ("wharf_worker_batches_total", Kind::Counter, "Batches of frames processed.", |w| {
            w.batches
        }),
        ("wharf_worker_frames_total", Kind::Counter, "Frames processed.", |w| w.frames),
        (
            "wharf_worker_flow_hits_total",
            Kind::Counter,
            "Frames answered from the flow table.",
            |w| w.hits,
        ),
        ("wharf_worker_flow_misses_total", Kind::Counter, "Frames decided anew.", |w| w.misses),
        ("wharf_worker_flows", Kind::Gauge, "Flows of a worker.", |w| w.flows),
        ("wharf_worker_flow_table_bytes", Kind::Gauge, "Memory of its flow table.", |w| {
            w.flow_bytes
        }),
    ];
    for (name, kind, help, count) in families {
        let mut family = text.family(name, kind, help);
        for worker in workers {
            family.sample(&[("worker", &worker.worker.to_string())], count(worker));
        }
    }
    let help = "Flows that ended before their time, since the table was full.";
    let mut evicted = text.family("wharf_worker_flows_evicted_total", Kind::Counter, help);
    for worker in workers {
        let number = worker.worker.to_string();
        let why = [("unanswered", worker.evicted_unanswered), ("idle", worker.evicted_idle)];
        for (reason, count) in why {
            evicted.sample(&[("reason", reason), ("worker", &number)], count);
        }
    }
    let help = "Frames of one batch.";
    let mut sizes = text.family("wharf_worker_batch_frames", Kind::Histogram, help);
    for worker in workers {
        let counts = worker.batch_sizes.iter().copied();
        let classes: Vec<_> = BATCH_CLASSES.into_iter().zip(counts).collect();
        sizes.histogram(&[("worker", &worker.worker.to_string())], &classes, worker.frames);
    }
}

/// The socket uplink's counters, which have names of their own: what is open, and what happened.
fn sockets(text: &mut Exposition, workers: &[WorkerStats]) {
    const OPEN: &str = "-open";
    const BYTES: &str = "tcp-bytes-not-taken";
    let of = |wanted: fn(&str) -> bool| {
        workers.iter().flat_map(move |worker| {
            let named = worker.sockets.iter().filter(move |(name, _)| wanted(name));
            named.map(|(name, n)| (worker.worker.to_string(), name.as_str(), *n))
        })
    };
    let help = "Flows that end in sockets of the host, by protocol.";
    let mut open = text.family("wharf_socket_flows", Kind::Gauge, help);
    for (worker, name, count) in of(|name| name.ends_with(OPEN)) {
        let proto = name.trim_end_matches(OPEN);
        open.sample(&[("proto", proto), ("worker", &worker)], count);
    }
    let help = "What happened to flows that end in sockets of the host, by event.";
    let mut events = text.family("wharf_socket_events_total", Kind::Counter, help);
    for (worker, name, count) in of(|name| !name.ends_with(OPEN) && name != BYTES) {
        events.sample(&[("event", name), ("worker", &worker)], count);
    }
    let help = "Bytes of TCP that found no room in sockets of the host and were sent again.";
    let mut bytes = text.family("wharf_socket_not_taken_bytes_total", Kind::Counter, help);
    for (worker, _, count) in of(|name| name == BYTES) {
        bytes.sample(&[("worker", &worker)], count);
    }
}

fn peers(text: &mut Exposition, metrics: &Metrics) {
    let help = "Largest packet that is sent through the tunnel to a node.";
    let mut mtu = text.family("wharf_peer_mtu_bytes", Kind::Gauge, help);
    for peer in &metrics.peers {
        mtu.sample(&[("node", &peer.name)], peer.info.mtu);
    }
    let help = "When something came from a node through its tunnel last.";
    let mut heard = text.family("wharf_peer_heard_timestamp_seconds", Kind::Gauge, help);
    for peer in &metrics.peers {
        let Some(ago) = peer.info.heard_ms else { continue };
        heard.sample(&[("node", &peer.name)], seconds(metrics.now_ms.saturating_sub(ago)));
    }
}

/// Under the names that Prometheus's own libraries give them.
fn process(text: &mut Exposition, metrics: &Metrics) {
    let (usage, started) = (&metrics.usage, metrics.status.started_ms);
    let help = "When the daemon started.";
    text.single("process_start_time_seconds", Kind::Gauge, help, seconds(started));
    let help = "Processor time of all threads.";
    text.single("process_cpu_seconds_total", Kind::Counter, help, usage.cpu_seconds);
    let gauges = [
        ("process_resident_memory_bytes", "Memory that is really there.", usage.resident_bytes),
        ("process_open_fds", "Open descriptors.", usage.open_descriptors),
        ("process_max_fds", "Descriptors that there may be.", usage.descriptors_limit),
    ];
    for (name, help, value) in gauges {
        if let Some(value) = value {
            text.single(name, Kind::Gauge, help, value);
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "milliseconds since 1970 have 41 bits")]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

/// Answers at a TCP address until the daemon ends: a reader that is slow, or none at all, holds one of a few
/// places for a few seconds.
pub(super) async fn serve(listener: std::net::TcpListener, service: Service) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("cannot serve metrics: {error}"),
    };
    let places = Arc::new(Semaphore::new(METRICS_READERS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("accepting a reader of metrics failed: {error}");
                // Out of descriptors: the reason does not go away by asking at once.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let service = service.clone();
        tokio::spawn(async move {
            let _ = tokio::time::timeout(PATIENCE, answer(stream, &service)).await;
            drop(place);
        });
    }
}

/// One request, one answer, and the end.
async fn answer(mut stream: TcpStream, service: &Service) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut room = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = stream.read(&mut room).await?;
        if read == 0 || head.len() + read > HEAD_MAX {
            return Ok(());
        }
        head.extend_from_slice(&room[..read]);
    }
    let (status, kind, body) = match target(&head) {
        Some("/metrics") => match text(service).await {
            Ok(body) => ("200 OK", CONTENT_TYPE, body),
            Err(_) => ("503 Service Unavailable", "text/plain", "no answer\n".to_owned()),
        },
        _ => ("404 Not Found", "text/plain", "there is /metrics, and nothing else\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

/// What a GET asks for, without its query.
fn target(head: &[u8]) -> Option<&str> {
    let line = std::str::from_utf8(head.split(|byte| *byte == b'\r').next()?).ok()?;
    let (method, rest) = line.split_once(' ')?;
    let (target, version) = rest.split_once(' ')?;
    let fits = method == "GET" && version.starts_with("HTTP/1.");
    fits.then(|| target.split('?').next().unwrap_or(target))
}

/// Binds the TCP address.
pub fn bind(addr: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(addr)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[cfg(test)]
mod tests;
