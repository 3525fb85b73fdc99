//! `barewire proxy`: `serve`, with what origins answer instead of a site of its own.

mod running;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use barewire_http::{Http2Limits, HttpCounters, Limits};
use barewire_kernel::KernelConfig;
use barewire_proxy::{CacheCounters, Orders, Proxy, ProxyConfig, ProxyCounters, Table};
use barewire_service::Lifecycle;
use barewire_teleport::TeleportCounters;
use clap::{ArgMatches, Args, Command};

pub use self::running::Handle;
use self::running::OfTable;
use super::config::Sources;
use super::serve::{self, ServeArgs};

/// Arguments of `barewire proxy`.
#[derive(Debug, Clone, Args)]
pub struct ProxyArgs {
    /// TOML file with the routes and the pools of origins, read again at SIGHUP, and when it changes or a file of TLS that it
    /// names; docs/proxy.md describes it
    #[arg(long, value_name = "FILE")]
    pub routes: PathBuf,

    #[command(flatten)]
    pub serve: ServeArgs,
}

/// What all cores forward by, and what each counts.
#[derive(Debug)]
pub struct Proxying {
    path: PathBuf,
    begun: OfTable,
    cores: Arc<[OfCore]>,
    orders: Orders,
}

/// What a core keeps whatever its table is.
#[derive(Debug, Clone)]
struct OfCore {
    counters: Arc<ProxyCounters>,
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

/// Reads the routes.
fn read(path: &Path) -> anyhow::Result<Arc<Table>> {
    let name = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    let config: ProxyConfig =
        toml::from_str(&text).with_context(|| format!("{name} is not as docs/proxy.md says"))?;
    Table::new(config).with_context(|| name.to_string())
}

impl Proxying {
    /// Reads the routes, for at most so many cores.
    ///
    /// # Errors
    ///
    /// If they cannot be read or used.
    fn open(path: &Path, cores_max: usize) -> anyhow::Result<Self> {
        let table = read(path)?;
        let cores = (0..cores_max).map(|_| {
            let mut seed = [0; 8];
            getrandom::fill(&mut seed).context("no random numbers")?;
            Ok(OfCore {
                counters: Arc::default(),
                teleport: Arc::default(),
                cache: Arc::default(),
                seed: u64::from_ne_bytes(seed),
            })
        });
        Ok(Proxying {
            path: path.to_owned(),
            begun: OfTable::new(table, cores_max, None),
            cores: cores.collect::<anyhow::Result<_>>()?,
            orders: Orders::new(cores_max),
        })
    }

    /// Lets a stack open what a core may need.
    pub fn configure(&self, config: &mut KernelConfig) {
        config.outbound = self.begun.table.connections_max();
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
        let (begun, cores) = (self.begun.clone(), Arc::clone(&self.cores));
        let orders = self.orders.clone();
        move |core| {
            enter();
            let OfCore {
                counters,
                teleport,
                cache,
                seed,
            } = cores[core].clone();
            let of_origins = begun.of_origins[core].clone();
            let proxy = Proxy::new(&begun.table, limits, http2, counters, of_origins, seed);
            proxy
                .with_counters(Arc::clone(&http[core]))
                .with_route_counters(begun.of_routes[core].clone())
                .with_teleport_counters(teleport)
                .with_cache_counters(cache)
                .with_orders(orders.clone(), core)
        }
    }

    /// What the first `cores` can be told once they run, and what they count. `lifecycle` wakes them.
    pub fn handle(&self, lifecycle: &Lifecycle, cores: usize) -> Handle {
        Handle::new(self, lifecycle, cores)
    }
}
