//! `barewire serve`: from arguments to a server that ends in order.

mod args;
#[cfg(feature = "faults")]
mod bad_wire;
mod bulkheads;
mod detach;
mod kernel;
mod manager;
mod operation;
#[cfg(feature = "xdp")]
mod outlive;
mod reloads;
mod state;
mod supervise;
mod take_over;
mod teleport;
mod tls;
#[cfg(feature = "xdp")]
mod xdp;

use std::fmt;
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use anyhow::Context as _;
use barewire_service::cores::allowed_cpus;
use barewire_service::lifecycle::Lifecycle;
use barewire_service::seats::Seats;
use clap::error::ErrorKind;
use clap::{ArgMatches, Command};

use self::args::Scope;
pub use self::args::{ServeArgs, StackName};
use self::bulkheads::Bulkheads;
use self::manager::Notice;
use self::operation::{Answering, Endpoints};
pub use self::reloads::Reloads;
use self::state::StateFile;
use self::supervise::{Ending, Supervisor};
use self::take_over::Passage;
#[cfg(feature = "xdp")]
use self::teleport::Nothing;
use self::teleport::{Around, Unpacking};
use self::tls::{Capacity, Secure};
use crate::cli::config::{self, Source, Sources};
use crate::cli::proxy::{Handle, Proxying};
use crate::confine::Confinement;
use crate::console::{self, Console, complain, say};
use crate::events::membership::Membership;
use crate::events::state::State;
use crate::events::{Events, EventsConfig};
use crate::fleet::{self, Fleet, FleetConfig, Joined};
use crate::operate::capture::Captures;
use crate::operate::overview::Bytes;
use crate::operate::{Instruments, watch};
use crate::site::{self, Site};
use crate::takeover::{self, Estate, HandOver, Predecessor, Successor};
#[cfg(feature = "xdp")]
use barewire_http::Surplus;
use barewire_http::{HttpCounters, Status};
use barewire_proxy::Proxy;
use barewire_service::service::Service;
use barewire_service::stack::{CounterGroup, Running, Stack};
#[cfg(feature = "xdp")]
use barewire_xdp::XdpConfig;

/// Serves until a signal or an error ends it.
///
/// # Errors
///
/// If the command line is wrong, or the machine does not give what it asks for, or a core breaks.
pub fn run(
    args: &ServeArgs,
    proxy: Option<&Proxying>,
    matches: &ArgMatches,
    sources: &Sources,
    command: &mut Command,
) -> anyhow::Result<ExitCode> {
    args.check(sources, command)?;
    if args.config.print_config {
        for warning in sources.warnings() {
            complain(&format!("warning: {warning}"));
        }
        console::print(config::print(command, matches, sources))?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.operation.detach && !detach::is_child() {
        return detach::run();
    }
    args.log.install(command)?;
    for warning in sources.warnings() {
        tracing::warn!("{warning}");
    }
    for key in args.foreign(command) {
        if let Some(source @ Source::File(..)) = sources.of(&key) {
            tracing::warn!("{key} ({source}) has no meaning for this stack");
        }
    }
    if proxy.is_some() && args.stack() == StackName::Xdp {
        let missing = "the stack xdp does not open connections beside those that it accepts yet: use --stack uring or epoll";
        return Err(command.error(ErrorKind::InvalidValue, missing).into());
    }
    if proxy.is_some() && args.operation.take_over {
        let missing = "a proxy does not take over yet: its connections to origins cannot travel";
        return Err(command.error(ErrorKind::InvalidValue, missing).into());
    }
    if args.link.wait_for_interface && args.operation.take_over {
        let missing = "a server with --wait-for-interface does not take over: it is watched by a process of its own";
        return Err(command.error(ErrorKind::InvalidValue, missing).into());
    }
    match (args.stack(), &args.place.interface) {
        #[cfg(feature = "xdp")]
        (StackName::Xdp, Some(interface)) => {
            let mut stack = bypass(args, interface, command)?;
            let seats = args.seats();
            stack.stack.seats = match args.surplus() {
                // Who is to be answered has to be let in.
                Surplus::Answer => None,
                Surplus::Drop => seats.clone(),
            };
            let capacity = Capacity {
                connections: stack.stack.connections,
                receive_buffer_bytes: stack.stack.receive_buffer_bytes,
            };
            let around = (Nothing, Passage::bypass(args, &mut stack)?);
            let serve = || serve(args, "xdp", stack, capacity, seats, around, None);
            match (args.link.wait_for_interface, outlive::is_child()) {
                (false, _) => serve(),
                (true, false) => outlive::run(
                    interface,
                    args.place.address.is_empty(),
                    args.tls.is_wanted(),
                ),
                (true, true) => outlive::exit_code(serve()),
            }
        }
        #[cfg(feature = "epoll")]
        (StackName::Epoll, _) => serve_epoll(args, proxy, command),
        #[cfg(feature = "uring")]
        (StackName::Uring, _) => serve_uring(args, proxy, command),
        #[allow(unreachable_patterns, reason = "reachable where a stack was left out")]
        (missing, _) => Err(not_built_in(missing, command).into()),
    }
}

/// The bypass on `interface` as `args` ask for it.
///
/// # Errors
///
/// If a limit is out of its bounds.
#[cfg(feature = "xdp")]
pub fn bypass(
    args: &ServeArgs,
    interface: &str,
    command: &mut Command,
) -> Result<XdpConfig, clap::Error> {
    usage(xdp::stack(args, interface), command)
}

/// What becomes of reading the certificates that `args` name, if they ask for TLS.
#[cfg(feature = "xdp")]
pub fn certificates(args: &ServeArgs) -> Option<Result<(), barewire_tls::IdentityError>> {
    let is_wanted = args.tls.is_wanted();
    is_wanted.then(|| tls::identity(&args.tls, args.http2().is_some()).map(drop))
}

/// What a stack's configuration refuses is wrong use.
fn usage<T, E: fmt::Display>(
    result: Result<T, E>,
    command: &mut Command,
) -> Result<T, clap::Error> {
    result.map_err(|error| command.error(ErrorKind::InvalidValue, error))
}

#[cfg(feature = "epoll")]
fn serve_epoll(
    args: &ServeArgs,
    proxy: Option<&Proxying>,
    command: &mut Command,
) -> anyhow::Result<ExitCode> {
    let mut stack = usage(kernel::epoll(args), command)?;
    if let Some(proxy) = proxy {
        proxy.configure(&mut stack.config);
    }
    let capacity = kernel::capacity(&stack.config);
    let passage = passage(args, "epoll", &mut stack.config, proxy)?;
    let around = (unpacking(args, capacity), passage);
    serve(args, "epoll", stack, capacity, args.seats(), around, proxy)
}

/// Serves with io_uring, or with epoll where the kernel does not let us.
#[cfg(feature = "uring")]
fn serve_uring(
    args: &ServeArgs,
    proxy: Option<&Proxying>,
    command: &mut Command,
) -> anyhow::Result<ExitCode> {
    let mut stack = usage(kernel::uring(args), command)?;
    if let Some(proxy) = proxy {
        proxy.configure(&mut stack.config);
    }
    match barewire_kernel::uring::supported(&stack) {
        Ok(()) => {
            let capacity = kernel::capacity(&stack.config);
            let passage = passage(args, "uring", &mut stack.config, proxy)?;
            let around = (unpacking(args, capacity), passage);
            serve(args, "uring", stack, capacity, args.seats(), around, proxy)
        }
        Err(missing) => {
            tracing::warn!("{missing}; falling back to epoll");
            serve_epoll(args, proxy, command)
        }
    }
}

/// How a server on a kernel stack takes over and is taken over from. A proxy is not.
fn passage(
    args: &ServeArgs,
    stack: &'static str,
    config: &mut barewire_kernel::KernelConfig,
    proxy: Option<&Proxying>,
) -> anyhow::Result<Passage> {
    match proxy {
        None => Passage::open(args, stack, config),
        Some(_) => Ok(Passage::default()),
    }
}

/// Teleport as `args` ask for it, on a stack that gives connections `capacity`.
fn unpacking(args: &ServeArgs, capacity: Capacity) -> Unpacking {
    let (buffer_bytes, timeout_ms) = (capacity.receive_buffer_bytes, args.deadline.body_timeout_ms);
    Unpacking::new(&args.teleport, buffer_bytes, timeout_ms, cores_max(args))
}

/// Starts `stack`, which is called `name`, tells what it got, and stays until it has ended.
fn serve<S: Stack>(
    args: &ServeArgs,
    name: &'static str,
    stack: S,
    capacity: Capacity,
    seats: Option<Arc<Seats>>,
    (around, mut passage): (impl Around, Passage),
    proxy: Option<&Proxying>,
) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let confinement = Confinement::begin(args.privilege.user.as_deref(), args.privilege.seccomp)?;
    let confinement = Arc::new(confinement);
    // What each thread does once it has everything that takes privileges.
    let enter = {
        let confinement = Arc::clone(&confinement);
        move || {
            if let Err(error) = confinement.give_up_privileges() {
                // Nothing is lost: main asks for the same, and all threads are verified.
                tracing::error!("{error}");
            }
        }
    };
    if let Some(console) = Console::of_process() {
        console
            .start(enter.clone())
            .context("no thread for the log")?;
    }
    let cores_max = cores_max(args);
    let mut state = args.event.state.as_deref().map(StateFile::new);
    let fleet_config = args.fleet.config();
    let Begun {
        events,
        begun_with,
        joined,
    } = begin(
        args.events(cores_max),
        state.as_mut(),
        fleet_config.as_ref(),
        passage.successor.as_mut(),
    )?;
    let takes_over = passage.successor.is_some();
    let (place, goes_on) = takes_over.then(mpsc::channel).unzip();
    let connects_out = joined.as_ref().is_some_and(Joined::is_remote);
    let node = joined
        .as_ref()
        .map(|joined| joined.membership().node.clone());
    let fleet = match (joined, &fleet_config) {
        (Some(joined), Some(config)) => {
            say(&format!("fleet: {}", joined.place()));
            let fleet = Fleet::start(joined, config, Arc::clone(&events), goes_on, enter.clone());
            Some(fleet.context("no thread to publish counts")?)
        }
        _ => None,
    };
    let files = args.files.open()?;
    let tls_listener = around.listener().map_or(1, |teleport| teleport + 1);
    let http2 = args.http2().is_some();
    let teleport = around.listener().zip(args.teleport.identity());
    let teleport_scheme = match teleport {
        None => "teleport",
        Some(_) => "teleports",
    };
    let listeners = (teleport, tls_listener);
    let secure = Secure::open(&args.tls, http2, capacity, cores_max, listeners)?;
    let prefix = files.is_some().then_some(&*args.files.directory_prefix);
    let identity = secure.as_ref().and_then(Secure::identity);
    if let (Some(identity), Some(successor)) = (&identity, &passage.successor) {
        identity.adopt_ticket_keys(&successor.ticket_keys);
    }
    let routes = site::routes_with_files(args.place.test_routes, prefix)
        .context("choose another --directory-prefix")?;
    let http_counters = || match proxy {
        None => HttpCounters::new(&routes),
        Some(_) => Proxy::http_counters(),
    };
    let http: Arc<[_]> = (0..cores_max).map(|_| Arc::new(http_counters())).collect();
    let bulkheads = Bulkheads::new(seats, args.surplus(), cores_max);
    let make_service = {
        let (limits, http2) = (args.limits(), args.http2());
        let (http, events) = (Arc::clone(&http), Arc::clone(&events));
        let fleet = fleet.as_ref().map(Fleet::handle);
        let fleet_by_default = args.fleet.stats_scope == Scope::Fleet;
        let enter = enter.clone();
        move |core: usize| {
            enter();
            let site = Site {
                events: events.shard(core),
                files: files.clone(),
                fleet: fleet.clone(),
                fleet_by_default,
            };
            let counters = Arc::clone(&http[core]);
            site::responder(&routes, site, limits, counters).with_http2(http2)
        }
    };

    let lifecycle = Lifecycle::new();
    let mut running = match proxy {
        None => {
            let around = (&around, &bulkheads, secure.as_ref());
            start(stack, around, make_service, &lifecycle)?
        }
        Some(proxy) => {
            let (limits, http) = (args.limits(), Arc::clone(&http));
            let make_proxy = proxy.maker(limits, args.http2(), http, enter.clone());
            let around = (&around, &bulkheads, secure.as_ref());
            start(stack, around, make_proxy, &lifecycle)?
        }
    };
    running.counters.extend(around.counters(running.cpus.len()));
    let proxy = proxy.map(|proxy| proxy.handle(&lifecycle, running.cpus.len()));
    let live = proxy.as_ref().map(Handle::counters).unwrap_or_default();
    running.counters.extend(console_counters());
    running
        .counters
        .extend(bulkheads.counters(running.cpus.len()));
    running
        .counters
        .extend(fleet.as_ref().map(|fleet| CounterGroup {
            core: None,
            queue: None,
            part: "fleet",
            counters: fleet.handle().counters(),
        }));
    if let Some(secure) = &secure {
        running.counters.extend(secure.counters(running.cpus.len()));
    }
    let instruments = Instruments::new(
        name,
        started,
        &running,
        Arc::clone(&http),
        Arc::clone(&events),
        lifecycle.clone(),
    )
    .with_live(live.clone());
    let endpoints = Endpoints::open(
        &args.operation,
        &running,
        &instruments,
        passage.successor.as_mut(),
        enter.clone(),
    )?;
    let reloads = match &secure {
        None => None,
        Some(secure) => Some(
            secure
                .follow_files(enter.clone())
                .context("no thread to read certificates again")?,
        ),
    };
    let reloads = match &proxy {
        None => reloads,
        Some(proxy) => {
            let routes = proxy.follow_file(enter);
            let routes = routes.context("no thread to read routes again")?;
            Some(match reloads {
                Some(certificates) => certificates.and(routes),
                None => routes,
            })
        }
    };
    confinement.give_up_privileges()?;
    let supervisor = Supervisor::new(reloads).context("cannot catch signals")?;
    #[cfg(feature = "xdp")]
    if outlive::is_child() {
        outlive::end_with_parent(supervisor.remote()).context("no thread to watch the parent")?;
    }
    if let Some(watch) = running.watch.take() {
        supervisor
            .watch(watch)
            .context("no thread to watch the interface")?;
    }
    if let Some(interval) = args.log.drops_interval() {
        watch::watch(instruments.clone(), interval).context("no thread for the log")?;
    }
    confinement.restrict_calls(connects_out || proxy.is_some())?;
    confinement.verify()?;
    let fleet_handle = fleet.as_ref().map(Fleet::handle);
    let mut predecessor = None;
    match (passage.successor.take(), &passage.hand_over) {
        (Some(successor), Some(hand_over)) => {
            let fleet = (fleet_handle.clone(), place);
            let (has_ended, begun_with) =
                take_over::take_over(successor, hand_over, &events, fleet, cores_max)?;
            tracing::info!("going on with {}", stats(&events));
            take_over::keep(state.as_mut(), &begun_with);
            predecessor = Some(has_ended);
        }
        _ => {
            if let (Some(file), Some(state)) = (&mut state, begun_with) {
                file.save(&state)?;
            }
        }
    }
    let estate = Estate {
        protocol: takeover::PROTOCOL,
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").into(),
        stack: name.into(),
        addresses: running.addresses.clone(),
        cpus: running.cpus.clone(),
        connections: passage.connections,
        drain_ms: args.drain_timeout().as_millis() as u64,
        bypass: passage.hand_over.as_ref().and_then(HandOver::interface),
        keeps_state: state.is_some(),
        admin: endpoints.admin(),
        node: node.clone(),
    };
    let answering = endpoints
        .answer(
            instruments,
            Captures::new(running.taps.clone()),
            (supervisor.remote(), lifecycle.clone()),
            proxy.clone(),
            (state, identity),
            |household| {
                let (hand_over, events) = (passage.hand_over?, Arc::clone(&events));
                Some(Predecessor::new(
                    hand_over,
                    events,
                    fleet_handle,
                    estate,
                    household,
                ))
            },
        )
        .context("cannot answer the operator")?;
    let has_https = secure.as_ref().is_some_and(Secure::has_https);
    let schemes: Vec<_> = ["http"]
        .into_iter()
        .chain(around.listener().map(|_| teleport_scheme))
        .chain(has_https.then_some("https"))
        .collect();
    report(&running, &schemes, &events, &answering);
    manager::tell(match takes_over {
        true => Notice::TookOver,
        false => Notice::Ready,
    });
    answering.is_ready(predecessor);
    detach::tell();

    let outcome = supervisor.run(running.cores, &lifecycle, args.drain_timeout());
    log_counters(&running.counters);
    log_counters(&live.get());
    log_counters(&event_counters(&events));
    say(&summary(&http, started));
    let membership = fleet.and_then(Fleet::end);
    let saved = save_counts(&events, membership, answering.state().as_mut());
    let ending = outcome?;
    saved?;
    Ok(match ending {
        Ending::Drained | Ending::DrainTimeout => ExitCode::SUCCESS,
        // As a shell reports a process that the signal had ended.
        Ending::Forced(cause) => ExitCode::from(128 + cause.signal() as u8),
    })
}

/// Starts `stack` with a service for each core, and what is around it: TLS last, if there is some.
fn start<St: Stack, S: Service + 'static>(
    stack: St,
    (around, bulkheads, secure): (&impl Around, &Bulkheads, Option<&Secure>),
    make_service: impl Fn(usize) -> S + Clone + Send + 'static,
    lifecycle: &Lifecycle,
) -> Result<Running, St::Error> {
    let (around, bulkheads) = (around.clone(), bulkheads.clone());
    let make_service = move |core| bulkheads.around(core, around.around(core, make_service(core)));
    match secure.cloned() {
        None => stack.start(make_service, lifecycle),
        Some(secure) => {
            let make_secure = move |core| secure.around(core, make_service(core));
            stack.start(make_secure, lifecycle)
        }
    }
}

/// Says what each core got and what it all takes, then that the server is ready, and where: each address is served by
/// these schemes in turn.
fn report(running: &Running, schemes: &[&str], events: &Events, answering: &Answering) {
    for notice in &running.notices {
        say(&notice.to_string());
    }
    say(&format!(
        "events: at most {} for all users, taken as they come",
        Bytes(events.memory_bytes() as u64)
    ));
    if let Some(control) = answering.control() {
        say(&format!("control: {}", control.display()));
    }
    if let Some(url) = answering.metrics() {
        say(&format!("metrics: {url}"));
    }
    let urls: Vec<_> = running
        .addresses
        .iter()
        .zip(schemes.iter().cycle())
        .map(|(address, scheme)| format!("{scheme}://{address}"))
        .collect();
    say(&format!("ready {}", urls.join(" ")));
}

/// What a server counts with from its start on.
struct Begun {
    events: Arc<Events>,
    /// What they begin with, if that is to be kept.
    begun_with: Option<State>,
    /// The place in the fleet, if the server has one.
    joined: Option<Joined>,
}

/// The events, going on with those in the file if there is one, as a node of the fleet if there is one.
fn begin(
    config: EventsConfig,
    file: Option<&mut StateFile>,
    fleet: Option<&FleetConfig>,
    successor: Option<&mut Successor>,
) -> anyhow::Result<Begun> {
    let is_kept = file.is_some();
    let is_successor = successor.is_some();
    let mut takes_over = None;
    let state = match successor {
        None => file.map(StateFile::load).transpose()?.flatten(),
        Some(successor) => {
            file.map(|file| file.inherit(successor.state.take()))
                .transpose()?;
            takes_over = Some(successor.estate.node.clone());
            successor.users()
        }
    };
    let (joined, mut state) = match fleet {
        Some(fleet) => {
            let mut fleet = fleet.clone();
            let node = takes_over.flatten();
            let is_of_fleet = node.is_some();
            fleet.node = node.or(fleet.node);
            let (joined, state) = fleet::join(&fleet, state, is_of_fleet)?;
            (Some(joined), state)
        }
        None => (None, state),
    };
    if let (None, Some(state)) = (&joined, &mut state) {
        // It counts alone for once, for a fleet to hear of it later.
        state.go_on_alone()?;
    }
    let events = match (state, &joined) {
        (Some(state), _) => Events::restore(config, state)?,
        (None, Some(joined)) => Arc::new(Events::with_key(config, joined.key())?),
        (None, None) => Events::new(config)?,
    };
    if events.stats().total_requests > 0 && !is_successor {
        tracing::info!("going on with {}", stats(&events));
    }
    let mut begun_with = is_kept.then(|| events.save()).flatten();
    if let (Some(joined), Some(state)) = (&joined, &mut begun_with) {
        state.membership = Some(joined.membership().clone());
    }
    Ok(Begun {
        events,
        begun_with,
        joined,
    })
}

/// Logs the counts, and writes them to `file` if there is one, however the server ended: what was acknowledged
/// was counted. A fleet gave the server its place.
fn save_counts(
    events: &Events,
    membership: Option<Membership>,
    file: Option<&mut StateFile>,
) -> anyhow::Result<()> {
    tracing::info!("ending with {}", stats(events));
    let Some(file) = file else {
        return Ok(());
    };
    let mut state = events
        .save()
        .context("the counts cannot be saved: a core goes on counting")?;
    state.membership = membership.or(state.membership).map(Membership::closed);
    Ok(file.save(&state)?)
}

/// What `GET /stats` answers.
fn stats(events: &Events) -> String {
    serde_json::to_string(&events.stats()).unwrap_or_default()
}

/// Logs what was counted at all, a line for each part of each core and queue.
fn log_counters(groups: &[CounterGroup]) {
    for group in groups {
        let samples = group.counters.samples();
        let counted = samples
            .iter()
            .filter(|sample| sample.kind.grows() && sample.value > 0);
        let counted: Vec<_> = counted
            .map(|sample| format!("{}={}", sample.name, sample.value))
            .collect();
        if !counted.is_empty() {
            let (core, queue, part) = (group.core, group.queue, group.part);
            tracing::info!(core, queue, "counted by {part}: {}", counted.join(" "));
        }
    }
}

/// What each core counted and refused of events.
fn event_counters(events: &Events) -> Vec<CounterGroup> {
    let cores = events.counters().iter().enumerate();
    cores
        .map(|(core, counters)| CounterGroup {
            core: Some(core),
            queue: None,
            part: "events",
            counters: counters.clone(),
        })
        .collect()
}

/// What could not be said.
fn console_counters() -> Option<CounterGroup> {
    Some(CounterGroup {
        core: None,
        queue: None,
        part: "log",
        counters: Console::of_process()?.counters(),
    })
}

/// What was served, in one line.
fn summary(http: &[Arc<HttpCounters>], started: Instant) -> String {
    let by_status: Vec<_> = Status::ALL
        .iter()
        .map(|status| {
            (
                status.code(),
                http.iter().map(|core| core.responses(*status)).sum::<u64>(),
            )
        })
        .filter(|(_, count)| *count > 0)
        .collect();
    let total: u64 = by_status.iter().map(|(_, count)| count).sum();
    let parts: Vec<_> = by_status
        .iter()
        .map(|(code, count)| format!("{count} x {code}"))
        .collect();
    let details = if parts.is_empty() {
        String::new()
    } else {
        format!(" ({})", parts.join(", "))
    };
    format!(
        "served {total} requests{details} in {:.1} s",
        started.elapsed().as_secs_f64()
    )
}

/// How many cores can serve at most: the list's, or all that this process may use.
pub fn cores_max(args: &ServeArgs) -> usize {
    match args.place.cores.numbers().len() {
        0 => allowed_cpus().len(),
        listed => listed,
    }
}

fn not_built_in(stack: StackName, command: &mut Command) -> clap::Error {
    let (stack, needs) = match stack {
        StackName::Xdp => ("xdp", " (that needs clang and libelf: scripts/setup build)"),
        StackName::Epoll => ("epoll", ""),
        StackName::Uring => ("uring", ""),
    };
    command.error(
        ErrorKind::InvalidValue,
        format!(
            "the stack {stack} was left out of this build: choose another --stack, or build with \
             `cargo build --release --features {stack}`{needs}"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_adds_up_all_cores() {
        let http: Vec<_> = (0..2)
            .map(|_| Arc::new(HttpCounters::new(&site::routes(false).unwrap())))
            .collect();
        assert!(summary(&http, Instant::now()).starts_with("served 0 requests in 0."));
    }
}
