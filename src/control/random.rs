//! Chance, from the kernel.

use std::io;

use crate::wire::mac::Mac;

/// So many random bytes.
pub(super) fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    crate::io::random::fill(&mut bytes)?;
    Ok(bytes)
}

/// Sixteen hexadecimal digits that nothing else has.
pub(super) fn identity() -> io::Result<String> {
    Ok(format!("{:016x}", u64::from_be_bytes(bytes()?)))
}

/// A MAC of our own making: unicast, locally administered.
pub(super) fn mac() -> io::Result<Mac> {
    let [a, b, c, d, e] = bytes()?;
    Ok(Mac([0x02, a, b, c, d, e]))
}
