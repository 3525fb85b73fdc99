//! One configuration from three places: flags win over the environment, which wins over a file.
//!
//! ```text
//!   clap's Command ──▶ keys, types, defaults           the only list of settings there is
//!        │
//!   argv ──▶ given ──────────────┐
//!   BAREWIRE_* ──▶ settings ─────┼─▶ argv with what they add ──▶ clap ──▶ ServeArgs
//!   --config FILE ──▶ settings ──┘
//! ```
//!
//! A key of the file is the name of a flag, a variable is `BAREWIRE_` and the name in capitals. Each
//! setting of file and environment that is not overruled becomes a flag, so that it is parsed and checked as one;
//! a flag added to the arguments can be set in all three places at once.

mod environment;
mod file;
mod print;

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command};
use thiserror::Error;

use self::file::Setting;

pub use self::environment::EnvironmentError;
pub use self::file::FileError;
pub use self::print::print;

/// Where the configuration comes from.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Configuration")]
pub struct ConfigArgs {
    /// TOML file with the names of these options as keys; options and environment variables
    /// (BAREWIRE_PORT for --port, lists with commas) win over it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Print the configuration that results from all of them, as such a file, and do nothing else
    #[arg(long)]
    pub print_config: bool,
}

/// Where each setting comes from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    known: BTreeMap<String, Source>,
    /// Variables that had no effect.
    warnings: Vec<String>,
}

/// Why the environment or the configuration file cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// It is in the file.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is in the environment.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
}

/// Where the value of one setting comes from, if it is not the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A flag.
    CommandLine,
    /// This variable.
    Environment(String),
    /// This line of the file.
    File(PathBuf, usize),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::CommandLine => f.write_str("the command line"),
            Source::Environment(variable) => f.write_str(variable),
            Source::File(path, line) => write!(f, "{}, line {line}", path.display()),
        }
    }
}

impl Sources {
    /// Where the value of the setting `key` comes from; `None` if it is the default.
    pub fn of(&self, key: &str) -> Option<&Source> {
        self.known.get(key)
    }

    /// Whether a flag or a variable set `key`, for this server alone.
    pub fn is_given(&self, key: &str) -> bool {
        matches!(
            self.of(key),
            Some(Source::CommandLine | Source::Environment(_))
        )
    }

    /// Variables that had no effect.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Where the options that `message` names come from, a line each, if not from the command line.
    pub fn origins(&self, message: &str) -> String {
        let is_end = |character: char| character != '-' && !character.is_ascii_alphanumeric();
        let named = message.match_indices("--").filter_map(|(at, dashes)| {
            let rest = &message[at + dashes.len()..];
            rest.split(is_end).next()
        });
        let mut origins: Vec<_> = named
            .filter_map(|key| match self.of(key)? {
                Source::CommandLine => None,
                source => Some(format!("\n  --{key} is set by {source}")),
            })
            .collect();
        origins.sort();
        origins.dedup();
        origins.concat()
    }
}

/// Lets lists be given with commas as well.
pub fn with_lists(command: Command) -> Command {
    command.mut_args(|arg| match (key_of(&arg), arg.get_action()) {
        (Some(_), ArgAction::Append) => arg.value_delimiter(','),
        _ => arg,
    })
}

/// Adds to `argv`, in which the subcommand `command` was found and parsed as `given`, what the environment
/// and its configuration file say and nothing overrules. Returns where each setting comes from.
///
/// # Errors
///
/// If the file cannot be read, or anything in it or in the environment is wrong.
pub fn merge(
    command: &Command,
    given: &ArgMatches,
    argv: &mut Vec<OsString>,
) -> Result<Sources, ConfigError> {
    let mut sources = Sources::default();
    for arg in command.get_arguments() {
        let Some(key) = key_of(arg) else { continue };
        if given.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine) {
            sources.known.insert(key.to_owned(), Source::CommandLine);
        }
    }
    let environment = environment::read(command, env::vars_os())?;
    sources.warnings = environment.warnings;
    let source = |setting: &Setting<'_>| Source::Environment(variable(setting.key));
    add(command, environment.settings, source, &mut sources, argv);
    if let Some(path) = given.get_one::<PathBuf>("config") {
        let mut settings = file::read(path, command)?;
        // A file may be for several stacks, and names what holds anyway.
        settings.retain(|setting| !setting.is_default());
        let source = |setting: &Setting<'_>| Source::File(path.to_owned(), setting.line);
        add(command, settings, source, &mut sources, argv);
    }
    Ok(sources)
}

/// Puts `settings` right behind the subcommand, unless something that was given wins over them.
fn add(
    command: &Command,
    settings: Vec<Setting<'_>>,
    source: impl Fn(&Setting<'_>) -> Source,
    sources: &mut Sources,
    argv: &mut Vec<OsString>,
) {
    let given: Vec<&Arg> = command
        .get_arguments()
        .filter(|arg| key_of(arg).is_some_and(|key| sources.of(key).is_some()))
        .collect();
    let mut at = 2.min(argv.len());
    for setting in settings {
        let is_overruled = |winner: &&&Arg| {
            let excludes = |one: &Arg, other: &Arg| {
                command
                    .get_arg_conflicts_with(one)
                    .iter()
                    .any(|arg| arg.get_id() == other.get_id())
            };
            winner.get_id() == setting.arg.get_id()
                || excludes(winner, setting.arg)
                || excludes(setting.arg, winner)
        };
        if given.iter().any(|arg| is_overruled(&arg)) {
            continue;
        }
        for flag in setting.flags() {
            argv.insert(at, flag.into());
            at += 1;
        }
        let source = source(&setting);
        sources.known.insert(setting.key.to_owned(), source);
    }
}

/// What is meant for one run alone, or exists only in builds for tests.
const NO_SETTINGS: &[&str] = &[
    "config",
    "print-config",
    "json",
    "test-faults",
    "help",
    "version",
];

/// The name under which `arg` can be set in a file; `None` for what is no setting.
fn key_of(arg: &Arg) -> Option<&str> {
    let long = arg.get_long()?;
    let is_setting = !NO_SETTINGS.contains(&long);
    is_setting.then_some(long)
}

/// The environment variable of the setting `key`.
fn variable(key: &str) -> String {
    format!("BAREWIRE_{}", key.replace('-', "_").to_uppercase())
}

/// What a file has for a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Flag,
    Number,
    Text,
    List,
}

impl Shape {
    fn of(arg: &Arg) -> Shape {
        use std::any::TypeId;
        let numbers = [
            TypeId::of::<u16>(),
            TypeId::of::<u32>(),
            TypeId::of::<u64>(),
            TypeId::of::<usize>(),
            TypeId::of::<i32>(),
        ];
        let value = arg.get_value_parser().type_id();
        match arg.get_action() {
            ArgAction::SetTrue => Shape::Flag,
            ArgAction::Append => Shape::List,
            _ if numbers.iter().any(|number| value == *number) => Shape::Number,
            _ => Shape::Text,
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Shape::Flag => "true or false",
            Shape::Number => "a whole number",
            Shape::Text => "a string",
            Shape::List => "a list of strings",
        })
    }
}
