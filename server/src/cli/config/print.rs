//! The effective configuration as a file.

use std::fmt::Write as _;

use clap::{Arg, ArgMatches, Command};

use super::{Shape, Sources, key_of};

const HEADER: &str = "\
# Configuration of `barewire serve`: every setting, with its default. A setting that is commented out has none,
# or one that follows from others. Flags win over environment variables (BAREWIRE_PORT=80, lists with commas),
# which win over this file. `barewire serve --print-config` prints what results from all of them.
";

/// Every setting of `command` with its value in `matches`, and where it comes from unless it is the
/// default. What is printed, read again, leads to the same configuration.
pub fn print(command: &Command, matches: &ArgMatches, sources: &Sources) -> String {
    let mut text = HEADER.to_owned();
    let mut heading = None;
    for arg in command.get_arguments() {
        let Some(key) = key_of(arg) else { continue };
        if arg.get_help_heading() != heading {
            heading = arg.get_help_heading();
            let title = heading.unwrap_or("Other");
            let _ = write!(text, "\n\n# ==== {title} ====\n");
        }
        let _ = write!(text, "\n{}", about(arg));
        let _ = match (value(arg, matches), sources.of(key)) {
            (Some(value), None) => writeln!(text, "{key} = {value}"),
            (Some(value), Some(source)) => writeln!(text, "{key} = {value} # from {source}"),
            (None, _) => writeln!(text, "# {key} = {}", placeholder(arg)),
        };
    }
    text
}

/// The help of `arg` as a comment.
fn about(arg: &Arg) -> String {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let mut about: String = help.lines().map(|line| format!("# {line}\n")).collect();
    let choices: Vec<_> = arg
        .get_possible_values()
        .iter()
        .filter(|_| Shape::of(arg) == Shape::Text)
        .map(|choice| choice.get_name().to_owned())
        .collect();
    if !choices.is_empty() {
        let _ = writeln!(about, "# One of: {}", choices.join(", "));
    }
    about
}

/// The value in TOML; `None` if there is none.
fn value(arg: &Arg, matches: &ArgMatches) -> Option<String> {
    let id = arg.get_id().as_str();
    let values = || {
        let raw = matches.get_raw(id)?;
        Some(raw.map(|value| value.to_string_lossy().into_owned()))
    };
    match Shape::of(arg) {
        Shape::Flag => Some(matches.get_flag(id).to_string()),
        Shape::List => Some(quoted_list(values()?)),
        Shape::Text => values()?.next().map(quoted),
        // clap takes +80 and 080, TOML does not.
        Shape::Number => Some(values()?.next()?.parse::<i128>().ok()?.to_string()),
    }
}

/// What a value looks like, for a setting that has none.
fn placeholder(arg: &Arg) -> String {
    let names = arg.get_value_names().unwrap_or_default();
    let name = names.first().map_or("...", |name| name.as_str()).to_owned();
    match Shape::of(arg) {
        Shape::List => quoted_list([name].into_iter()),
        Shape::Text => quoted(name),
        Shape::Number | Shape::Flag => name,
    }
}

fn quoted(text: String) -> String {
    toml::Value::String(text).to_string()
}

fn quoted_list(values: impl Iterator<Item = String>) -> String {
    format!("[{}]", values.map(quoted).collect::<Vec<_>>().join(", "))
}
