//! The Internet checksum: full sums (RFC 1071) and updates (RFC 1624).
//!
//! Sums are kept folded to sixteen bits in host order. "Sum" here is the ones' complement sum; the
//! checksum field holds its complement.

use super::addr::Addr;

/// Folds a wide sum to sixteen bits with end-around carry.
#[inline]
pub fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The ones' complement sum of `bytes`; an odd last byte counts as the high half of a word.
///
/// Adds 32-bit words in native order into eight independent 64-bit sums, which the compiler turns
/// into vector additions, and swaps once at the end (RFC 1071 2 B: the sum is byte-order independent).
pub fn sum(bytes: &[u8]) -> u16 {
    let (blocks, tail) = bytes.as_chunks::<32>();
    let (words, last) = tail.as_chunks::<4>();
    let mut total: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    total += match *last {
        [a] => u64::from(u16::from_ne_bytes([a, 0])),
        [a, b] => u64::from(u16::from_ne_bytes([a, b])),
        [a, b, c] => u64::from(u32::from_ne_bytes([a, b, c, 0])),
        _ => 0,
    };
    if !blocks.is_empty() {
        let mut lanes = [0_u64; 8];
        for block in blocks {
            let (words, _) = block.as_chunks::<4>();
            for (lane, word) in lanes.iter_mut().zip(words) {
                *lane += u64::from(u32::from_ne_bytes(*word));
            }
        }
        // A lane holds 32-bit words: it would take 2³² blocks to overflow their sum.
        total += lanes.iter().sum::<u64>();
    }
    u16::from_be(fold(total))
}

/// The sum of an IPv4 header without options: what every routed packet is asked for.
#[inline]
pub fn sum_header(header: &[u8; 20]) -> u16 {
    let (words, _) = header.as_chunks::<4>();
    let total = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    u16::from_be(fold(total))
}

/// Adds two folded sums.
#[inline]
pub fn add(a: u16, b: u16) -> u16 {
    let sum = u32::from(a) + u32::from(b);
    (sum + (sum >> 16)) as u16
}

/// The sum of an address: four bytes of IPv4, sixteen of IPv6.
#[inline]
pub fn sum_addr(addr: Addr) -> u16 {
    let [hi, lo] = addr.words();
    // The mapped prefix 0xffff is zero in ones' complement arithmetic, so both families add alike.
    add(fold(hi), fold(lo))
}

/// The sum of the pseudo-header (RFC 768, RFC 8200 8.1). `len` is the length of the upper layer.
pub fn pseudo_header(src: Addr, dst: Addr, proto: u8, len: u32) -> u16 {
    let rest = u64::from(proto) + u64::from(len);
    fold(u64::from(sum_addr(src)) + u64::from(sum_addr(dst)) + rest)
}

/// The change of a sum when words summing to `old` become words summing to `new`.
#[inline]
pub fn delta(old: u16, new: u16) -> u16 {
    add(!old, new)
}

/// A complete checksum field after its data's sum changed by `delta` (RFC 1624 equation 3).
#[inline]
pub fn update(field: u16, delta: u16) -> u16 {
    !add(!field, delta)
}

/// A checksum field that still holds only the pseudo-header's sum (`CHECKSUM_PARTIAL`): the change
/// is added without complement. Give address deltas only; ports are summed later by whoever finishes.
#[inline]
pub fn update_partial(field: u16, delta: u16) -> u16 {
    add(field, delta)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071 section 4.1, word by word.
    fn sum_plainly(bytes: &[u8]) -> u16 {
        let mut sum: u32 = 0;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    /// 0x0000 and 0xffff are both zero.
    fn same(a: u16, b: u16) -> bool {
        a == b || (a == 0 && b == 0xffff) || (a == 0xffff && b == 0)
    }

    proptest! {
        #[test]
        fn the_wide_sum_is_the_plain_sum(bytes in prop::collection::vec(any::<u8>(), 0..3000), skip in 0_usize..8) {
            let bytes = &bytes[skip.min(bytes.len())..];
            prop_assert!(same(sum(bytes), sum_plainly(bytes)));
        }

        #[test]
        fn the_sum_of_a_header_is_the_plain_sum(header in any::<[u8; 20]>()) {
            prop_assert!(same(sum_header(&header), sum_plainly(&header)));
        }

        #[test]
        fn an_update_equals_a_recomputation(mut data in prop::collection::vec(any::<u8>(), 8..64), at in 0_usize..4, new in any::<u16>()) {
            let field = !sum(&data);
            let at = at * 2;
            let old = u16::from_be_bytes([data[at], data[at + 1]]);
            data[at..at + 2].copy_from_slice(&new.to_be_bytes());
            prop_assert!(same(update(field, delta(old, new)), !sum(&data)));
        }

        #[test]
        fn an_address_sums_as_its_bytes(bits in any::<u128>()) {
            let v6 = Addr::from_v6_bytes(bits.to_be_bytes());
            prop_assert!(same(sum_addr(v6), sum(&bits.to_be_bytes())));
            let v4 = Addr::from_v4_bits(bits as u32);
            prop_assert!(same(sum_addr(v4), sum(&(bits as u32).to_be_bytes())));
        }
    }
}
