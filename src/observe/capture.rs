//! Captured frames as bytes that others read: pcapng, or a line of JSON for each.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::pcapng::{self, Direction, Packet};
use crate::base::ids::PortId;
use crate::packet::finish::finish_checksum;
use crate::packet::parse::L3;
use crate::packet::split::Segments;
use crate::packet::{DropReason, Gso, PacketBuf, Parsed};
use crate::wire::ipv6::{ICMP, ICMPV6, SCTP, TCP, UDP};
use crate::worker::capture::{Block, Captured, Side};

/// In which form.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// A pcapng file.
    #[default]
    Pcapng,
    /// A JSON object a line.
    Lines,
}

/// What is said of one frame in a line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FrameView {
    /// Nanoseconds since 1970.
    pub time_ns: u64,
    /// Name of the port.
    pub port: String,
    /// `ingress` as it came in, `egress` as it left.
    pub side: String,
    /// Its length in bytes.
    pub length: u32,
    /// What it is.
    pub summary: String,
    /// Why it went no further.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub drop: Option<String>,
}

/// Writes blocks in one form.
#[derive(Debug)]
pub struct Writer {
    form: Form,
    snap: u32,
    segments: bool,
    names: HashMap<PortId, (u32, String)>,
    lost: u64,
}

impl Writer {
    /// A writer of frames of which at most `snap` bytes were kept; `segments` cuts super-frames into
    /// what a network card would send.
    pub fn new(form: Form, snap: u32, segments: bool) -> Self {
        Self { form, snap, segments, names: HashMap::new(), lost: 0 }
    }

    /// What comes first.
    pub fn begin(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if self.form == Form::Pcapng {
            pcapng::section(&mut out);
        }
        out
    }

    /// A block, with the names of ports that were not seen before.
    pub fn block(&mut self, block: &Block, mut name: impl FnMut(PortId) -> String) -> Vec<u8> {
        let bytes: usize = block.frames.iter().map(|frame| block.bytes(frame).len() + 80).sum();
        let mut out = Vec::with_capacity(bytes);
        for frame in &block.frames {
            if !self.names.contains_key(&frame.port) {
                self.introduce(&mut out, frame.port, name(frame.port));
            }
            match self.form {
                Form::Pcapng => self.packets(&mut out, block, frame),
                Form::Lines => self.line(&mut out, block, frame),
            }
        }
        if let (true, Some(last)) = (block.lost > self.lost, block.frames.last()) {
            self.lost = block.lost;
            self.say_lost(&mut out, last);
        }
        out
    }

    fn introduce(&mut self, out: &mut Vec<u8>, port: PortId, name: String) {
        if self.form == Form::Pcapng {
            pcapng::interface(out, &name, self.snap);
        }
        self.names.insert(port, (self.names.len() as u32, name));
    }

    fn packets(&self, out: &mut Vec<u8>, block: &Block, frame: &Captured) {
        let bytes = block.bytes(frame);
        let comment = frame.drop.map(|reason| comment(reason, bytes));
        let packet = Packet {
            interface: self.names.get(&frame.port).map_or(0, |(number, _)| *number),
            at: frame.at,
            direction: match frame.side {
                Side::Ingress => Direction::Inbound,
                Side::Egress => Direction::Outbound,
            },
            bytes,
            length: frame.length,
            comment: comment.as_deref(),
        };
        let is_whole = bytes.len() == frame.length as usize;
        if !self.segments || !is_whole || !cut(out, frame, &packet) {
            pcapng::packet(out, &packet);
        }
    }

    fn line(&self, out: &mut Vec<u8>, block: &Block, frame: &Captured) {
        let view = FrameView {
            time_ns: frame.at,
            port: self.names.get(&frame.port).map_or_else(String::new, |(_, name)| name.clone()),
            side: match frame.side {
                Side::Ingress => "ingress",
                Side::Egress => "egress",
            }
            .to_owned(),
            length: frame.length,
            summary: summary(block.bytes(frame)),
            drop: frame.drop.map(|reason| reason.name().to_owned()),
        };
        json_line(out, &view);
    }

    fn say_lost(&self, out: &mut Vec<u8>, last: &Captured) {
        match self.form {
            // All ports together; it is the first one's, since the format has no other place.
            Form::Pcapng => pcapng::lost(out, 0, last.at, self.lost),
            Form::Lines => json_line(out, &serde_json::json!({ "lost": self.lost })),
        }
    }
}

fn json_line(out: &mut Vec<u8>, value: &impl Serialize) {
    // Writing to memory cannot fail, and these have no keys that are no strings.
    let _ = serde_json::to_writer(&mut *out, value);
    out.push(b'\n');
}

/// Writes a frame as the network would see it: cut, and with finished checksums. `false`: it could not
/// be done.
fn cut(out: &mut Vec<u8>, frame: &Captured, packet: &Packet<'_>) -> bool {
    let mut whole = PacketBuf::new(packet.bytes, frame.offload);
    if frame.offload.gso == Gso::None {
        finish_checksum(&mut whole.frame());
        let (bytes, length) = (whole.bytes(), whole.len() as u32);
        pcapng::packet(out, &Packet { bytes, length, ..*packet });
        return true;
    }
    let Ok(parsed) = Parsed::new(packet.bytes) else { return false };
    let Ok(mut segments) = Segments::new(whole.frame(), &parsed) else { return false };
    while let Some(segment) = segments.next() {
        let (bytes, length) = (segment.bytes(), segment.len() as u32);
        pcapng::packet(out, &Packet { bytes, length, ..*packet });
    }
    true
}

fn comment(reason: DropReason, bytes: &[u8]) -> String {
    format!("dropped: {} ({}); {}", reason.name(), reason.explain(), summary(bytes))
}

/// What a frame is, in a few words.
fn summary(bytes: &[u8]) -> String {
    let Ok(parsed) = Parsed::new(bytes) else { return "not understood".to_owned() };
    let proto = match parsed.l3 {
        L3::Arp => return format!("ARP from {}", parsed.src_mac),
        L3::Other(ethertype) => {
            return format!("{} -> {}, type {ethertype:#06x}", parsed.src_mac, parsed.dst_mac);
        }
        L3::V4 | L3::V6 => parsed.proto,
    };
    let name = match proto {
        TCP => "TCP",
        UDP => "UDP",
        SCTP => "SCTP",
        ICMP => "ICMP",
        ICMPV6 => "ICMPv6",
        _ => return format!("{} -> {}, protocol {proto}", parsed.src, parsed.dst),
    };
    match proto {
        TCP | UDP | SCTP => format!(
            "{name} {} -> {}{}",
            socket(&parsed, true),
            socket(&parsed, false),
            if proto == TCP { flags(parsed.tcp_flags) } else { String::new() }
        ),
        _ => format!("{name} {} -> {}", parsed.src, parsed.dst),
    }
}

fn socket(parsed: &Parsed, source: bool) -> String {
    let (addr, port) =
        if source { (parsed.src, parsed.src_port) } else { (parsed.dst, parsed.dst_port) };
    std::net::SocketAddr::new(addr.into(), port).to_string()
}

/// As tcpdump writes them: ` [S.]`.
fn flags(flags: u8) -> String {
    let names = [(0x02, 'S'), (0x01, 'F'), (0x04, 'R'), (0x08, 'P'), (0x20, 'U'), (0x10, '.')];
    let set: String = names.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, c)| *c).collect();
    format!(" [{set}]")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(v6: bool) -> Vec<u8> {
        let mut frame = vec![0; 12];
        if v6 {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, TCP, 64]);
            frame.extend([0xfd; 16]);
            frame.extend([0xfe; 16]);
        } else {
            frame.extend([
                8, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, TCP, 0, 0, 10, 0, 0, 2, 10, 0, 0, 3,
            ]);
        }
        frame.extend([0x9c, 0x40, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x12, 0, 0, 0, 0, 0, 0]);
        frame
    }

    #[test]
    fn a_frame_is_told_in_a_few_words() {
        assert_eq!(summary(&frame(false)), "TCP 10.0.0.2:40000 -> 10.0.0.3:80 [S.]");
        let v6 = summary(&frame(true));
        assert!(v6.starts_with("TCP [fdfd:fdfd:") && v6.ends_with("]:80 [S.]"), "{v6}");
        assert_eq!(summary(&[0; 4]), "not understood");
        let mut arp = vec![0; 42];
        arp[6..14].copy_from_slice(&[2, 0x42, 0, 0, 0, 9, 8, 6]);
        assert_eq!(summary(&arp), "ARP from 02:42:00:00:00:09");
    }

    #[test]
    fn the_comment_of_a_drop_names_reason_and_flow() {
        let comment = comment(DropReason::NoListener, &frame(false));
        assert!(comment.starts_with("dropped: no-listener ("), "{comment}");
        assert!(comment.ends_with("; TCP 10.0.0.2:40000 -> 10.0.0.3:80 [S.]"), "{comment}");
    }
}
