//! Bounds and times of flows, from the config file to the workers.

use serde::{Deserialize, Serialize};

use super::Control;
use super::config::Config;
use crate::base::time::Span;
use crate::stage::flow::{Class, Timeouts};
use crate::worker::command::{Command, Tuning};

/// `[timeouts]`: seconds that a flow may be idle, by state. What is not given stays as the RFCs have it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FlowTimeouts {
    /// TCP whose handshake is not complete; 240.
    pub tcp_embryonic: Option<u64>,
    /// TCP that is established; 7440.
    pub tcp_established: Option<u64>,
    /// TCP that was closed by both sides or reset; 240.
    pub tcp_transitory: Option<u64>,
    /// UDP without an answer; 120.
    pub udp_single: Option<u64>,
    /// UDP with an answer; 300.
    pub udp_stream: Option<u64>,
    /// UDP to port 53; 30.
    pub udp_short: Option<u64>,
    /// ICMP queries; 60.
    pub icmp: Option<u64>,
    /// SCTP; 300.
    pub sctp: Option<u64>,
    /// All other protocols; 600.
    pub other: Option<u64>,
}

/// The clock of flow tables goes around in 49 days, and half of that can be told from its other half.
const SECONDS_MAX: u64 = 20 * 86_400;

impl FlowTimeouts {
    fn of(&self, class: Class) -> Option<u64> {
        match class {
            Class::TcpEmbryonic => self.tcp_embryonic,
            Class::TcpTransitory => self.tcp_transitory,
            Class::TcpEstablished => self.tcp_established,
            Class::UdpSingle => self.udp_single,
            Class::UdpStream => self.udp_stream,
            Class::UdpShort => self.udp_short,
            Class::Icmp => self.icmp,
            Class::Sctp => self.sctp,
            Class::Other => self.other,
        }
    }

    pub(super) fn check(&self) -> Result<(), String> {
        for class in Class::ALL {
            if self.of(class).is_some_and(|secs| secs == 0 || secs > SECONDS_MAX) {
                let key = class.name().replace('-', "_");
                return Err(format!("`timeouts.{key}` must be 1 to {SECONDS_MAX} seconds"));
            }
        }
        Ok(())
    }

    fn table(&self) -> Timeouts {
        let mut table = Timeouts::default();
        for class in Class::ALL {
            if let Some(secs) = self.of(class) {
                table.set(class, Span::from_secs(secs));
            }
        }
        table
    }
}

fn tuning(config: &Config) -> Tuning {
    Tuning {
        timeouts: config.timeouts.table(),
        flows_max: config.limits.flows,
        flows_per_endpoint: config.limits.flows_per_endpoint,
        ports_per_endpoint: config.limits.ports_per_endpoint,
        pick_up: config.pick_up.unwrap_or(true),
    }
}

impl Control {
    /// Tells the workers what the config file says about flows.
    pub(super) fn tune(&self) {
        self.outside.dataplane.send(Command::Tune(tuning(&self.settings.config)));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("wharf.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn what_the_file_says_counts_and_the_rest_stays_as_the_rfcs_have_it() {
        let text = "pick_up = false\n[limits]\nflows = 5000\nflows_per_endpoint = 50\n\
                    [timeouts]\ntcp_embryonic = 30\nudp_stream = 180\n";
        let tuning = tuning(&parse(text).unwrap());
        let secs = |class| tuning.timeouts.get(class).as_millis() / 1_000;
        assert_eq!((secs(Class::TcpEmbryonic), secs(Class::UdpStream)), (30, 180));
        assert_eq!((secs(Class::TcpTransitory), secs(Class::TcpEstablished)), (240, 7_440));
        assert_eq!((tuning.flows_max, tuning.flows_per_endpoint), (5_000, 50));
        assert!(!tuning.pick_up);
    }

    #[test]
    fn a_time_that_cannot_be_is_named() {
        for text in ["[timeouts]\nicmp = 0\n", "[timeouts]\nicmp = 99999999\n"] {
            assert!(parse(text).unwrap_err().contains("`timeouts.icmp`"));
        }
        assert!(parse("[timeouts]\ntcp = 5\n").unwrap_err().contains("unknown field `tcp`"));
    }
}
