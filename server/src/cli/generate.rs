//! `barewire generate`: the manual and the completions, made from the command line itself, for packages.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Command, Subcommand};
use clap_complete::Shell;

#[derive(Debug, Args)]
pub(super) struct GenerateArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Write man pages into a directory, one for each subcommand
    Man { directory: PathBuf },
    /// Print the completions of a shell
    Completions { shell: Shell },
}

pub(super) fn run(args: &GenerateArgs, mut command: Command) -> anyhow::Result<ExitCode> {
    match &args.what {
        What::Man { directory } => clap_mangen::generate_to(command, directory)
            .with_context(|| format!("cannot write man pages into {}", directory.display()))?,
        What::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut command, "barewire", &mut script);
            io::stdout()
                .write_all(&script)
                .context("cannot write to stdout")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
