//! The `wharf` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(wharf::cli::main())
}
