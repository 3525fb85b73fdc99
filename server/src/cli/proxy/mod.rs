//! `barewire proxy`: `serve`, with what origins answer instead of a site of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use barewire_http::{Http2Limits, HttpCounters, Limits};
use barewire_kernel::KernelConfig;
use barewire_proxy::{OriginCounters, Proxy, ProxyConfig, ProxyCounters, Table};
use barewire_service::stack::CounterGroup;
use barewire_teleport::TeleportCounters;
use clap::{ArgMatches, Args, Command};

use super::config::Sources;
use super::serve::{self, ServeArgs};

/// Arguments of `barewire proxy`.
#[derive(Debug, Clone, Args)]
pub struct ProxyArgs {
    /// TOML file with the routes and the pools of origins; docs/proxy.md describes it
    #[arg(long, value_name = "FILE")]
    pub routes: PathBuf,

    #[command(flatten)]
    pub serve: ServeArgs,
}

/// What all cores forward by, and what each counts.
#[derive(Debug)]
pub struct Proxying {
    table: Arc<Table>,
    cores: Vec<OfCore>,
}

#[derive(Debug, Clone)]
struct OfCore {
    counters: Arc<ProxyCounters>,
    of_origins: Vec<Arc<OriginCounters>>,
    teleport: Arc<TeleportCounters>,
    seed: u64,
}

/// Forwards until a signal or an error ends it.
///
/// # Errors
///
/// If the command line or the routes are wrong, or the machine does not give what they ask for, or a core breaks.
pub fn run(
    args: &ProxyArgs,
    matches: &ArgMatches,
    sources: &Sources,
    command: &mut Command,
) -> anyhow::Result<ExitCode> {
    let proxying = Proxying::open(&args.routes, serve::cores_max(&args.serve))?;
    serve::run(&args.serve, Some(&proxying), matches, sources, command)
}

impl Proxying {
    /// Reads the routes, for at most so many cores.
    ///
    /// # Errors
    ///
    /// If they cannot be read or used.
    fn open(path: &Path, cores_max: usize) -> anyhow::Result<Self> {
        let name = path.display();
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
        let config: ProxyConfig = toml::from_str(&text)
            .with_context(|| format!("{name} is not as docs/proxy.md says"))?;
        let table = Table::new(config).with_context(|| name.to_string())?;
        let cores = (0..cores_max).map(|_| {
            let mut seed = [0; 8];
            getrandom::fill(&mut seed).context("no random numbers")?;
            Ok(OfCore {
                counters: Arc::default(),
                of_origins: table.counters(),
                teleport: Arc::default(),
                seed: u64::from_ne_bytes(seed),
            })
        });
        Ok(Proxying {
            cores: cores.collect::<anyhow::Result<_>>()?,
            table,
        })
    }

    /// Lets a stack open what a core may need.
    pub fn configure(&self, config: &mut KernelConfig) {
        config.outbound = self.table.connections_max();
        config.tell_peers = true;
    }

    /// Makes the service of each core. `enter` is what its thread does first.
    pub fn maker<E: Fn() + Clone + Send + 'static>(
        &self,
        limits: Limits,
        http2: Option<Http2Limits>,
        http: Arc<[Arc<HttpCounters>]>,
        enter: E,
    ) -> impl Fn(usize) -> Proxy + Clone + Send + 'static + use<E> {
        let (table, cores) = (Arc::clone(&self.table), self.cores.clone());
        move |core| {
            enter();
            let OfCore {
                counters,
                of_origins,
                teleport,
                seed,
            } = cores[core].clone();
            let proxy = Proxy::new(&table, limits, http2, counters, of_origins, seed);
            proxy
                .with_counters(Arc::clone(&http[core]))
                .with_teleport_counters(teleport)
        }
    }

    /// What the first `cores` count.
    pub fn counters(&self, cores: usize) -> impl Iterator<Item = CounterGroup> + '_ {
        let cores = self.cores.iter().take(cores).enumerate();
        cores.flat_map(move |(core, of_core)| {
            let all = CounterGroup {
                core: Some(core),
                queue: None,
                part: "proxy",
                counters: of_core.counters.clone(),
            };
            let origins = of_core.of_origins.iter().zip(self.table.origins());
            let origins = origins.map(move |(counters, (pool, address))| CounterGroup {
                core: Some(core),
                queue: None,
                part: part_of(pool, &address.to_string()),
                counters: counters.clone(),
            });
            let teleport = CounterGroup {
                core: Some(core),
                queue: None,
                part: "teleport_out",
                counters: of_core.teleport.clone(),
            };
            let teleport = self.table.has_teleport().then_some(teleport);
            std::iter::once(all).chain(teleport).chain(origins)
        })
    }
}

/// The name under which an origin is counted. There are as many as origins, and they are named once.
fn part_of(pool: &str, address: &str) -> &'static str {
    let is_word = |letter: char| letter.is_ascii_alphanumeric();
    let name = format!("origin_{pool}_{address}");
    name.replace(|letter| !is_word(letter), "_").leak()
}
