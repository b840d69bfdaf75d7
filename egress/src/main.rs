//! The `egress` binary. Everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    // A box is made of processes of this binary, which are called by other names.
    #[cfg(target_os = "linux")]
    {
        let name = std::env::args().next().unwrap_or_default();
        if let Some(code) = egress::launch::place::local::inside::main(&name) {
            return code;
        }
    }
    egress::cli::main()
}
