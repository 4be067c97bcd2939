//! `wharf status`: how the daemon is.

use super::human::{count, seconds, unix_millis};
use super::options::{Format, Global};
use super::output::{Outcome, facts, listing};
use crate::control::model::StatusInfo;

/// Runs `wharf status`.
pub(crate) fn run(global: &Global, format: Format) -> Outcome {
    let status = global.client().status()?;
    listing(format.json, &status, || text(&status, unix_millis()))
}

fn text(status: &StatusInfo, now_ms: u64) -> String {
    let up = seconds(now_ms.saturating_sub(status.started_ms) / 1000);
    let none = "none: containers reach one another, and nothing outside";
    let mut pairs = vec![
        ("daemon", format!("version {}, process {}, up {up}", status.version, status.pid)),
        ("sockets", status.runtime_dir.clone()),
        ("state", status.state_dir.clone()),
        ("workers", status.workers.to_string()),
        ("networks", count(status.networks as u64)),
        ("endpoints", count(status.endpoints as u64)),
        ("published ports", count(status.published_ports)),
        ("uplinks", count(status.uplinks as u64)),
        ("default uplink", status.default_uplink.clone().unwrap_or_else(|| none.to_owned())),
    ];
    if !status.notes.is_empty() {
        pairs.push(("notes", status.notes.join("\n")));
    }
    facts(&pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_uplink_is_said_in_words() {
        let status = StatusInfo {
            version: "0.1.0".to_owned(),
            pid: 4711,
            uid: 0,
            started_ms: 1_000,
            state_dir: "/var/lib/wharf".to_owned(),
            runtime_dir: "/run/wharf".to_owned(),
            default_uplink: None,
            workers: 1,
            networks: 2,
            uplinks: 0,
            endpoints: 3,
            published_ports: 12_000,
            notes: vec!["this kernel has no USO".to_owned(), "run as root".to_owned()],
        };
        insta::assert_snapshot!(text(&status, 66_000));
    }
}
