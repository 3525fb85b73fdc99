//! The `barewire` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    barewire::cli::run()
}
