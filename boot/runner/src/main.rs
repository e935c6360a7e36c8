//! What `cargo run` does; all of it is in the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(boot_runner::cli::main(std::env::args_os().skip(1)))
}
