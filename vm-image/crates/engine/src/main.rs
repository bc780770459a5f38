//! caisson-engine.
fn main() {}
