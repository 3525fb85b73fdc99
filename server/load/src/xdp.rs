//! The transport past the kernel: a shard per core, which opens connections over AF_XDP.
//!
//! The stack is the one that serves, and a [`Caller`] is its service.
//!
//! ```text
//!   start: neighbour ─▶ XDP program for our source ports ─▶ shards
//!            each core:  Connecting ─▶ Ready (all cores are) ─▶ Asking ─▶ Done ─▶ its Part
//!   end:   every core is done ─▶ drain ─▶ program detached
//! ```
//!
//! Which core an answer arrives at is for the NIC to say ([`barewire_tcp::source_ports`]), so the
//! cores together have as many connections as were asked for, and each the share that the NIC gives it.

mod caller;

use std::fs;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, OnceLock};

use barewire_service::cores::allowed_cpus;
use barewire_service::deadline::Deadlines;
use barewire_service::lifecycle::{Lifecycle, Phase as LifecyclePhase};
use barewire_service::service::Service as _;
use barewire_service::stack::Notice;
use barewire_tcp::config::StackConfig;
use barewire_xdp::interface::Interface;
use barewire_xdp::redirect::ModeChoice;
use barewire_xdp::worker::Wait;

use super::error::LoadError;
use super::limits::LimitError;
use super::plan::{BypassPlan, Mode, Plan};
use super::report::Network;
use super::transport::{Part, TransportError, busy_share};
use super::{Asked, PROGRESS_INTERVAL, Setup};
use barewire_service::stack::{CounterGroup, Running, Stack};
use barewire_xdp::{Calls, XdpConfig};
use caller::{Caller, Limits, Shared};

/// How long a connection may take to close when all is asked and answered, in milliseconds.
const DRAIN_MS: u32 = 1_000;
/// Connections that are closed in a millisecond even on a busy machine: so much longer may it take for all of them.
const CLOSED_PER_MS: usize = 20;
/// How long a port rests that we closed first. Far less than RFC 9293 asks for: a load generator has few
/// ports, and segments do not live for minutes on the networks that it is for.
const TIME_WAIT_MS: u32 = 1_000;
/// The ports above those that Linux gives to its own connections by default.
const SOURCE_PORTS: RangeInclusive<u16> = 61_000..=65_535;
/// Receive buffer of a connection, and the smallest send buffer: the longest head of a response, twice the
/// longest request.
const BUFFER_BYTES: usize = 16 << 10;
/// Longer than any run.
const NEVER_MS: u32 = 30 * 24 * 3_600 * 1_000;

/// The CPUs for a run of so many threads: the last ones, as servers tend to take the first.
pub fn cores(plan: &BypassPlan, threads: usize) -> Result<Vec<usize>, LoadError> {
    let interface = Interface::named(&plan.interface).map_err(bypass)?;
    let mut cores = plan.cores.clone();
    if cores.is_empty() {
        let allowed = allowed_cpus();
        cores = allowed[allowed.len().saturating_sub(threads)..].to_vec();
    }
    cores.truncate(interface.rx_queues as usize);
    Ok(cores)
}

/// Asks on all of `cores`; what each of them brought, and what was seen on the way.
pub fn run(
    plan: &Plan,
    how: &BypassPlan,
    address: SocketAddr,
    setup: &Setup,
    progress: impl Fn(),
) -> Result<Asked, LoadError> {
    let threads = setup.threads;
    let shared = Arc::new(Shared {
        ready: AtomicUsize::new(0),
        finished: AtomicUsize::new(0),
        in_use: AtomicUsize::new(0),
        threads,
        stop: Arc::clone(&setup.stop),
        broken: OnceLock::new(),
    });
    let (parts_out, parts_in) = channel();
    let config = config(plan, how, address)?;
    let lifecycle = Lifecycle::new();
    let make = {
        let (setup, shared) = (setup.clone(), Arc::clone(&shared));
        let limits = Limits {
            connections: plan.connections,
            timeout_ns: plan.timeout.as_nanos() as u64,
            duration_ns: (plan.window.asking()).map(|asking| asking.as_nanos() as u64),
            cores: how.cores.clone(),
        };
        move |core| {
            Caller::new(
                core,
                &setup,
                &limits,
                Arc::clone(&shared),
                parts_out.clone(),
            )
        }
    };
    let running = config.start(make, &lifecycle).map_err(bypass)?;
    let warnings: Vec<String> = (running.notices.iter())
        .filter(|notice| matches!(notice, Notice::Warning(_)))
        .map(ToString::to_string)
        .collect();
    let mut shares = BusyShares::default();
    let parts = wait_for_parts(&parts_in, &running, threads, || {
        progress();
        shares.look(&shared, &running.counters);
    });
    // The kernel's part of it goes with the sockets.
    let network = network(&running.counters);
    let busy_ns: Vec<u64> = busy_ns(&running.counters).collect();
    lifecycle.advance(match parts {
        Ok(_) => LifecyclePhase::Drain,
        Err(_) => LifecyclePhase::Stop,
    });
    for core in running.cores {
        match core.join() {
            Ok(ended) => ended.map_err(bypass)?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    if shared.broken.get().is_some() {
        return Err(TransportError::SourcePorts.into());
    }
    let mut parts = parts?;
    for (core, (part, busy_ns)) in parts.iter_mut().zip(busy_ns).enumerate() {
        let elapsed_ns = part.ended_ns - part.started_ns;
        let share = shares.of(core);
        // What it did to open the connections is in `busy_ns`, but not in the shares.
        part.busy_share = share.unwrap_or(busy_share(busy_ns, elapsed_ns));
        part.busy_ns = (part.busy_share * elapsed_ns as f64) as u64;
    }
    Ok(Asked {
        parts,
        network: Some(network),
        warnings,
    })
}

/// How busy the cores were while all of them asked: between the first and the last look in that time.
#[derive(Default)]
struct BusyShares {
    first: Option<(std::time::Instant, Vec<u64>)>,
    last: Option<(std::time::Instant, Vec<u64>)>,
}

impl BusyShares {
    fn look(&mut self, shared: &Shared, counters: &[CounterGroup]) {
        let are_ready = shared.ready.load(Ordering::Acquire) == shared.threads;
        if are_ready && shared.finished.load(Ordering::Acquire) == 0 {
            let seen = (std::time::Instant::now(), busy_ns(counters).collect());
            match &self.first {
                None => self.first = Some(seen),
                Some(_) => self.last = Some(seen),
            }
        }
    }

    /// `None` for a run that was too short to look twice.
    fn of(&self, core: usize) -> Option<f64> {
        let ((from, busy_before), (until, busy_after)) =
            self.first.as_ref().zip(self.last.as_ref())?;
        let busy_ns = busy_after
            .get(core)?
            .saturating_sub(*busy_before.get(core)?);
        Some(busy_share(busy_ns, (*until - *from).as_nanos() as u64))
    }
}

/// How long each core has had something to do.
fn busy_ns(counters: &[CounterGroup]) -> impl Iterator<Item = u64> {
    per_core(counters, "worker", "busy_ns")
}

/// One part for each core, in their order.
fn wait_for_parts(
    parts_in: &Receiver<(usize, Part)>,
    running: &Running,
    threads: usize,
    mut look: impl FnMut(),
) -> Result<Vec<Part>, LoadError> {
    let mut parts: Vec<(usize, Part)> = Vec::with_capacity(threads);
    while parts.len() < threads {
        look();
        match parts_in.recv_timeout(PROGRESS_INTERVAL) {
            Ok(part) => parts.push(part),
            Err(RecvTimeoutError::Timeout) => {
                if running.cores.iter().any(|core| core.is_finished()) {
                    return Err(LoadError::CoreEnded);
                }
            }
            Err(RecvTimeoutError::Disconnected) => return Err(LoadError::CoreEnded),
        }
    }
    parts.sort_by_key(|&(core, _)| core);
    Ok(parts.into_iter().map(|(_, part)| part).collect())
}

fn config(plan: &Plan, bypass: &BypassPlan, address: SocketAddr) -> Result<XdpConfig, LoadError> {
    let source_ports = bypass.source_ports.clone().unwrap_or_else(|| {
        let wanted = u16::try_from(plan.connections * 2).unwrap_or(u16::MAX - 1_024);
        (*SOURCE_PORTS.start()).min(u16::MAX - wanted)..=*SOURCE_PORTS.end()
    });
    let reserved_ports: Vec<u16> = kernel_ports()
        .filter(|port| source_ports.contains(port))
        .collect();
    let ports = (source_ports.len() - reserved_ports.len()) * bypass.source_addresses.len().max(1);
    if ports < plan.connections {
        return Err(LimitError::SourcePorts {
            connections: plan.connections,
            ports,
        }
        .into());
    }
    let calls = Calls {
        destination: address,
        next_hop_mac: bypass.next_hop_mac,
        source_ports,
        reserved_ports,
    };
    let timeout_ms = u32::try_from(plan.timeout.as_millis()).unwrap_or(NEVER_MS);
    let defaults = XdpConfig::calling(&bypass.interface, calls);
    Ok(XdpConfig {
        addresses: bypass.source_addresses.clone(),
        cores: bypass.cores.clone(),
        mode: match bypass.mode {
            Mode::Auto => ModeChoice::Auto,
            Mode::Native => ModeChoice::Native,
            Mode::Generic => ModeChoice::Generic,
        },
        mtu: bypass.mtu.map(usize::from),
        wait: match bypass.spin_us {
            Some(spin_us) => Wait::Adaptive { spin_us },
            None => defaults.wait,
        },
        drain_ms: DRAIN_MS + (plan.connections / CLOSED_PER_MS) as u32,
        stack: StackConfig {
            // A single core may get all of them, while others have not closed yet.
            connections: (plan.connections + plan.connections / 8 + 64) as u32,
            time_wait_ms: TIME_WAIT_MS,
            receive_buffer_bytes: BUFFER_BYTES,
            // With room for one more request when all of a pipeline waits: answers must be read also then, or
            // both sides might wait for each other.
            send_buffer_bytes: (plan.pipeline * plan.request.bytes_max() + Caller::REPLY_BYTES_MIN)
                .max(BUFFER_BYTES),
            deadlines: Deadlines {
                half_open_ms: timeout_ms,
                handshake_ms: timeout_ms,
                idle_ms: NEVER_MS,
                head_ms: timeout_ms,
                body_ms: timeout_ms,
                send_ms: timeout_ms,
                close_ms: DRAIN_MS,
                user_timeout_ms: timeout_ms.saturating_mul(2),
                ..defaults.stack.deadlines
            },
            ..defaults.stack.clone()
        },
        ..defaults
    })
}

/// The stack's own error, whatever its type.
fn bypass(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> LoadError {
    LoadError::Bypass(error.into())
}

/// The local ports that TCP sockets of the kernel's use in this network namespace.
fn kernel_ports() -> impl Iterator<Item = u16> {
    let tables = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];
    let tables = tables.map(|path| fs::read_to_string(path).unwrap_or_default());
    tables.into_iter().flat_map(|table| {
        let ports: Vec<u16> = table.lines().skip(1).filter_map(local_port).collect();
        ports
    })
}

/// The port in a line of proc_net_tcp(5): `0: 0100007F:1F90 00000000:0000 0A …`.
fn local_port(line: &str) -> Option<u16> {
    let local = line.split_ascii_whitespace().nth(1)?;
    u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()
}

fn network(counters: &[CounterGroup]) -> Network {
    let sum = |part, name| per_core(counters, part, name).sum::<u64>();
    let of_kernel = [
        "rx_dropped",
        "rx_ring_full",
        "rx_invalid_descs",
        "tx_invalid_descs",
    ];
    let kernel: u64 = of_kernel.iter().map(|name| sum("xsk", name)).sum();
    let discards = (counters.iter())
        .filter(|group| group.part == "discards")
        .flat_map(|group| group.counters.samples());
    Network {
        discards: discards.map(|sample| sample.value).sum(),
        retransmissions: sum("tcp", "retrans_segs"),
        link_drops: kernel + sum("tcp", "rx_dropped_no_slot"),
        strays: sum("tcp", "unknown_flow_ignored"),
        handovers: sum("tcp", "handovers"),
    }
}

/// The counter `name` of every group that has it, in the order of the cores.
fn per_core<'a>(
    counters: &'a [CounterGroup],
    part: &'a str,
    name: &'a str,
) -> impl Iterator<Item = u64> + 'a {
    counters
        .iter()
        .filter(move |group| group.part == part)
        .flat_map(|group| group.counters.samples())
        .filter(move |sample| sample.name == name)
        .map(|sample| sample.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_the_kernel_are_left_alone() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(kernel_ports().any(|used| used == port));
        assert_eq!(
            local_port("   0: 0100007F:1F90 00000000:0000 0A"),
            Some(8080)
        );
        assert_eq!(local_port("sl local_address"), None);
    }
}
