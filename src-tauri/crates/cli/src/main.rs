//! caisson.
fn main() {}
