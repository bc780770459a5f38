//! caisson-init.
fn main() {}
