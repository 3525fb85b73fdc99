//! Runs simulations of a shard on a bad wire, by seed; `scripts/simulate` says how.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use barewire_tcp_testing::simulation;

/// One connection in so many may be given up by a smoltcp peer; it is about one in 20,000.
const GIVEN_UP_SHARE_MAX: u64 = 2_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| arguments.get(at).and_then(|text| text.parse().ok());
    match (arguments.first().map(String::as_str), number(0), number(1)) {
        (Some("seed"), _, Some(seed)) => one(seed, arguments.get(2).map(String::as_str)),
        (_, Some(first), Some(seeds)) => many(first, seeds),
        _ => {
            eprintln!("usage: simulate FIRST SEEDS | simulate seed SEED [PORT]");
            ExitCode::from(2)
        }
    }
}

/// Runs one seed and prints the segments of the client with `port`.
fn one(seed: u64, port: Option<&str>) -> ExitCode {
    let port = port.and_then(|port| port.parse::<u16>().ok());
    let result = simulation::run_observed(seed, |at, segment| {
        let from_client = Some(segment.source.port()) == port;
        if from_client || Some(segment.destination.port()) == port {
            println!(
                "{:>12.6} {} {:?} seq {} ack {} win {} len {}",
                at.total_micros() as f64 / 1e6,
                if from_client { '>' } else { '<' },
                segment.flags,
                segment.seq,
                segment.ack,
                segment.window,
                segment.payload.len()
            );
        }
    });
    match result {
        Ok(outcome) => {
            println!("{outcome:?}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}

/// Runs seeds on all cores and prints those that fail.
fn many(first: u64, seeds: u64) -> ExitCode {
    let (next, failed) = (AtomicU64::new(first), AtomicU64::new(0));
    let (connections, given_up, bytes, retransmissions) =
        <(AtomicU64, AtomicU64, AtomicU64, AtomicU64)>::default();
    let started_at = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= first + seeds {
                        return;
                    }
                    match simulation::run(seed) {
                        Ok(outcome) => {
                            connections.fetch_add(outcome.connections as u64, Relaxed);
                            given_up.fetch_add(outcome.given_up as u64, Relaxed);
                            bytes.fetch_add(outcome.bytes as u64, Relaxed);
                            retransmissions.fetch_add(outcome.retransmissions, Relaxed);
                        }
                        Err(failure) => {
                            failed.fetch_add(1, Relaxed);
                            println!("{failure}");
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    let (connections, given_up) = (connections.into_inner(), given_up.into_inner());
    println!(
        "{seeds} seeds from {first}: {failed} failed; {connections} connections, \
         {given_up} given up by smoltcp peers, {} bytes, {} retransmissions, {:.1} s",
        bytes.into_inner(),
        retransmissions.into_inner(),
        started_at.elapsed().as_secs_f64()
    );
    match failed == 0 && given_up <= connections / GIVEN_UP_SHARE_MAX {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
