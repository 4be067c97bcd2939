//! Random bytes and the identity of this boot.
#![allow(unsafe_code, reason = "getrandom has no wrapper among the features that are enabled")]

use std::io;

/// Fills the buffer from the kernel's generator, which waits for its seed only right after boot.
pub fn fill(mut buf: &mut [u8]) -> io::Result<()> {
    while !buf.is_empty() {
        // SAFETY: the kernel writes at most the buffer's length.
        let n = unsafe { libc::getrandom(buf.as_mut_ptr().cast(), buf.len(), 0) };
        if let Ok(n) = usize::try_from(n) {
            buf = &mut buf[n..];
            continue;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    Ok(())
}

/// A random number: the seed of a hash, the middle of a unique local prefix.
pub fn number() -> io::Result<u64> {
    let mut bytes = [0; 8];
    fill(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

/// A text that is another one after each boot of the machine: process numbers and the like are only
/// comparable within one.
pub fn boot_id() -> io::Result<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_filled_to_its_end_and_differently_each_time() {
        let (mut a, mut b) = ([0; 1000], [0; 1000]);
        fill(&mut a).unwrap();
        fill(&mut b).unwrap();
        assert!(a != b && a[968..] != [0; 32]);
    }

    #[test]
    fn the_boot_has_one_identity() {
        let id = boot_id().unwrap();
        assert_eq!((id.len(), &id), (36, &boot_id().unwrap()));
    }
}
