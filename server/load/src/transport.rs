//! What the transports have in common: their results and their time limits.

use std::io;

use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
use thiserror::Error;

use super::tally::Tally;

/// Connections that are being opened at the same time, and first requests that await their answers, over all
/// threads: fewer than the shortest usual listen backlog, and than the slots of a veth.
const BEGINNING_MAX: usize = 64;
/// How long a connection that failed waits before it is opened again.
pub const RETRY_NS: u64 = 100_000_000;
/// What is due sooner than this is waited for without sleeping: waking up takes about as long.
pub const SPIN_NS: u64 = 50_000;

/// What one thread's part of a run came to.
#[derive(Debug)]
pub struct Part {
    /// Its results.
    pub tally: Tally,
    /// The CPU it is pinned to, if it is.
    pub cpu: Option<usize>,
    /// When it began to ask, in nanoseconds of the client's clock.
    pub started_ns: u64,
    /// When the last answer came or the last connection broke.
    pub ended_ns: u64,
    /// It stopped asking because time was up.
    pub is_timed_out: bool,
    /// Processor time that it took in between, system calls included.
    pub cpu_ns: u64,
    /// Time in between in which it had something to do. Not the same for a thread that spins.
    pub busy_ns: u64,
    /// Part of the time in which it had something to do while it asked, 0 to 1: waiting for the last answers
    /// is left out.
    pub busy_share: f64,
    /// No answer came for so long that it gave up.
    pub gave_up: bool,
}

/// What this machine could not do.
#[derive(Debug, Error)]
pub enum TransportError {
    /// EMFILE, ENFILE.
    #[error("no more file descriptors: raise `ulimit -n` and fs.file-max, or lower --concurrency")]
    Descriptors,
    /// EADDRNOTAVAIL.
    #[error(
        "no more local ports for this server: connections that closed keep theirs for a minute; widen \
         net.ipv4.ip_local_port_range, set net.ipv4.tcp_tw_reuse=1, or lower --concurrency"
    )]
    Ports,
    /// All source ports of the bypass are in use.
    #[cfg(feature = "xdp")]
    #[error(
        "no source port is left to call from: connections that this side closed first keep theirs for a second, \
         others until they are closed; widen --source-ports, add a --source-address, or lower the rate"
    )]
    SourcePorts,
    /// Anything else.
    #[error("{call} failed: {cause}")]
    System {
        /// The system call.
        call: &'static str,
        /// What it said.
        cause: io::Error,
    },
}

/// One thread's share of `BEGINNING_MAX`.
pub fn beginning_max(threads: usize) -> usize {
    (BEGINNING_MAX / threads.max(1)).max(1)
}

/// `part` of `whole`, 0 to 1.
pub fn busy_share(part_ns: u64, whole_ns: u64) -> f64 {
    (part_ns as f64 / whole_ns.max(1) as f64).min(1.0)
}

/// Processor time of this thread, in nanoseconds.
pub fn thread_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// A system call that failed as no server could make it fail.
pub fn system(call: &'static str, errno: Errno) -> TransportError {
    TransportError::System {
        call,
        cause: errno.into(),
    }
}
