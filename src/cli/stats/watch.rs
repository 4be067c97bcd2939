//! `wharf stats --watch`: what has grown since the last look, a second.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use serde_json::json;

use super::{Stats, average, hit_rate, ports_table, sockets_table, summed};
use crate::cli::human::{count, timestamp, unix_millis};
use crate::cli::options::Global;
use crate::cli::output::{Outcome, table};
use crate::control::model::{PortView, StatsInfo};
use crate::datapath::inspect::{PortStats, TunnelStats, WorkerStats};

/// Home, and nothing below.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Shows it until the reader goes or it was shown often enough.
pub(super) fn run(global: &Global, args: &Stats, every: u64) -> Outcome {
    let client = global.client();
    let (mut before, mut then) = (client.stats()?, unix_millis());
    let mut shown = 0;
    while args.times.is_none_or(|times| shown < times) {
        std::thread::sleep(Duration::from_secs(every));
        let (stats, now) = (client.stats()?, unix_millis());
        // The clock may have been set back.
        let rates = rates(&before, &stats, now.saturating_sub(then).max(1));
        let text = match (args.format.json, io::stdout().is_terminal()) {
            (true, _) => as_json(args, &rates, now),
            (false, true) => {
                format!("{CLEAR}{}  a second\n{}", timestamp(now), tables(args, &rates))
            }
            (false, false) => format!("{}  a second\n{}", timestamp(now), tables(args, &rates)),
        };
        match writeln!(io::stdout().lock(), "{text}") {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(0),
            written => written?,
        }
        (before, then, shown) = (stats, now, shown + 1);
    }
    Ok(0)
}

fn as_json(args: &Stats, rates: &StatsInfo, now: u64) -> String {
    let body = if args.sockets {
        json!({ "time_ms": now, "sockets": summed(&rates.workers) })
    } else if args.workers {
        json!({ "time_ms": now, "workers": rates.workers })
    } else {
        json!({ "time_ms": now, "ports": rates.ports })
    };
    body.to_string()
}

fn tables(args: &Stats, rates: &StatsInfo) -> String {
    if args.sockets {
        sockets_table(&summed(&rates.workers))
    } else if args.workers {
        workers_table(&rates.workers)
    } else {
        ports_table(&rates.ports, "/s")
    }
}

fn workers_table(workers: &[WorkerStats]) -> String {
    let rows = workers.iter().map(|worker| {
        [
            worker.worker.to_string(),
            count(worker.wakeups),
            count(worker.batches),
            count(worker.frames),
            average(worker.frames, worker.batches),
            hit_rate(worker.hits, worker.misses),
            average(worker.tunnel.sent, worker.tunnel.trains),
            average(worker.tunnel.received, worker.tunnel.receives),
            count(worker.tunnel.merged),
        ]
    });
    let headings = [
        ">WORKER",
        ">WAKEUPS",
        ">BATCHES",
        ">FRAMES",
        ">FRAMES/BATCH",
        ">FLOW HITS",
        ">DATAGRAMS/TRAIN OUT",
        ">IN",
        ">MERGED",
    ];
    table(headings, rows.collect())
}

/// What has grown, a second; what is not a counter stays as it is now.
fn rates(before: &StatsInfo, now: &StatsInfo, ms: u64) -> StatsInfo {
    let ports = now.ports.iter().map(|port| {
        let same = |old: &&PortView| (&old.name, &old.network) == (&port.name, &port.network);
        let old = before.ports.iter().find(same).map(|old| &old.stats);
        PortView { stats: port_rates(old, &port.stats, ms), ..port.clone() }
    });
    let workers = now.workers.iter().map(|worker| {
        let old = before.workers.iter().find(|old| old.worker == worker.worker);
        worker_rates(&old.cloned().unwrap_or_default(), worker, ms)
    });
    StatsInfo { ports: ports.collect(), workers: workers.collect() }
}

/// Rounded up, so that something is never nothing. What is smaller than before began anew.
fn rate(before: u64, now: u64, ms: u64) -> u64 {
    let grown = now.checked_sub(before).unwrap_or(now);
    grown.saturating_mul(1_000).div_ceil(ms)
}

fn port_rates(before: Option<&PortStats>, now: &PortStats, ms: u64) -> PortStats {
    let none = PortStats::default();
    let before = before.unwrap_or(&none);
    let drops = now.drops.iter().map(|(reason, n)| {
        let old = before.drops.iter().find(|(name, _)| name == reason).map_or(0, |(_, n)| *n);
        (reason.clone(), rate(old, *n, ms))
    });
    PortStats {
        port: now.port,
        rx_frames: rate(before.rx_frames, now.rx_frames, ms),
        rx_bytes: rate(before.rx_bytes, now.rx_bytes, ms),
        tx_frames: rate(before.tx_frames, now.tx_frames, ms),
        tx_bytes: rate(before.tx_bytes, now.tx_bytes, ms),
        drops: drops.filter(|(_, n)| *n > 0).collect(),
    }
}

fn worker_rates(before: &WorkerStats, now: &WorkerStats, ms: u64) -> WorkerStats {
    let of = |count: fn(&WorkerStats) -> u64| rate(count(before), count(now), ms);
    let sockets = now.sockets.iter().map(|(name, n)| {
        let old = before.sockets.iter().find(|(known, _)| known == name).map_or(0, |(_, n)| *n);
        let grows = !name.ends_with("-open");
        (name.clone(), if grows { rate(old, *n, ms) } else { *n })
    });
    let sizes = now.batch_sizes.iter().zip(before.batch_sizes.iter().chain(std::iter::repeat(&0)));
    WorkerStats {
        worker: now.worker,
        wakeups: of(|w| w.wakeups),
        batches: of(|w| w.batches),
        frames: of(|w| w.frames),
        hits: of(|w| w.hits),
        misses: of(|w| w.misses),
        flows: now.flows,
        flow_bytes: now.flow_bytes,
        evicted_unanswered: of(|w| w.evicted_unanswered),
        evicted_idle: of(|w| w.evicted_idle),
        batch_sizes: sizes.map(|(now, before)| rate(*before, *now, ms)).collect(),
        tunnel: TunnelStats {
            receives: of(|w| w.tunnel.receives),
            received: of(|w| w.tunnel.received),
            merged: of(|w| w.tunnel.merged),
            trains: of(|w| w.tunnel.trains),
            sent: of(|w| w.tunnel.sent),
        },
        sockets: sockets.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web(frames: u64, drops: u64) -> PortView {
        let stats = PortStats {
            rx_frames: frames,
            rx_bytes: frames * 1024,
            drops: vec![("guard-mac".to_owned(), drops), ("malformed".to_owned(), 5)],
            ..PortStats::default()
        };
        PortView { name: "web".to_owned(), network: "blue".to_owned(), stats }
    }

    #[test]
    fn what_has_grown_is_shown_a_second_and_what_has_not_is_left_out() {
        let info = |port| StatsInfo { ports: vec![port], workers: Vec::new() };
        let rates = rates(&info(web(100, 1)), &info(web(5_100, 4)), 2_000);
        insta::assert_snapshot!(ports_table(&rates.ports, "/s"), @r"
        PORT  NETWORK  RX FRAMES          RX  TX FRAMES     TX  DROPS
        web   blue         2,500  2.44 MiB/s          0  0 B/s  guard-mac 2
        ");
    }

    #[test]
    fn a_worker_s_averages_are_those_of_the_time_between() {
        let before = WorkerStats { frames: 10, batches: 10, ..WorkerStats::default() };
        let now = WorkerStats {
            frames: 4_010,
            batches: 110,
            hits: 3_000,
            misses: 1_000,
            batch_sizes: vec![0, 100],
            sockets: vec![("tcp-open".to_owned(), 7), ("tcp-opened".to_owned(), 10)],
            ..WorkerStats::default()
        };
        let rates = worker_rates(&before, &now, 1_000);
        assert_eq!((rates.frames, rates.batches, rates.batch_sizes[1]), (4_000, 100, 100));
        assert_eq!(rates.sockets[0].1, 7, "what is open is no rate");
        assert_eq!(average(rates.frames, rates.batches), "40.0");
    }

    #[test]
    fn a_daemon_that_was_started_anew_counts_from_nothing() {
        assert_eq!(rate(1_000, 6, 1_000), 6);
        assert_eq!(rate(0, 1, 60_000), 1, "something is never nothing");
    }
}
