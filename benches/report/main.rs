//! Throughput reports that others can check and reproduce, for `scripts/report`.
//!
//! ```text
//!  matrix ──▶ measure ──▶ results.json ──▶ render ──▶ report.html, report.md
//!               │ │ │                  └─▶ compare
//!      site ────┘ │ └──── usage (CPU, memory of both sides)
//!      server ────┘ load (wrk, our own) machine (what it was measured on)
//! ```

mod command;
mod compare;
mod interrupt;
mod load;
mod machine;
mod matrix;
mod measure;
mod probe;
mod render;
mod results;
mod server;
mod site;
mod usage;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;

use command::repository;
use matrix::Matrix;
use measure::Bench;
use results::{Results, SCHEMA, Words};
use site::Site;

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

    /// Go on with a report that was interrupted or lacks rounds, with its own matrix, site and words.
    #[arg(
        long,
        value_name = "DIR",
        conflicts_with_all = ["quick", "matrix", "servers", "routes", "interface", "server_cores", "client_cores", "port", "output"]
    )]
    resume: Option<PathBuf>,

    /// Keep rounds also when other processes use their cores; they are marked.
    #[arg(long)]
    allow_busy: bool,

    /// What to call the report [default: the host and the date].
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,

    /// Who has measured.
    #[arg(long, value_name = "TEXT")]
    author: Option<String>,

    /// Paragraphs to begin with, apart by an empty line; @FILE reads them from a file.
    #[arg(long, value_name = "TEXT")]
    notes: Option<String>,

    /// Print what changed between two reports' directories instead of measuring.
    #[arg(long, num_args = 2, value_names = ["BEFORE", "AFTER"], exclusive = true)]
    compare: Vec<PathBuf>,

    /// Draw a report's directory again from its results.json instead of measuring.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["resume", "matrix", "quick"])]
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
        let mut results = Results::read(directory)?;
        say(arguments, &mut results.words)?;
        return render::write(&results, directory);
    }
    interrupt::listen()?;
    let (site, directory, mut results) = match &arguments.resume {
        Some(directory) => resume(arguments, directory)?,
        None => begin(arguments)?,
    };
    say(arguments, &mut results.words)?;
    println!("measuring into {}", directory.display());

    let bench = Bench {
        site: &site,
        logs: &directory.join("raw"),
        allow_busy: arguments.allow_busy,
    };
    // Whatever ends this process, what was measured until then is there to go on with.
    results.interrupted = true;
    results.failed.clear();
    let outcome = measure::measure(&bench, &mut results, &|results| {
        render::write_json(results, &directory)
    });
    if results.rounds.is_empty() {
        fs::remove_dir_all(&directory)
            .with_context(|| format!("cannot remove {}", directory.display()))?;
        outcome?;
        bail!("nothing could be measured: {}", results.failed.join("; "));
    }
    results.interrupted = outcome.is_err();
    render::write(&results, &directory)?;
    println!("report: {}", directory.join("report.html").display());
    let go_on = format!("`scripts/report --resume {}` goes on", directory.display());
    if let Err(error) = outcome {
        eprintln!("report: it holds what was measured until now; {go_on}");
        return match error.root_cause().is::<interrupt::Interrupted>() {
            true => Err(interrupt::Interrupted.into()),
            false => Err(error),
        };
    }
    ensure!(
        results.failed.is_empty(),
        "the report is partial, {go_on}; missing: {}",
        results.failed.join("; ")
    );
    Ok(())
}

/// A site and a directory for a new report, of which only the rounds are missing.
fn begin(arguments: &Arguments) -> Result<(Site, PathBuf, Results)> {
    let mut matrix = Matrix::read(&matrix_path(arguments))?;
    matrix.select(&arguments.servers, &arguments.routes)?;
    let site = site(arguments)?;
    let is_lab = site.record.kind == "lab";
    matrix.choose_loads(is_lab, site.record.client_cores.len());
    if !is_lab {
        // Open loops are our own load's, which takes the lab's interface.
        matrix.fixed_rates.clear();
    }
    load::prepare(&site, &matrix.loads)?;
    let started = jiff::Timestamp::now();
    let directory = directory(&arguments.output, started)?;
    let results = describe(matrix, &site, started);
    Ok((site, directory, results))
}

/// The site of a report that has begun, and what it has.
fn resume(arguments: &Arguments, directory: &Path) -> Result<(Site, PathBuf, Results)> {
    let directory = fs::canonicalize(directory)
        .with_context(|| format!("cannot find {}", directory.display()))?;
    let results = Results::read(&directory)?;
    let here = host();
    ensure!(
        results.host == here,
        "{} was begun on {}, and this is {here}: rounds of different machines do not belong in one report",
        directory.display(),
        results.host
    );
    let record = results.site.clone();
    let site = match record.kind.as_str() {
        "lab" => Site::lab(record.server_cores, record.client_cores, record.port)?,
        _ => Site::network(
            record.interface,
            record.address,
            record.port,
            record.server_cores,
            &record.load_machines,
            arguments.client_threads,
        )?,
    };
    load::prepare(&site, &results.matrix.loads)?;
    let now = machine::Machine::inspect(&site);
    for fact in [machine::BINARY, "kernel"] {
        let before = results.machine.fact(fact);
        ensure!(
            before == now.fact(fact),
            "the {fact} was {} when the report began and is {} now: begin a new one",
            before.unwrap_or("unknown"),
            now.fact(fact).unwrap_or("unknown")
        );
    }
    Ok((site, directory, results))
}

/// Takes over what the publisher has said this time.
fn say(arguments: &Arguments, words: &mut Words) -> Result<()> {
    let Arguments {
        title,
        author,
        notes,
        ..
    } = arguments;
    let notes = match notes.as_ref().map(|notes| (notes, notes.strip_prefix('@'))) {
        Some((_, Some(path))) => Some(
            fs::read_to_string(path)
                .with_context(|| format!("cannot read the notes from {path}"))?,
        ),
        Some((notes, None)) => Some(notes.clone()),
        None => None,
    };
    let take = |word: &mut Option<String>, said: Option<String>| *word = said.or(word.take());
    take(&mut words.title, title.clone());
    take(&mut words.author, author.clone());
    take(&mut words.notes, notes);
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

/// A report without rounds.
fn describe(matrix: Matrix, site: &Site, started: jiff::Timestamp) -> Results {
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
        host: host(),
        interrupted: false,
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
        rounds: Vec::new(),
        repeated: Vec::new(),
        failed: Vec::new(),
        words: Words::default(),
        matrix,
    }
}

fn host() -> String {
    let uname = rustix::system::uname();
    uname.nodename().to_string_lossy().into_owned()
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
    if site.record.kind == "lab" && site.record.client_cores.len() == 1 {
        sentences.push(
            "One core makes the load and receives for it: with wrk it is full before an unpipelined server is, so that \
             such a server's limit cannot be seen with wrk here (barewire load costs a third of it, and may reach it). \
             How servers scale over cores cannot be seen at all."
                .to_owned(),
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
    let name = format!("{}-{}", started.strftime("%Y%m%dT%H%M%SZ"), host());
    let directory = output.join(name);
    fs::create_dir_all(directory.join("raw"))
        .with_context(|| format!("cannot make {}", directory.display()))?;
    fs::canonicalize(&directory).with_context(|| format!("cannot find {}", directory.display()))
}
