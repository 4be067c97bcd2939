//! Every way a frame can end, with a name. "Why was it dropped" is the users' first question.
//!
//! The name is metric label, trace word and test assertion alike; it never changes once released.

/// Why a frame went nowhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum DropReason {
    /// Shorter than its headers say.
    Truncated,
    /// Contradictory or impossible header fields.
    Malformed,
    /// A virtio-net header that contradicts its frame.
    OffloadHeader,
    /// IPv4 header checksum wrong.
    Ipv4Checksum,
    /// A VLAN tag from an endpoint.
    VlanTagged,
    /// Source MAC is a group or zero.
    SourceMac,
    /// The source MAC moves between ports too often to be believed.
    MacFlapping,
    /// Guard: the source MAC is not the port's own.
    GuardMac,
    /// Guard: the source address is not the port's own (RFC 2827).
    GuardAddress,
    /// Guard: ARP or neighbour discovery speaks for a foreign address.
    GuardNeighbour,
    /// Guard: a router advertisement or DHCP answer from an endpoint.
    GuardRouter,
    /// A network's frames may not go where this one wants (`--icc=false`).
    PortIsolated,
    /// Networks are isolated from each other.
    NetworkIsolated,
    /// Flood budget of the port is used up.
    FloodLimit,
    /// The destination is behind the port the frame came from.
    SamePort,
    /// Reserved multicast that a bridge must not forward (IEEE 802.1D 7.12.6).
    ReservedMulticast,
    /// Not for this station: neither our MAC nor a group we listen to.
    NotForUs,
    /// No other port in the domain.
    NoListener,
    /// TTL or hop limit ran out.
    TtlExceeded,
    /// Larger than the way out, and must not be fragmented.
    TooBig,
    /// No route.
    NoRoute,
    /// The network has no uplink.
    NoUplink,
    /// The way out has no address of that family.
    NoAddress,
    /// Nobody answers for the next hop.
    NeighbourFailed,
    /// Too many frames wait for a neighbour.
    NeighbourHoldFull,
    /// Neighbour table is full.
    NeighbourTableFull,
    /// Destination is loopback, unspecified, mapped or otherwise impossible on a network.
    MartianDestination,
    /// Source is loopback, multicast or otherwise impossible on a network.
    MartianSource,
    /// An inside address arrived from outside.
    SpoofedInside,
    /// Nothing is published there and no flow asked for it.
    NotPublished,
    /// Filtered: a mapping exists, but its owner never spoke to this sender (RFC 4787 REQ-8).
    Filtered,
    /// The gateway offers no such service.
    NoService,
    /// Flow table is full.
    FlowTableFull,
    /// The port has used its share of flows.
    FlowShare,
    /// No outside port left for a mapping.
    PortsExhausted,
    /// The port has over a quarter of an outside address's ports, and less than a quarter is left.
    PortShare,
    /// TCP segment outside the windows.
    TcpWindow,
    /// A TCP segment that opens nothing and belongs to nothing.
    TcpNoFlow,
    /// TCP flags that never occur together.
    TcpFlags,
    /// An ICMP error about a flow that never was.
    IcmpUnrelated,
    /// An ICMP error that failed its checks.
    IcmpBad,
    /// Fragments overlap (RFC 5722, RFC 1858).
    FragmentOverlap,
    /// Too many or too large fragments are waiting.
    FragmentLimit,
    /// The first fragment never came.
    FragmentTimeout,
    /// The way out could take no more and its queue is full.
    EgressFull,
    /// The receiver's TAP ring was full (counted by the kernel).
    RingFull,
    /// The kernel refused the write.
    WriteFailed,
    /// The port is gone.
    PortGone,
    /// The port is there but not up.
    PortDown,
    /// A frame that the way out cannot carry and that cannot be split.
    CannotSplit,
    /// ARP or neighbour discovery that needs no answer.
    NeighbourIgnored,
    /// Destination of a socket flow that must never be reached unasked.
    ForbiddenDestination,
    /// Host sockets or descriptors ran out.
    SocketLimit,
    /// A host socket's send buffer was full.
    SocketFull,
    /// A TCP segment that came before an earlier one and found no room to wait for it.
    TcpOutOfOrder,
    /// The name server has too many queries waiting, or the port has its share of them.
    NameLimit,
    /// Over the port's rate limit.
    RateLimited,
    /// From another node: the source address is none of those behind it.
    TunnelSource,
    /// A datagram at our end of the tunnels that is none of a tunnel's, or whose inner frame is cut off.
    TunnelHeader,
    /// From another node: the network identifier is not the one configured.
    TunnelVni,
    /// A datagram at our end of the tunnels that is no peer's.
    TunnelStranger,
    /// The service has no backend that is ready.
    NoBackend,
    /// The service's policy wants a backend of this node, and there is none.
    NoLocalBackend,
    /// A rule, or none where one was needed, keeps the destination from being reached from there.
    PolicyIngress,
    /// The same for the source.
    PolicyEgress,
    /// WireGuard: a handshake of a key that no node has, or for another key than ours.
    WireguardKey,
    /// WireGuard: it does not decrypt; somebody else made it, or it was damaged.
    WireguardForged,
    /// WireGuard: it was received before.
    WireguardReplay,
    /// WireGuard: of a session that is over, or a handshake that is not newer than the last.
    WireguardStale,
    /// WireGuard: a handshake among too many; who sent it was asked to show that it is where it says.
    WireguardBusy,
    /// WireGuard: the node does not answer, and no more packets may wait for it.
    WireguardUnanswered,
}

/// Reason, name and explanation, in the order of the enum (a test holds them together).
const TABLE: [(DropReason, &str, &str); 71] = [
    (DropReason::Truncated, "truncated", "Shorter than its headers say"),
    (DropReason::Malformed, "malformed", "Contradictory or impossible header fields"),
    (DropReason::OffloadHeader, "offload-header", "A virtio-net header that contradicts its frame"),
    (DropReason::Ipv4Checksum, "ipv4-checksum", "IPv4 header checksum wrong"),
    (DropReason::VlanTagged, "vlan-tagged", "A VLAN tag from an endpoint"),
    (DropReason::SourceMac, "source-mac", "Source MAC is a group or zero"),
    (
        DropReason::MacFlapping,
        "mac-flapping",
        "The source MAC moves between ports too often: a loop or a thief",
    ),
    (DropReason::GuardMac, "guard-mac", "Guard: the source MAC is not the port's own"),
    (
        DropReason::GuardAddress,
        "guard-address",
        "Guard: the source address is not the port's own (RFC 2827)",
    ),
    (
        DropReason::GuardNeighbour,
        "guard-neighbour",
        "Guard: ARP or neighbour discovery speaks for a foreign address",
    ),
    (
        DropReason::GuardRouter,
        "guard-router",
        "Guard: a router advertisement or DHCP answer from an endpoint",
    ),
    (
        DropReason::PortIsolated,
        "port-isolated",
        "A network's frames may not go where this one wants (`--icc=false`)",
    ),
    (DropReason::NetworkIsolated, "network-isolated", "Networks are isolated from each other"),
    (DropReason::FloodLimit, "flood-limit", "Flood budget of the port is used up"),
    (DropReason::SamePort, "same-port", "The destination is behind the port the frame came from"),
    (
        DropReason::ReservedMulticast,
        "reserved-multicast",
        "Reserved multicast that a bridge must not forward (IEEE 802.1D 7.12.6)",
    ),
    (
        DropReason::NotForUs,
        "not-for-us",
        "Not for this station: neither our MAC nor a group we listen to",
    ),
    (DropReason::NoListener, "no-listener", "No other port in the domain"),
    (DropReason::TtlExceeded, "ttl-exceeded", "TTL or hop limit ran out"),
    (DropReason::TooBig, "too-big", "Larger than the way out, and must not be fragmented"),
    (DropReason::NoRoute, "no-route", "No route"),
    (DropReason::NoUplink, "no-uplink", "The network has no uplink"),
    (DropReason::NoAddress, "no-address", "The way out has no address of that family"),
    (DropReason::NeighbourFailed, "neighbour-failed", "Nobody answers for the next hop"),
    (DropReason::NeighbourHoldFull, "neighbour-hold-full", "Too many frames wait for a neighbour"),
    (DropReason::NeighbourTableFull, "neighbour-table-full", "Neighbour table is full"),
    (
        DropReason::MartianDestination,
        "martian-destination",
        "Destination is loopback, unspecified, mapped or otherwise impossible on a network",
    ),
    (
        DropReason::MartianSource,
        "martian-source",
        "Source is loopback, multicast or otherwise impossible on a network",
    ),
    (DropReason::SpoofedInside, "spoofed-inside", "An inside address arrived from outside"),
    (
        DropReason::NotPublished,
        "not-published",
        "Nothing is published there and no flow asked for it",
    ),
    (
        DropReason::Filtered,
        "filtered",
        "Filtered: a mapping exists, but its owner never spoke to this sender (RFC 4787 REQ-8)",
    ),
    (DropReason::NoService, "no-service", "The gateway offers no such service"),
    (DropReason::FlowTableFull, "flow-table-full", "Flow table is full"),
    (DropReason::FlowShare, "flow-share", "The port has used its share of flows"),
    (DropReason::PortsExhausted, "ports-exhausted", "No outside port left for a mapping"),
    (
        DropReason::PortShare,
        "port-share",
        "The port has over a quarter of an outside address's ports, and less than a quarter is left",
    ),
    (DropReason::TcpWindow, "tcp-window", "TCP segment outside the windows"),
    (
        DropReason::TcpNoFlow,
        "tcp-no-flow",
        "A TCP segment that opens nothing and belongs to nothing",
    ),
    (DropReason::TcpFlags, "tcp-flags", "TCP flags that never occur together"),
    (DropReason::IcmpUnrelated, "icmp-unrelated", "An ICMP error about a flow that never was"),
    (DropReason::IcmpBad, "icmp-bad", "An ICMP error that failed its checks"),
    (DropReason::FragmentOverlap, "fragment-overlap", "Fragments overlap (RFC 5722, RFC 1858)"),
    (DropReason::FragmentLimit, "fragment-limit", "Too many or too large fragments are waiting"),
    (DropReason::FragmentTimeout, "fragment-timeout", "The first fragment never came"),
    (DropReason::EgressFull, "egress-full", "The way out could take no more and its queue is full"),
    (DropReason::RingFull, "ring-full", "The receiver's TAP ring was full (counted by the kernel)"),
    (DropReason::WriteFailed, "write-failed", "The kernel refused the write"),
    (DropReason::PortGone, "port-gone", "The port is gone"),
    (DropReason::PortDown, "port-down", "The port is there but not up"),
    (
        DropReason::CannotSplit,
        "cannot-split",
        "A frame that the way out cannot carry and that cannot be split",
    ),
    (
        DropReason::NeighbourIgnored,
        "neighbour-ignored",
        "ARP or neighbour discovery that needs no answer",
    ),
    (
        DropReason::ForbiddenDestination,
        "forbidden-destination",
        "Destination of a socket flow that must never be reached unasked",
    ),
    (DropReason::SocketLimit, "socket-limit", "Host sockets or descriptors ran out"),
    (DropReason::SocketFull, "socket-full", "A host socket's send buffer was full"),
    (
        DropReason::TcpOutOfOrder,
        "tcp-out-of-order",
        "A TCP segment that came before an earlier one and found no room to wait for it",
    ),
    (DropReason::NameLimit, "name-limit", "Too many queries wait at the name server"),
    (DropReason::RateLimited, "rate-limited", "Over the port's rate limit (`--rate`)"),
    (
        DropReason::TunnelSource,
        "tunnel-source",
        "From another node: the source address is none of those behind it",
    ),
    (
        DropReason::TunnelHeader,
        "tunnel-header",
        "A datagram at our end of the tunnels that is none of a tunnel's, or whose inner frame is cut off",
    ),
    (
        DropReason::TunnelVni,
        "tunnel-vni",
        "From another node: the network identifier is not the one configured",
    ),
    (
        DropReason::TunnelStranger,
        "tunnel-stranger",
        "A datagram at our end of the tunnels that is no peer's",
    ),
    (DropReason::NoBackend, "no-backend", "The service has no backend that is ready"),
    (
        DropReason::NoLocalBackend,
        "no-local-backend",
        "The service's policy wants a backend of this node, and there is none",
    ),
    (DropReason::PolicyIngress, "policy-ingress", "Policy of the destination does not let it in"),
    (DropReason::PolicyEgress, "policy-egress", "Policy of the source does not let it out"),
    (
        DropReason::WireguardKey,
        "wireguard-key",
        "A handshake of a key that no node has, or for another key than ours",
    ),
    (
        DropReason::WireguardForged,
        "wireguard-forged",
        "It does not decrypt: somebody else made it, or it was damaged",
    ),
    (DropReason::WireguardReplay, "wireguard-replay", "It was received before"),
    (
        DropReason::WireguardStale,
        "wireguard-stale",
        "Of a session that is over, or a handshake that is not newer than the last",
    ),
    (DropReason::WireguardBusy, "wireguard-busy", "A handshake among too many"),
    (
        DropReason::WireguardUnanswered,
        "wireguard-unanswered",
        "The node does not answer, and no more packets may wait for it",
    ),
];

impl DropReason {
    /// Number of reasons, for tables indexed by one.
    pub const COUNT: usize = TABLE.len();

    /// All reasons, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|(reason, ..)| *reason)
    }

    /// Position among all reasons.
    #[inline]
    pub fn index(self) -> usize {
        self as usize
    }

    /// The name: metric label, trace word.
    pub fn name(self) -> &'static str {
        TABLE[self.index()].1
    }

    /// One line for people.
    pub fn explain(self) -> &'static str {
        TABLE[self.index()].2
    }
}

impl std::fmt::Display for DropReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_follows_the_enum_and_every_name_is_one() {
        let mut names = std::collections::HashSet::new();
        for (at, reason) in DropReason::all().enumerate() {
            assert_eq!(reason.index(), at, "{reason:?}");
            assert!(names.insert(reason.name()), "{} twice", reason.name());
            assert!(
                reason
                    .name()
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c == '-' || c.is_ascii_digit())
            );
        }
    }
}
