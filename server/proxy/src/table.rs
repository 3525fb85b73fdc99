//! The configuration, checked and ready to be searched.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use barewire_tls::{ClientError, ClientIdentity, Trust};

use crate::config::{CacheConfig, LimitsConfig, PoolConfig, Protocol, ProxyConfig, RouteConfig};
use crate::counters::{OriginCounters, RouteCounters};

/// Routes, pools and origins of all cores.
#[derive(Debug)]
pub struct Table {
    pub(crate) limits: LimitsConfig,
    /// If a route has a cache.
    pub(crate) cache: Option<CacheConfig>,
    /// In the order in which they are tried.
    pub(crate) routes: Vec<RouteEntry>,
    pub(crate) pools: Vec<Pool>,
}

#[derive(Debug, Clone)]
pub(crate) struct RouteEntry {
    pub host: Option<String>,
    pub prefix: String,
    pub pool: usize,
    pub trust_forwarded: bool,
    pub cache: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Pool {
    pub name: String,
    pub config: PoolConfig,
    /// What connections to its origins are encrypted with, for each of them; none if they are not.
    identities: Vec<ClientIdentity>,
}

/// Why a configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// There is no route.
    #[error("there is no [[route]]: nothing would be forwarded")]
    NoRoute,
    /// A route leads to a pool that is not there.
    #[error(
        "the route {prefix:?} leads to the pool {pool:?}, which is not there: add [pool.{pool}]"
    )]
    NoPool {
        /// How the route's path begins.
        prefix: String,
        /// The pool's name.
        pool: String,
    },
    /// A pool has no origins.
    #[error("the pool {0:?} has no origins: name at least one address and port")]
    NoOrigin(String),
    /// A prefix is not a path.
    #[error("the prefix {0:?} does not begin with a slash")]
    Prefix(String),
    /// Two routes are for the same requests.
    #[error("two routes are for {host}{prefix}: remove one of them")]
    Twice {
        /// Their host.
        host: String,
        /// Their prefix.
        prefix: String,
    },
    /// A limit is too low.
    #[error("{name} is {value}, but has to be at least {least}: raise it")]
    TooSmall {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: u64,
        /// Its lower bound.
        least: u64,
    },
    /// TLS is not asked for, but something that only TLS has.
    #[error("the pool {pool:?} has {key}, which only TLS has: add tls = true, or remove it")]
    NoTls {
        /// The pool's name.
        pool: String,
        /// What it has.
        key: &'static str,
    },
    /// TLS is asked for, and something is missing.
    #[error("the pool {pool:?} has {has}, but no {key}: add {key} = \"FILE\" (PEM)")]
    NoFile {
        /// The pool's name.
        pool: String,
        /// What it has.
        has: &'static str,
        /// What it needs.
        key: &'static str,
    },
    /// TLS with the origins of a pool cannot be set up.
    #[error("TLS of the pool {pool:?}: {problem}")]
    Tls {
        /// The pool's name.
        pool: String,
        /// See [`ClientError`].
        problem: String,
    },
    /// Limits are those of memory that a core has taken.
    #[error("the limits cannot change while the proxy runs: restart it")]
    Limits,
    /// The path or the host of a check cannot be put into a request.
    #[error(
        "the check of the pool {0:?} needs a path that begins with a slash, and no spaces or line ends"
    )]
    Check(String),
}

impl Table {
    /// Checks `config`.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn new(config: ProxyConfig) -> Result<Arc<Table>, ConfigError> {
        let ProxyConfig {
            limits,
            cache,
            pool,
            route,
        } = config;
        check_limits(&limits)?;
        if route.is_empty() {
            return Err(ConfigError::NoRoute);
        }
        let mut pools = Vec::new();
        for (name, config) in pool {
            check_pool(&name, &config)?;
            let identities = identities(&name, &config)?;
            pools.push(Pool {
                name,
                config,
                identities,
            });
        }
        let mut routes = Vec::new();
        for each in route {
            routes.push(entry(each, &pools, cache.is_some())?);
        }
        let has_cache = routes.iter().any(|route| route.cache);
        let cache = has_cache.then(|| cache.unwrap_or_default());
        cache.as_ref().map_or(Ok(()), check_cache)?;
        routes.sort_by_key(|route: &RouteEntry| {
            let len = std::cmp::Reverse(route.prefix.len());
            (route.host.is_none(), route.host.clone(), len)
        });
        for pair in routes.windows(2) {
            if let [a, b] = pair
                && (&a.host, &a.prefix) == (&b.host, &b.prefix)
            {
                return Err(ConfigError::Twice {
                    host: a.host.clone().unwrap_or_default(),
                    prefix: a.prefix.clone(),
                });
            }
        }
        Ok(Arc::new(Table {
            limits,
            cache,
            routes,
            pools,
        }))
    }

    /// Whether a proxy that runs by `other` can go on by this one.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn can_follow(&self, other: &Table) -> Result<(), ConfigError> {
        match self.limits == other.limits {
            true => Ok(()),
            false => Err(ConfigError::Limits),
        }
    }

    /// Host, if it has one, and prefix of every route, in the order in which they are counted.
    pub fn routes(&self) -> impl Iterator<Item = (Option<&str>, &str)> {
        let routes = self.routes.iter();
        routes.map(|route| (route.host.as_deref(), &*route.prefix))
    }

    /// Counters for one core, an element for each of [`Table::routes`].
    pub fn route_counters(&self) -> Vec<Arc<RouteCounters>> {
        self.routes().map(|_| Arc::default()).collect()
    }

    /// Every origin with its pool, in the order in which they are counted.
    pub fn origins(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        let pools = self.pools.iter();
        pools.flat_map(|pool| {
            let origins = pool.config.origins.iter();
            origins.map(move |&origin| (&*pool.name, origin))
        })
    }

    /// Most connections to origins that a core has at once.
    pub fn connections_max(&self) -> usize {
        self.limits.connections_max
    }

    /// Whether a route has a cache.
    pub fn has_cache(&self) -> bool {
        self.cache.is_some()
    }

    /// The files of TLS with origins, which were read for it.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let configs = self.pools.iter().map(|pool| &pool.config);
        let files = configs.flat_map(|config| [&config.ca, &config.certificate, &config.key]);
        files.filter_map(Option::as_deref)
    }

    /// Whether a pool is reached by TLS.
    pub(crate) fn has_tls(&self) -> bool {
        self.pools.iter().any(|pool| pool.config.tls)
    }

    /// Whether a pool is reached by teleport.
    pub fn has_teleport(&self) -> bool {
        let mut pools = self.pools.iter();
        pools.any(|pool| pool.config.protocol == Protocol::Teleport)
    }

    /// Counters for one core, an element for each of [`Table::origins`].
    pub fn counters(&self) -> Vec<Arc<OriginCounters>> {
        self.origins().map(|_| Arc::default()).collect()
    }

    /// The route of a request. `host` is what its field `Host` says.
    pub(crate) fn route(&self, host: &[u8], path: &[u8]) -> Option<usize> {
        let host = without_port(host);
        self.routes.iter().position(|route| {
            let is_host = match &route.host {
                None => true,
                Some(wanted) => wanted.as_bytes().eq_ignore_ascii_case(host),
            };
            is_host && is_below(path, route.prefix.as_bytes())
        })
    }
}

impl Pool {
    /// What a connection to `origin` is encrypted with, if it is.
    pub fn identity_for(&self, origin: SocketAddr) -> Option<&ClientIdentity> {
        let mut origins = self.config.origins.iter();
        let at = origins.position(|&each| each == origin)?;
        self.identities.get(at)
    }

    /// Whether connections to its origins can be used as those of `other`.
    pub fn speaks_as(&self, other: &Pool) -> bool {
        let (ours, theirs) = (&self.config, &other.config);
        (ours.protocol, ours.tls) == (theirs.protocol, theirs.tls)
            && (&ours.ca, &ours.certificate, &ours.key)
                == (&theirs.ca, &theirs.certificate, &theirs.key)
            && ours.server_name == theirs.server_name
    }
}

impl RouteEntry {
    pub fn is_for_the_same(&self, other: &RouteEntry) -> bool {
        (&self.host, &self.prefix) == (&other.host, &other.prefix)
    }
}

/// Whether `path` is `prefix` or below it: `/api` does not stand for `/apiary`.
fn is_below(path: &[u8], prefix: &[u8]) -> bool {
    match path.strip_prefix(prefix) {
        None => false,
        Some([]) => true,
        Some([next, ..]) => prefix.ends_with(b"/") || *next == b'/',
    }
}

fn without_port(host: &[u8]) -> &[u8] {
    match host {
        [b'[', ..] => match memchr::memchr(b']', host) {
            Some(end) => &host[..=end],
            None => host,
        },
        _ => match memchr::memchr(b':', host) {
            Some(colon) => &host[..colon],
            None => host,
        },
    }
}

fn entry(route: RouteConfig, pools: &[Pool], caches: bool) -> Result<RouteEntry, ConfigError> {
    if !route.prefix.starts_with('/') {
        return Err(ConfigError::Prefix(route.prefix));
    }
    let Some(pool) = pools.iter().position(|pool| pool.name == route.pool) else {
        return Err(ConfigError::NoPool {
            prefix: route.prefix,
            pool: route.pool,
        });
    };
    Ok(RouteEntry {
        host: route.host.map(|host| host.to_ascii_lowercase()),
        prefix: route.prefix,
        pool,
        trust_forwarded: route.trust_forwarded,
        cache: route.cache.unwrap_or(caches),
    })
}

fn check_cache(cache: &CacheConfig) -> Result<(), ConfigError> {
    at_least("cache.entries_max", cache.entries_max as u64, 1)?;
    at_least("cache.variants_max", cache.variants_max as u64, 1)?;
    at_least("cache.object_bytes_max", cache.object_bytes_max as u64, 1)?;
    let least = (cache.object_bytes_max as u64).saturating_mul(2);
    at_least("cache.bytes_max", cache.bytes_max, least)?;
    at_least("cache.bytes_max", cache.bytes_max, cache.entries_max as u64)
}

fn check_limits(limits: &LimitsConfig) -> Result<(), ConfigError> {
    /// The longest head that the responder accepts, and what is added to it.
    const REQUEST_BYTES_MIN: usize = 20 * 1024;
    const RESPONSE_BYTES_MIN: usize = 4 * 1024;
    for (name, value, least) in [
        ("calls_max", limits.calls_max, 1),
        ("connections_max", limits.connections_max, 1),
        (
            "request_buffer_bytes",
            limits.request_buffer_bytes,
            REQUEST_BYTES_MIN,
        ),
        (
            "response_buffer_bytes",
            limits.response_buffer_bytes,
            RESPONSE_BYTES_MIN,
        ),
    ] {
        at_least(name, value as u64, least as u64)?;
    }
    Ok(())
}

fn check_pool(name: &str, config: &PoolConfig) -> Result<(), ConfigError> {
    if config.origins.is_empty() {
        return Err(ConfigError::NoOrigin(name.to_owned()));
    }
    for (name, value) in [
        ("connections_max", config.connections_max),
        ("teleport_connections", config.teleport_connections),
        ("response_timeout_ms", config.response_timeout_ms),
        ("total_timeout_ms", config.total_timeout_ms),
        ("connect_timeout_ms", config.connect_timeout_ms),
        ("eject_failures", config.eject_failures),
        ("ping_interval_ms", config.ping_interval_ms),
    ] {
        at_least(name, value.into(), 1)?;
    }
    at_least("window_bytes", config.window_bytes.into(), 16 * 1024)?;
    if let Some(check) = &config.check {
        let is_word = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        let host = check.host.as_deref().unwrap_or("");
        if !check.path.starts_with('/') || !is_word(&check.path) || !is_word(host) {
            return Err(ConfigError::Check(name.to_owned()));
        }
        at_least("interval_ms", check.interval_ms.into(), 10)?;
        at_least("timeout_ms", check.timeout_ms.into(), 1)?;
    }
    Ok(())
}

/// What connections to each origin of a pool are encrypted with; nothing if they are not.
fn identities(name: &str, config: &PoolConfig) -> Result<Vec<ClientIdentity>, ConfigError> {
    let pool = || name.to_owned();
    if !config.tls {
        let only = [
            ("ca", config.ca.is_some()),
            ("certificate", config.certificate.is_some()),
            ("key", config.key.is_some()),
            ("server_name", config.server_name.is_some()),
        ];
        return match only.into_iter().find(|(_, is_given)| *is_given) {
            Some((key, _)) => Err(ConfigError::NoTls { pool: pool(), key }),
            None => Ok(Vec::new()),
        };
    }
    let missing = |has, key| ConfigError::NoFile {
        pool: pool(),
        has,
        key,
    };
    let ca = config.ca.as_deref();
    let ca = ca.ok_or_else(|| missing("tls = true", "ca"))?;
    let pair = match (&config.certificate, &config.key) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some((certificate.as_path(), key.as_path())),
        (Some(_), None) => return Err(missing("a certificate", "key")),
        (None, Some(_)) => return Err(missing("a key", "certificate")),
    };
    let server_name = config.server_name.clone();
    let names = config.origins.iter();
    let names = names.map(|origin| server_name.clone().unwrap_or(origin.ip().to_string()));
    identities_for(names, config.protocol, ca, pair).map_err(|error| ConfigError::Tls {
        pool: pool(),
        problem: error.to_string(),
    })
}

/// One for each name, all of the same files.
fn identities_for(
    mut names: impl Iterator<Item = String>,
    protocol: Protocol,
    ca: &Path,
    pair: Option<(&Path, &Path)>,
) -> Result<Vec<ClientIdentity>, ClientError> {
    let Some(first) = names.next() else {
        return Ok(Vec::new());
    };
    let trust = Trust::Authorities(ca.to_owned());
    let protocols: &[&[u8]] = match protocol {
        Protocol::Http => &[b"http/1.1"],
        Protocol::Teleport => &[barewire_teleport::ALPN],
    };
    let first = match pair {
        None => ClientIdentity::new(&first, &trust, protocols)?,
        Some(pair) => ClientIdentity::with_certificate(&first, &trust, pair, protocols)?,
    };
    let others: Result<Vec<_>, _> = names.map(|name| first.named(&name)).collect();
    let mut all = others?;
    all.insert(0, first);
    Ok(all)
}

fn at_least(name: &'static str, value: u64, least: u64) -> Result<(), ConfigError> {
    match value < least {
        true => Err(ConfigError::TooSmall { name, value, least }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(host: Option<&str>, prefix: &str, pool: &str) -> RouteConfig {
        RouteConfig {
            host: host.map(str::to_owned),
            prefix: prefix.to_owned(),
            pool: pool.to_owned(),
            trust_forwarded: false,
            cache: None,
        }
    }

    fn table(routes: Vec<RouteConfig>) -> Result<Arc<Table>, ConfigError> {
        let pool: PoolConfig = serde_json::from_str(r#"{"origins": ["127.0.0.1:1"]}"#).unwrap();
        let pool = ["a", "b"]
            .map(|name| (name.to_owned(), pool.clone()))
            .into();
        Table::new(ProxyConfig {
            limits: LimitsConfig::default(),
            cache: None,
            pool,
            route: routes,
        })
    }

    #[test]
    fn the_most_special_route_is_found() {
        let table = table(vec![
            route(None, "/", "a"),
            route(None, "/api", "a"),
            route(Some("Example.org"), "/", "b"),
            route(Some("example.org"), "/api/", "b"),
        ])
        .unwrap();
        let found = |host: &str, path: &str| {
            let at = table.route(host.as_bytes(), path.as_bytes());
            at.map(|at| (table.routes[at].host.is_some(), &*table.routes[at].prefix))
        };
        assert_eq!(found("other", "/api"), Some((false, "/api")));
        assert_eq!(found("other", "/apiary"), Some((false, "/")));
        assert_eq!(found("EXAMPLE.org:8080", "/api/x"), Some((true, "/api/")));
        assert_eq!(found("example.org", "/api"), Some((true, "/")));
        assert_eq!(found("[::1]:80", "/"), Some((false, "/")));
    }

    #[test]
    fn what_could_not_work_is_refused_by_name() {
        assert_eq!(table(vec![]).unwrap_err(), ConfigError::NoRoute);
        let twice = vec![route(None, "/", "a"), route(None, "/", "b")];
        assert!(matches!(table(twice), Err(ConfigError::Twice { .. })));
        let nowhere = vec![route(None, "/", "c")];
        assert!(matches!(table(nowhere), Err(ConfigError::NoPool { .. })));
        let prefix = vec![route(None, "api", "a")];
        assert!(matches!(table(prefix), Err(ConfigError::Prefix(_))));
    }
}
