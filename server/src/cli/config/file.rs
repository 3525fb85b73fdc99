//! The configuration file: TOML, of which every key is the name of a flag.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{Arg, Command};
use thiserror::Error;
use toml::{Spanned, Value};

use super::{Shape, key_of};

/// Why a configuration file cannot be used.
#[derive(Debug, Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// It is not TOML.
    #[error("{path}: {reason}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What the parser says, with line and column.
        reason: String,
    },
    /// There is no such setting.
    #[error("{path}, line {line}: unknown key '{key}'{hint}")]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The line, counted from one.
        line: usize,
        /// The key.
        key: String,
        /// What may have been meant.
        hint: String,
    },
    /// A setting of another type.
    #[error("{path}, line {line}: '{key}' has to be {expected}, not {found}")]
    Type {
        /// The file.
        path: PathBuf,
        /// The line, counted from one.
        line: usize,
        /// The key.
        key: String,
        /// What it has to be.
        expected: String,
        /// What it is.
        found: &'static str,
    },
    /// A value that the flag would not take either.
    #[error("{path}, line {line}: {reason}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The line, counted from one.
        line: usize,
        /// What clap says of the flag.
        reason: String,
    },
}

/// One line of the file.
#[derive(Debug)]
pub(super) struct Setting<'c> {
    pub arg: &'c Arg,
    pub key: &'c str,
    pub line: usize,
    value: Given,
}

/// What a setting says.
#[derive(Debug)]
pub(super) enum Given {
    Flag(bool),
    Values(Vec<String>),
}

impl<'c> Setting<'c> {
    /// `key`, which is the name of `arg`, as a file says it on this line; 0: it is from elsewhere.
    pub fn new(arg: &'c Arg, key: &'c str, line: usize, value: Given) -> Self {
        Setting {
            arg,
            key,
            line,
            value,
        }
    }

    /// Whether the file says what holds anyway.
    pub fn is_default(&self) -> bool {
        match &self.value {
            Given::Flag(on) => !on,
            Given::Values(values) => self.arg.get_default_values().iter().eq(values),
        }
    }

    /// The flags that say the same.
    pub fn flags(&self) -> Vec<String> {
        let key = self.key;
        match &self.value {
            Given::Flag(true) => vec![format!("--{key}")],
            Given::Flag(false) => Vec::new(),
            Given::Values(values) => values
                .iter()
                .map(|value| format!("--{key}={value}"))
                .collect(),
        }
    }
}

/// The settings in the file at `path`, in the order of its lines.
pub(super) fn read<'c>(path: &Path, command: &'c Command) -> Result<Vec<Setting<'c>>, FileError> {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&text, path, command),
        Err(source) => Err(FileError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

fn parse<'c>(text: &str, path: &Path, command: &'c Command) -> Result<Vec<Setting<'c>>, FileError> {
    let entries: BTreeMap<Spanned<String>, Spanned<Value>> =
        toml::from_str(text).map_err(|error| FileError::Syntax {
            path: path.to_owned(),
            reason: error.to_string().trim_end().to_owned(),
        })?;
    let mut entries: Vec<_> = entries.into_iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    let setting = |(key, value): (Spanned<String>, Spanned<Value>)| {
        let before = text.get(..key.span().start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        setting(key.get_ref(), value.into_inner(), line, path, command)
    };
    entries.into_iter().map(setting).collect()
}

fn setting<'c>(
    key: &str,
    value: Value,
    line: usize,
    path: &Path,
    command: &'c Command,
) -> Result<Setting<'c>, FileError> {
    let mut args = command.get_arguments();
    let found = args.find_map(|arg| Some((arg, key_of(arg).filter(|known| *known == key)?)));
    let Some((arg, key)) = found else {
        return Err(FileError::UnknownKey {
            path: path.to_owned(),
            line,
            key: key.to_owned(),
            hint: hint(key, command),
        });
    };
    let found = value.type_str();
    let Some(value) = given(Shape::of(arg), value) else {
        return Err(FileError::Type {
            path: path.to_owned(),
            line,
            key: key.to_owned(),
            expected: Shape::of(arg).to_string(),
            found,
        });
    };
    let setting = Setting::new(arg, key, line, value);
    match refusal(&setting, command) {
        None => Ok(setting),
        Some(reason) => Err(FileError::Value {
            path: path.to_owned(),
            line,
            reason,
        }),
    }
}

/// `value` as flags have it; `None` if it is of another type.
fn given(shape: Shape, value: Value) -> Option<Given> {
    let text = |value| match value {
        Value::String(text) => Some(text),
        _ => None,
    };
    Some(match (shape, value) {
        (Shape::Flag, Value::Boolean(on)) => Given::Flag(on),
        (Shape::Number, Value::Integer(number)) => Given::Values(vec![number.to_string()]),
        (Shape::Text, value) => Given::Values(vec![text(value)?]),
        (Shape::List, Value::Array(values)) => {
            Given::Values(values.into_iter().map(text).collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

/// What clap has against the value, without how it goes on about the command line.
pub(super) fn refusal(setting: &Setting<'_>, command: &Command) -> Option<String> {
    let mut argv = vec![command.get_name().to_owned()];
    argv.extend(setting.flags());
    let error = command.clone().try_get_matches_from(argv).err()?;
    // Whether it gets along with the others is seen when they are all there.
    matches!(
        error.kind(),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation | ErrorKind::TooManyValues
    )
    .then(|| {
        let text = error.to_string();
        let text = text.split("\n\n").next().unwrap_or_default();
        text.trim_start_matches("error: ").to_owned()
    })
}

/// `: did you mean 'x'?`, if there is something like it.
fn hint(key: &str, command: &Command) -> String {
    match similar(key, command) {
        Some(known) => format!(": did you mean '{known}'?"),
        None => ": `barewire serve --print-config` prints all keys".to_owned(),
    }
}

/// The key that is most like `key`, if one is.
pub(super) fn similar<'c>(key: &str, command: &'c Command) -> Option<&'c str> {
    /// Jaro-Winkler similarity; less is another word.
    const SIMILAR: f64 = 0.8;

    let written = key.replace('_', "-").to_lowercase();
    let keys = command.get_arguments().filter_map(key_of);
    let similar = keys.map(|known| (strsim::jaro_winkler(&written, known), known));
    let best = similar.max_by(|one, other| one.0.total_cmp(&other.0));
    best.filter(|(similarity, _)| *similarity >= SIMILAR)
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cli::serve::ServeArgs;

    fn command() -> Command {
        use clap::Args as _;
        ServeArgs::augment_args(Command::new("serve"))
    }

    fn flags(text: &str) -> Result<Vec<String>, String> {
        let command = command();
        let settings = parse(text, Path::new("a.toml"), &command);
        let settings = settings.map_err(|error| error.to_string())?;
        Ok(settings.iter().flat_map(Setting::flags).collect())
    }

    #[test]
    fn every_shape_becomes_flags() {
        let text = "port = 0x50\naddress = ['10.0.0.1', \"::1\"]\n\ntest-routes = true\nallow-reset = false\n\
                    interface = 'eth1' # the fast one\n";
        let expected = [
            "--port=80",
            "--address=10.0.0.1",
            "--address=::1",
            "--test-routes",
            "--interface=eth1",
        ];
        assert_eq!(flags(text).unwrap(), expected);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, parts) in [
            (
                "\nprot = 80",
                &["a.toml, line 2", "'prot'", "did you mean 'port'?"][..],
            ),
            ("rx_ring_frames = 80", &["line 1", "'rx-ring-frames'?"]),
            ("favourite-colour = 1", &["unknown key", "--print-config"]),
            ("config = 'b.toml'", &["unknown key"]),
            (
                "port = '80'",
                &["line 1", "'port' has to be a whole number, not string"],
            ),
            (
                "port = 70000",
                &["line 1", "'70000'", "--port", "1..=65535"],
            ),
            ("#\n#\nmode = 'fast'", &["line 3", "'fast'", "native"]),
            ("mode = 1", &["'mode' has to be a string, not integer"]),
            ("test-routes = 1", &["true or false"]),
            ("address = '10.0.0.1'", &["a list of strings"]),
            ("address = [1]", &["a list of strings"]),
            ("[port]\nport = 1", &["line 1", "not table"]),
            ("port = ", &["a.toml", "line 1", "column"]),
            ("port = 1\nport = 2", &["a.toml", "duplicate key"]),
        ] {
            let message = flags(text).unwrap_err();
            for part in parts {
                assert!(message.contains(part), "{text:?}: no {part:?} in {message}");
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "([a-z-]{1,12} ?= ?[\"'\\[{a-z0-9.é-]{0,9}\n){0,4}") {
            let _ = flags(&text);
        }
    }
}
