//! `barewire load`: the client side of the comparison.
//!
//! It asks any HTTP/1.1 server over the kernel's sockets, cheaply enough not to be what is measured,
//! and checks what comes back. By default it is the client of the 1-million-request challenge.
//!
//! ```text
//!   args ─▶ Plan ─▶ run ──── one thread each ────▶ epoll (transport) ⇄ client (a sans-I/O Service)
//!                    │                                                   │ request, response, pace
//!                    │   /stats before and after (fetch)                 ▼
//!                    └──▶ verify ◀── receipts ◀──────────────────────── tally ──▶ report
//! ```
//!
//! `client::Client` is a [`barewire_stack::service::Service`], as the server's responder is: it
//! never sees a socket, so another transport can drive it as well.

pub mod args;
mod client;
mod epoll;
mod fetch;
mod limits;
mod pace;
mod receipts;
pub mod report;
mod request;
mod response;
pub mod tally;
mod target;
pub mod verify;

#[cfg(test)]
mod tests;

use std::io::{Write, stdout};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use signal_hook::consts::{SIGINT, SIGTERM};

pub use args::Args;
use args::Plan;
use client::{Client, Monotonic};
use epoll::{Part, Run};
use pace::{Drawer, Pace, Tickets};
pub use report::Report;
use report::{Events, Measured};
use request::Request;
use tally::Tally;
use verify::Stats;

/// How often the progress bar moves.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

barewire_stack::counters! {
    /// How far a thread is, for the progress bar.
    pub struct ThreadCounters {
        /// Answers so far.
        answered: Gauge,
    }
}

/// Runs the load, prints the report, and says whether all was well.
///
/// # Errors
///
/// If it could not run: see [`measure`].
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let as_json = args.json;
    let report = measure(args)?;
    if as_json {
        let mut out = stdout().lock();
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        print!("{report}");
    }
    Ok(if report.is_good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs the load. Whatever the server does wrong is in the report.
///
/// # Errors
///
/// If it could not run: contradictory options, an unreachable target, one without `/stats`, too few
/// descriptors or ports.
pub fn measure(args: Args) -> anyhow::Result<Report> {
    let plan = Plan::of(args).map_err(wrong_use)?;
    limits::raise_descriptors(plan.connections, plan.threads)?;
    limits::check_ports(plan.connections)?;
    let address = plan.target.reach(plan.timeout)?;

    let Some(stats_request) = &plan.stats else {
        let (tally, measured) = ask(&plan, address)?;
        return Ok(Report::new(&plan, &tally, measured, None));
    };
    let before = fetch_stats(address, stats_request, plan.timeout)?;
    let (tally, measured) = ask(&plan, address)?;
    let after = fetch_stats(address, stats_request, plan.timeout);
    let events = tally.receipts.as_ref().map(|receipts| match after {
        Ok(after) => Events::verified(before, after, receipts, plan.unique_users),
        Err(error) => Events::unverifiable(before, format!("{error:#}")),
    });
    Ok(Report::new(&plan, &tally, measured, events))
}

/// Says that the command line, not the machine, is to blame.
fn wrong_use(error: anyhow::Error) -> clap::Error {
    clap::Error::raw(
        clap::error::ErrorKind::ValueValidation,
        format!("{error:#}\n"),
    )
}

/// Asks on all threads; their results together.
fn ask(plan: &Plan, address: SocketAddr) -> anyhow::Result<(Tally, Measured)> {
    let clock = Monotonic(Instant::now());
    let tickets = Tickets::new(plan.requests.unwrap_or(u64::MAX), plan.threads);
    let counters: Vec<ThreadCounters> = (0..plan.threads)
        .map(|_| ThreadCounters::default())
        .collect();
    let run = Run {
        address,
        timeout: plan.timeout,
        duration: plan.duration,
        barrier: Barrier::new(plan.threads),
        stop: stop_on_signals()?,
    };
    let waiting = thread::current();
    let parts: Vec<Part> = thread::scope(|scope| {
        let threads: Vec<_> = (counters.iter().enumerate())
            .map(|(index, counters)| {
                let (tickets, run, waiting) = (&tickets, &run, &waiting);
                scope.spawn(move || {
                    let pace = match plan.rate {
                        Some(rate) => Pace::open_loop(rate, index, plan.threads),
                        None => Pace::ClosedLoop,
                    };
                    let drawer = Drawer::new(tickets);
                    let client = Client::new(clock, &plan.request, plan.pipeline, pace, drawer);
                    let share = share(plan.connections, index, plan.threads);
                    let part = epoll::run(client, share, run, &counters.answered);
                    waiting.unpark();
                    part
                })
            })
            .collect();
        let progress = progress_bar(plan);
        while !threads.iter().all(|thread| thread.is_finished()) {
            thread::park_timeout(PROGRESS_INTERVAL);
            progress.set_position(counters.iter().map(|thread| thread.answered.get()).sum());
        }
        progress.finish_and_clear();
        let parts = threads.into_iter().map(|thread| match thread.join() {
            Ok(part) => part.map_err(anyhow::Error::from),
            Err(panic) => std::panic::resume_unwind(panic),
        });
        parts.collect::<anyhow::Result<_>>()
    })?;
    let was_interrupted = run.stop.load(Relaxed);
    Ok(sum_up(parts, was_interrupted))
}

/// Results of all threads as one.
fn sum_up(parts: Vec<Part>, was_interrupted: bool) -> (Tally, Measured) {
    let started_ns = parts
        .iter()
        .map(|part| part.started_ns)
        .min()
        .unwrap_or_default();
    let ended_ns = parts
        .iter()
        .map(|part| part.ended_ns)
        .max()
        .unwrap_or_default();
    let busy = |part: &Part| part.cpu_ns as f64 / (part.ended_ns - part.started_ns).max(1) as f64;
    let measured = Measured {
        duration_s: (ended_ns - started_ns) as f64 / 1e9,
        cpu_s: parts.iter().map(|part| part.cpu_ns).sum::<u64>() as f64 / 1e9,
        busiest_thread: parts.iter().map(busy).fold(0.0, f64::max).min(1.0),
        gave_up: parts.iter().any(|part| part.gave_up),
        was_interrupted,
    };
    let mut tally = Tally::new(None);
    for part in parts {
        tally.merge(part.tally);
    }
    (tally, measured)
}

/// How many of `total` thread `index` of `threads` takes.
fn share(total: usize, index: usize, threads: usize) -> usize {
    total / threads + usize::from(index < total % threads)
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

/// Asks for `/stats`.
fn fetch_stats(address: SocketAddr, request: &Request, timeout: Duration) -> anyhow::Result<Stats> {
    let (status, body) =
        fetch::fetch(address, request, timeout).context("cannot read GET /stats")?;
    match status {
        200..300 => {}
        404 => bail!(
            "the server has no GET /stats (404), so it does not take part in the challenge; \
             give a --path to ask it for something else"
        ),
        status => bail!("GET /stats answered {status}"),
    }
    serde_json::from_slice(&body).with_context(|| {
        let start = &body[..body.len().min(200)];
        format!(
            "GET /stats answered something else than the challenge's totals: {}",
            start.escape_ascii()
        )
    })
}

/// The progress on standard error, if that is a terminal.
fn progress_bar(plan: &Plan) -> ProgressBar {
    let (progress, template) = match (plan.requests, plan.duration) {
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
