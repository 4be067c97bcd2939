//! `wharf flows`: the connections the switch tracks, and forgetting them.

use std::net::{IpAddr, SocketAddr};

use clap::{Args, Subcommand};

use super::human::{bytes, millis};
use super::options::{Format, Global};
use super::output::{Outcome, line, listing, table};
use crate::control::model::{FlowQuery, FlowView};
use crate::datapath::inspect::FlowCount;

/// Lines shown to people unless they say how many.
const SHOWN: usize = 1000;

/// `wharf flows`
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Flows {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    filter: Filter,
    /// Busiest first
    #[arg(long)]
    top: bool,
    /// How many there are in each state
    #[arg(long, conflicts_with_all = ["top", "limit", "endpoint", "proto", "state", "to", "addr", "port"])]
    counts: bool,
    /// Stay, and write a JSON object for each flow that begins or ends
    #[arg(long, conflicts_with_all = ["top", "limit", "counts"])]
    follow: bool,
    /// Show at most so many
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
    #[command(flatten)]
    format: Format,
}

/// What can be done with flows.
#[derive(Subcommand, Debug)]
enum Command {
    /// Forget flows: their next packet is judged anew
    Flush(Filter),
}

/// Which flows are meant.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Filter {
    /// Of this container, at either end
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// Of this protocol: tcp, udp, icmp, sctp, or its number
    #[arg(long, value_name = "PROTO")]
    proto: Option<String>,
    /// In this state, such as established
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// To this address, before or after translation
    #[arg(long, value_name = "ADDR")]
    to: Option<IpAddr>,
    /// With this address at either end, before or after translation
    #[arg(long, value_name = "ADDR")]
    addr: Option<IpAddr>,
    /// With this port at either end, before or after translation
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
}

impl Filter {
    fn query(self, limit: Option<usize>) -> FlowQuery {
        let Self { endpoint, proto, state, to, addr, port } = self;
        FlowQuery { endpoint, proto, state, to, addr, port, limit }
    }
}

/// Runs `wharf flows` and `wharf flows flush`.
pub(crate) fn run(global: &Global, args: Flows) -> Outcome {
    let client = global.client();
    if let Some(Command::Flush(filter)) = args.command {
        let gone = client.flush_flows(&filter.query(None))?;
        line(&gone.count.to_string())?;
        return Ok(0);
    }
    if args.counts {
        let counts = client.count_flows()?;
        return listing(args.format.json, &counts, || counts_table(&counts));
    }
    if args.follow {
        for event in client.flow_events(&args.filter.query(None))? {
            line(&event?)?;
        }
        return Ok(0);
    }
    // To find the busiest, all have to be seen.
    let asked = if args.top || args.format.json { args.limit } else { args.limit.or(Some(SHOWN)) };
    let asked = if args.top { None } else { asked };
    let mut flows = client.flows(&args.filter.query(asked))?;
    if args.top {
        flows.sort_by_key(|view| std::cmp::Reverse(view.flow.bytes.iter().sum::<u64>()));
        flows.truncate(args.limit.unwrap_or(if args.format.json { usize::MAX } else { 20 }));
    }
    if !args.format.json && args.limit.is_none() && flows.len() == SHOWN {
        global.note(format_args!("only the first {SHOWN} are shown; `--limit` shows more"));
    }
    listing(args.format.json, &flows, || flows_table(&flows))
}

fn counts_table(counts: &[FlowCount]) -> String {
    let rows = counts
        .iter()
        .filter(|count| count.flows > 0)
        .map(|count| [count.state.clone(), count.flows.to_string(), millis(count.timeout_ms)]);
    table(["STATE", ">FLOWS", ">IDLE AT MOST"], rows.collect())
}

/// The table that people see.
pub(super) fn flows_table(views: &[FlowView]) -> String {
    let rows = views.iter().map(|view| {
        let flow = &view.flow;
        [
            flow.proto.clone(),
            flow.state.clone(),
            format!("{} {}", view.from, socket(flow.initiator)),
            format!("{} {}", view.to, socket(flow.target)),
            translation(view),
            bytes(flow.bytes[0]),
            bytes(flow.bytes[1]),
            millis(flow.idle_ms),
            millis(flow.expires_ms),
        ]
    });
    let headings =
        ["PROTO", "STATE", "FROM", "TO", "TRANSLATED", ">SENT", ">RECEIVED", ">IDLE", ">LEFT"];
    table(headings, rows.collect())
}

/// What differs on the way: `src` is who the responder sees, `dst` where packets really go.
fn translation(view: &FlowView) -> String {
    let flow = &view.flow;
    let mut parts = Vec::new();
    if flow.seen_as != flow.initiator {
        parts.push(format!("src={}", socket(flow.seen_as)));
    }
    if flow.responder != flow.target {
        parts.push(format!("dst={}", socket(flow.responder)));
    }
    parts.extend(flow.service.as_ref().map(|service| format!("service={service}")));
    super::human::list(parts)
}

/// Protocols without ports have a zero there.
fn socket((addr, port): (IpAddr, u16)) -> String {
    if port == 0 { addr.to_string() } else { SocketAddr::new(addr, port).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::PortId;
    use crate::datapath::inspect::FlowInfo;

    fn flow() -> FlowView {
        let at = |addr: &str, port| (addr.parse().unwrap(), port);
        FlowView {
            from: "web".to_owned(),
            to: "lan".to_owned(),
            flow: FlowInfo {
                proto: "tcp".to_owned(),
                state: "established".to_owned(),
                initiator_port: PortId(1),
                responder_port: PortId(2),
                initiator: at("10.20.0.2", 40000),
                target: at("192.0.2.7", 80),
                responder: at("192.0.2.7", 80),
                seen_as: at("192.0.2.1", 40000),
                service: None,
                packets: [10, 12],
                bytes: [1500, 4_000_000],
                idle_ms: 250,
                expires_ms: 7_440_000,
            },
        }
    }

    #[test]
    fn translations_show_only_where_there_are_any() {
        let mut inside = flow();
        inside.from = "db".to_owned();
        inside.to = "web".to_owned();
        inside.flow.proto = "icmp".to_owned();
        inside.flow.state = "active".to_owned();
        inside.flow.initiator = ("fd00::3".parse().unwrap(), 0);
        inside.flow.seen_as = inside.flow.initiator;
        inside.flow.target = ("fd00::2".parse().unwrap(), 0);
        inside.flow.responder = inside.flow.target;
        insta::assert_snapshot!(flows_table(&[flow(), inside]));
    }

    #[test]
    fn the_fields_of_a_flow_are_stable() {
        insta::assert_json_snapshot!(flow());
    }
}
