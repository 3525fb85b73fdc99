//! Environment variables as settings.
//!
//! They are read here and not by clap: an empty variable is an unset one, a message about a value names the
//! variable, and what Kubernetes sets for a Service that happens to be called `barewire` is not meant for us.

use std::ffi::OsString;

use clap::{Arg, Command};
use thiserror::Error;

use super::file::{Given, Setting, refusal, similar};
use super::{NO_SETTINGS, Shape, key_of, variable};

/// What the names of all variables begin with.
const PREFIX: &str = "BAREWIRE_";

/// How variables of scripts and tests begin, which are not for the server.
const OTHERS: &[&str] = &[
    "BAREWIRE_FLOOD_",
    "BAREWIRE_SOAK_",
    "BAREWIRE_STATE_DIR",
    "BAREWIRE_TEST_FILTER",
    "BAREWIRE_TEST_FLEET_EVENTS",
    "BAREWIRE_TEST_LAB",
    "BAREWIRE_TEST_SEED",
];

/// Why a variable cannot be used.
#[derive(Debug, Error)]
pub enum EnvironmentError {
    /// It is not text.
    #[error("{variable} is not valid UTF-8")]
    Utf8 {
        /// Its name.
        variable: String,
    },
    /// It says neither yes nor no.
    #[error("{variable} has to be true or false, not '{value}'")]
    Flag {
        /// Its name.
        variable: String,
        /// What it says.
        value: String,
    },
    /// A value that the flag would not take either.
    #[error("{variable}: {reason}")]
    Value {
        /// Its name.
        variable: String,
        /// What clap says of the flag.
        reason: String,
    },
}

/// What the environment says.
#[derive(Debug, Default)]
pub(super) struct Environment<'c> {
    pub settings: Vec<Setting<'c>>,
    /// Variables that had no effect.
    pub warnings: Vec<String>,
}

/// Reads the settings of `command` from `variables`.
///
/// # Errors
///
/// If a value cannot be used.
pub(super) fn read<'c>(
    command: &'c Command,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Environment<'c>, EnvironmentError> {
    let mut environment = Environment::default();
    for (name, value) in variables {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else {
            continue;
        };
        if value.is_empty() || OTHERS.iter().any(|other| name.starts_with(other)) {
            continue;
        }
        let Some(value) = value.to_str() else {
            return Err(EnvironmentError::Utf8 {
                variable: name.to_owned(),
            });
        };
        match find(command, name) {
            Some(_) if is_service_url(value) => environment.warnings.push(format!(
                "{name} is ignored: {value} is what Kubernetes sets for a Service of that name; \
                 `enableServiceLinks: false` in the Pod leaves it out"
            )),
            Some((arg, key)) => environment
                .settings
                .push(setting(arg, key, name, value, command)?),
            None if is_of_service(name) || is_service_url(value) => {}
            None => environment.warnings.push(unknown(name, command)),
        }
    }
    Ok(environment)
}

/// The argument that `name` sets, and its key.
fn find<'c>(command: &'c Command, name: &str) -> Option<(&'c Arg, &'c str)> {
    let mut settings = command
        .get_arguments()
        .filter_map(|arg| Some((arg, key_of(arg)?)));
    settings.find(|(_, key)| variable(key) == name)
}

fn setting<'c>(
    arg: &'c Arg,
    key: &'c str,
    name: &str,
    value: &str,
    command: &Command,
) -> Result<Setting<'c>, EnvironmentError> {
    let given = match Shape::of(arg) {
        Shape::Flag => Given::Flag(flag(name, value)?),
        Shape::List => Given::Values(value.split(',').map(str::to_owned).collect()),
        Shape::Number | Shape::Text => Given::Values(vec![value.to_owned()]),
    };
    let setting = Setting::new(arg, key, 0, given);
    match refusal(&setting, command) {
        None => Ok(setting),
        Some(reason) => Err(EnvironmentError::Value {
            variable: name.to_owned(),
            reason,
        }),
    }
}

/// The same words as clap takes.
fn flag(name: &str, value: &str) -> Result<bool, EnvironmentError> {
    match value.to_ascii_lowercase().as_str() {
        "y" | "yes" | "t" | "true" | "on" | "1" => Ok(true),
        "n" | "no" | "f" | "false" | "off" | "0" => Ok(false),
        _ => Err(EnvironmentError::Flag {
            variable: name.to_owned(),
            value: value.to_owned(),
        }),
    }
}

/// Whether `value` is one that Kubernetes gives to `NAME_PORT` and `NAME_PORT_80_TCP`.
fn is_service_url(value: &str) -> bool {
    let protocols = ["tcp://", "udp://", "sctp://"];
    protocols.iter().any(|protocol| value.starts_with(protocol))
}

/// Whether `name` is one of those that Kubernetes sets for each Service: `NAME_SERVICE_HOST`,
/// `NAME_SERVICE_PORT`, `NAME_SERVICE_PORT_HTTP`, `NAME_PORT_80_TCP_ADDR`, ...
fn is_of_service(name: &str) -> bool {
    let of_port = |name: &str| {
        name.split_once("_PORT_").is_some_and(|(_, rest)| {
            let number = rest.split('_').next().unwrap_or_default();
            !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || of_port(name)
}

fn unknown(name: &str, command: &Command) -> String {
    let key = name[PREFIX.len()..].replace('_', "-").to_lowercase();
    if NO_SETTINGS.contains(&key.as_str()) {
        return format!("{name} is ignored: say --{key} on the command line");
    }
    let hint = similar(&key, command).map_or_else(String::new, |known| {
        format!("; did you mean {}?", variable(known))
    });
    format!("{name} is ignored: there is no such setting{hint}")
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;
    use crate::cli::serve::ServeArgs;

    fn command() -> Command {
        use clap::Args as _;
        ServeArgs::augment_args(Command::new("serve"))
    }

    fn read_all(variables: &[(&str, &str)]) -> Result<(Vec<String>, Vec<String>), String> {
        let command = command();
        let variables = variables.iter();
        let variables = variables.map(|(name, value)| (name.into(), value.into()));
        let environment = read(&command, variables).map_err(|error| error.to_string())?;
        let flags = environment.settings.iter().flat_map(Setting::flags);
        Ok((flags.collect(), environment.warnings))
    }

    #[test]
    fn every_shape_becomes_flags_and_what_is_empty_is_unset() {
        let (flags, warnings) = read_all(&[
            ("BAREWIRE_PORT", "80"),
            ("BAREWIRE_ADDRESS", "10.0.0.1,::1"),
            ("BAREWIRE_TEST_ROUTES", "yes"),
            ("BAREWIRE_ALLOW_RESET", "0"),
            ("BAREWIRE_INTERFACE", ""),
            ("BAREWIRE_PROT", ""),
            ("PATH", "/bin"),
        ])
        .unwrap();
        let expected = [
            "--port=80",
            "--address=10.0.0.1",
            "--address=::1",
            "--test-routes",
        ];
        assert_eq!(flags, expected);
        assert_eq!(warnings, [""; 0]);
    }

    #[test]
    fn what_cannot_be_used_is_named_by_its_variable() {
        for (name, value, expected) in [
            (
                "BAREWIRE_PORT",
                "http",
                "BAREWIRE_PORT: invalid value 'http'",
            ),
            ("BAREWIRE_PORT", "tcp:8080", "BAREWIRE_PORT: "),
            (
                "BAREWIRE_MODE",
                "fast",
                "BAREWIRE_MODE: invalid value 'fast'",
            ),
            (
                "BAREWIRE_ALLOW_RESET",
                "maybe",
                "BAREWIRE_ALLOW_RESET has to be true or false",
            ),
            (
                "BAREWIRE_ADDRESS",
                "1.2.3.4,x",
                "BAREWIRE_ADDRESS: invalid value 'x'",
            ),
        ] {
            let message = read_all(&[(name, value)]).unwrap_err();
            assert!(message.starts_with(expected), "{message}");
        }
        let latin = OsString::from_vec(vec![0xe9]);
        let error = read(&command(), [("BAREWIRE_STATE".into(), latin)]).unwrap_err();
        assert_eq!(error.to_string(), "BAREWIRE_STATE is not valid UTF-8");
    }

    #[test]
    fn what_kubernetes_sets_for_its_services_means_nothing() {
        let (flags, warnings) = read_all(&[
            ("BAREWIRE_PORT", "tcp://10.96.0.1:8080"),
            ("BAREWIRE_SERVICE_HOST", "10.96.0.1"),
            ("BAREWIRE_SERVICE_PORT", "8080"),
            ("BAREWIRE_SERVICE_PORT_HTTP", "8080"),
            ("BAREWIRE_PORT_8080_TCP", "tcp://10.96.0.1:8080"),
            ("BAREWIRE_PORT_8080_TCP_PROTO", "tcp"),
            ("BAREWIRE_PORT_8080_TCP_PORT", "8080"),
            ("BAREWIRE_PORT_8080_TCP_ADDR", "10.96.0.1"),
            ("BAREWIRE_ADMIN_PORT", "tcp://10.96.0.2:9100"),
            ("BAREWIRE_ADMIN_SERVICE_HOST", "10.96.0.2"),
            ("BAREWIRE_ADMIN_SERVICE_PORT", "9100"),
        ])
        .unwrap();
        assert_eq!(flags, [""; 0]);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(
            warnings[0].starts_with("BAREWIRE_PORT is ignored"),
            "{warnings:?}"
        );
    }

    #[test]
    fn what_is_no_setting_is_said_with_what_may_have_been_meant() {
        for (name, expected) in [
            ("BAREWIRE_PROT", "did you mean BAREWIRE_PORT?"),
            (
                "BAREWIRE_IDLE_TIMEOUT",
                "did you mean BAREWIRE_IDLE_TIMEOUT_MS?",
            ),
            ("BAREWIRE_FAVOURITE_COLOUR", "there is no such setting"),
            ("BAREWIRE_CONFIG", "say --config"),
        ] {
            let (_, warnings) = read_all(&[(name, "1")]).unwrap();
            assert!(warnings[0].contains(expected), "{warnings:?}");
        }
    }
}
