//! The `tern` program: everything it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    ternmq::cli::main(std::env::args_os())
}
