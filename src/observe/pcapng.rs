//! Captured frames as a pcapng file (draft-ietf-opsawg-pcapng), as far as we need it: a section, an
//! interface for each port at its first frame, a packet for each frame, and statistics that say how many
//! frames were lost on the way here.
//!
//! Blocks are little-endian, their parts padded to four bytes; times are nanoseconds since 1970.

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;

const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const LINKTYPE_ETHERNET: u16 = 1;

const OPT_END: u16 = 0;
const OPT_COMMENT: u16 = 1;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;
const ISB_IFDROP: u16 = 5;

/// Which way a frame went, seen from the switch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// It came from the port.
    Inbound,
    /// It left by it.
    Outbound,
}

/// One frame to be written.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Number of its interface, in the order in which they were written.
    pub interface: u32,
    /// Nanoseconds since 1970.
    pub at: u64,
    /// Which way it went.
    pub direction: Direction,
    /// Its first bytes, from the Ethernet header on.
    pub bytes: &'a [u8],
    /// How many it had.
    pub length: u32,
    /// A word on it.
    pub comment: Option<&'a str>,
}

/// The section's header; comes first.
pub fn section(out: &mut Vec<u8>) {
    block(out, SECTION, |out| {
        out.extend(BYTE_ORDER.to_le_bytes());
        // Version 1.0; the section's length is not known.
        out.extend([1, 0, 0, 0]);
        out.extend(u64::MAX.to_le_bytes());
        option(out, SHB_USERAPPL, concat!("wharf ", env!("CARGO_PKG_VERSION")).as_bytes());
        option(out, OPT_END, &[]);
    });
}

/// An interface, of whose frames at most `snap` bytes are written (0: all).
pub fn interface(out: &mut Vec<u8>, name: &str, snap: u32) {
    block(out, INTERFACE, |out| {
        out.extend(LINKTYPE_ETHERNET.to_le_bytes());
        out.extend([0, 0]);
        out.extend(snap.to_le_bytes());
        option(out, IF_NAME, name.as_bytes());
        // A power of ten: nanoseconds.
        option(out, IF_TSRESOL, &[9]);
        option(out, OPT_END, &[]);
    });
}

/// A frame.
pub fn packet(out: &mut Vec<u8>, packet: &Packet<'_>) {
    block(out, PACKET, |out| {
        out.extend(packet.interface.to_le_bytes());
        time(out, packet.at);
        out.extend((packet.bytes.len() as u32).to_le_bytes());
        out.extend(packet.length.to_le_bytes());
        padded(out, packet.bytes);
        let direction: u32 = match packet.direction {
            Direction::Inbound => 1,
            Direction::Outbound => 2,
        };
        option(out, EPB_FLAGS, &direction.to_le_bytes());
        if let Some(comment) = packet.comment {
            option(out, OPT_COMMENT, comment.as_bytes());
        }
        option(out, OPT_END, &[]);
    });
}

/// How many frames of an interface were lost until now, because the reader was too slow.
pub fn lost(out: &mut Vec<u8>, interface: u32, at: u64, lost: u64) {
    block(out, STATISTICS, |out| {
        out.extend(interface.to_le_bytes());
        time(out, at);
        option(out, ISB_IFDROP, &lost.to_le_bytes());
        option(out, OPT_END, &[]);
    });
}

fn time(out: &mut Vec<u8>, at: u64) {
    out.extend(((at >> 32) as u32).to_le_bytes());
    out.extend((at as u32).to_le_bytes());
}

/// Type, length, body, length again.
fn block(out: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend(kind.to_le_bytes());
    out.extend([0; 4]);
    body(out);
    let length = (out.len() - start + 4) as u32;
    out[start + 4..start + 8].copy_from_slice(&length.to_le_bytes());
    out.extend(length.to_le_bytes());
}

/// An option; what is too long for one is cut.
fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    out.extend(code.to_le_bytes());
    out.extend((value.len() as u16).to_le_bytes());
    padded(out, value);
}

fn padded(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes);
    out.resize(out.len() + bytes.len().wrapping_neg() % 4, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_has_the_layout_of_the_draft() {
        let mut out = Vec::new();
        packet(
            &mut out,
            &Packet {
                interface: 1,
                at: 0x1_0000_0002,
                direction: Direction::Outbound,
                bytes: &[0xaa; 5],
                length: 60,
                comment: Some("hi"),
            },
        );
        let expected = [
            &[6, 0, 0, 0, 60, 0, 0, 0, 1, 0, 0, 0][..],
            &[1, 0, 0, 0, 2, 0, 0, 0],
            &[5, 0, 0, 0, 60, 0, 0, 0],
            &[0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0, 0, 0],
            &[2, 0, 4, 0, 2, 0, 0, 0],
            &[1, 0, 2, 0, b'h', b'i', 0, 0],
            &[0, 0, 0, 0, 60, 0, 0, 0],
        ];
        assert_eq!(out, expected.concat());
    }

    #[test]
    fn every_block_says_its_length_twice_and_is_made_of_whole_words() {
        let mut out = Vec::new();
        section(&mut out);
        interface(&mut out, "web", 0);
        lost(&mut out, 0, 7, 3);
        let mut rest = &out[..];
        let mut kinds = Vec::new();
        while !rest.is_empty() {
            let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
            let length = word(4) as usize;
            assert_eq!((length % 4, word(length - 4) as usize), (0, length));
            kinds.push(word(0));
            rest = &rest[length..];
        }
        assert_eq!(kinds, [SECTION, INTERFACE, STATISTICS]);
    }
}
