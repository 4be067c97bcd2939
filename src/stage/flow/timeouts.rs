//! How long an idle flow lives, by class.

use crate::base::time::Span;
use crate::wire::ipv6;

use super::flow::Direction;

/// What decides how long a flow may be idle. Each class is one list in order of last use.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Class {
    /// TCP whose handshake is not complete.
    TcpEmbryonic,
    /// TCP closed from both sides, or reset.
    TcpTransitory,
    /// TCP with a complete handshake, half-closed included.
    TcpEstablished,
    /// UDP without an answer so far.
    UdpSingle,
    /// UDP with an answer.
    UdpStream,
    /// UDP towards a port whose protocol is one question and one answer.
    UdpShort,
    /// ICMP queries of both families.
    Icmp,
    /// SCTP.
    Sctp,
    /// Any other protocol.
    Other,
}

/// Destination ports for which RFC 4787 REQ-5 a's exception is used: DNS.
const SHORT_UDP_PORTS: [u16; 1] = [53];

impl Class {
    /// Number of classes.
    pub const COUNT: usize = 9;

    /// All classes, in order.
    pub const ALL: [Self; Self::COUNT] = [
        Self::TcpEmbryonic,
        Self::TcpTransitory,
        Self::TcpEstablished,
        Self::UdpSingle,
        Self::UdpStream,
        Self::UdpShort,
        Self::Icmp,
        Self::Sctp,
        Self::Other,
    ];

    /// The class of a flow's first packet.
    pub fn first(proto: u8, dst_port: u16) -> Self {
        match proto {
            ipv6::TCP => Self::TcpEmbryonic,
            ipv6::UDP if SHORT_UDP_PORTS.contains(&dst_port) => Self::UdpShort,
            ipv6::UDP => Self::UdpSingle,
            ipv6::ICMP | ipv6::ICMPV6 => Self::Icmp,
            ipv6::SCTP => Self::Sctp,
            _ => Self::Other,
        }
    }

    /// The class after a packet in `dir` of a protocol without states of its own.
    #[must_use]
    #[inline]
    pub fn after(self, dir: Direction) -> Self {
        match (self, dir) {
            (Self::UdpSingle, Direction::Responder) => Self::UdpStream,
            _ => self,
        }
    }

    /// Whether the other side has not been heard yet: floods and scans are made of such flows.
    pub fn is_unanswered(self) -> bool {
        matches!(self, Self::TcpEmbryonic | Self::UdpSingle | Self::UdpShort)
    }

    /// Position among all classes.
    #[inline]
    pub fn index(self) -> usize {
        self as usize
    }

    /// The name that people read.
    pub fn name(self) -> &'static str {
        match self {
            Self::TcpEmbryonic => "tcp-embryonic",
            Self::TcpTransitory => "tcp-transitory",
            Self::TcpEstablished => "tcp-established",
            Self::UdpSingle => "udp-single",
            Self::UdpStream => "udp-stream",
            Self::UdpShort => "udp-short",
            Self::Icmp => "icmp",
            Self::Sctp => "sctp",
            Self::Other => "other",
        }
    }
}

/// Idle time after which a flow ends, one for each class.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    spans: [Span; Class::COUNT],
}

/// Moments in tables are milliseconds on a circle of 49 days, so that distances must stay below half.
const LONGEST: Span = Span::from_secs(20 * 86_400);

impl Default for Timeouts {
    #[allow(clippy::match_same_arms, reason = "equal by chance, each by a rule of its own")]
    fn default() -> Self {
        let secs = |class| match class {
            // RFC 5382 REQ-5 and RFC 7857 2.1: partially open and closing connections, 4 minutes.
            Class::TcpEmbryonic | Class::TcpTransitory => 240,
            // RFC 5382 REQ-5: no less than 2 hours 4 minutes, twice a keep-alive's default.
            Class::TcpEstablished => 7_440,
            // RFC 4787 REQ-5: no less than 2 minutes; c: 5 or more recommended.
            Class::UdpSingle => 120,
            Class::UdpStream => 300,
            // RFC 4787 REQ-5 a: shorter for well-known ports; resolvers give up within 30 seconds.
            Class::UdpShort => 30,
            // RFC 5508 REQ-2: no less than 60 seconds.
            Class::Icmp => 60,
            // RFC 9260 16: a heartbeat comes every 30 seconds; ten may be lost.
            Class::Sctp => 300,
            // No requirement; the kernel's generic timeout.
            Class::Other => 600,
        };
        Self { spans: Class::ALL.map(|class| Span::from_secs(secs(class))) }
    }
}

impl Timeouts {
    /// The idle time of one class.
    #[inline]
    pub fn get(&self, class: Class) -> Span {
        self.spans[class.index()]
    }

    /// Sets the idle time of one class; more than 20 days becomes 20 days.
    pub fn set(&mut self, class: Class, span: Span) {
        self.spans[class.index()] = span.min(LONGEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_in_order_and_have_names_of_their_own() {
        let mut names = std::collections::HashSet::new();
        for (at, class) in Class::ALL.into_iter().enumerate() {
            assert_eq!(class.index(), at);
            assert!(names.insert(class.name()));
        }
    }

    #[test]
    fn the_defaults_are_no_shorter_than_the_rfcs_ask() {
        let timeouts = Timeouts::default();
        let secs = |class| timeouts.get(class).as_millis() / 1_000;
        assert!(secs(Class::TcpEstablished) >= 2 * 3_600 + 4 * 60, "RFC 5382 REQ-5");
        assert!(secs(Class::TcpEmbryonic) >= 240 && secs(Class::TcpTransitory) >= 240);
        assert!(secs(Class::UdpSingle) >= 120, "RFC 4787 REQ-5");
        assert!(secs(Class::UdpStream) >= 300, "RFC 4787 REQ-5 c");
        assert!(secs(Class::Icmp) >= 60, "RFC 5508 REQ-2");
    }

    #[test]
    fn a_timeout_that_would_wrap_the_clock_is_shortened() {
        let mut timeouts = Timeouts::default();
        timeouts.set(Class::TcpEstablished, Span::from_secs(100 * 86_400));
        assert_eq!(timeouts.get(Class::TcpEstablished), LONGEST);
    }

    #[test]
    fn an_answer_makes_a_udp_flow_a_stream_but_a_question_to_dns_stays_short() {
        let single = Class::first(ipv6::UDP, 4_000);
        assert_eq!(single.after(Direction::Initiator), Class::UdpSingle);
        assert_eq!(single.after(Direction::Responder), Class::UdpStream);
        assert_eq!(Class::first(ipv6::UDP, 53).after(Direction::Responder), Class::UdpShort);
    }
}
