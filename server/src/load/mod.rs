//! `barewire load`: the client side of the comparison.
//!
//! It asks any HTTP/1.1 server over the kernel's sockets or past the kernel over AF_XDP, cheaply enough
//! not to be what is measured, and checks what comes back. By default it is the client of the 1-million-request challenge.
//!
//! ```text
//!   args ─▶ Plan ─▶ run ─── one thread each ──▶ epoll or xdp ⇄ client (a sans-I/O Service)
//!                    │                          (transport)      │ request, response, pace
//!                    │   /stats before and after (fetch)         ▼
//!                    └──▶ verify ◀── receipts ◀──────────────── tally ──▶ report
//! ```
//!
//! `client::Client` is a [`barewire_stack::service::Service`], as the server's responder is: it
//! never sees a socket, so that both transports can drive it. What is asked beside the run itself
//! (whether the server is there, its `/stats`) goes over the kernel's sockets, before the XDP program is
//! attached and after it is gone.

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
mod transport;
pub mod verify;
pub mod window;
#[cfg(feature = "xdp")]
mod xdp;

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
use epoll::Run;
use pace::{Churn, Drawer, Pace, Ramp, Tickets};
pub use report::Report;
use report::{Events, Measured, Network, Thread};
use request::Request;
use tally::Tally;
use transport::{Part, beginning_max};
use verify::Stats;
use window::Window;

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
/// descriptors or ports, an interface that cannot be used.
pub fn measure(args: Args) -> anyhow::Result<Report> {
    let mut plan = Plan::of(args).map_err(wrong_use)?;
    match &mut plan.bypass {
        None => {
            limits::raise_descriptors(plan.connections, plan.threads)?;
            limits::check_ports(plan.connections)?;
        }
        #[cfg(feature = "xdp")]
        Some(bypass) => {
            bypass.cores = xdp::cores(bypass, plan.threads)?;
            plan.threads = bypass.cores.len();
        }
        #[cfg(not(feature = "xdp"))]
        Some(_) => {}
    }
    let address = plan.target.reach(plan.timeout)?;
    let body = (plan.probe.as_ref())
        .map(|probe| fetch_body(address, probe, plan.timeout))
        .transpose()?;

    let Some(stats_request) = &plan.stats else {
        let (tally, measured) = ask(&plan, address, body)?;
        return Ok(Report::new(&plan, &tally, measured, None));
    };
    let before = fetch_stats(address, stats_request, plan.timeout)?;
    let (tally, measured) = ask(&plan, address, body)?;
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

/// What every thread of a run starts with.
#[derive(Debug, Clone)]
struct Setup {
    clock: Monotonic,
    request: Arc<Request>,
    pipeline: usize,
    rate: Option<f64>,
    connections_per_s: Option<f64>,
    body: Option<Arc<[u8]>>,
    tickets: Arc<Tickets>,
    window: Window,
    connections: usize,
    counters: Arc<[ThreadCounters]>,
    threads: usize,
    stop: Arc<AtomicBool>,
}

impl Setup {
    fn of(plan: &Plan, body: Option<Arc<[u8]>>) -> anyhow::Result<Self> {
        let requests = plan.requests.unwrap_or(u64::MAX);
        // Past the kernel a connection may end up at any core: none may then sit on tickets.
        let is_shared = plan.bypass.is_some() && plan.threads > 1;
        let tickets = match is_shared || plan.connections_per_s.is_some() {
            true => Tickets::in_order(requests),
            false => Tickets::new(requests, plan.threads),
        };
        Ok(Setup {
            clock: Monotonic(Instant::now()),
            request: Arc::clone(&plan.request),
            pipeline: plan.pipeline,
            rate: plan.rate,
            connections_per_s: plan.connections_per_s,
            body,
            tickets: Arc::new(tickets),
            window: plan.window,
            connections: plan.connections,
            counters: (0..plan.threads)
                .map(|_| ThreadCounters::default())
                .collect(),
            threads: plan.threads,
            stop: stop_on_signals()?,
        })
    }

    /// The client of one thread.
    fn client(&self, thread: usize) -> Client<Monotonic> {
        let pace = match self.rate {
            Some(rate) => Pace::open_loop(rate, thread, self.threads),
            None => Pace::ClosedLoop,
        };
        let drawer = Drawer::new(&self.tickets);
        let share = share(self.connections, thread, self.threads);
        Client::new(self.clock, &self.request, self.pipeline, pace, drawer)
            .ramping(Ramp::new(share, beginning_max(self.threads)))
            .within(self.window)
            .churning(self.connections_per_s.map(Churn::new))
            .expecting(self.body.clone())
    }

    fn answered(&self) -> u64 {
        self.counters
            .iter()
            .map(|thread| thread.answered.get())
            .sum()
    }
}

/// Asks on all threads; their results together.
fn ask(
    plan: &Plan,
    address: SocketAddr,
    body: Option<Arc<[u8]>>,
) -> anyhow::Result<(Tally, Measured)> {
    let setup = Setup::of(plan, body)?;
    let progress = progress_bar(plan);
    let show = || progress.set_position(setup.answered());
    let (parts, network) = match &plan.bypass {
        None => (ask_kernel(plan, address, &setup, show)?, None),
        #[cfg(feature = "xdp")]
        Some(bypass) => {
            let (parts, network) = xdp::run(plan, bypass, address, &setup, show)?;
            (parts, Some(network))
        }
        #[cfg(not(feature = "xdp"))]
        Some(_) => bail!("the bypass was left out of this build: build with --features xdp"),
    };
    progress.finish_and_clear();
    let was_interrupted = setup.stop.load(Relaxed);
    Ok(sum_up(plan, parts, network, was_interrupted))
}

/// Asks over the kernel's sockets.
fn ask_kernel(
    plan: &Plan,
    address: SocketAddr,
    setup: &Setup,
    progress: impl Fn(),
) -> anyhow::Result<Vec<Part>> {
    let run = Run {
        address,
        timeout: plan.timeout,
        asking: plan.window.asking(),
        connecting_max: beginning_max(plan.threads),
        barrier: Barrier::new(plan.threads),
        stop: Arc::clone(&setup.stop),
    };
    let waiting = thread::current();
    thread::scope(|scope| {
        let threads: Vec<_> = (setup.counters.iter().enumerate())
            .map(|(index, counters)| {
                let (run, waiting) = (&run, &waiting);
                scope.spawn(move || {
                    let share = share(plan.connections, index, plan.threads);
                    let part = epoll::run(setup.client(index), share, run, &counters.answered);
                    waiting.unpark();
                    part
                })
            })
            .collect();
        while !threads.iter().all(|thread| thread.is_finished()) {
            thread::park_timeout(PROGRESS_INTERVAL);
            progress();
        }
        let parts = threads.into_iter().map(|thread| match thread.join() {
            Ok(part) => part.map_err(anyhow::Error::from),
            Err(panic) => std::panic::resume_unwind(panic),
        });
        parts.collect()
    })
}

/// Results of all threads as one.
fn sum_up(
    plan: &Plan,
    parts: Vec<Part>,
    network: Option<Network>,
    was_interrupted: bool,
) -> (Tally, Measured) {
    let times_ns = |of: fn(&Part) -> u64| parts.iter().map(of);
    let started_ns = times_ns(|part| part.started_ns).min().unwrap_or_default();
    let ended_ns = times_ns(|part| part.ended_ns).max().unwrap_or_default();
    let lasted = Duration::from_nanos(ended_ns - started_ns);
    let gave_up = parts.iter().any(|part| part.gave_up);
    // An open loop ends with the turn of its last request, also if that is answered sooner.
    let scheduled = match gave_up || was_interrupted {
        true => None,
        false => plan.scheduled(),
    };
    let window = match parts.iter().any(|part| part.is_timed_out) {
        true => plan.window.length.unwrap_or(lasted),
        false => plan.window.cut(lasted.max(scheduled.unwrap_or_default())),
    };
    let threads = parts.iter().map(|part| Thread {
        cpu: part.cpu,
        responses: part.tally.responses(),
        connections: part.tally.connections,
        busy: part.busy_share,
    });
    let measured = Measured {
        window_s: window.as_secs_f64(),
        lasted_s: lasted.as_secs_f64(),
        cpu_s: times_ns(|part| part.cpu_ns).sum::<u64>() as f64 / 1e9,
        busy_s: times_ns(|part| part.busy_ns).sum::<u64>() as f64 / 1e9,
        threads: threads.collect(),
        network,
        gave_up,
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

/// Asks once, for the body that all answers must have.
fn fetch_body(
    address: SocketAddr,
    probe: &Request,
    timeout: Duration,
) -> anyhow::Result<Arc<[u8]>> {
    let (status, body) =
        fetch::fetch(address, probe, timeout).context("cannot read the body to compare with")?;
    match status {
        200..300 => Ok(body.into()),
        status => bail!("the answer to compare bodies with has status {status}"),
    }
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
