//! The command line: arguments in, exit code out.
//!
//! ```text
//!   config: arguments, environment, file
//!      └──▶ serve::args ──▶ a stack's own config ──▶ Stack::start ──▶ serve::supervise
//!                     │ usage: 2                              │ 1              │ 0
//!                     └───────────────────── exit code ───────┴────────────────┘
//! ```
//!
//! Whatever goes wrong ends with one message on stderr that names the cause and the cure, and with
//! exit code 2 if the command line was wrong, 1 if anything else failed.

mod certificate;
#[cfg(feature = "xdp")]
mod check;
mod config;
mod generate;
pub(crate) mod list;
pub mod load;
mod logging;
mod mode;
mod operate;
mod proxy;
mod serve;
mod version;

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use self::config::Sources;
use crate::console::{self, Console, complain};

/// One HTTP server, two network stacks: AF_XDP past the kernel, or the kernel's own
#[derive(Debug, Parser)]
#[command(name = "barewire", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    subcommand: Subcommands,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Serve HTTP and HTTPS until SIGTERM, SIGINT, SIGQUIT or SIGHUP; a second one stops at once
    Serve(Box<serve::ServeArgs>),
    /// Forward HTTP and HTTPS to pools of HTTP/1.1 servers, as a reverse proxy and load balancer
    Proxy(Box<proxy::ProxyArgs>),
    /// Say whether `serve` would start with the same arguments, and what would slow it down; changes nothing
    #[cfg(feature = "xdp")]
    Check(Box<check::CheckArgs>),
    /// Put load on an HTTP server and check its answers: the 1-million-request challenge, or any path
    Load(Box<load::Args>),
    /// Say how a running server is: connections, rates, pools, drops
    Status(operate::StatusArgs),
    /// Show how a running server is, again and again
    Top(operate::TopArgs),
    /// Write what a running server on AF_XDP receives and sends, for tcpdump and Wireshark
    Capture(operate::CaptureArgs),
    /// Remove responses from the cache of a running proxy
    Purge(operate::PurgeArgs),
    /// Let a running server drain and end; a second time, end at once
    Stop(operate::StopArgs),
    /// Make a certificate for a first try of HTTPS
    Certificate(certificate::CertificateArgs),
    /// Make the manual and the completions, for packages
    #[command(hide = true)]
    Generate(generate::GenerateArgs),
}

/// Runs the `barewire` command with the arguments of this process.
pub fn run() -> ExitCode {
    let mut sources = Sources::default();
    let outcome = run_subcommand(&mut sources);
    let code = outcome.unwrap_or_else(|error| match error.downcast::<clap::Error>() {
        Ok(usage) => refuse(&usage, &sources),
        Err(error) => {
            let message = describe(&error);
            let origins = sources.origins(&message);
            complain(&format!("error: {message}{origins}"));
            ExitCode::FAILURE
        }
    });
    console::finish();
    code
}

/// Says what is wrong with the command line, or with what stands for it, and where that is; or helps.
fn refuse(usage: &clap::Error, sources: &Sources) -> ExitCode {
    let text = usage.render().to_string();
    let (message, help) = text.split_once("\n\n").unwrap_or((&text, ""));
    let origins = sources.origins(message);
    if origins.is_empty() && Console::of_process().is_none() {
        usage.exit();
    }
    complain(format!("{}{origins}\n\n{help}", message.trim_end()).trim_end());
    ExitCode::from(usage.exit_code() as u8)
}

fn run_subcommand(sources: &mut Sources) -> anyhow::Result<ExitCode> {
    let mut command = command();
    let mut argv: Vec<OsString> = env::args_os().collect();
    let mut matches = command.try_get_matches_from_mut(&argv)?;
    if let Some((name, given)) = matches.subcommand()
        && let Some(configured) = command.find_subcommand(name)
        && CONFIGURED.contains(&name)
    {
        let typed = argv.len();
        *sources = config::merge(configured, given, &mut argv)
            .map_err(|error| configured.clone().error(ErrorKind::InvalidValue, error))?;
        if argv.len() > typed {
            matches = command.try_get_matches_from_mut(argv)?;
        }
    }
    let cli = Cli::from_arg_matches(&matches)?;
    let (Some((name, matches)), subcommand) = (matches.subcommand(), cli.subcommand) else {
        unreachable!("clap demands a subcommand");
    };
    let command = command.find_subcommand_mut(name).expect("it was matched");
    match subcommand {
        Subcommands::Serve(args) => serve::run(&args, None, matches, sources, command),
        Subcommands::Proxy(args) => proxy::run(&args, matches, sources, command),
        #[cfg(feature = "xdp")]
        Subcommands::Check(args) => check::run(&args, matches, sources, command),
        Subcommands::Load(args) => load::run(*args),
        Subcommands::Status(args) => operate::status(&args),
        Subcommands::Top(args) => operate::top(&args),
        Subcommands::Capture(args) => operate::capture(&args),
        Subcommands::Purge(args) => operate::purge(&args),
        Subcommands::Stop(args) => operate::stop(&args),
        Subcommands::Certificate(args) => certificate::run(&args),
        Subcommands::Generate(args) => generate::run(&args, self::command()),
    }
}

/// The subcommands whose options can be given by the environment and by a file as well.
const CONFIGURED: &[&str] = &[
    "serve",
    "proxy",
    #[cfg(feature = "xdp")]
    "check",
];

fn command() -> clap::Command {
    let command = Cli::command().long_version(version::describe());
    CONFIGURED.iter().fold(command, |command, name| {
        command.mut_subcommand(name, config::with_lists)
    })
}

/// The error with its causes, as far as it does not mention them itself.
fn describe(error: &anyhow::Error) -> String {
    error
        .chain()
        .map(ToString::to_string)
        .fold(String::new(), |text, cause| {
            if text.is_empty() {
                cause
            } else if text.contains(&cause) {
                text
            } else {
                format!("{text}: {cause}")
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn a_cause_is_named_once() {
        let error = anyhow::anyhow!("no such file")
            .context("a.conf: no such file")
            .context("cannot start");
        assert_eq!(describe(&error), "cannot start: a.conf: no such file");
    }
}
