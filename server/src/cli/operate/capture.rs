//! `barewire capture`: writes what a running server receives and sends.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Args, value_parser};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use super::ServerArgs;
use crate::console::complain;
use crate::operate::capture::{Event, File, Filter, SNAP_BYTES_MAX};

/// Arguments of `barewire capture`.
#[derive(Debug, Clone, Args)]
pub struct CaptureArgs {
    #[command(flatten)]
    server: ServerArgs,

    /// Where to write what is captured (pcapng, for tcpdump and Wireshark); - is stdout
    #[arg(short, long, value_name = "FILE")]
    write: PathBuf,

    /// Keep only frames that match, as in `port 80 and not (syn or host 10.0.0.1)`
    #[arg(long, value_name = "EXPR")]
    filter: Option<Filter>,

    /// End after so many frames [default: until SIGINT]
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// End after so long
    #[arg(long, value_name = "MS", value_parser = value_parser!(u64).range(1..))]
    duration_ms: Option<u64>,

    /// Keep so many bytes of each frame; fewer cost the cores less
    #[arg(long, value_name = "N", default_value_t = SNAP_BYTES_MAX, value_parser = value_parser!(u32).range(1..=i64::from(SNAP_BYTES_MAX)))]
    snap_bytes: u32,
}

/// Captures until there is enough, a signal comes, or the server ends.
///
/// # Errors
///
/// If there is no server, it has no queues of its own, or the file cannot be written.
pub fn run(args: &CaptureArgs) -> anyhow::Result<ExitCode> {
    match capture(args) {
        // The reader has closed the pipe.
        Err(error) if is_closed_pipe(&error) => Ok(ExitCode::SUCCESS),
        outcome => outcome,
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn capture(args: &CaptureArgs) -> anyhow::Result<ExitCode> {
    let is_over = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register(signal, Arc::clone(&is_over)).context("cannot catch signals")?;
    }
    let (_, connection) = args.server.connect()?;
    let (queues, mut frames) = connection.capture(args.snap_bytes)?;
    let out =
        open(&args.write).with_context(|| format!("cannot write {}", args.write.display()))?;
    let mut file = File::begin(BufWriter::new(out), &queues, args.snap_bytes)?;
    // A script may wait for this line before it sends what is to be captured.
    file.flush()?;
    complain(&format!("capturing {} queues", queues.len()));

    let until = args
        .duration_ms
        .map(|ms| Instant::now() + Duration::from_millis(ms));
    let (mut captured, mut filtered_out, mut is_enough) = (0, 0, false);
    let lost = loop {
        match frames.next_event()? {
            Event::Frame(frame) if args.count.is_none_or(|count| captured < count) => {
                if args
                    .filter
                    .as_ref()
                    .is_none_or(|filter| filter.matches(&frame))
                {
                    file.add(&frame)?;
                    captured += 1;
                } else {
                    filtered_out += 1;
                }
            }
            Event::Frame(_) => {}
            Event::Nothing => file.flush()?,
            Event::End { lost } => break lost,
        }
        let is_over = is_over.load(Ordering::Relaxed)
            || until.is_some_and(|until| Instant::now() >= until)
            || args.count == Some(captured);
        if is_over && !is_enough {
            is_enough = true;
            // A server that is gone says so with the next event.
            let _ = frames.enough();
        }
    };
    file.end(lost.unwrap_or(0))?;
    let lost = lost.map_or("the server has ended".into(), |lost| format!("{lost} lost"));
    complain(&format!(
        "{captured} frames captured, {filtered_out} filtered out, {lost}"
    ));
    Ok(ExitCode::SUCCESS)
}

fn open(path: &Path) -> io::Result<Box<dyn Write>> {
    Ok(match path.to_str() {
        Some("-") => Box::new(io::stdout()),
        _ => Box::new(fs::File::create(path)?),
    })
}
