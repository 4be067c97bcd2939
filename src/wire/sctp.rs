//! SCTP's common header (RFC 9260 3.1): enough to track by ports; NAT re-computes the CRC32c.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Be16, Be32};

/// Length of the common header.
pub const HEADER_LEN: usize = 12;
/// Offset of the checksum in the header.
pub const CHECKSUM_OFFSET: u16 = 8;

/// The common header, 12 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Sctp {
    /// Source port.
    pub src_port: Be16,
    /// Destination port.
    pub dst_port: Be16,
    /// Verification tag.
    pub tag: Be32,
    /// CRC32c of the whole packet with this field zero, little-endian on the wire (RFC 9260 appendix A).
    pub checksum: [u8; 4],
}

const _: () = assert!(size_of::<Sctp>() == HEADER_LEN);

/// CRC32c (Castagnoli) of `bytes`, bit by bit over a table of 256 words.
pub fn crc32c(bytes: &[u8]) -> u32 {
    !bytes
        .iter()
        .fold(!0, |crc, byte| TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize] ^ (crc >> 8))
}

/// The checksum of a packet of `len` bytes after its ports changed.
///
/// A CRC is linear: it changes by the CRC of the difference, which is the difference of the ports times
/// x^(8·len) modulo the polynomial. So no payload is read, and what was damaged stays damaged, where
/// a CRC computed anew would vouch for it.
pub fn update(checksum: [u8; 4], old: [Be16; 2], new: [Be16; 2], len: usize) -> [u8; 4] {
    let le = |[src, dst]: [Be16; 2]| {
        let ([a, b], [c, d]) = (src.to_bytes(), dst.to_bytes());
        u32::from_le_bytes([a, b, c, d])
    };
    let change = multiply(le(old) ^ le(new), power_of_x8(len));
    (u32::from_le_bytes(checksum) ^ change).to_le_bytes()
}

const POLYNOMIAL: u32 = 0x82f6_3b78;

/// Multiplies by x modulo the polynomial. Bits are reflected: the highest is x⁰.
const fn times_x(a: u32) -> u32 {
    (a >> 1) ^ if a & 1 == 0 { 0 } else { POLYNOMIAL }
}

fn multiply(mut a: u32, b: u32) -> u32 {
    let mut product = 0;
    for power in 0..32 {
        if b & (0x8000_0000 >> power) != 0 {
            product ^= a;
        }
        a = times_x(a);
    }
    product
}

/// x^(8·n) modulo the polynomial, by squaring.
fn power_of_x8(mut n: usize) -> u32 {
    let (mut result, mut square) = (0x8000_0000, 0x8000_0000 >> 8);
    while n > 0 {
        if n & 1 != 0 {
            result = multiply(result, square);
        }
        square = multiply(square, square);
        n >>= 1;
    }
    result
}

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = times_x(crc);
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_checksum_follows_a_change_of_ports(
            mut packet in prop::collection::vec(any::<u8>(), 12..2000),
            ports in any::<[u16; 2]>(),
        ) {
            let word = |p: &[u8], at: usize| Be16::from_bytes([p[at], p[at + 1]]);
            let old = [word(&packet, 0), word(&packet, 2)];
            let before = crc32c(&packet).to_le_bytes();
            let new = ports.map(Be16::from);
            packet[..2].copy_from_slice(&new[0].to_bytes());
            packet[2..4].copy_from_slice(&new[1].to_bytes());
            let after = update(before, old, new, packet.len());
            prop_assert_eq!(after, crc32c(&packet).to_le_bytes());
        }
    }

    #[test]
    fn the_check_value_of_crc32c_is_right() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}
