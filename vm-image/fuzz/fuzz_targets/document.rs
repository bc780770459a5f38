//! Manifests, indexes and configurations, as a registry or an archive gives them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| caisson_images::fuzzing::document(bytes));
