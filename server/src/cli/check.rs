//! `barewire check`: what `serve` would meet, without serving.

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{ArgMatches, Args, Command};

use super::config::{self, Sources};
use super::serve::{self, ServeArgs, StackName};
use crate::check;
use crate::console;

/// Arguments of `barewire check`.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// One JSON object instead of lines
    #[arg(long)]
    pub json: bool,

    /// Do not attach the XDP program for a moment, which costs some NICs their link for as long: say what is to be expected
    #[arg(long)]
    pub no_attach: bool,

    #[command(flatten)]
    pub serve: ServeArgs,
}

/// Exit code 0 if `serve` with the same arguments would start, 1 if not.
///
/// # Errors
///
/// If the command line is wrong.
pub fn run(
    args: &CheckArgs,
    matches: &ArgMatches,
    sources: &Sources,
    command: &mut Command,
) -> anyhow::Result<ExitCode> {
    args.serve.check(sources, command)?;
    if args.serve.config.print_config {
        console::print(config::print(command, matches, sources))?;
        return Ok(ExitCode::SUCCESS);
    }
    for warning in sources.warnings() {
        console::complain(&format!("warning: {warning}"));
    }
    let (StackName::Xdp, Some(interface)) = (args.serve.stack(), &args.serve.place.interface)
    else {
        let missing = "check is about the bypass: add --interface IFACE";
        return Err(command
            .error(ErrorKind::MissingRequiredArgument, missing)
            .into());
    };
    let config = serve::bypass(&args.serve, interface, command)?;
    let user = args.serve.privilege.user.as_deref();
    let certificates = serve::certificates(&args.serve);
    let report = check::run(&config, user, certificates, !args.no_attach);
    if args.json {
        let would_start = report.would_start();
        let document =
            serde_json::json!({ "would_start": would_start, "findings": report.findings });
        console::print(format_args!("{document:#}\n"))?;
    } else {
        console::print(report.to_string())?;
    }
    Ok(match report.would_start() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
