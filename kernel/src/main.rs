//! The reference kernel's binary.
fn main() {}
