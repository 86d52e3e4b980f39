//! See `testkit::fuzz::outbox_records`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::outbox_records(data));
