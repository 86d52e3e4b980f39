//! See `testkit::fuzz::roster_snapshot`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::roster_snapshot(data));
