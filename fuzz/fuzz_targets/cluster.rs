#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wharf::control::cluster::fuzz::fuzz(data));
