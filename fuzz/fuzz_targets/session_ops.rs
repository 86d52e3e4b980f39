//! See `testkit::fuzz::session_ops`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::session_ops(data));
