//! Bodies of the fuzz targets: a function from foreign bytes to nothing, which panics when something
//! that must always hold does not.
//!
//! They live here and not in `fuzz/`, so that `tests/fuzz_regressions.rs` replays every input ever
//! found on plain `cargo test`. `fuzz/README.md` says how to add one.

use crate::base::ids::DomainId;
use crate::control::policy::{self, Document, PolicyRecord};
use crate::packet::finish;
use crate::packet::rewrite::NatDelta;
use crate::packet::split::{Segments, segment_count};
use crate::packet::{Csum, FlowKey, FrameBatch, Gso, L3, PacketBuf, Parsed, Rewrite, Scope};
use crate::stage::policy::{Compiled, Direction, Facts, Party};
use crate::wire::addr::Addr;
use crate::wire::mac::Mac;
use crate::wire::{checksum, ndp, tcp, vnet};

/// A target: its name, and what is done with the bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All targets; the name is also that of the file in `fuzz/fuzz_targets/` and of the corpus folder.
pub const TARGETS: &[Target] = &[
    ("wire", wire),
    ("parse", parse),
    ("sockets", crate::stage::sockets::fuzz::fuzz),
    ("datapath", crate::datapath::fuzz::fuzz),
    ("dns", crate::stage::dns::fuzz::fuzz),
    ("cluster", crate::control::cluster::fuzz::fuzz),
    ("docker", crate::adapters::docker::fuzz::fuzz),
    ("tunnel", crate::stage::tunnel::fuzz::fuzz),
    ("engines", engines),
    ("policy", policy),
];

/// What container engines say, read as each of their protocols.
pub fn engines(data: &[u8]) {
    crate::adapters::cni::fuzz_configuration(data);
    crate::adapters::netavark::fuzz_input(data);
}

/// A file of policies: read, kept, compiled and asked. What is refused is said in one line.
pub fn policy(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let documents = match policy::read(text) {
        Ok(documents) => documents,
        Err(error) => {
            // A lone carriage return breaks a line too (YAML 1.2.2, 5.4).
            let breaks = text.bytes().filter(|byte| b"\r\n".contains(byte)).count();
            assert!(error.line as usize <= breaks + 1, "{error}");
            return;
        }
    };
    let policies: Vec<PolicyRecord> = documents
        .into_iter()
        .filter_map(|document| match document {
            Document::Policy(policy) => Some(policy),
            Document::Namespace(_) => None,
        })
        .collect();
    let kept = serde_json::to_string(&policies).expect("a record is JSON");
    assert_eq!(serde_json::from_str::<Vec<PolicyRecord>>(&kept).expect("and is read"), policies);
    let compiled = Compiled::new(&policy::in_order(policies.iter()));
    let facts = Facts { namespace: "default".to_owned(), ..Facts::default() };
    let subject = compiled.subject(&facts);
    for addr in [Addr::from_v4_bits(0x0a00_0001), Addr::LOOPBACK_V6] {
        let party = Party { subject: Some(&subject), addr };
        for direction in [Direction::Ingress, Direction::Egress] {
            let names = std::iter::once("www.example.org");
            let judged = compiled.policy().judge(direction, &subject, &party, (6, 80), &names);
            assert!(judged.is_none_or(|j| compiled.policy().rule(j.rule).is_some()));
        }
    }
}

/// Options of TCP and NDP, and checksums, over arbitrary bytes.
pub fn wire(data: &[u8]) {
    tcp_options(data);
    ndp_options(data);
    checksums(data);
}

/// The walk ends, and no option is shorter than one byte.
fn tcp_options(data: &[u8]) {
    assert!(tcp::Options::new(data).count() <= data.len());
}

/// What is called valid is walked to its last byte; what is not ends early.
fn ndp_options(data: &[u8]) {
    let walked: usize = ndp::Options::new(data).map(|(_, body)| body.len() + 2).sum();
    assert_eq!(ndp::options_are_valid(data), walked == data.len());
    for kind in [ndp::SOURCE_LINK_LAYER, ndp::TARGET_LINK_LAYER] {
        if ndp::link_layer_option(data, kind).is_some() {
            assert!(ndp::Options::new(data).any(|(found, _)| found == kind));
        }
    }
}

/// RFC 1071: sums of even parts add up, and data with its checksum sums to all ones.
fn checksums(data: &[u8]) {
    let whole = checksum::sum(data);
    let (head, tail) = data.split_at(data.len() / 4 * 2);
    let parts = checksum::add(checksum::sum(head), checksum::sum(tail));
    assert!(is_same_sum(whole, parts), "{whole:#x} is not {parts:#x}");
    let closed = checksum::add(whole, !whole);
    assert_eq!(closed, 0xffff);
    if let Some((&[a, b], rest)) = data.split_first_chunk::<2>() {
        let changed = checksum::delta(u16::from_be_bytes([a, b]), 0);
        let updated = checksum::update(!whole, changed);
        assert!(is_same_sum(!updated, checksum::sum(rest)));
    }
}

/// Ones' complement has two zeros.
fn is_same_sum(a: u16, b: u16) -> bool {
    a % 0xffff == b % 0xffff
}

/// One read from a TAP, virtio-net header and frame, through all that `packet` does with it.
pub fn parse(data: &[u8]) {
    let mut batch = FrameBatch::new();
    let Some(room) = batch.spare().and_then(|room| room.get_mut(..data.len())) else { return };
    room.copy_from_slice(data);
    if batch.commit(data.len()).is_err() {
        assert!(batch.is_empty());
        return;
    }
    assert_eq!(batch.bytes(0), &data[vnet::HEADER_LEN..]);
    assert_eq!(batch.with_vnet_header(0).len(), data.len());
    let Ok(parsed) = batch.frame(0).parse() else { return };
    lengths_agree(&parsed, batch.bytes(0));
    let whole = batch.frame(0).to_owned();
    finishing_touches_no_decision(whole.clone(), &parsed);
    rewriting_is_undone(whole.clone(), &parsed);
    segments_are_the_whole(whole, &parsed);
}

fn lengths_agree(parsed: &Parsed, frame: &[u8]) {
    if !parsed.is_ip() {
        return;
    }
    assert!(14 + parsed.ip_len as usize <= frame.len());
    assert_eq!(parsed.ip_header_len() + parsed.l4_len(), parsed.ip_len as usize);
    assert_eq!(parsed.l4_bytes(frame).len(), parsed.l4_len());
    let mapped = parsed.l3 == L3::V6 && (parsed.src.is_v4() || parsed.dst.is_v4());
    assert!(!mapped, "an IPv6 packet that tables take for IPv4's");
}

/// Wherever the sender wants its checksum: no address, port or flag changes after it was judged.
fn finishing_touches_no_decision(mut whole: PacketBuf, parsed: &Parsed) {
    finish::finish_checksum(&mut whole.frame());
    assert_eq!(Parsed::new(whole.bytes()), Ok(*parsed));
}

/// There and back again: addresses and ports are the key's, and then the old ones.
fn rewriting_is_undone(mut whole: PacketBuf, parsed: &Parsed) {
    if !parsed.is_ip() || parsed.ttl < 2 {
        return;
    }
    let other = |addr: Addr| match addr.v4() {
        Some(ip) => Addr::from(std::net::Ipv4Addr::from(!u32::from(ip))),
        None => Addr::from_v6_bytes(addr.bytes().map(|byte| byte ^ 0x55)),
    };
    let port = |port: u16| if port == 0 { 0 } else { port ^ 0x8001 | 2 };
    let from = FlowKey::new(parsed, DomainId(0), Scope::Routed);
    let to = FlowKey {
        src: other(from.src),
        dst: other(from.dst),
        src_port: port(from.src_port),
        dst_port: port(from.dst_port),
        ..from
    };
    if to.src.family() != from.src.family() || to.dst.family() != from.dst.family() {
        return; // The change made it a mapped address.
    }
    let delta = NatDelta::between(&from, &to);
    let macs = (parsed.src_mac, Mac::BROADCAST);
    let len = whole.len();
    Rewrite { nat: Some((to, delta)), route: Some(macs) }.apply(&mut whole.frame(), parsed);
    let there = Parsed::new(whole.bytes()).expect("a translated packet is one");
    assert_eq!(FlowKey::new(&there, DomainId(0), Scope::Routed), to);
    assert_eq!((there.dst_mac, there.src_mac, there.ttl), (macs.0, macs.1, parsed.ttl - 1));
    Rewrite { nat: Some((from, delta.inverse())), route: None }.apply(&mut whole.frame(), &there);
    let back = Parsed::new(whole.bytes()).expect("and so it is on its way back");
    let (src_port, dst_port) = (parsed.src_port, parsed.dst_port);
    assert_eq!(back, Parsed { src: parsed.src, dst: parsed.dst, src_port, dst_port, ..there });
    assert_eq!(whole.len(), len);
}

/// Segments are whole packets of the same flow, and their payloads make up the super-frame's.
fn segments_are_the_whole(mut whole: PacketBuf, parsed: &Parsed) {
    let (offload, count) = (whole.offload(), segment_count(parsed, whole.offload(), whole.bytes()));
    let super_payload = parsed.l4_len();
    let Ok(mut segments) = Segments::new(whole.frame(), parsed) else {
        return;
    };
    assert_ne!(offload.gso, Gso::None);
    let (mut seen, mut payload, mut header) = (0, 0, 0);
    while let Some(segment) = segments.next() {
        let part = segment.parse().expect("a segment is a packet");
        lengths_agree(&part, segment.bytes());
        assert_eq!(segment.len(), 14 + part.ip_len as usize);
        let (ip_len, tcp_flags) = (part.ip_len, part.tcp_flags);
        assert_eq!(part, Parsed { tcp_flags, ip_len, ..*parsed }, "only these may differ");
        assert_eq!(segment.offload().csum, Csum::Complete);
        header = match offload.gso {
            Gso::UdpL4 => 8,
            _ => usize::from(part.l4_bytes(segment.bytes())[12] >> 4) * 4,
        };
        assert!(part.l4_len() - header <= usize::from(offload.gso_size));
        payload += part.l4_len() - header;
        seen += 1;
    }
    assert_eq!((seen, payload + header), (count, super_payload));
}
