//! Programs that a report runs.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// The checkout that this binary was built from.
pub fn repository() -> PathBuf {
    let benches = Path::new(env!("CARGO_MANIFEST_DIR"));
    benches.parent().unwrap_or(benches).to_path_buf()
}

/// `0,1,2`.
pub fn join(cores: &[usize]) -> String {
    let cores: Vec<String> = cores.iter().map(usize::to_string).collect();
    cores.join(",")
}

/// Runs a command to its end; its standard error is the message if it fails.
pub fn run(command: Command) -> Result<()> {
    output(command).map(drop)
}

/// Runs a command to its end and returns what it printed.
pub fn output(mut command: Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null());
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .output()
        .with_context(|| format!("`{name}` cannot be run: is it installed?"))?;
    if !status.success() {
        bail!(
            "`{name}` ended with {status}: {}",
            String::from_utf8_lossy(&stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// A command of these words.
pub fn command(words: &[String]) -> Command {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}

/// The `barewire` that was built beside this binary.
pub fn barewire() -> PathBuf {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|report| Some(report.parent()?.join("barewire")));
    match beside {
        Some(path) if path.exists() => path,
        _ => PathBuf::from("barewire"),
    }
}
