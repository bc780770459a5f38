//! The seeds of the fuzz target `protocol`, without libFuzzer: what the fuzzer begins with holds in every run of the tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[expect(unsafe_code, reason = "an allocator that counts")]
#[path = "../../../fuzz/src/protocol.rs"]
mod protocol;

/// Those that break off in a frame: one has the longest, and one would have one that is longer.
const NOTHING_IN_THEM: [&str; 2] = ["longest", "too_long"];

/// Each seed, and what is left of it when it ends too early, or has a bit flipped.
#[test]
fn the_seeds_of_the_fuzz_target_are_read_by_either_side() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/protocol");
    let mut kinds = BTreeSet::new();
    for seed in fs::read_dir(corpus).unwrap() {
        let path = seed.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let seed = fs::read(&path).unwrap();
        let understood = protocol::read(&seed).unwrap();
        assert_eq!(understood == 0, NOTHING_IN_THEM.contains(&name), "of {name} {understood} are understood");
        kinds.insert(seed[0] & !protocol::CHUNKED);
        for at in 0..seed.len() {
            let _ = protocol::read(&seed[..at]);
            let mut flipped = seed.clone();
            flipped[at] ^= 0x10;
            let _ = protocol::read(&flipped);
        }
    }
    assert_eq!(kinds, (0..=8).collect(), "a kind of message has no seed");
}
