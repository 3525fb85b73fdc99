//! Where the log goes, and what of it: through the queue of [`crate::console`], and no thread ever waits for it.

use std::io::{self, IsTerminal};
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, Command, ValueEnum};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::console::{Console, LogWriter};
use barewire_http::REQUEST_LOG;

/// How to log. Logs go to stderr; stdout is for what the command has to say.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Log")]
pub struct LogArgs {
    /// Format of the log lines on stderr, and of what is said on stdout
    #[arg(long, alias = "log", value_enum, value_name = "FORMAT", default_value_t = Format::Human)]
    pub log_format: Format,

    /// What to log, as in `info` or `warn,barewire=debug`
    #[arg(long, value_name = "FILTER", default_value = "info")]
    pub log_filter: String,

    /// How often to log what was dropped or refused meanwhile, if anything was; 0: never
    #[arg(long, value_name = "S", default_value_t = 10)]
    pub log_drops_s: u32,

    /// Log the route and the status of every response; what the log cannot take in time is lost, and counted
    #[arg(long)]
    pub log_requests: bool,
}

/// The format of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Text for people
    Human,
    /// One JSON object per line
    Json,
}

impl LogArgs {
    /// How often to log what was dropped, if ever.
    pub fn drops_interval(&self) -> Option<Duration> {
        (self.log_drops_s > 0).then(|| Duration::from_secs(self.log_drops_s.into()))
    }

    /// Makes this the log of the process.
    ///
    /// # Errors
    ///
    /// If the filter is malformed.
    pub fn install(&self, command: &mut Command) -> Result<(), clap::Error> {
        let responses = match self.log_requests {
            true => format!(",{REQUEST_LOG}=debug"),
            false => String::new(),
        };
        let directives = self.log_filter.clone() + &responses;
        let filter: Targets = directives.parse().map_err(|error| {
            let message = format!(
                "invalid value {:?} for --log-filter: {error}",
                self.log_filter
            );
            command.error(ErrorKind::InvalidValue, message)
        })?;
        let console = Console::install(self.log_format == Format::Json);
        let log = tracing_subscriber::fmt()
            .with_max_level(LevelFilter::TRACE)
            .with_writer(LogWriter::of(console))
            .log_internal_errors(false)
            .with_ansi(io::stderr().is_terminal());
        match self.log_format {
            Format::Human => log.with_target(false).finish().with(filter).init(),
            Format::Json => log.json().finish().with(filter).init(),
        }
        Ok(())
    }
}
