//! Options of DHCP (RFC 2132), and what both ends agree on of its messages (RFC 2131 2). The fixed part is
//! smoltcp's to read.

use super::addr::Addr;

/// Option: mask of the subnet.
pub const SUBNET_MASK: u8 = 1;
/// Option: routers, the preferred one first.
pub const ROUTER: u8 = 3;
/// Option: name servers.
pub const DNS: u8 = 6;
/// Option: domain of short names.
pub const DOMAIN: u8 = 15;
/// Option: MTU of the link.
pub const MTU: u8 = 26;
/// Option: address that the client wishes.
pub const REQUESTED: u8 = 50;
/// Option: seconds that the address may be used.
pub const LEASE_TIME: u8 = 51;
/// Option: what the message is.
pub const MESSAGE_TYPE: u8 = 53;
/// Option: which server is meant, or speaks.
pub const SERVER: u8 = 54;
/// Option: seconds until the server is asked for more time.
pub const RENEW_TIME: u8 = 58;
/// Option: seconds until anybody is.
pub const REBIND_TIME: u8 = 59;
/// Option: domains of short names (RFC 3397).
pub const SEARCH: u8 = 119;
/// Option: classless static routes (RFC 3442), which replace the router option.
pub const ROUTES: u8 = 121;
/// What ends the options.
pub const END: u8 = 255;

/// What is shorter than BOOTP's message is dropped by some (RFC 1542 2.1).
pub const MESSAGE_MIN: usize = 300;
/// Where the options begin, their mark before them.
pub const OPTIONS_AT: usize = 236;
/// That mark.
pub const MAGIC: [u8; 4] = [0x63, 0x82, 0x53, 0x63];

/// Appends an option. One that is empty or longer than options can be is left out.
pub fn option(bytes: &mut Vec<u8>, kind: u8, data: &[u8]) {
    if let Ok(len) = u8::try_from(data.len())
        && len > 0
    {
        bytes.extend([kind, len]);
        bytes.extend(data);
    }
}

/// The addresses of an option's data; a rest of fewer than four bytes is none.
pub fn addresses(data: &[u8]) -> impl Iterator<Item = Addr> {
    let (addresses, _) = data.as_chunks::<4>();
    addresses.iter().map(|bytes| Addr::from_v4_bytes(*bytes))
}

/// The mask of a prefix's length.
pub fn mask(prefix_len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix_len.min(32))).unwrap_or(0)
}

/// The length of a mask; `None` if it has gaps.
pub fn prefix_len(mask: u32) -> Option<u8> {
    (mask.leading_ones() + mask.trailing_zeros() >= 32).then_some(mask.leading_ones() as u8)
}

/// The router of `0.0.0.0/0` among classless routes: length, significant bytes, router.
pub fn default_route(mut data: &[u8]) -> Option<Addr> {
    loop {
        let (&len, rest) = data.split_first()?;
        let (_, rest) = rest.split_at_checked(usize::from(len).div_ceil(8))?;
        let (router, rest) = rest.split_first_chunk::<4>()?;
        if len == 0 {
            return Some(Addr::from_v4_bytes(*router));
        }
        data = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mask_says_its_length_and_one_with_gaps_says_none() {
        for len in 0..=32 {
            assert_eq!(prefix_len(mask(len)), Some(len));
        }
        assert_eq!((mask(24), mask(33)), (0xffff_ff00, u32::MAX));
        assert_eq!(prefix_len(0xff00_ff00), None);
    }

    #[test]
    fn the_default_route_is_found_among_others_and_a_cut_one_is_none() {
        let routes = [24, 10, 1, 2, 192, 0, 2, 9, 0, 192, 0, 2, 1];
        assert_eq!(default_route(&routes), Some(Addr::from_v4_bytes([192, 0, 2, 1])));
        for cut in 0..routes.len() {
            assert_eq!(default_route(&routes[..cut]), None, "{cut}");
        }
    }
}
