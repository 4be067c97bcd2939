//! Router advertisements (RFC 4861 4.2) and their prefixes (4.6.2).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::addr::Addr;
use super::mac::Mac;
use super::{Be16, Be32, ndp};
use crate::base::limits::ADVERTISED_PREFIXES_MAX;
use crate::base::time::Span;

/// The fixed part after the first four bytes of ICMPv6, 12 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Advertisement {
    /// Hop limit hosts should use; zero says nothing.
    pub hop_limit: u8,
    /// Managed and other configuration.
    pub flags: u8,
    /// Seconds this router may be a default router; zero: not at all.
    pub lifetime: Be16,
    /// Milliseconds a neighbour stays reachable.
    pub reachable: Be32,
    /// Milliseconds between solicitations.
    pub retrans: Be32,
}

/// The body of a prefix information option, without its kind and length, 30 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct PrefixInformation {
    /// Length of the prefix.
    pub len: u8,
    /// On-link (0x80), autonomous (0x40).
    pub flags: u8,
    /// Seconds the prefix is valid; all ones: for ever.
    pub valid: Be32,
    /// Seconds addresses made of it are preferred.
    pub preferred: Be32,
    /// Reserved.
    pub reserved: Be32,
    /// The prefix.
    pub prefix: [u8; 16],
}

/// Seconds: the most that RFC 4861 6.2.1 allows, since nothing is advertised unasked.
const ROUTER_LIFETIME: u16 = 9_000;

const _: () = assert!(size_of::<Advertisement>() == 12);
const _: () = assert!(size_of::<PrefixInformation>() == 30);

/// A prefix as advertised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prefix {
    /// The prefix; bits beyond `len` are not to be trusted.
    pub prefix: Addr,
    /// Its length.
    pub len: u8,
    /// Addresses of it are on this link.
    pub on_link: bool,
    /// Addresses may be made of it (RFC 4862).
    pub autonomous: bool,
    /// How long it is valid. 2³² - 1 seconds stand for ever.
    pub valid: Span,
    /// How long its addresses are preferred.
    pub preferred: Span,
}

/// What a router says of itself and its link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RouterAdvertisement {
    /// The router's link-local address.
    pub router: Addr,
    /// Its MAC, if it says so.
    pub mac: Option<Mac>,
    /// How long it may be a default router; zero: not at all.
    pub lifetime: Span,
    /// The link's MTU.
    pub mtu: Option<u32>,
    /// Prefixes, [`ADVERTISED_PREFIXES_MAX`] at most.
    pub prefixes: Vec<Prefix>,
}

impl RouterAdvertisement {
    /// Reads what follows the first four bytes of ICMPv6; the caller has checked the packet.
    pub fn parse(router: Addr, body: &[u8]) -> Option<Self> {
        let (fixed, options) = Advertisement::ref_from_prefix(body).ok()?;
        let prefixes = ndp::Options::new(options).filter_map(prefix);
        Some(Self {
            router,
            mac: ndp::link_layer_option(options, ndp::SOURCE_LINK_LAYER),
            lifetime: Span::from_secs(fixed.lifetime.get().into()),
            mtu: ndp::Options::new(options).find_map(mtu),
            prefixes: prefixes.take(ADVERTISED_PREFIXES_MAX).collect(),
        })
    }
}

/// The body of an advertisement of ours, after the first four bytes of ICMPv6: we are a default router, and
/// addresses may be made of this prefix for ever, since the link ends with us.
pub fn advertisement((prefix, len): (Addr, u8), mtu: u16) -> Vec<u8> {
    let fixed = Advertisement {
        hop_limit: 64,
        flags: 0,
        lifetime: ROUTER_LIFETIME.into(),
        reachable: 0.into(),
        retrans: 0.into(),
    };
    let info = PrefixInformation {
        len,
        flags: 0xc0,
        valid: u32::MAX.into(),
        preferred: u32::MAX.into(),
        reserved: 0.into(),
        prefix: prefix.bytes(),
    };
    // Lengths are in units of eight bytes.
    let mut body = fixed.as_bytes().to_vec();
    body.extend_from_slice(&[ndp::PREFIX_INFORMATION, 4]);
    body.extend_from_slice(info.as_bytes());
    body.extend_from_slice(&[ndp::MTU, 1, 0, 0]);
    body.extend_from_slice(&u32::from(mtu).to_be_bytes());
    body
}

fn prefix((kind, body): (u8, &[u8])) -> Option<Prefix> {
    let (info, _) = PrefixInformation::ref_from_prefix(body).ok()?;
    let usable = kind == ndp::PREFIX_INFORMATION && info.len <= 128;
    usable.then(|| Prefix {
        prefix: Addr::from_v6_bytes(info.prefix),
        len: info.len,
        on_link: info.flags & 0x80 != 0,
        autonomous: info.flags & 0x40 != 0,
        valid: Span::from_secs(info.valid.get().into()),
        preferred: Span::from_secs(info.preferred.get().into()),
    })
}

fn mtu((kind, body): (u8, &[u8])) -> Option<u32> {
    let mtu: [u8; 4] = body.get(2..6)?.try_into().ok()?;
    (kind == ndp::MTU).then_some(u32::from_be_bytes(mtu))
}
