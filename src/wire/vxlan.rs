//! VXLAN (RFC 7348): an Ethernet frame in a UDP datagram.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Length of the header.
pub const HEADER_LEN: usize = 8;
/// The port that IANA gave it.
pub const PORT: u16 = 4789;
/// Largest network identifier.
pub const VNI_MAX: u32 = 0xff_ffff;
/// "The identifier is valid"; all other flags are sent as zero and ignored on receipt (section 5).
const VALID: u8 = 0x08;

/// What comes before the inner frame, 8 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Vxlan {
    /// Flags.
    pub flags: u8,
    reserved: [u8; 3],
    vni: [u8; 3],
    reserved_too: u8,
}

const _: () = assert!(size_of::<Vxlan>() == HEADER_LEN);

impl Vxlan {
    /// A header for a network.
    pub fn new(vni: u32) -> Self {
        let [_, a, b, c] = vni.to_be_bytes();
        Self { flags: VALID, reserved: [0; 3], vni: [a, b, c], reserved_too: 0 }
    }

    /// The network, if the header says one.
    pub fn vni(&self) -> Option<u32> {
        let [a, b, c] = self.vni;
        (self.flags & VALID != 0).then_some(u32::from_be_bytes([0, a, b, c]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_the_rfc_s() {
        let bytes = [0x08, 0, 0, 0, 0x12, 0x34, 0x56, 0];
        assert_eq!(Vxlan::new(0x12_3456).as_bytes(), bytes);
        assert_eq!(Vxlan::ref_from_bytes(&bytes[..]).unwrap().vni(), Some(0x12_3456));
    }

    #[test]
    fn only_the_one_flag_counts() {
        let read = |bytes: [u8; 8]| Vxlan::ref_from_bytes(&bytes[..]).unwrap().vni();
        assert_eq!(read([0xff, 1, 2, 3, 0, 0, 7, 9]), Some(7), "reserved bits are ignored");
        assert_eq!(read([0xf7, 0, 0, 0, 0, 0, 7, 0]), None);
    }
}
