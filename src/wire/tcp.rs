//! TCP (RFC 9293), the header as conntrack and rewriting need it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Be16, Be32};

/// No more data from the sender.
pub const FIN: u8 = 0x01;
/// Synchronise sequence numbers.
pub const SYN: u8 = 0x02;
/// Reset.
pub const RST: u8 = 0x04;
/// Push.
pub const PSH: u8 = 0x08;
/// The acknowledgement field counts.
pub const ACK: u8 = 0x10;
/// The urgent pointer counts.
pub const URG: u8 = 0x20;
/// ECN echo (RFC 3168).
pub const ECE: u8 = 0x40;
/// Congestion window reduced (RFC 3168).
pub const CWR: u8 = 0x80;

/// Length of the header without options.
pub const HEADER_LEN: usize = 20;
/// Offset of the checksum in the header.
pub const CHECKSUM_OFFSET: u16 = 16;

/// The fixed part of the header, 20 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Tcp {
    /// Source port.
    pub src_port: Be16,
    /// Destination port.
    pub dst_port: Be16,
    /// Sequence number of the first byte.
    pub seq: Be32,
    /// Next byte expected.
    pub ack: Be32,
    /// Header length in words (upper four bits).
    pub data_offset: u8,
    /// [`SYN`], [`ACK`] and the others.
    pub flags: u8,
    /// Receive window, unscaled.
    pub window: Be16,
    /// Checksum.
    pub checksum: Be16,
    /// Urgent pointer.
    pub urgent: Be16,
}

const _: () = assert!(size_of::<Tcp>() == HEADER_LEN);

impl Tcp {
    /// Header length in bytes as the header says it.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.data_offset >> 4) * 4
    }

    /// Whether all of `flags` are set.
    #[inline]
    pub fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }
}

/// An option that the switch understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpOption {
    /// Maximum segment size.
    Mss(u16),
    /// Window scale (RFC 7323), shift count.
    WindowScale(u8),
    /// Selective acknowledgements permitted (RFC 2018).
    SackPermitted,
    /// Timestamps (RFC 7323): value and echo.
    Timestamps(u32, u32),
    /// Any other kind.
    Other(u8),
}

/// Walks the options; stops at the end, at a malformed option, and never beyond the slice.
#[derive(Clone, Debug)]
pub struct Options<'a>(&'a [u8]);

impl<'a> Options<'a> {
    /// `bytes` is what lies between the fixed header and the data.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl Iterator for Options<'_> {
    /// Offset-free option values in order.
    type Item = TcpOption;

    fn next(&mut self) -> Option<TcpOption> {
        loop {
            let (&kind, rest) = self.0.split_first()?;
            if kind == 0 {
                return None;
            }
            if kind == 1 {
                self.0 = rest;
                continue;
            }
            let len = usize::from(*rest.first()?);
            let body = self.0.get(2..len)?;
            self.0 = self.0.get(len..)?;
            return Some(match (kind, body) {
                (2, &[a, b]) => TcpOption::Mss(u16::from_be_bytes([a, b])),
                (3, &[shift]) => TcpOption::WindowScale(shift),
                (4, []) => TcpOption::SackPermitted,
                (8, &[a, b, c, d, e, f, g, h]) => TcpOption::Timestamps(
                    u32::from_be_bytes([a, b, c, d]),
                    u32::from_be_bytes([e, f, g, h]),
                ),
                _ => TcpOption::Other(kind),
            });
        }
    }
}
