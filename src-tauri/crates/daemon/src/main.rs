//! caisson-host.
fn main() {}
