//! Well-formed segments with arbitrary numbers into a live connection.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| barewire_tcp_testing::fuzzing::segments(data));
