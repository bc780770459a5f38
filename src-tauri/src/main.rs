//! caisson-desktop.
fn main() {}
