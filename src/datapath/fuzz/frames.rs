//! Frames made of foreign bytes: well formed ones of every kind, spoiled here and there.

use zerocopy::IntoBytes;

use super::world::{ADDRS, MACS};
use crate::packet::{Csum, Gso, Offload};
use crate::wire::addr::Addr;
use crate::wire::arp::Arp;
use crate::wire::ethernet::{self, Ethernet};
use crate::wire::ipv4::Ipv4;
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::mac::Mac;
use crate::wire::vnet::VnetHeader;
use crate::wire::{checksum, tcp};

/// Foreign bytes, read one after another; zeros when they are used up.
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(super) fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.next().unwrap_or(0)
    }

    pub(super) fn short(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::from(self.byte()) % from.len()]
    }

    fn take(&mut self, n: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// Few ports, so that frames meet the flows of others.
const PORTS: [u16; 8] = [53, 67, 68, 1_180, 5_000, 5_001, 40_000, 547];
const FLAGS: [u8; 8] = [
    tcp::SYN,
    tcp::SYN | tcp::ACK,
    tcp::ACK,
    tcp::ACK | tcp::PSH,
    tcp::FIN | tcp::ACK,
    tcp::RST,
    tcp::RST | tcp::ACK,
    0xff,
];

/// One frame and what its virtio-net header says; `None` where that is refused before the data path.
pub(super) fn frame(input: &mut Bytes<'_>) -> Option<(Vec<u8>, Offload)> {
    let kind = input.byte();
    let (src_mac, dst_mac) = (input.pick(&MACS), input.pick(&MACS));
    let (src, dst) = (input.pick(&ADDRS), input.pick(&ADDRS));
    let v4 = input.byte() & 1 == 0;
    let (src, dst) = if v4 { (src.0, dst.0) } else { (src.1, dst.1) };
    let macs = (src_mac, dst_mac);
    let mut bytes = match kind % 12 {
        0 => arp(macs, src, dst, input.byte()),
        1 => input.take(64).to_vec(),
        2 => fragment(macs, src, dst, input),
        kind => packet(macs, src, dst, kind, input),
    };
    let spoiled = input.byte() & 3;
    for _ in 0..spoiled {
        let (at, change) = (usize::from(input.short()), input.byte());
        if let Some(len) = std::num::NonZeroUsize::new(bytes.len()) {
            bytes[at % len] ^= change;
        }
    }
    let offload = offload(&bytes, input)?;
    Some((bytes, offload))
}

fn offload(bytes: &[u8], input: &mut Bytes<'_>) -> Option<Offload> {
    let l4 = if bytes.get(12..14) == Some(&[0x86, 0xdd]) { 54 } else { 34 };
    let udp = Csum::Partial { start: l4, offset: 6 };
    let tcp = Csum::Partial { start: l4, offset: 16 };
    let gso_tcp = if l4 == 34 { Gso::TcpV4 } else { Gso::TcpV6 };
    match input.byte() % 8 {
        0..3 => Some(Offload::NONE),
        3 => Some(Offload { csum: udp, ..Offload::NONE }),
        4 => Some(Offload { csum: tcp, ..Offload::NONE }),
        5 => {
            Some(Offload { gso: Gso::UdpL4, gso_size: input.short().max(1), csum: udp, ecn: false })
        }
        6 => Some(Offload { gso: gso_tcp, gso_size: input.short().max(1), csum: tcp, ecn: false }),
        _ => {
            let header = VnetHeader {
                flags: input.byte(),
                gso_type: input.byte(),
                hdr_len: input.short().to_ne_bytes(),
                gso_size: input.short().to_ne_bytes(),
                csum_start: input.short().to_ne_bytes(),
                csum_offset: input.short().to_ne_bytes(),
            };
            Offload::from_vnet(&header, bytes.len()).ok()
        }
    }
}

fn arp((src_mac, dst_mac): (Mac, Mac), src: Addr, dst: Addr, oper: u8) -> Vec<u8> {
    let v4 = |addr: Addr| addr.v4().unwrap_or([0, 0, 0, 0].into());
    let arp = Arp::new(1 + u16::from(oper & 1), (src_mac, v4(src)), (Mac::ZERO, v4(dst)));
    let eth = Ethernet { dst: dst_mac, src: src_mac, ethertype: ethernet::ARP.into() };
    [eth.as_bytes(), arp.as_bytes()].concat()
}

fn packet(macs: (Mac, Mac), src: Addr, dst: Addr, kind: u8, input: &mut Bytes<'_>) -> Vec<u8> {
    let (proto, message) = match kind {
        3 | 4 => (ipv6::UDP, datagram(input)),
        5 | 6 => (ipv6::TCP, segment(input)),
        7 => echo(src.is_v4(), input),
        8 => error(src, dst, input),
        9 => discovery(dst, input),
        10 => (ipv6::SCTP, [datagram(input), vec![0; 8]].concat()),
        _ => (input.byte(), input.take(24).to_vec()),
    };
    assemble(macs, src, dst, proto, message)
}

fn assemble(macs: (Mac, Mac), src: Addr, dst: Addr, proto: u8, mut message: Vec<u8>) -> Vec<u8> {
    finish(src, dst, proto, &mut message);
    ip(macs, src, dst, proto, 0, &message)
}

/// A UDP datagram, its length right.
fn datagram(input: &mut Bytes<'_>) -> Vec<u8> {
    let (from, to) = (input.pick(&PORTS), input.pick(&PORTS));
    let payload = usize::from(input.pick(&[0_u16, 18, 300, 1_400, 1_472, 3_000, 20_000, 60_000]));
    let len = (8 + payload) as u16;
    let mut message = [from.to_be_bytes(), to.to_be_bytes(), len.to_be_bytes(), [0; 2]].concat();
    message.resize(8 + payload, 0x5a);
    message
}

fn segment(input: &mut Bytes<'_>) -> Vec<u8> {
    let (from, to) = (input.pick(&PORTS), input.pick(&PORTS));
    // Few numbers, so that segments fit into the windows of others.
    let (seq, ack) = (u32::from(input.byte()), u32::from(input.byte()));
    let flags = input.pick(&FLAGS);
    let payload = usize::from(input.pick(&[0_u16, 1, 10, 1_460, 9_000, 60_000]));
    let mut message = [from.to_be_bytes(), to.to_be_bytes()].concat();
    message.extend_from_slice(&seq.to_be_bytes());
    message.extend_from_slice(&ack.to_be_bytes());
    message.extend_from_slice(&[0x60, flags, 0xff, 0xff, 0, 0, 0, 0, 2, 4, 5, 0xb4]);
    message.resize(24 + payload, 0xa5);
    message
}

fn echo(v4: bool, input: &mut Bytes<'_>) -> (u8, Vec<u8>) {
    let reply = input.byte() & 1 == 1;
    let id = input.pick(&PORTS).to_be_bytes();
    let (proto, kind) = match (v4, reply) {
        (true, false) => (ipv6::ICMP, 8),
        (true, true) => (ipv6::ICMP, 0),
        (false, false) => (ipv6::ICMPV6, 128),
        (false, true) => (ipv6::ICMPV6, 129),
    };
    (proto, [&[kind, 0, 0, 0], &id[..], &[0, 1, 1, 2, 3, 4]].concat())
}

/// An error that quotes a datagram in the opposite direction.
fn error(src: Addr, dst: Addr, input: &mut Bytes<'_>) -> (u8, Vec<u8>) {
    let (kind, code) = (input.byte() % 16, input.byte());
    let about = if input.byte() & 1 == 0 { src } else { input.pick(&ADDRS).0 };
    let about = if about.is_v4() == dst.is_v4() { about } else { src };
    let (proto, message) = if input.byte() & 1 == 0 {
        (ipv6::UDP, datagram(input))
    } else {
        (ipv6::TCP, segment(input))
    };
    let quoted = assemble((Mac::ZERO, Mac::ZERO), dst, about, proto, message);
    let quoted = &quoted[14..quoted.len().min(14 + 548)];
    let proto = if src.is_v4() { ipv6::ICMP } else { ipv6::ICMPV6 };
    (proto, [&[kind, code, 0, 0, 0, 0, 5, 0], quoted].concat())
}

/// Neighbour and router discovery with an option or two.
fn discovery(dst: Addr, input: &mut Bytes<'_>) -> (u8, Vec<u8>) {
    let kind = 133 + input.byte() % 5;
    let target = input.pick(&ADDRS).1;
    let mac = input.pick(&MACS);
    let mut message = vec![kind, 0, 0, 0];
    match kind {
        133 => message.extend_from_slice(&[0; 4]),
        134 => {
            message.extend_from_slice(&[64, 0, 0, input.byte(), 0, 0, 0, 0, 0, 0, 0, 0]);
            let (valid, preferred) = ([0, 0, 0, input.byte()], [0, 0, 0, input.byte()]);
            message.extend_from_slice(&[3, 4, 64, 0xc0]);
            message.extend_from_slice(&[valid, preferred, [0; 4]].concat());
            message.extend_from_slice(&dst.bytes());
        }
        _ => {
            message.extend_from_slice(&[input.byte(), 0, 0, 0]);
            message.extend_from_slice(&target.bytes());
        }
    }
    message.extend_from_slice(&[1 + (kind & 1), 1]);
    message.extend_from_slice(&mac.0);
    (ipv6::ICMPV6, message)
}

fn fragment(macs: (Mac, Mac), src: Addr, dst: Addr, input: &mut Bytes<'_>) -> Vec<u8> {
    let (units, more) = (u16::from(input.byte() & 31), input.byte() & 1);
    let id = input.byte() & 3;
    let payload = if units == 0 { datagram(input) } else { vec![7; 64] };
    let payload = &payload[..payload.len().min(64)];
    if src.is_v4() {
        let word = units | u16::from(more) << 13;
        let mut bytes = ip(macs, src, dst, ipv6::UDP, word, payload);
        bytes[19] = id;
        // The header's sum follows the change of its identification.
        let sum = u16::from_be_bytes([bytes[24], bytes[25]]);
        let sum = checksum::update(sum, u16::from(id));
        bytes[24..26].copy_from_slice(&sum.to_be_bytes());
        return bytes;
    }
    let word = (units << 3 | u16::from(more)).to_be_bytes();
    let header = [ipv6::UDP, 0, word[0], word[1], 0, 0, 0, id];
    ip(macs, src, dst, ipv6::FRAGMENT, 0, &[&header[..], payload].concat())
}

fn ip(
    (src_mac, dst_mac): (Mac, Mac),
    src: Addr,
    dst: Addr,
    proto: u8,
    fragment: u16,
    payload: &[u8],
) -> Vec<u8> {
    let len = payload.len() as u16;
    let ethertype = if src.is_v4() { ethernet::IPV4 } else { ethernet::IPV6 };
    let eth = Ethernet { dst: dst_mac, src: src_mac, ethertype: ethertype.into() };
    if src.is_v4() {
        let mut ip = Ipv4::new(src, dst, proto, len);
        if fragment != 0 {
            ip.flags_offset = fragment.into();
        }
        ip.fill_checksum();
        [eth.as_bytes(), ip.as_bytes(), payload].concat()
    } else {
        let mut ip = Ipv6::new(src, dst, proto, len);
        ip.hop_limit = if proto == ipv6::ICMPV6 { 255 } else { 64 };
        [eth.as_bytes(), ip.as_bytes(), payload].concat()
    }
}

/// Fills the transport checksum in.
fn finish(src: Addr, dst: Addr, proto: u8, message: &mut [u8]) {
    let at = match proto {
        ipv6::TCP => 16,
        ipv6::UDP => 6,
        ipv6::ICMP | ipv6::ICMPV6 => 2,
        _ => return,
    };
    if message.len() < at + 2 {
        return;
    }
    message[at..at + 2].fill(0);
    let len = message.len() as u32;
    let pseudo = checksum::pseudo_header(src, dst, proto, len);
    let sum = checksum::sum(message);
    let sum = if proto == ipv6::ICMP { sum } else { checksum::add(sum, pseudo) };
    message[at..at + 2].copy_from_slice(&(!sum).to_be_bytes());
}

/// What was sent, sent back: addresses, ports and MACs exchanged.
pub(super) fn turned_around(frame: &[u8]) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    let mut swap = |one: usize, two: usize, len: usize| {
        if two + len <= bytes.len() {
            for n in 0..len {
                bytes.swap(one + n, two + n);
            }
        }
    };
    swap(0, 6, 6);
    match frame.get(12..14) {
        Some(&[8, 0]) => {
            swap(26, 30, 4);
            swap(34, 36, 2);
        }
        Some(&[0x86, 0xdd]) => {
            swap(22, 38, 16);
            swap(54, 56, 2);
        }
        _ => {}
    }
    bytes
}
