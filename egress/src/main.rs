//! The `egress` binary. Everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    egress::cli::main()
}
