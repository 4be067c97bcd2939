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

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 != 0 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_crc32c_is_right() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}
