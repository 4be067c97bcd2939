//! The one `unsafe` file above the operating-system line: a hint to the processor's cache.

#![allow(unsafe_code, reason = "prefetch has no safe wrapper in the standard library")]

/// Asks the processor to bring the line of `value` into its first-level cache.
#[inline]
pub fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults, and the address comes from a live reference.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
