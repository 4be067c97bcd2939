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

/// Addresses come by DHCPv6.
pub const MANAGED: u8 = 0x80;
/// Name servers and domains come by DHCPv6, too.
pub const OTHER: u8 = 0x40;
const ON_LINK: u8 = 0x80;
const AUTONOMOUS: u8 = 0x40;

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

/// What an advertisement of ours says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Told {
    /// Seconds this router may be used without another word.
    pub lifetime: u16,
    /// [`MANAGED`], [`OTHER`].
    pub flags: u8,
    /// The link's prefix. It is valid for ever, since the link ends with us.
    pub prefix: (Addr, u8),
    /// Addresses may be made of it (RFC 4862).
    pub autonomous: bool,
    /// The link's MTU.
    pub mtu: u16,
    /// Who answers names.
    pub name_server: Option<Addr>,
    /// Domain in which short names are looked for, as labels (RFC 1035 3.1); none if empty.
    pub search: Vec<u8>,
}

impl Told {
    /// The body, after the first four bytes of ICMPv6.
    pub fn body(&self) -> Vec<u8> {
        let fixed = Advertisement {
            hop_limit: 64,
            flags: self.flags,
            lifetime: self.lifetime.into(),
            reachable: 0.into(),
            retrans: 0.into(),
        };
        let info = PrefixInformation {
            len: self.prefix.1,
            flags: if self.autonomous { ON_LINK | AUTONOMOUS } else { ON_LINK },
            valid: u32::MAX.into(),
            preferred: u32::MAX.into(),
            reserved: 0.into(),
            prefix: self.prefix.0.bytes(),
        };
        // Lengths are in units of eight bytes.
        let mut body = fixed.as_bytes().to_vec();
        body.extend([ndp::PREFIX_INFORMATION, 4]);
        body.extend(info.as_bytes());
        body.extend([ndp::MTU, 1, 0, 0]);
        body.extend(u32::from(self.mtu).to_be_bytes());
        if let Some(name_server) = self.name_server {
            body.extend([ndp::NAME_SERVERS, 3, 0, 0]);
            body.extend(u32::from(self.lifetime).to_be_bytes());
            body.extend(name_server.bytes());
        }
        if !self.search.is_empty() {
            let mut labels = self.search.clone();
            labels.resize(labels.len().next_multiple_of(8), 0);
            body.extend([ndp::SEARCH, 1 + (labels.len() / 8) as u8, 0, 0]);
            body.extend(u32::from(self.lifetime).to_be_bytes());
            body.extend(labels);
        }
        body
    }
}

fn prefix((kind, body): (u8, &[u8])) -> Option<Prefix> {
    let (info, _) = PrefixInformation::ref_from_prefix(body).ok()?;
    let usable = kind == ndp::PREFIX_INFORMATION && info.len <= 128;
    usable.then(|| Prefix {
        prefix: Addr::from_v6_bytes(info.prefix),
        len: info.len,
        on_link: info.flags & ON_LINK != 0,
        autonomous: info.flags & AUTONOMOUS != 0,
        valid: Span::from_secs(info.valid.get().into()),
        preferred: Span::from_secs(info.preferred.get().into()),
    })
}

fn mtu((kind, body): (u8, &[u8])) -> Option<u32> {
    let mtu: [u8; 4] = body.get(2..6)?.try_into().ok()?;
    (kind == ndp::MTU).then_some(u32::from_be_bytes(mtu))
}
