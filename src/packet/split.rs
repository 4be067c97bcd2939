//! Cutting a super-frame into the frames it stands for, for ways out that cannot take it whole.
//!
//! **In place.** Payload is not moved. The headers are saved once; then each segment's are stamped
//! immediately before its payload, over the end of the segment before it, which has been written by
//! then:
//!
//! ```text
//!   | headers | payload 0 | payload 1 | payload 2 |      the super-frame
//!   | headers | payload 0 |                              first segment
//!           .. | headers  | payload 1 |                  second: what lies before it is free room
//!                       .. | headers  | payload 2 |      third
//! ```
//!
//! So all segments but the current one are either gone or not there yet: [`Segments`] lends them one at
//! a time, each with room before it for a tunnel's headers. Who must hold all of them at once (a train
//! of datagrams given to one system call) takes headers and payload ranges from [`Cut`].
//!
//! **Checksums.** What is common to all segments is summed once: the pseudo-header as the sender left
//! it in the field, and the transport header. Each segment then adds its length, sequence number, flags
//! and payload.
//!
//! **Fields** (RFC 9293, RFC 3168 6.1.2, RFC 6864): lengths; the identification counts up; so does TCP's
//! sequence number; FIN and PSH stay on the last segment only, CWR on the first only.

use std::ops::Range;

use zerocopy::FromBytes;

use super::batch::Slot;
use super::{Csum, DropReason, FrameMut, Gso, L3, Offload, Parsed};
use crate::base::limits::{SEGMENTS_MAX, SPLIT_HEADERS_MAX};
use crate::wire::ipv4::Ipv4;
use crate::wire::ipv6::Ipv6;
use crate::wire::tcp::{self, Tcp};
use crate::wire::udp::{self, Udp};
use crate::wire::{checksum, ipv6};

/// How a super-frame is cut: its headers, and what each segment changes in them.
#[derive(Clone, Debug)]
pub struct Cut {
    headers: [u8; SPLIT_HEADERS_MAX],
    /// Length of all headers; the payload begins there.
    headers_len: usize,
    payload_len: usize,
    size: usize,
    count: usize,
    l3: L3,
    l4: usize,
    transport: Transport,
    /// Identification of the first segment (IPv4).
    id: u16,
    /// Sums of the IPv4 header and of the transport with its pseudo-header, without what changes.
    l3_sum: u16,
    l4_sum: u16,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Transport {
    Tcp { seq: u32, flags: u8 },
    Udp,
}

/// How many segments a frame stands for; one if it is none to be cut.
pub fn segment_count(parsed: &Parsed, offload: Offload, frame: &[u8]) -> usize {
    if offload.gso == Gso::None {
        return 1;
    }
    let l4 = parsed.l4_bytes(frame);
    let payload_len = l4.len().saturating_sub(transport_header_len(offload.gso, l4));
    payload_len.div_ceil(usize::from(offload.gso_size).max(1)).max(1)
}

fn transport_header_len(gso: Gso, l4: &[u8]) -> usize {
    match gso {
        Gso::UdpL4 => udp::HEADER_LEN,
        _ => Tcp::ref_from_prefix(l4).map_or(tcp::HEADER_LEN, |(tcp, _)| tcp.header_len()),
    }
}

impl Cut {
    /// Plans the cutting of `frame`, which was parsed as `parsed`.
    ///
    /// # Errors
    /// [`DropReason::CannotSplit`]: no super-frame, or one that nobody honest makes.
    pub fn new(frame: &[u8], parsed: &Parsed, offload: Offload) -> Result<Self, DropReason> {
        if offload.gso == Gso::None || offload.check(parsed).is_err() {
            return Err(DropReason::CannotSplit);
        }
        let l4 = parsed.l4_bytes(frame);
        let l4_header_len = transport_header_len(offload.gso, l4);
        let payload_len = l4.len().checked_sub(l4_header_len).ok_or(DropReason::CannotSplit)?;
        let count = segment_count(parsed, offload, frame);
        let headers_len = usize::from(parsed.l4) + l4_header_len;
        if count > SEGMENTS_MAX || headers_len > SPLIT_HEADERS_MAX {
            return Err(DropReason::CannotSplit);
        }
        let mut cut = Self {
            headers: [0; SPLIT_HEADERS_MAX],
            headers_len,
            payload_len,
            size: usize::from(offload.gso_size),
            count,
            l3: parsed.l3,
            l4: usize::from(parsed.l4),
            transport: match offload.gso {
                Gso::UdpL4 => Transport::Udp,
                _ => Transport::Tcp { seq: 0, flags: 0 },
            },
            id: 0,
            l3_sum: 0,
            l4_sum: 0,
        };
        let headers = frame.get(..headers_len).ok_or(DropReason::CannotSplit)?;
        cut.headers[..headers_len].copy_from_slice(headers);
        cut.sum_what_stays(l4.len()).ok_or(DropReason::CannotSplit)?;
        Ok(cut)
    }

    /// Number of segments, at least one.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Where the payload of segment `index` lies in the super-frame.
    pub fn payload(&self, index: usize) -> Range<usize> {
        let at = |n: usize| self.headers_len + (n * self.size).min(self.payload_len);
        at(index)..at(index + 1)
    }

    /// All headers of segment `index`, from Ethernet on, whose payload is `payload`. They are good until
    /// the next call.
    pub fn headers(&mut self, index: usize, payload: &[u8]) -> &[u8] {
        self.stamp_l3(index, payload.len());
        self.stamp_l4(index, payload);
        &self.headers[..self.headers_len]
    }

    fn stamp_l3(&mut self, index: usize, payload_len: usize) {
        let packet_len = self.headers_len - super::parse::L3_OFFSET + payload_len;
        let packet = &mut self.headers[super::parse::L3_OFFSET..];
        if self.l3 == L3::V4 {
            let Ok((ip, _)) = Ipv4::mut_from_prefix(packet) else { return };
            let (total_len, id) = (packet_len as u16, self.id.wrapping_add(index as u16));
            ip.total_len = total_len.into();
            ip.id = id.into();
            ip.checksum = (!sum([self.l3_sum, total_len, id])).into();
        } else {
            let Ok((ip, _)) = Ipv6::mut_from_prefix(packet) else { return };
            ip.payload_len = ((packet_len - ipv6::HEADER_LEN) as u16).into();
        }
    }

    fn stamp_l4(&mut self, index: usize, payload: &[u8]) {
        let len = (self.headers_len - self.l4 + payload.len()) as u16;
        let common = sum([self.l4_sum, len, checksum::sum(payload)]);
        let header = &mut self.headers[self.l4..];
        match self.transport {
            Transport::Tcp { seq, flags } => {
                let Ok((tcp, _)) = Tcp::mut_from_prefix(header) else { return };
                let seq = seq.wrapping_add((index * self.size) as u32);
                let flags = segment_flags(flags, index == 0, index + 1 == self.count);
                tcp.seq = seq.into();
                tcp.flags = flags;
                let words = [common, (seq >> 16) as u16, seq as u16, u16::from(flags)];
                tcp.checksum = (!sum(words)).into();
            }
            Transport::Udp => {
                let Ok((udp, _)) = Udp::mut_from_prefix(header) else { return };
                udp.len = len.into();
                // The length counts twice: in the header and in the pseudo-header.
                let field = !sum([common, len]);
                udp.checksum = if field == 0 { 0xffff } else { field }.into();
            }
        }
    }

    /// Takes the changing fields out of the headers and sums the rest; `l4_len` is the super-frame's.
    fn sum_what_stays(&mut self, l4_len: usize) -> Option<()> {
        let (l3, l4) = self.headers[..self.headers_len].split_at_mut(self.l4);
        let l3 = l3.get_mut(super::parse::L3_OFFSET..)?;
        if self.l3 == L3::V4 {
            let (ip, _) = Ipv4::mut_from_prefix(l3).ok()?;
            self.id = ip.id.get();
            (ip.id, ip.total_len, ip.checksum) = (0.into(), 0.into(), 0.into());
            self.l3_sum = checksum::sum(l3);
        }
        let pseudo = match &mut self.transport {
            Transport::Tcp { seq, flags } => {
                let (tcp, _) = Tcp::mut_from_prefix(l4).ok()?;
                (*seq, *flags) = (tcp.seq.get(), tcp.flags);
                (tcp.seq, tcp.flags) = (0.into(), 0);
                std::mem::take(&mut tcp.checksum)
            }
            Transport::Udp => {
                let (udp, _) = Udp::mut_from_prefix(l4).ok()?;
                udp.len = 0.into();
                std::mem::take(&mut udp.checksum)
            }
        };
        // The sum that the sender left counts the length of the whole.
        self.l4_sum = sum([pseudo.get(), !(l4_len as u16), checksum::sum(l4)]);
        Some(())
    }
}

fn sum<const N: usize>(words: [u16; N]) -> u16 {
    checksum::fold(words.into_iter().map(u64::from).sum())
}

fn segment_flags(flags: u8, first: bool, last: bool) -> u8 {
    let not_first = if first { 0 } else { tcp::CWR };
    let not_last = if last { 0 } else { tcp::FIN | tcp::PSH };
    flags & !(not_first | not_last)
}

/// The segments of a super-frame, one at a time. The super-frame is used up.
#[derive(Debug)]
pub struct Segments<'a> {
    room: &'a mut [u8],
    whole: Slot,
    /// Where the segment that is lent lies.
    current: Slot,
    cut: Cut,
    next: usize,
}

impl<'a> Segments<'a> {
    /// Plans the cutting of `frame`, which was parsed as `parsed`.
    ///
    /// # Errors
    /// [`DropReason::CannotSplit`]: no super-frame, or one that nobody honest makes.
    pub fn new(frame: FrameMut<'a>, parsed: &Parsed) -> Result<Self, DropReason> {
        let cut = Cut::new(frame.bytes(), parsed, frame.offload())?;
        let (room, whole) = frame.into_parts();
        Ok(Self { room, whole, current: whole, cut, next: 0 })
    }

    /// The next segment as a complete frame with finished checksums and room before it, until the next
    /// call.
    #[allow(
        clippy::should_implement_trait,
        reason = "an iterator could not lend: segments lie over each other"
    )]
    pub fn next(&mut self) -> Option<FrameMut<'_>> {
        let index = self.next;
        if index == self.cut.count {
            return None;
        }
        self.next += 1;
        let whole = self.whole.range();
        let payload = self.cut.payload(index);
        let payload = whole.start + payload.start..whole.start + payload.end;
        let headers = self.cut.headers(index, &self.room[payload.clone()]);
        let frame = payload.start - headers.len()..payload.end;
        self.room[frame.start..payload.start].copy_from_slice(headers);
        self.current = self.whole.part(frame, FINISHED);
        Some(FrameMut::new(self.room, &mut self.current))
    }
}

const FINISHED: Offload = Offload { csum: Csum::Complete, ..Offload::NONE };
