//! `barewire proxy`: `serve`, with what origins answer instead of a site of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use barewire_http::{Http2Limits, HttpCounters, Limits};
use barewire_kernel::KernelConfig;
use barewire_proxy::{
    CacheCounters, Order, Orders, OriginCounters, Proxy, ProxyConfig, ProxyCounters, Purge, Table,
};
use barewire_service::Lifecycle;
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
    orders: Orders,
}

/// What a running proxy can be told.
#[derive(Debug)]
pub struct Handle {
    orders: Orders,
    lifecycle: Lifecycle,
    cores: usize,
    has_cache: bool,
}

/// How long all cores may take to do what they are told.
const ORDER_TIMEOUT: Duration = Duration::from_millis(1500);

#[derive(Debug, Clone)]
struct OfCore {
    counters: Arc<ProxyCounters>,
    of_origins: Vec<Arc<OriginCounters>>,
    teleport: Arc<TeleportCounters>,
    cache: Arc<CacheCounters>,
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
                cache: Arc::default(),
                seed: u64::from_ne_bytes(seed),
            })
        });
        Ok(Proxying {
            cores: cores.collect::<anyhow::Result<_>>()?,
            orders: Orders::new(cores_max),
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
        let orders = self.orders.clone();
        move |core| {
            enter();
            let OfCore {
                counters,
                of_origins,
                teleport,
                cache,
                seed,
            } = cores[core].clone();
            let proxy = Proxy::new(&table, limits, http2, counters, of_origins, seed);
            proxy
                .with_counters(Arc::clone(&http[core]))
                .with_teleport_counters(teleport)
                .with_cache_counters(cache)
                .with_orders(orders.clone(), core)
        }
    }

    /// What the first `cores` can be told, which this wakes.
    pub fn handle(&self, lifecycle: &Lifecycle, cores: usize) -> Handle {
        Handle {
            orders: self.orders.clone(),
            lifecycle: lifecycle.clone(),
            cores,
            has_cache: self.table.has_cache(),
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
            let cache = CounterGroup {
                core: Some(core),
                queue: None,
                part: "cache",
                counters: of_core.cache.clone(),
            };
            let cache = self.table.has_cache().then_some(cache);
            std::iter::once(all)
                .chain(cache)
                .chain(teleport)
                .chain(origins)
        })
    }
}

impl Handle {
    /// Removes responses from the caches of all cores. Returns how many.
    ///
    /// # Errors
    ///
    /// Why not, or not everywhere.
    pub fn purge(&self, what: &str) -> Result<usize, String> {
        if !self.has_cache {
            return Err("no route has a cache".into());
        }
        let purge = Purge::parse(what).ok_or_else(|| {
            format!("{what:?} has no path: name host and path, as in example.org/, or *")
        })?;
        Ok(self.give(&Order::Purge(purge))?.into_iter().sum())
    }

    /// Tells all cores to do something, and waits for their answers.
    fn give(&self, order: &Order) -> Result<Vec<usize>, String> {
        let answers = self.orders.give(order, self.cores);
        let answers = answers.ok_or("its cores are busy with other orders: try again")?;
        // That of the present phase wakes those that sleep, and changes nothing.
        self.lifecycle.advance(self.lifecycle.phase());
        let next = |_| answers.recv_timeout(ORDER_TIMEOUT);
        let all: Result<Vec<_>, _> = (0..self.cores).map(next).collect();
        all.map_err(|_| "not every core has done it yet: it is done in their next turns".into())
    }
}

/// The name under which an origin is counted. There are as many as origins, and they are named once.
fn part_of(pool: &str, address: &str) -> &'static str {
    let is_word = |letter: char| letter.is_ascii_alphanumeric();
    let name = format!("origin_{pool}_{address}");
    name.replace(|letter| !is_word(letter), "_").leak()
}
