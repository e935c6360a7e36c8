//! What `cargo run` does.
fn main() {}
