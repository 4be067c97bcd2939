#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wharf::stage::dns::fuzz::fuzz(data));
