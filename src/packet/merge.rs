//! Frames of one flow that arrive one after another become one super-frame (the kernel's GRO).
//!
//! **Window.** A frame joins the one before it in the batch, or none: a sender's train arrives together, so
//! nothing is searched for, nothing is held back, and no frame overtakes another.
//!
//! **Truth.** Cut again, a super-frame gives the frames it was made of. So all fields that cutting does not
//! restore must be equal (a differing TOS byte would forge a congestion mark), sequence numbers must join,
//! only the last segment may be shorter, and the identification must count up where it means something
//! (RFC 6864: it does not under DF). A super-frame's checksum is unfinished, which its receiver takes for
//! "verified": so each frame's own is verified first, or a damaged one would be healed.
//!
//! **What a kernel left undone.** A tunnel of the kernel's on the same machine, or one whose device does the
//! rest, may send TCP with an unfinished checksum, and uncut. The field then holds the sum of the
//! pseudo-header, which a finished one does once in 65,536 times: as often as a wrong one passes for right.

use std::ops::Range;

use zerocopy::FromBytes;

use super::{Csum, DropReason, Fragment, FrameBatch, Gso, L3, Offload, Parsed};
use crate::base::limits::{BATCH_FRAMES_MAX, IP_PACKET_MAX};
use crate::wire::checksum;
use crate::wire::ethernet::HEADER_LEN as L3_OFFSET;
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::tcp::{self, ACK, ECE, PSH, Tcp};
use crate::wire::udp::{self, Udp};

/// Segments of one super-frame: what every kernel cuts (UDP_MAX_SEGMENTS was 64 until Linux 6.9).
const SEGMENTS_MAX: u16 = BATCH_FRAMES_MAX as u16;

/// Joins frames while they are put into a batch; one for each batch.
#[derive(Debug, Default)]
pub struct Merger {
    open: Option<Open>,
}

/// The last frame of the batch, while another may join it.
#[derive(Clone, Copy, Debug)]
struct Open {
    index: usize,
    l3: L3,
    l4: usize,
    headers_len: usize,
    proto: u8,
    /// Sum of addresses and protocol: what the pseudo-header of each segment has besides its length.
    addrs: u16,
    /// Payload of all but the last.
    size: usize,
    payload_len: usize,
    count: u16,
    /// Whether the first one's checksum is known to be right.
    verified: bool,
    push: bool,
    /// Whether a further one may join.
    takes: bool,
}

/// What became of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Merged {
    /// It has joined the one before it.
    Joined,
    /// It is a frame of its own.
    Alone,
    /// The batch has no room: process it, then give the frame again.
    Full,
}

impl Merger {
    /// Puts a frame into the batch. What is larger than `mtu` can only be what a kernel left uncut.
    ///
    /// # Errors
    /// What [`Parsed::new`] refuses, and what was left uncut and cannot be cut any more.
    pub fn push(
        &mut self,
        batch: &mut FrameBatch,
        frame: &[u8],
        mtu: u16,
    ) -> Result<Merged, DropReason> {
        if self.join(batch, frame) {
            return Ok(Merged::Joined);
        }
        self.finish(batch);
        let parsed = Parsed::new(frame)?;
        let offload = undone(frame, &parsed, mtu)?;
        if !batch.push(frame, offload) {
            return Ok(Merged::Full);
        }
        self.open = Open::new(batch.len() - 1, frame, &parsed, offload);
        Ok(Merged::Alone)
    }

    /// Completes the last frame: before the batch is processed.
    pub fn finish(&mut self, batch: &mut FrameBatch) {
        if let Some(open) = self.open.take().filter(|open| open.count > 1) {
            open.write_headers(batch);
        }
    }

    fn join(&mut self, batch: &mut FrameBatch, frame: &[u8]) -> bool {
        let Some(open) = self.open.as_mut().filter(|open| open.takes) else { return false };
        let head = batch.bytes(open.index);
        let payload_len = frame.len().saturating_sub(open.headers_len);
        let total = open.headers_len - L3_OFFSET + open.payload_len + payload_len;
        if payload_len == 0
            || payload_len > open.size
            || total > IP_PACKET_MAX
            || !open.continues(head, frame)
        {
            return false;
        }
        open.verified =
            open.verified || open.checksum_is_right(&head[..open.headers_len + open.size]);
        if !open.verified || !open.checksum_is_right(frame) {
            open.takes = false;
            return false;
        }
        if !batch.grow_last(&frame[open.headers_len..]) {
            return false;
        }
        let push = open.proto == ipv6::TCP && frame[open.l4 + 13] & PSH != 0;
        open.push |= push;
        open.count += 1;
        open.payload_len += payload_len;
        open.takes = payload_len == open.size && !push && open.count < SEGMENTS_MAX;
        true
    }
}

/// What a kernel has left undone of a frame.
fn undone(frame: &[u8], parsed: &Parsed, mtu: u16) -> Result<Offload, DropReason> {
    let l4 = parsed.l4_bytes(frame);
    let (offset, gso) = match (parsed.proto, parsed.l3) {
        _ if parsed.fragment != Fragment::Whole => return Ok(Offload::NONE),
        (ipv6::TCP, L3::V4) => (tcp::CHECKSUM_OFFSET, Some(Gso::TcpV4)),
        (ipv6::TCP, L3::V6) => (tcp::CHECKSUM_OFFSET, Some(Gso::TcpV6)),
        (ipv6::UDP, L3::V4 | L3::V6) => (udp::CHECKSUM_OFFSET, None),
        _ => return Ok(Offload::NONE),
    };
    let field = be16(l4, usize::from(offset));
    let pseudo = checksum::pseudo_header(parsed.src, parsed.dst, parsed.proto, l4.len() as u32);
    if field != pseudo || field == 0 {
        return Ok(Offload::NONE);
    }
    let csum = Csum::Partial { start: parsed.l4, offset };
    if parsed.ip_len <= u32::from(mtu) {
        return Ok(Offload { csum, ..Offload::NONE });
    }
    // Of what size UDP's pieces are to be, nobody says.
    let gso = gso.ok_or(DropReason::CannotSplit)?;
    let header_len = Tcp::ref_from_prefix(l4).map_or(tcp::HEADER_LEN, |(tcp, _)| tcp.header_len());
    let headers = parsed.ip_header_len() + header_len;
    let gso_size = usize::from(mtu).saturating_sub(headers).max(1) as u16;
    Ok(Offload { gso, gso_size, csum, ecn: parsed.tcp_flags & tcp::CWR != 0 })
}

impl Open {
    /// A frame that others may join.
    fn new(index: usize, frame: &[u8], parsed: &Parsed, offload: Offload) -> Option<Self> {
        let l4 = parsed.l4_bytes(frame);
        let (header_len, push) = match parsed.proto {
            ipv6::TCP => {
                let (tcp, _) = Tcp::ref_from_prefix(l4).ok()?;
                let plain = tcp.flags & !(PSH | ECE) == ACK;
                (plain.then_some(tcp.header_len())?, tcp.flags & PSH != 0)
            }
            ipv6::UDP => {
                ((usize::from(be16(l4, 4)) == l4.len()).then_some(udp::HEADER_LEN)?, false)
            }
            _ => return None,
        };
        let plain_l3 = match parsed.l3 {
            L3::V4 => {
                parsed.ip_header_len() == ipv4::HEADER_LEN && parsed.ipv4_checksum_is_right(frame)
            }
            L3::V6 => parsed.ip_header_len() == ipv6::HEADER_LEN,
            L3::Arp | L3::Other(_) => false,
        };
        let exact = frame.len() == L3_OFFSET + parsed.ip_len as usize;
        let size = l4.len().checked_sub(header_len).filter(|size| *size > 0)?;
        if parsed.fragment != Fragment::Whole || !plain_l3 || !exact || offload != Offload::NONE {
            return None;
        }
        Some(Self {
            index,
            l3: parsed.l3,
            l4: usize::from(parsed.l4),
            headers_len: usize::from(parsed.l4) + header_len,
            proto: parsed.proto,
            addrs: checksum::pseudo_header(parsed.src, parsed.dst, parsed.proto, 0),
            size,
            payload_len: size,
            count: 1,
            verified: false,
            push,
            takes: !push,
        })
    }

    /// Whether a frame is the next segment, as far as its headers say.
    #[inline]
    fn continues(&self, head: &[u8], frame: &[u8]) -> bool {
        let (Some(head), Some(ours)) =
            (head.get(..self.headers_len), frame.get(..self.headers_len))
        else {
            return false;
        };
        same(head, ours, 0..L3_OFFSET)
            && self.continues_l3(head, ours, frame.len() - L3_OFFSET)
            && self.continues_l4(head, ours, frame.len() - self.l4)
    }

    #[inline]
    fn continues_l3(&self, head: &[u8], ours: &[u8], ip_len: usize) -> bool {
        if self.l3 == L3::V6 {
            // Version, class and label; next header, hop limit and addresses.
            return usize::from(be16(ours, 18)) == ip_len - ipv6::HEADER_LEN
                && same(head, ours, 14..18)
                && same(head, ours, 20..54);
        }
        let is_right = ours
            .get(L3_OFFSET..)
            .and_then(<[u8]>::first_chunk)
            .is_some_and(|header| checksum::sum_header(header) == 0xffff);
        let counts = be16(head, 20) & ipv4::DF != 0
            || be16(ours, 18) == be16(head, 18).wrapping_add(self.count);
        // Version, length and TOS; DF and offset, TTL, protocol; addresses.
        usize::from(be16(ours, 16)) == ip_len
            && same(head, ours, 14..16)
            && same(head, ours, 20..24)
            && same(head, ours, 26..34)
            && counts
            && is_right
    }

    #[inline]
    fn continues_l4(&self, head: &[u8], ours: &[u8], l4_len: usize) -> bool {
        let l4 = self.l4;
        if !same(head, ours, l4..l4 + 4) {
            return false;
        }
        if self.proto == ipv6::UDP {
            return usize::from(be16(ours, l4 + 4)) == l4_len;
        }
        let flags = |frame: &[u8]| frame[l4 + 13] & !PSH;
        // Acknowledgement and data offset; window; urgent pointer and options.
        be32(ours, l4 + 4) == be32(head, l4 + 4).wrapping_add(self.payload_len as u32)
            && same(head, ours, l4 + 8..l4 + 13)
            && flags(head) == flags(ours)
            && same(head, ours, l4 + 14..l4 + 16)
            && same(head, ours, l4 + 18..self.headers_len)
    }

    /// Whether the transport checksum of a frame of this flow is right.
    fn checksum_is_right(&self, frame: &[u8]) -> bool {
        let Some(l4) = frame.get(self.l4..) else { return false };
        if self.proto == ipv6::UDP && be16(l4, 6) == 0 {
            return self.l3 == L3::V4; // "None", which IPv6 forbids (RFC 8200 8.1).
        }
        let pseudo = checksum::add(self.addrs, l4.len() as u16);
        checksum::add(pseudo, checksum::sum(l4)) == 0xffff
    }

    /// Gives the first frame the headers of the whole.
    fn write_headers(&self, batch: &mut FrameBatch) {
        let l4_len = self.headers_len - self.l4 + self.payload_len;
        let pseudo = checksum::add(self.addrs, l4_len as u16);
        let mut frame = batch.frame(self.index);
        let (l3_header, l4_header) = frame.bytes_mut().split_at_mut(self.l4);
        let l3_header = &mut l3_header[L3_OFFSET..];
        let is_v4 = self.l3 == L3::V4;
        if is_v4 {
            let Ok((ip, _)) = Ipv4::mut_from_prefix(l3_header) else { return };
            let total_len = (ipv4::HEADER_LEN + l4_len) as u16;
            let change = checksum::delta(ip.total_len.get(), total_len);
            ip.checksum = checksum::update(ip.checksum.get(), change).into();
            ip.total_len = total_len.into();
        } else {
            let Ok((ip, _)) = Ipv6::mut_from_prefix(l3_header) else { return };
            ip.payload_len = (l4_len as u16).into();
        }
        let (gso, offset) = if self.proto == ipv6::UDP {
            let Ok((udp, _)) = Udp::mut_from_prefix(l4_header) else { return };
            (udp.len, udp.checksum) = ((l4_len as u16).into(), pseudo.into());
            (Gso::UdpL4, udp::CHECKSUM_OFFSET)
        } else {
            let Ok((tcp, _)) = Tcp::mut_from_prefix(l4_header) else { return };
            tcp.flags |= if self.push { PSH } else { 0 };
            tcp.checksum = pseudo.into();
            (if is_v4 { Gso::TcpV4 } else { Gso::TcpV6 }, tcp::CHECKSUM_OFFSET)
        };
        let csum = Csum::Partial { start: self.l4 as u16, offset };
        *frame.offload_mut() = Offload { gso, ecn: false, gso_size: self.size as u16, csum };
    }
}

#[inline]
fn same(a: &[u8], b: &[u8], range: Range<usize>) -> bool {
    a.get(range.clone()) == b.get(range)
}

#[inline]
fn be16(bytes: &[u8], at: usize) -> u16 {
    let word = bytes.get(at..).and_then(<[u8]>::first_chunk);
    word.map_or(0, |word| u16::from_be_bytes(*word))
}

#[inline]
fn be32(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..).and_then(<[u8]>::first_chunk);
    word.map_or(0, |word| u32::from_be_bytes(*word))
}
