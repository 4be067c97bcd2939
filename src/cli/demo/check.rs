//! One check: what is sent from where, and what has to be seen at the other end.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::Serialize;

use super::icmp::Answer;
use super::probe::{self, Exchange};
use super::world::Host;

/// What is spoken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Proto {
    Ping,
    Tcp,
    Udp,
}

impl Proto {
    pub(super) const ALL: [Self; 3] = [Self::Ping, Self::Tcp, Self::Udp];
    pub(super) const WITH_PORTS: [Self; 2] = [Self::Tcp, Self::Udp];
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ping => "ping",
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// The family of addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(super) enum Family {
    #[serde(rename = "ipv4")]
    V4,
    #[serde(rename = "ipv6")]
    V6,
}

impl Family {
    pub(super) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The first address of this family; the unspecified one, which reaches nobody, if there is none.
    pub(super) fn of(self, addrs: impl IntoIterator<Item = IpAddr>) -> IpAddr {
        let mine = |addr: &IpAddr| addr.is_ipv6() == (self == Self::V6);
        addrs.into_iter().find(mine).unwrap_or(Ipv4Addr::UNSPECIFIED.into())
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// Source and destination, as one end's socket tells them. Pings have port zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Pair {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text =
            |at: SocketAddr| if at.port() == 0 { at.ip().to_string() } else { at.to_string() };
        f.pad(&format!("{} → {}", text(self.from), text(self.to)))
    }
}

/// What has to be seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Expect {
    /// It arrives as it was sent.
    Unchanged,
    /// It arrives from this address.
    Masqueraded(IpAddr),
    /// It arrives here, from its true sender.
    Published(SocketAddr),
    /// It arrives here, from this address: its sender's own would make the answer go past the switch.
    Hairpin(SocketAddr, IpAddr),
    /// It does not arrive, and this router says that it is prohibited.
    Refused(IpAddr),
}

/// One check.
#[derive(Clone, Copy, Debug)]
pub(super) struct Check<'a> {
    pub(super) proto: Proto,
    pub(super) family: Family,
    pub(super) from: &'a Host,
    /// Where it is to arrive, or would.
    pub(super) at: &'a Host,
    /// Whom the sender speaks to.
    pub(super) to: SocketAddr,
    pub(super) expect: Expect,
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Outcome {
    pub(super) proto: Proto,
    pub(super) family: Family,
    pub(super) from: &'static str,
    pub(super) at: &'static str,
    pub(super) ok: bool,
    /// Addresses at the sender.
    pub(super) sent: Pair,
    /// Addresses at the receiver.
    pub(super) seen: Option<Pair>,
    /// The router's answer, where there is one.
    pub(super) answer: Option<Answer>,
    /// There and back.
    pub(super) micros: Option<u64>,
    /// What went wrong.
    pub(super) error: Option<String>,
}

impl Check<'_> {
    /// Does it.
    pub(super) fn run(&self) -> Outcome {
        if let Expect::Refused(by) = self.expect {
            return self.run_refused(by);
        }
        let (from, at) = (&self.from.ns, &self.at.ns);
        let server = self.at.server(self.family);
        let exchange = match self.proto {
            Proto::Ping => probe::ping(from, at, self.to.ip()),
            Proto::Tcp => probe::tcp(from, at, self.to, server),
            Proto::Udp => probe::udp(from, at, self.to, server),
        };
        let mut outcome = self.outcome();
        match exchange {
            Ok(Exchange { sent, seen, time }) => {
                (outcome.sent, outcome.seen) = (sent, Some(seen));
                outcome.micros = Some(micros(time));
                outcome.error = wrong(self.expect, sent, seen);
            }
            Err(error) => outcome.error = Some(error),
        }
        outcome.ok = outcome.error.is_none();
        outcome
    }

    fn run_refused(&self, by: IpAddr) -> Outcome {
        let mut outcome = self.outcome();
        match probe::refused(self.proto, &self.from.ns, self.from.addr(self.family), self.to) {
            Ok((answer, time)) => {
                outcome.sent = answer.quoted;
                outcome.micros = Some(micros(time));
                if answer.by != by {
                    outcome.error = Some(format!("the answer comes from {}", answer.by));
                } else if !answer.is_prohibited() {
                    outcome.error = Some("that is another answer than was expected".to_owned());
                }
                outcome.answer = Some(answer);
            }
            Err(error) => outcome.error = Some(error),
        }
        outcome.ok = outcome.error.is_none();
        outcome
    }

    fn outcome(&self) -> Outcome {
        let from = SocketAddr::new(self.from.addr(self.family), 0);
        Outcome {
            proto: self.proto,
            family: self.family,
            from: self.from.name,
            at: self.at.name,
            ok: false,
            sent: Pair { from, to: self.to },
            seen: None,
            answer: None,
            micros: None,
            error: None,
        }
    }
}

/// What is wrong with what was seen.
fn wrong(expect: Expect, sent: Pair, seen: Pair) -> Option<String> {
    let right = match expect {
        Expect::Unchanged => seen == sent,
        Expect::Masqueraded(by) => seen.from.ip() == by && seen.to == sent.to,
        Expect::Published(target) => seen.from == sent.from && seen.to == target,
        Expect::Hairpin(target, gateway) => seen.from.ip() == gateway && seen.to == target,
        Expect::Refused(_) => false,
    };
    let should = || match expect {
        Expect::Unchanged => "it should arrive unchanged".to_owned(),
        Expect::Masqueraded(by) => format!("it should arrive from {by}"),
        Expect::Published(target) => format!("it should arrive at {target} from its true sender"),
        Expect::Hairpin(target, by) => format!("it should arrive at {target} from {by}"),
        Expect::Refused(_) => "it should not arrive".to_owned(),
    };
    (!right).then(should)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(from: &str, to: &str) -> Pair {
        Pair { from: from.parse().unwrap(), to: to.parse().unwrap() }
    }

    #[test]
    fn what_is_seen_is_held_against_what_was_expected() {
        let sent = pair("10.0.0.2:40000", "192.0.2.2:1180");
        let target = "10.0.0.3:5000".parse().unwrap();
        let published = pair("10.0.0.2:40000", "10.0.0.3:5000");
        let hidden = pair("10.0.0.1:40000", "10.0.0.3:5000");
        assert_eq!(wrong(Expect::Unchanged, sent, sent), None);
        assert!(wrong(Expect::Unchanged, sent, published).is_some());
        assert_eq!(wrong(Expect::Published(target), sent, published), None);
        assert!(wrong(Expect::Published(target), sent, hidden).is_some());
        let gateway = "10.0.0.1".parse().unwrap();
        assert_eq!(wrong(Expect::Hairpin(target, gateway), sent, hidden), None);
        assert!(wrong(Expect::Hairpin(target, gateway), sent, published).is_some());
        let out = pair("192.0.2.2:40000", "192.0.2.2:1180");
        assert_eq!(wrong(Expect::Masqueraded("192.0.2.2".parse().unwrap()), sent, out), None);
        assert!(wrong(Expect::Masqueraded("192.0.2.2".parse().unwrap()), sent, sent).is_some());
        assert!(wrong(Expect::Refused(gateway), sent, sent).is_some());
    }

    #[test]
    fn a_ping_is_shown_without_ports() {
        assert_eq!(pair("10.0.0.2:0", "10.0.0.3:0").to_string(), "10.0.0.2 → 10.0.0.3");
        assert_eq!(pair("[fd20::2]:7", "[fd20::3]:9").to_string(), "[fd20::2]:7 → [fd20::3]:9");
    }
}
