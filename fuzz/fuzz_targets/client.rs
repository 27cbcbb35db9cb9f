#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| framelet::claims::client(input));
