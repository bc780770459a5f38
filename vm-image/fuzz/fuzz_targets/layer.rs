//! Layers, compressed or not, unpacked. Needs root, for devices and attributes.
#![no_main]

use std::cell::LazyCell;

use caisson_images::fuzzing::Unpacking;

thread_local! {
    static IN: LazyCell<Unpacking> = LazyCell::new(|| Unpacking::new().expect("a directory for layers"));
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| IN.with(|unpacking| unpacking.layer(bytes)));
