//! A segment as it came from a container.

use zerocopy::FromBytes;

use super::seq::Seq;
use crate::packet::{Csum, DropReason, Fragment, FrameMut, Parsed};
use crate::wire::checksum;
use crate::wire::tcp::{self, Options, Tcp, TcpOption};

/// The fields that count, read once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment<'a> {
    pub(super) seq: Seq,
    pub(super) ack: Seq,
    pub(super) flags: u8,
    /// As in the header, unscaled.
    pub(super) window: u16,
    /// Offset of the first data byte in the frame.
    pub(super) data_at: u32,
    /// Data bytes: in a super-frame all of them.
    pub(super) data: &'a [u8],
    /// Their number.
    pub(super) len: u32,
    /// From the options of a SYN.
    pub(super) mss: Option<u16>,
    pub(super) scale: Option<u8>,
}

/// RFC 7323 2.3: a larger shift count must be read as this.
const SCALE_MAX: u8 = 14;

impl<'a> Segment<'a> {
    /// Reads a segment. A checksum that nobody vouches for is verified: the host's socket would put a
    /// good one on bad bytes.
    pub(super) fn read(parsed: &Parsed, frame: &'a FrameMut<'_>) -> Result<Self, DropReason> {
        if parsed.fragment != Fragment::Whole {
            return Err(DropReason::FragmentLimit);
        }
        let bytes = parsed.l4_bytes(frame.bytes());
        let (header, _) = Tcp::ref_from_prefix(bytes).map_err(|_| DropReason::Truncated)?;
        let header_len = header.header_len();
        let options = bytes.get(tcp::HEADER_LEN..header_len).ok_or(DropReason::Malformed)?;
        if frame.offload().csum == Csum::Unverified && !intact(parsed, bytes) {
            return Err(DropReason::Malformed);
        }
        let mut segment = Self {
            seq: Seq(header.seq.get()),
            ack: Seq(header.ack.get()),
            flags: header.flags,
            window: header.window.get(),
            data_at: u32::from(parsed.l4) + header_len as u32,
            data: &bytes[header_len..],
            len: (bytes.len() - header_len) as u32,
            mss: None,
            scale: None,
        };
        if segment.has(tcp::SYN) {
            for option in Options::new(options) {
                match option {
                    TcpOption::Mss(mss) => segment.mss = Some(mss),
                    TcpOption::WindowScale(n) => segment.scale = Some(n.min(SCALE_MAX)),
                    _ => {}
                }
            }
        }
        Ok(segment)
    }

    /// Whether all of `flags` are set.
    pub(super) fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// The first number behind its data.
    pub(super) fn end(&self) -> Seq {
        self.seq.plus(self.len)
    }

    /// Sequence numbers it occupies.
    pub(super) fn space(&self) -> u32 {
        self.len + u32::from(self.has(tcp::SYN)) + u32::from(self.has(tcp::FIN))
    }
}

fn intact(parsed: &Parsed, bytes: &[u8]) -> bool {
    let sum = checksum::pseudo_header(parsed.src, parsed.dst, parsed.proto, bytes.len() as u32);
    checksum::add(sum, checksum::sum(bytes)) == 0xffff
}
