//! Arbitrary frames into a shard.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| barewire_tcp_testing::fuzzing::packet(data));
