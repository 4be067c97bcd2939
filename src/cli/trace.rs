//! `wharf trace`: which way a packet would go, stage by stage, and why it would be dropped.

use clap::Args;

use super::options::{Destination, Format, Global};
use super::output::{Outcome, listing};
use crate::control::model::TraceQuery;
use crate::datapath::inspect::TraceReport;

/// `wharf trace`
#[derive(Args, Debug)]
pub(crate) struct Trace {
    /// Container it would come from
    #[arg(long, value_name = "NAME")]
    from: String,
    /// Where to: `ADDR[:PORT][/tcp|udp|sctp|icmp]`
    #[arg(long, value_name = "DEST")]
    to: Destination,
    #[command(flatten)]
    format: Format,
}

/// Runs `wharf trace`. A packet that would be dropped is a good answer to the question, but exit
/// code 1 lets scripts ask.
pub(crate) fn run(global: &Global, args: Trace) -> Outcome {
    let Destination { addr, port, proto } = args.to;
    let query = TraceQuery { from: args.from, to: addr, port, proto: Some(proto) };
    let report = global.client().trace(&query)?;
    listing(args.format.json, &report, || steps(&report))?;
    Ok(u8::from(!report.delivered))
}

fn steps(report: &TraceReport) -> String {
    let width = report.steps.iter().map(|step| step.stage.len()).max().unwrap_or(0);
    let mut lines: Vec<String> =
        report.steps.iter().map(|step| format!("{:<width$}  {}", step.stage, step.text)).collect();
    let arrow = if report.delivered { "=>" } else { "=> dropped:" };
    lines.push(match &report.drop {
        Some(reason) => format!("{arrow} {} ({reason})", report.verdict),
        None => format!("{arrow} {}", report.verdict),
    });
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::inspect::TraceStep;

    #[test]
    fn a_drop_is_named_at_the_end() {
        let step =
            |stage: &str, text: &str| TraceStep { stage: stage.to_owned(), text: text.to_owned() };
        let report = TraceReport {
            steps: vec![
                step("guard", "passes: 10.20.0.2 is web's own"),
                step("policy", "blue and red are isolated from each other"),
            ],
            verdict: "blue is isolated".to_owned(),
            delivered: false,
            drop: Some("isolated".to_owned()),
        };
        insta::assert_snapshot!(steps(&report), @r"
        guard   passes: 10.20.0.2 is web's own
        policy  blue and red are isolated from each other
        => dropped: blue is isolated (isolated)
        ");
    }
}
