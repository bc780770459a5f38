//! caisson-shim.
fn main() {}
