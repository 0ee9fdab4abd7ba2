//! Any octets as a message of this serializer.
#![no_main]

#[path = "../src/laws.rs"]
mod laws;

libfuzzer_sys::fuzz_target!(|data: &[u8]| laws::message(weald_wamp::Serializer::Json, data));
