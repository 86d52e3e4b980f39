//! See `testkit::fuzz::outbox_files`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::outbox_files(data));
