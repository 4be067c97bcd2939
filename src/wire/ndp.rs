//! Neighbour discovery (RFC 4861): solicitations, advertisements and their link-layer options.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Be32;
use super::addr::Addr;
use super::mac::Mac;

/// Option: source link-layer address.
pub const SOURCE_LINK_LAYER: u8 = 1;
/// Option: target link-layer address.
pub const TARGET_LINK_LAYER: u8 = 2;
/// Option: prefix information.
pub const PREFIX_INFORMATION: u8 = 3;
/// Option: MTU.
pub const MTU: u8 = 5;
/// Option: name servers (RFC 8106).
pub const NAME_SERVERS: u8 = 25;
/// Option: domains in which short names are looked for (RFC 8106).
pub const SEARCH: u8 = 31;

/// Flag of an advertisement: the sender is a router.
pub const ROUTER: u32 = 0x8000_0000;
/// Flag of an advertisement: it answers a solicitation.
pub const SOLICITED: u32 = 0x4000_0000;
/// Flag of an advertisement: replace what is cached.
pub const OVERRIDE: u32 = 0x2000_0000;

/// What follows the first four bytes of ICMPv6 in a solicitation or advertisement, 20 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Neighbour {
    /// Flags of an advertisement; reserved in a solicitation.
    pub flags: Be32,
    /// The address asked about or told about.
    pub target: [u8; 16],
}

const _: () = assert!(size_of::<Neighbour>() == 20);

impl Neighbour {
    /// The target as an address.
    pub fn target_addr(&self) -> Addr {
        Addr::from_v6_bytes(self.target)
    }
}

/// Walks the options (kind, body without the two leading bytes); `None` ends it, a zero or overlong
/// length too (RFC 4861 4.6: such a packet must be discarded, see [`options_are_valid`]).
#[derive(Clone, Debug)]
pub struct Options<'a>(&'a [u8]);

impl<'a> Options<'a> {
    /// `bytes` is what follows the fixed part.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl<'a> Iterator for Options<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [kind, len, ..] = *self.0 else { return None };
        let len = usize::from(len) * 8;
        let body = self.0.get(2..len)?;
        self.0 = self.0.get(len..)?;
        Some((kind, body))
    }
}

/// Whether all options have a length and fit.
pub fn options_are_valid(mut bytes: &[u8]) -> bool {
    while let [_, len, ..] = *bytes {
        let len = usize::from(len) * 8;
        match bytes.get(len..) {
            Some(rest) if len > 0 => bytes = rest,
            _ => return false,
        }
    }
    bytes.is_empty()
}

/// The link-layer address option of this kind.
pub fn link_layer_option(bytes: &[u8], kind: u8) -> Option<Mac> {
    let (_, body) = Options::new(bytes).find(|(k, _)| *k == kind)?;
    Some(Mac(*body.first_chunk()?))
}
