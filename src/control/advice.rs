//! What can be done about what has happened.

use super::model::EventKind;
use crate::packet::DropReason;

/// On an event; `None`: there is nothing to be done, or the text itself says it.
pub(super) fn on(kind: EventKind) -> Option<&'static str> {
    Some(match kind {
        EventKind::ConfigRefused => {
            "correct the file, try it with `wharf daemon --check FILE`, and send SIGHUP again"
        }
        EventKind::UplinkLost => {
            "`wharf uplink ls` says what it lacks; it is tried again when its interface changes, and \
             at SIGHUP"
        }
        EventKind::UplinkConflict => {
            "let that program use another port, or give the uplink others with `--ports`"
        }
        EventKind::PortLost => {
            "end what has the port (`ss -lnp` names it) and send the daemon SIGHUP, or publish \
             another one"
        }
        EventKind::WorkerFailed => {
            "start the daemon again: containers and their published ports survive that"
        }
        EventKind::QueueFull => {
            "let the receiver have more CPU, or slow its senders (`wharf run --rate`)"
        }
        EventKind::MacConflict => {
            "look for a loop between bridges, or for two stations with one MAC (`wharf fdb`)"
        }
        EventKind::PeerDown => {
            "see whether the node is up, and whether firewalls between let its UDP port pass both ways"
        }
        EventKind::NodeLost => {
            "see whether the node and its daemon run; its subnet stays its own until `wharf node rm`"
        }
        EventKind::ClusterTrouble => "`wharf status` says whether it goes on",
        EventKind::BackendUnready => {
            "see whether the container listens there; `wharf service inspect` says how each backend is"
        }
        EventKind::FlowDenied => {
            "if it should pass, `wharf policy test` shows the rules of both ends"
        }
        _ => return None,
    })
}

/// On connections of a port that cannot begin.
pub(super) fn on_shortage(reason: DropReason, name: &str) -> String {
    let counts = "`wharf flows --counts` says what they are";
    match reason {
        DropReason::FlowTableFull => format!("raise `limits.flows` in the config file; {counts}"),
        DropReason::FlowShare => format!(
            "see what {name} does (`wharf flows --endpoint {name}`), or raise \
             `limits.flows_per_endpoint` in the config file"
        ),
        DropReason::PortsExhausted => {
            "give the uplink more ports (`--ports`), or raise `limits.ports_per_endpoint` in the \
             config file"
                .to_owned()
        }
        DropReason::SocketLimit => {
            format!("raise the daemon's limit of open files (LimitNOFILE, `ulimit -n`); {counts}")
        }
        _ => counts.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shortage_has_its_own_remedy() {
        let words = [
            (DropReason::FlowTableFull, "limits.flows`"),
            (DropReason::FlowShare, "wharf flows --endpoint web"),
            (DropReason::PortsExhausted, "--ports"),
            (DropReason::SocketLimit, "LimitNOFILE"),
        ];
        for (reason, word) in words {
            assert!(on_shortage(reason, "web").contains(word), "{reason}");
        }
    }
}
