//! What names one direction of a flow.

use super::Parsed;
use crate::base::hash::Seed;
use crate::base::ids::DomainId;
use crate::wire::addr::Addr;

/// Whether a packet was handed to the gateway's MAC (routed) or to another station (bridged). Part of
/// the key, because the same two addresses may talk both ways and be treated differently.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[repr(u8)]
pub enum Scope {
    /// Inside one layer-2 domain.
    Bridged = 0,
    /// Through the gateway or an uplink.
    Routed = 1,
}

/// Addresses, ports, protocol and the domain in which they mean something: five words.
///
/// ICMP echo has the identifier as the requester's port and zero as the other, so that a request's
/// key reversed is its reply's key. Protocols without ports have zero for both.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[repr(C)]
pub struct FlowKey {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Source port or identifier.
    pub src_port: u16,
    /// Destination port or identifier.
    pub dst_port: u16,
    /// Layer-2 domain the packet arrived in.
    pub domain: DomainId,
    /// Protocol number.
    pub proto: u8,
    /// Bridged or routed.
    pub scope: Scope,
}

const _: () = assert!(size_of::<FlowKey>() == 40);

impl FlowKey {
    /// No packet's.
    pub const NOTHING: Self = Self {
        src: Addr::UNSPECIFIED,
        dst: Addr::UNSPECIFIED,
        src_port: 0,
        dst_port: 0,
        domain: DomainId(0),
        proto: 0,
        scope: Scope::Bridged,
    };

    /// The key of a parsed packet.
    #[inline]
    pub fn new(parsed: &Parsed, domain: DomainId, scope: Scope) -> Self {
        Self {
            src: parsed.src,
            dst: parsed.dst,
            src_port: parsed.src_port,
            dst_port: parsed.dst_port,
            domain,
            proto: parsed.proto,
            scope,
        }
    }

    /// Source and destination exchanged, in `domain` and `scope`.
    #[must_use]
    pub fn reversed(&self, domain: DomainId, scope: Scope) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            src_port: self.dst_port,
            dst_port: self.src_port,
            domain,
            proto: self.proto,
            scope,
        }
    }

    /// Whether both are the same, without a branch for each field.
    #[inline]
    pub fn matches(&self, other: &Self) -> bool {
        let ([a, b], [c, d]) = (self.src.words(), self.dst.words());
        let ([e, f], [g, h]) = (other.src.words(), other.dst.words());
        (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h) | (self.rest() ^ other.rest()) == 0
    }

    /// Everything but the addresses, in the order in which it lies in memory.
    #[inline]
    fn rest(&self) -> u64 {
        u64::from(self.src_port)
            | u64::from(self.dst_port) << 16
            | u64::from(self.domain.0) << 32
            | u64::from(self.proto) << 48
            | (self.scope as u64) << 56
    }

    /// The key's hash under `seed`.
    #[inline]
    pub fn hash(&self, seed: Seed) -> u64 {
        let [a, b] = self.src.words();
        let [c, d] = self.dst.words();
        seed.hash([a, b, c, d, self.rest()])
    }
}
