//! A load generator for HTTP/1.1 and HTTP/2, in plain text or TLS, over the kernel's sockets or past the kernel over AF_XDP (feature `xdp`).
//!
//! A [`Plan`] says what to send where, how often and how long; [`measure`] runs it and returns a [`Report`]. It costs
//! less CPU time per request than the servers that it measures, and checks every response. If the plan is that of the
//! 1-million-request challenge, it also compares the server's `/stats` with what the server acknowledged.
//!
//! ```no_run
//! use barewire_load::{Control, Plan, measure, target::Target};
//!
//! let plan = Plan {
//!     connections: 64,
//!     rate: Some(10_000.0),
//!     ..Plan::get(Target::parse("http://127.0.0.1:8080/")?)?
//! };
//! let control = Control { stop: Default::default(), progress: &|_answers| {} };
//! let report = measure(plan, &control)?;
//! println!("{} of {} answers", report.responses, report.latency_ns.len());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! ```text
//!           Plan ─▶ measure ─ one thread each ─▶ epoll or xdp ⇄ client (a Service without I/O)
//!                    │                          (transport)      │ request, response, pace
//!                    │   /stats before and after (fetch)         ▼
//!                    └──▶ verify ◀── receipts ◀──────────────── tally ──▶ Report
//! ```
//!
//! `client::Client` is a [`barewire_service::service::Service`], as the server's responder is: it
//! sees no socket, so that both transports can drive it. What is sent beside the run itself
//! (whether the server is there, its `/stats`) goes over the kernel's sockets, before the XDP program is
//! attached and after it is gone.
//!
//! In a closed loop each connection sends its next request when it has the answer. In an open loop ([`Plan::rate`])
//! requests are due at fixed times, and a latency counts from the time when the request was due: a server that stalls
//! cannot hide it.

#![deny(unsafe_code)]

mod client;
mod epoll;
pub mod error;
mod fetch;
pub mod limits;
mod pace;
pub mod plan;
mod receipts;
pub mod report;
pub mod request;
mod response;
pub mod tally;
pub mod target;
pub mod transport;
pub mod verify;
pub mod window;
mod wire;
#[cfg(feature = "xdp")]
mod xdp;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use barewire_tls::ClientIdentity;
use client::{Client, Monotonic};
use epoll::Run;
pub use error::LoadError;
use fetch::Fetching;
use pace::{Churn, Drawer, Pace, Ramp, Tickets};
pub use plan::Plan;
pub use report::Report;
use report::{Events, Measured, Network, Thread};
use request::Request;
use tally::Tally;
use transport::{Part, beginning_max};
use verify::Stats;
use window::Window;
use wire::Wire;

/// How often progress is told.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

barewire_service::counters! {
    /// How far a thread is.
    pub struct ThreadCounters {
        /// Answers so far.
        answered: Gauge,
    }
}

/// How a run is watched and ended from outside.
pub struct Control<'a> {
    /// Set to end it early and in order.
    pub stop: Arc<AtomicBool>,
    /// Told the number of answers so far, several times a second.
    pub progress: &'a dyn Fn(u64),
}

/// Runs the load. Whatever the server does wrong is in the report.
///
/// # Errors
///
/// If it could not run: an unreachable target, one without `/stats`, too few descriptors or ports, an
/// interface that cannot be used.
pub fn measure(mut plan: Plan, control: &Control<'_>) -> Result<Report, LoadError> {
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
        Some(_) => return Err(LoadError::NoBypass),
    }
    let address = plan.target.reach(plan.timeout)?;
    // What is asked beside the run is asked by HTTP/1.1.
    let identity = |protocol: &[u8]| (plan.secure.as_ref()).map(|secure| secure.identity(protocol));
    let secure = identity(if plan.request.is_http2() {
        b"h2"
    } else {
        b"http/1.1"
    })
    .transpose()?;
    let fetching = Fetching {
        address,
        secure: identity(b"http/1.1").transpose()?,
        timeout: plan.timeout,
    };
    let body = (plan.probe.as_ref())
        .map(|probe| fetch_body(&fetching, probe))
        .transpose()?;

    let Some(stats_request) = &plan.stats else {
        let (tally, measured) = ask(&plan, address, secure, body, control)?;
        return Ok(Report::new(&plan, tally, measured, None));
    };
    let before = fetch_stats(&fetching, stats_request)?;
    let (tally, measured) = ask(&plan, address, secure, body, control)?;
    let after = fetch_stats(&fetching, stats_request);
    let events = tally.receipts.as_ref().map(|receipts| match after {
        Ok(after) => Events::verified(before, after, receipts, plan.unique_users),
        Err(error) => Events::unverifiable(before, error.to_string()),
    });
    Ok(Report::new(&plan, tally, measured, events))
}

/// What every thread of a run starts with.
#[derive(Debug, Clone)]
struct Setup {
    clock: Monotonic,
    request: Arc<Request>,
    secure: Option<ClientIdentity>,
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
    fn of(
        plan: &Plan,
        secure: Option<ClientIdentity>,
        body: Option<Arc<[u8]>>,
        stop: &Arc<AtomicBool>,
    ) -> Self {
        let requests = plan.requests.unwrap_or(u64::MAX);
        // Past the kernel a connection may end up at any core: none may then sit on tickets.
        let is_shared = plan.bypass.is_some() && plan.threads > 1;
        let tickets = match is_shared || plan.connections_per_s.is_some() {
            true => Tickets::in_order(requests),
            false => Tickets::new(requests, plan.threads),
        };
        Setup {
            clock: Monotonic(Instant::now()),
            request: Arc::clone(&plan.request),
            secure,
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
            stop: Arc::clone(stop),
        }
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

    /// What lies between the client and a thread's `connections`.
    fn wire(&self, connections: usize) -> Wire {
        Wire::new(self.secure.as_ref(), connections, self.request.is_http2())
    }

    fn answered(&self) -> u64 {
        self.counters
            .iter()
            .map(|thread| thread.answered.get())
            .sum()
    }
}

/// What all threads brought.
struct Asked {
    parts: Vec<Part>,
    network: Option<Network>,
    warnings: Vec<String>,
}

/// Asks on all threads; their results together.
fn ask(
    plan: &Plan,
    address: SocketAddr,
    secure: Option<ClientIdentity>,
    body: Option<Arc<[u8]>>,
    control: &Control<'_>,
) -> Result<(Tally, Measured), LoadError> {
    let setup = Setup::of(plan, secure, body, &control.stop);
    let show = || (control.progress)(setup.answered());
    let asked = match &plan.bypass {
        None => ask_kernel(plan, address, &setup, show)?,
        #[cfg(feature = "xdp")]
        Some(bypass) => xdp::run(plan, bypass, address, &setup, show)?,
        #[cfg(not(feature = "xdp"))]
        Some(_) => return Err(LoadError::NoBypass),
    };
    let was_interrupted = setup.stop.load(Relaxed);
    Ok(sum_up(plan, asked, was_interrupted))
}

/// Asks over the kernel's sockets.
fn ask_kernel(
    plan: &Plan,
    address: SocketAddr,
    setup: &Setup,
    progress: impl Fn(),
) -> Result<Asked, LoadError> {
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
                    let (client, wire) = (setup.client(index), setup.wire(share));
                    let part = epoll::run(client, wire, share, run, &counters.answered);
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
            Ok(part) => part,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        Ok(Asked {
            parts: parts.collect::<Result<_, _>>()?,
            network: None,
            warnings: Vec::new(),
        })
    })
}

/// Results of all threads as one.
fn sum_up(plan: &Plan, asked: Asked, was_interrupted: bool) -> (Tally, Measured) {
    let parts = asked.parts;
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
        network: asked.network,
        warnings: asked.warnings,
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

/// Asks once, for the body that all answers must have.
fn fetch_body(fetching: &Fetching, probe: &Request) -> Result<Arc<[u8]>, LoadError> {
    let (status, body) = fetching.fetch(probe).map_err(LoadError::Probe)?;
    match status {
        200..300 => Ok(body.into()),
        status => Err(LoadError::ProbeStatus(status)),
    }
}

/// Asks for `/stats`.
fn fetch_stats(fetching: &Fetching, request: &Request) -> Result<Stats, LoadError> {
    let (status, body) = fetching.fetch(request).map_err(LoadError::Stats)?;
    match status {
        200..300 => {}
        404 => return Err(LoadError::NoStats),
        status => return Err(LoadError::StatsStatus(status)),
    }
    serde_json::from_slice(&body).map_err(|cause| LoadError::NotTotals {
        start: body[..body.len().min(200)].escape_ascii().to_string(),
        cause,
    })
}
