//! `barewire load`: options in, a run, its results out.

mod args;
mod export;
mod print;
#[cfg(test)]
mod tests;

use std::io::{ErrorKind, Write, stdout};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use signal_hook::consts::{SIGINT, SIGTERM};

pub use args::Args;

use crate::console::complain;
use barewire_load::{self as load, Control, Plan, Report};
use print::Printed;

/// Runs the load, prints the report, and says whether all was well.
///
/// # Errors
///
/// If it could not run, see [`load::measure`], or if its results could not be written.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (as_json, latency) = (args.json, args.latency);
    let (hdr, csv) = (args.hdr.clone(), args.csv.clone());
    let report = measure(args)?;
    for warning in &report.warnings {
        complain(&warning.to_string());
    }
    if let Some(path) = &hdr {
        export::write(path, |out| export::percentiles(&report.latency_ns, out))?;
    }
    if let Some(path) = &csv {
        export::write(path, |out| export::seconds(&report.window.seconds, out))?;
    }
    let text = match as_json {
        true => serde_json::to_string_pretty(&report)? + "\n",
        false => Printed {
            report: &report,
            latency,
        }
        .to_string(),
    };
    let mut out = stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // A reader that has seen enough is no error.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        written => written.context("cannot write the report to stdout")?,
    }
    match report.complaint() {
        None => Ok(ExitCode::SUCCESS),
        Some(complaint) => {
            complain(&format!("load: {complaint}"));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Runs the load. Whatever the server does wrong is in the report.
///
/// # Errors
///
/// If it could not run: contradictory options, or see [`load::measure`].
pub fn measure(args: Args) -> anyhow::Result<Report> {
    let plan = args.plan().map_err(wrong_use)?;
    let progress = progress_bar(&plan);
    let control = Control {
        stop: stop_on_signals()?,
        progress: &|answered| progress.set_position(answered),
    };
    let report = load::measure(plan, &control);
    progress.finish_and_clear();
    Ok(report?)
}

/// An error of the command line, not of the machine.
fn wrong_use(error: anyhow::Error) -> clap::Error {
    clap::Error::raw(
        clap::error::ErrorKind::ValueValidation,
        format!("{error:#}\n"),
    )
}

/// A flag that the first SIGINT or SIGTERM sets; the second one ends the process.
fn stop_on_signals() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        let registered = signal_hook::flag::register_conditional_default(signal, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)));
        registered.context("cannot handle signals")?;
    }
    Ok(stop)
}

/// The progress on standard error, if that is a terminal.
fn progress_bar(plan: &Plan) -> ProgressBar {
    let (progress, template) = match (plan.requests, plan.window.length) {
        (Some(requests), _) => (
            ProgressBar::new(requests),
            "{elapsed_precise} {wide_bar} {human_pos}/{human_len}  {per_sec}  ETA {eta}",
        ),
        (None, _) => (
            ProgressBar::new_spinner(),
            "{elapsed_precise} {spinner} {human_pos} responses  {per_sec}",
        ),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => progress.with_style(style),
        Err(_) => progress,
    }
}
