//! Throughput reports that a stranger can trust and reproduce; `scripts/report` is its front.
//!
//! ```text
//!  matrix ──▶ measure ──▶ results.json ──▶ render ──▶ report.html, report.md
//!               │ │ │                  └─▶ compare
//!      site ────┘ │ └──── usage (CPU, memory of both sides)
//!      server ────┘ load (wrk, our own) machine (what it was measured on)
//! ```

mod compare;
mod interrupt;
mod load;
mod machine;
mod matrix;
mod measure;
mod render;
mod results;
mod server;
mod site;
mod usage;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;

use matrix::Matrix;
use measure::Measured;
use results::{Results, SCHEMA};
use site::{Site, repository};

/// Measures barewire's stacks and other servers against each other, and writes a report.
#[derive(Debug, Parser)]
#[command(name = "report", version)]
struct Arguments {
    /// Ends within two minutes: fewer rounds, one number of connections.
    #[arg(long, conflicts_with = "matrix")]
    quick: bool,

    /// Another matrix than benches/report/default.toml.
    #[arg(long, value_name = "FILE")]
    matrix: Option<PathBuf>,

    /// Only these servers of the matrix.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    servers: Vec<String>,

    /// Only these routes of the matrix.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    routes: Vec<String>,

    /// Measure on this interface instead of the lab; needs --address and --client.
    #[arg(long, value_name = "IFACE", requires_all = ["address", "client"])]
    interface: Option<String>,

    /// The address of the interface that the load asks.
    #[arg(long, value_name = "ADDR", requires = "interface")]
    address: Option<String>,

    /// A command that runs its arguments on a load machine, as in "ssh loadgen"; once for each.
    #[arg(long, value_name = "COMMAND", requires = "interface")]
    client: Vec<String>,

    /// Threads of wrk on each load machine behind --client.
    #[arg(long, value_name = "N", default_value_t = 4)]
    client_threads: u32,

    /// Cores of the servers.
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_values_t = [0usize]
    )]
    server_cores: Vec<usize>,

    /// Cores of the load, in the lab [default: all others].
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    client_cores: Vec<usize>,

    /// The port that the servers are given.
    #[arg(long, default_value_t = 8080, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,

    /// Where the report's directory is made.
    #[arg(long, value_name = "DIR", default_value = "reports")]
    output: PathBuf,

    /// Print what changed between two reports' directories instead of measuring.
    #[arg(long, num_args = 2, value_names = ["BEFORE", "AFTER"], exclusive = true)]
    compare: Vec<PathBuf>,

    /// Draw a report's directory again from its results.json instead of measuring.
    #[arg(long, value_name = "DIR", exclusive = true)]
    render: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<interrupt::Interrupted>() => ExitCode::from(130),
        Err(error) => {
            eprintln!("report: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    if let [before, after] = arguments.compare.as_slice() {
        print!("{}", compare::compare(before, after)?);
        return Ok(());
    }
    if let Some(directory) = &arguments.render {
        return render::write(&Results::read(directory)?, directory);
    }
    let mut matrix = Matrix::read(&matrix_path(arguments))?;
    matrix.select(&arguments.servers, &arguments.routes)?;
    interrupt::listen()?;
    let site = site(arguments)?;
    load::prepare(&site, &matrix.loads)?;
    let started = jiff::Timestamp::now();
    let directory = directory(&arguments.output, started)?;
    println!("measuring into {}", directory.display());

    let mut measured = Measured::default();
    let outcome = measure::measure(&matrix, &site, &directory.join("raw"), &mut measured);
    let interrupted = match &outcome {
        Ok(()) => false,
        Err(error) => error.root_cause().is::<interrupt::Interrupted>(),
    };
    let keep = outcome.is_ok() || interrupted;
    if !keep || measured.rounds.is_empty() {
        fs::remove_dir_all(&directory)
            .with_context(|| format!("cannot remove {}", directory.display()))?;
        outcome?;
    }
    let results = collect(matrix, &site, started, measured, interrupted);
    render::write(&results, &directory)?;
    println!("report: {}", directory.join("report.html").display());
    if interrupted {
        return Err(interrupt::Interrupted.into());
    }
    Ok(())
}

fn site(arguments: &Arguments) -> Result<Site> {
    let online = std::thread::available_parallelism()?.get();
    for core in arguments.server_cores.iter().chain(&arguments.client_cores) {
        ensure!(
            *core < online,
            "core {core} does not exist: this machine has cores 0 to {}",
            online - 1
        );
    }
    let mut client_cores = arguments.client_cores.clone();
    if client_cores.is_empty() {
        client_cores = (0..online)
            .filter(|core| !arguments.server_cores.contains(core))
            .collect();
    }
    match (&arguments.interface, &arguments.address) {
        (Some(interface), Some(address)) => Site::network(
            interface.clone(),
            address.clone(),
            arguments.port,
            arguments.server_cores.clone(),
            &arguments.client,
            arguments.client_threads,
        ),
        _ => {
            ensure!(
                !client_cores
                    .iter()
                    .any(|core| arguments.server_cores.contains(core)),
                "server and load must not share a core: --server-cores and --client-cores overlap"
            );
            Site::lab(arguments.server_cores.clone(), client_cores, arguments.port)
        }
    }
}

fn collect(
    matrix: Matrix,
    site: &Site,
    started: jiff::Timestamp,
    measured: Measured,
    interrupted: bool,
) -> Results {
    let commands = matrix
        .servers
        .iter()
        .map(|server| {
            let command = server::command_line(server, site);
            (server.name.clone(), command)
        })
        .collect();
    Results {
        schema: SCHEMA,
        started: started.to_string(),
        host: rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned(),
        interrupted,
        site: site.record.clone(),
        machine: machine::Machine::inspect(site),
        commands,
        load_command: load::command_line(
            site,
            &matrix.routes[0],
            matrix.connections[0],
            matrix.measure_s,
        ),
        not_tuned: not_tuned(&matrix, site),
        rounds: measured.rounds,
        repeated: measured.repeated,
        matrix,
    }
}

/// What a reader must not take for granted.
fn not_tuned(matrix: &Matrix, site: &Site) -> Vec<String> {
    let mut sentences = Vec::new();
    if site.record.kind == "lab" {
        sentences.extend(
            [
                "A veth pair stands for the network: no NIC, no zero-copy, no hardware offloads; AF_XDP runs in copy \
                 mode, which takes away most of what a bypass is for.",
                "Server and load share one machine: its caches, its memory bandwidth and its hypervisor.",
                "The kernel's servers run without GRO and TSO gains, as the threaded lab turns segmentation \
                 offloads off at both ends.",
            ]
            .map(str::to_owned),
        );
    }
    let machine = machine::Machine::inspect(site);
    if machine
        .fact("mitigations active")
        .is_some_and(|active| active != "none")
    {
        sentences.push(
            "The kernel's mitigations for CPU vulnerabilities are on, which costs the kernel's stack more than the \
             bypass."
                .to_owned(),
        );
    }
    if machine.fact("cores isolated") == Some("none") {
        sentences.push(
            "No core is isolated from the scheduler, and interrupts go where they go.".to_owned(),
        );
    }
    for server in &matrix.servers {
        sentences.extend(server.not_tuned.iter().cloned());
    }
    sentences
}

fn matrix_path(arguments: &Arguments) -> PathBuf {
    let name = if arguments.quick {
        "quick.toml"
    } else {
        "default.toml"
    };
    let of_repository = || repository().join("benches/report").join(name);
    arguments.matrix.clone().unwrap_or_else(of_repository)
}

/// Makes `<UTC time>-<host>` below `output`.
fn directory(output: &Path, started: jiff::Timestamp) -> Result<PathBuf> {
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let name = format!("{}-{host}", started.strftime("%Y%m%dT%H%M%SZ"));
    let directory = output.join(name);
    fs::create_dir_all(directory.join("raw"))
        .with_context(|| format!("cannot make {}", directory.display()))?;
    fs::canonicalize(&directory).with_context(|| format!("cannot find {}", directory.display()))
}
