//! Archives of `docker save` and OCI layouts, loaded. Needs root, as layers do.
#![no_main]

use std::cell::LazyCell;

use caisson_images::fuzzing::Loading;

thread_local! {
    static IN: LazyCell<Loading> = LazyCell::new(|| Loading::new().expect("a directory for a store"));
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| IN.with(|loading| loading.archive(bytes)));
