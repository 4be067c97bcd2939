#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wharf::adapters::docker::fuzz::fuzz(data));
