//! Property tests of this layer against independent judges: etherparse, and sums taken plainly.
//!
//! A [`Spec`] says what a frame holds; [`Spec::build`] writes it field by field, without the code under
//! test.

mod merge;
mod parse;
mod rewrite;
mod seeds;
mod split;

use proptest::prelude::*;

use super::{Csum, Offload};

/// What is inside the IP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum L4 {
    /// Flags; options, padded with zeros.
    Tcp(u8, Vec<u8>),
    /// With or without a checksum.
    Udp(bool),
    /// An echo request, or the reply.
    Echo(bool),
    /// An error: its identifier field is no identifier.
    IcmpError,
    Sctp,
    /// A protocol nobody knows.
    Other,
}

/// One packet, said plainly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spec {
    pub(super) v6: bool,
    /// IPv4 uses the last four bytes.
    pub(super) src: [u8; 16],
    pub(super) dst: [u8; 16],
    pub(super) ports: [u16; 2],
    pub(super) ttl: u8,
    /// IPv4's identification.
    pub(super) id: u16,
    /// IPv4's "don't fragment".
    pub(super) df: bool,
    /// TCP's sequence number.
    pub(super) seq: u32,
    pub(super) l4: L4,
    /// IPv4: options of so many words.
    pub(super) ip_options: usize,
    /// IPv6: extension headers, of the type and with so many units of eight bytes beyond the first.
    pub(super) extensions: Vec<(u8, u8)>,
    pub(super) payload: Vec<u8>,
}

const MACS: [u8; 12] = [2, 0x42, 10, 0, 0, 1, 2, 0x42, 10, 0, 0, 2];

/// RFC 1071, word by word, without folding tricks.
pub(super) fn plain_sum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let mut sum: u64 = 0;
    for pair in bytes.chunks(2) {
        sum += u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// CRC32c bit by bit.
pub(super) fn plain_crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

impl Spec {
    pub(super) fn proto(&self) -> u8 {
        match (&self.l4, self.v6) {
            (L4::Tcp(..), _) => 6,
            (L4::Udp(_), _) => 17,
            (L4::Echo(_) | L4::IcmpError, false) => 1,
            (L4::Echo(_) | L4::IcmpError, true) => 58,
            (L4::Sctp, _) => 132,
            (L4::Other, _) => 253,
        }
    }

    /// Where the checksum lies in the transport header, if it is an Internet checksum.
    pub(super) fn checksum_offset(&self) -> Option<u16> {
        match self.l4 {
            L4::Tcp(..) => Some(16),
            L4::Udp(_) => Some(6),
            L4::Echo(_) | L4::IcmpError => Some(2),
            L4::Sctp | L4::Other => None,
        }
    }

    fn addr(&self, bytes: &[u8; 16]) -> Vec<u8> {
        if self.v6 { bytes.to_vec() } else { bytes[12..].to_vec() }
    }

    pub(super) fn pseudo_header(&self, len: usize) -> Vec<u8> {
        let mut pseudo = [self.addr(&self.src), self.addr(&self.dst)].concat();
        pseudo.extend((len as u32).to_be_bytes());
        pseudo.extend([0, 0, 0, self.proto()]);
        if self.proto() == 1 { Vec::new() } else { pseudo }
    }

    /// Length of the transport header.
    pub(super) fn l4_header_len(&self) -> usize {
        match &self.l4 {
            L4::Tcp(_, options) => 20 + options.len().next_multiple_of(4),
            L4::Udp(_) | L4::Echo(_) | L4::IcmpError => 8,
            L4::Sctp => 12,
            L4::Other => 0,
        }
    }

    /// Transport header and payload, its checksum complete.
    fn transport(&self) -> Vec<u8> {
        let [src, dst] = self.ports.map(u16::to_be_bytes);
        let mut l4 = match &self.l4 {
            L4::Tcp(flags, options) => {
                let len = (20 + options.len().next_multiple_of(4)) / 4;
                let mut header = [&src[..], &dst, &self.seq.to_be_bytes(), &[5, 6, 7, 8]].concat();
                header.extend([(len as u8) << 4, *flags, 0x20, 0, 0, 0, 0, 0]);
                header.extend(options);
                header.resize(len * 4, 0);
                header
            }
            L4::Udp(_) => {
                let len = ((8 + self.payload.len()) as u16).to_be_bytes();
                [&src[..], &dst, &len, &[0, 0]].concat()
            }
            L4::Echo(reply) => {
                let kind = [[8, 0], [128, 129]][usize::from(self.v6)][usize::from(*reply)];
                [&[kind, 0, 0, 0], &self.ports[usize::from(*reply)].to_be_bytes()[..], &[0, 7]]
                    .concat()
            }
            L4::IcmpError => vec![if self.v6 { 2 } else { 3 }, 4, 0, 0, 0, 0, 5, 0],
            L4::Sctp => [&src[..], &dst, &[9; 4], &[0; 4]].concat(),
            L4::Other => Vec::new(),
        };
        l4.extend(&self.payload);
        if self.l4 == L4::Sctp {
            let crc = plain_crc32c(&l4).to_le_bytes();
            l4[8..12].copy_from_slice(&crc);
        }
        if let Some(at) = self.checksum_offset().map(usize::from)
            && self.l4 != L4::Udp(false)
        {
            let sum = !plain_sum(&[&self.pseudo_header(l4.len()), &l4]);
            let field = if sum == 0 && matches!(self.l4, L4::Udp(_)) { 0xffff } else { sum };
            l4[at..at + 2].copy_from_slice(&field.to_be_bytes());
        }
        l4
    }

    /// A whole frame with all checksums complete.
    pub(super) fn build(&self) -> Vec<u8> {
        self.frame(&self.transport(), None)
    }

    /// The frame as a kernel with checksum offload leaves it.
    pub(super) fn build_partial(&self) -> (Vec<u8>, Offload) {
        let mut l4 = self.transport();
        let offset = self.checksum_offset().expect("an Internet checksum");
        let at = usize::from(offset);
        let sum = plain_sum(&[&self.pseudo_header(l4.len())]);
        l4[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        let frame = self.frame(&l4, None);
        let start = (frame.len() - l4.len()) as u16;
        (frame, Offload { csum: Csum::Partial { start, offset }, ..Offload::NONE })
    }

    /// The same datagram in two fragments, the first with `at` bytes of it.
    pub(super) fn build_fragments(&self, at: usize) -> [Vec<u8>; 2] {
        let l4 = self.transport();
        let (first, second) = l4.split_at(at);
        [self.frame(first, Some((0, true))), self.frame(second, Some((at, false)))]
    }

    /// Puts IP and Ethernet before `l4`.
    pub(super) fn frame(&self, l4: &[u8], fragment: Option<(usize, bool)>) -> Vec<u8> {
        let mut frame = MACS.to_vec();
        if self.v6 {
            let mut chain: Vec<(u8, Vec<u8>)> = self
                .extensions
                .iter()
                .map(|(kind, units)| (*kind, vec![0; 8 + usize::from(*units) * 8]))
                .collect();
            for ((_, body), (_, units)) in chain.iter_mut().zip(&self.extensions) {
                body[1] = *units;
            }
            if let Some((offset, more)) = fragment {
                let field = (offset as u16 | u16::from(more)).to_be_bytes();
                chain.push((44, vec![0, 0, field[0], field[1], 0, 0, 0, 77]));
            }
            let mut kinds: Vec<u8> = chain.iter().map(|(kind, _)| *kind).collect();
            kinds.push(self.proto());
            let mut extensions = Vec::new();
            for ((_, mut body), next) in chain.into_iter().zip(&kinds[1..]) {
                body[0] = *next;
                extensions.extend(body);
            }
            let len = (extensions.len() + l4.len()) as u16;
            frame.extend([0x86, 0xdd, 0x60, 0x1b, 0x2c, 0x3d]);
            frame.extend(len.to_be_bytes());
            frame.extend([kinds[0], self.ttl]);
            frame.extend(self.src.iter().chain(&self.dst));
            frame.extend(extensions);
        } else {
            let header_len = 20 + self.ip_options * 4;
            let (offset, more) = fragment.unwrap_or((0, false));
            let df = if self.df { 0x4000 } else { 0 };
            let flags = (offset / 8) as u16 | if more { 0x2000 } else { 0 } | df;
            let mut ip = vec![0x40 | (header_len / 4) as u8, 0x10];
            ip.extend(((header_len + l4.len()) as u16).to_be_bytes());
            ip.extend(self.id.to_be_bytes());
            ip.extend(flags.to_be_bytes());
            ip.extend([self.ttl, self.proto(), 0, 0]);
            ip.extend(self.src[12..].iter().chain(&self.dst[12..]));
            ip.resize(header_len, 1); // no-operation
            let sum = (!plain_sum(&[&ip])).to_be_bytes();
            ip[10..12].copy_from_slice(&sum);
            frame.extend([0x08, 0x00]);
            frame.extend(ip);
        }
        frame.extend(l4);
        frame
    }
}

fn l4() -> impl Strategy<Value = L4> {
    prop_oneof![
        (any::<u8>(), prop::collection::vec(any::<u8>(), 0..=40)).prop_map(|(f, o)| L4::Tcp(f, o)),
        any::<bool>().prop_map(L4::Udp),
        any::<bool>().prop_map(L4::Echo),
        Just(L4::IcmpError),
        Just(L4::Sctp),
        Just(L4::Other),
    ]
}

/// Extension headers in a legal order: hop-by-hop options first, nothing twice.
fn extensions() -> impl Strategy<Value = Vec<(u8, u8)>> {
    prop::sample::subsequence(vec![0_u8, 60, 43], 0..=3)
        .prop_flat_map(|kinds| kinds.into_iter().map(|k| (Just(k), 0_u8..4)).collect::<Vec<_>>())
}

/// Any packet that a host may send.
pub(super) fn spec() -> impl Strategy<Value = Spec> {
    let addrs = (any::<[u8; 16]>(), any::<[u8; 16]>());
    let ip = (any::<bool>(), 1_u8..=255, 0_usize..=10, extensions());
    let numbers = (any::<[u16; 2]>(), any::<u16>(), any::<u32>());
    let payload = prop::collection::vec(any::<u8>(), 0..300);
    (addrs, numbers, ip, l4(), payload).prop_map(
        |((mut src, mut dst), (ports, id, seq), (v6, ttl, ip_options, extensions), l4, payload)| {
            // Never a mapped address.
            (src[0], dst[0]) = (0x20, 0xfd);
            Spec {
                v6,
                src,
                dst,
                ports,
                ttl,
                id,
                df: false,
                seq,
                l4,
                ip_options,
                extensions,
                payload,
            }
        },
    )
}

/// A small TCP packet to start an example from.
pub(super) fn example(v6: bool) -> Spec {
    let mut spec = Spec {
        v6,
        src: [0x20; 16],
        dst: [0xfd; 16],
        ports: [40000, 80],
        ttl: 64,
        id: 77,
        df: false,
        seq: 1000,
        l4: L4::Tcp(0x18, vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]),
        ip_options: 0,
        extensions: Vec::new(),
        payload: (0..100).collect(),
    };
    spec.src[12..].copy_from_slice(&[172, 17, 0, 2]);
    spec.dst[12..].copy_from_slice(&[172, 17, 0, 3]);
    spec
}
