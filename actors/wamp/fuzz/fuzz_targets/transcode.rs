//! Any octets as a payload: the first says of which serializer, and which elements it claims to have.
#![no_main]

#[path = "../src/laws.rs"]
mod laws;

libfuzzer_sys::fuzz_target!(|data: &[u8]| laws::transcode(data));
