//! Names of images, as clients write them.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| caisson_images::fuzzing::reference(text));
