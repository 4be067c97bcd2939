//! `wharf stats`: counters of ports, of workers, or of the socket uplink.

mod watch;

use clap::Args;

use super::human::{bytes, count, list};
use super::options::{Format, Global};
use super::output::{Outcome, listing, table};
use crate::control::model::PortView;
use crate::datapath::inspect::WorkerStats;

/// `wharf stats`
#[derive(Args, Debug)]
pub(crate) struct Stats {
    /// Counters of the worker threads instead of the ports
    #[arg(long)]
    workers: bool,
    /// What the socket uplink has open and what happened to it, instead of the ports
    #[arg(long, conflicts_with = "workers")]
    sockets: bool,
    /// What happens from now on, a second, shown anew every so many seconds
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true,
          default_missing_value = "2", value_parser = clap::value_parser!(u64).range(1..=3600))]
    watch: Option<u64>,
    /// With --watch: show it so many times
    #[arg(long, value_name = "COUNT", requires = "watch")]
    times: Option<u64>,
    #[command(flatten)]
    format: Format,
}

/// Runs `wharf stats`.
pub(crate) fn run(global: &Global, args: &Stats) -> Outcome {
    if let Some(every) = args.watch {
        return watch::run(global, args, every);
    }
    let stats = global.client().stats()?;
    if args.sockets {
        let sums = summed(&stats.workers);
        listing(args.format.json, &sums, || sockets_table(&sums))
    } else if args.workers {
        listing(args.format.json, &stats.workers, || workers_table(&stats.workers))
    } else {
        listing(args.format.json, &stats.ports, || ports_table(&stats.ports, ""))
    }
}

/// `unit` stands behind each amount of bytes.
fn ports_table(ports: &[PortView], unit: &str) -> String {
    let rows = ports.iter().map(|port| {
        let stats = &port.stats;
        let drops = stats.drops.iter().filter(|(_, n)| *n > 0);
        [
            port.name.clone(),
            port.network.clone(),
            count(stats.rx_frames),
            bytes(stats.rx_bytes) + unit,
            count(stats.tx_frames),
            bytes(stats.tx_bytes) + unit,
            list(drops.map(|(reason, n)| format!("{reason} {}", count(*n)))),
        ]
    });
    let headings = ["PORT", "NETWORK", ">RX FRAMES", ">RX", ">TX FRAMES", ">TX", "DROPS"];
    table(headings, rows.collect())
}

fn workers_table(workers: &[WorkerStats]) -> String {
    let rows = workers.iter().map(|worker| {
        [
            worker.worker.to_string(),
            count(worker.wakeups),
            count(worker.batches),
            count(worker.frames),
            hit_rate(worker.hits, worker.misses),
            count(worker.flows),
            bytes(worker.flow_bytes),
            average(worker.frames, worker.batches),
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
        ">FLOW HITS",
        ">FLOWS",
        ">FLOW MEMORY",
        ">FRAMES/BATCH",
        ">DATAGRAMS/TRAIN OUT",
        ">IN",
        ">MERGED",
    ];
    table(headings, rows.collect())
}

/// So many in one, on average.
#[allow(clippy::cast_precision_loss, reason = "for showing only")]
fn average(parts: u64, wholes: u64) -> String {
    match wholes {
        0 => "-".to_owned(),
        _ => format!("{:.1}", parts as f64 / wholes as f64),
    }
}

/// The workers' counters of one name together, in the order in which they name them.
fn summed(workers: &[WorkerStats]) -> Vec<(String, u64)> {
    let mut sums: Vec<(String, u64)> = Vec::new();
    for (name, n) in workers.iter().flat_map(|worker| &worker.sockets) {
        match sums.iter_mut().find(|(known, _)| known == name) {
            Some((_, sum)) => *sum += n,
            None => sums.push((name.clone(), *n)),
        }
    }
    sums
}

fn sockets_table(sums: &[(String, u64)]) -> String {
    table(["WHAT", ">COUNT"], sums.iter().map(|(name, n)| [name.clone(), count(*n)]).collect())
}

#[allow(clippy::cast_precision_loss, reason = "for showing only")]
fn hit_rate(hits: u64, misses: u64) -> String {
    match hits.saturating_add(misses) {
        0 => "-".to_owned(),
        all => format!("{:.1} %", hits as f64 * 100.0 / all as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::PortId;
    use crate::datapath::inspect::{PortStats, TunnelStats};

    #[test]
    fn drops_are_named_and_zeros_are_not() {
        let port = PortView {
            name: "web".to_owned(),
            network: "blue".to_owned(),
            stats: PortStats {
                port: Some(PortId(1)),
                rx_frames: 1_234_567,
                rx_bytes: 9_000_000_000,
                tx_frames: 3,
                tx_bytes: 180,
                drops: vec![("guard-mac".to_owned(), 1200), ("malformed".to_owned(), 0)],
            },
        };
        insta::assert_snapshot!(ports_table(&[port], ""), @r"
        PORT  NETWORK  RX FRAMES        RX  TX FRAMES     TX  DROPS
        web   blue     1,234,567  8.38 GiB          3  180 B  guard-mac 1,200
        ");
    }

    #[test]
    fn the_socket_uplink_s_counters_are_summed_over_the_workers() {
        let sockets = vec![("tcp-open".to_owned(), 600), ("tcp-resets".to_owned(), 1)];
        let worker = WorkerStats { sockets, ..WorkerStats::default() };
        insta::assert_snapshot!(sockets_table(&summed(&[worker.clone(), worker])), @r"
        WHAT        COUNT
        tcp-open    1,200
        tcp-resets      2
        ");
    }

    #[test]
    fn a_worker_without_frames_has_no_hit_rate() {
        let idle = WorkerStats::default();
        let tunnel = TunnelStats { receives: 2, received: 6, merged: 4, trains: 1, sent: 20 };
        let (frames, batches, hits, misses) = (8, 2, 7, 1);
        let busy = WorkerStats { worker: 1, frames, batches, hits, misses, tunnel, ..idle.clone() };
        insta::assert_snapshot!(workers_table(&[idle, busy]), @r"
        WORKER  WAKEUPS  BATCHES  FRAMES  FLOW HITS  FLOWS  FLOW MEMORY  FRAMES/BATCH  DATAGRAMS/TRAIN OUT   IN  MERGED
             0        0        0       0          -      0          0 B             -                    -    -       0
             1        0        2       8     87.5 %      0          0 B           4.0                 20.0  3.0       4
        ");
    }
}
