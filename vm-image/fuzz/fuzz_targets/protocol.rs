//! What the host and the machine say to each other.
#![no_main]

use libfuzzer_sys::Corpus;

#[path = "../src/protocol.rs"]
mod protocol;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| -> Corpus {
    match protocol::read(bytes) {
        Some(_) => Corpus::Keep,
        None => Corpus::Reject,
    }
});
