//! Teleport beside HTTP: calls of a proxy, unpacked and answered by the same routes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use barewire_service::service::Service;
use barewire_service::stack::CounterGroup;
use barewire_teleport::{ALPN, Compression, Limits, ServiceLimits, Teleport, TeleportCounters};
use barewire_tls::IdentityConfig;
use clap::builder::RangedU64ValueParser;
use clap::{Args, ValueEnum, value_parser};

/// Teleport, beside HTTP.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Teleport (calls of `barewire proxy`; docs/teleport.md)")]
pub struct TeleportArgs {
    /// Serve teleport as well, at this address and port of the kernel stacks; port 0 takes a free one. Without
    /// --teleport-certificate it is neither encrypted nor authenticated
    #[arg(long, value_name = "ADDR:PORT")]
    pub teleport_listen: Option<SocketAddr>,

    /// Serve teleport by TLS only, with the certificate in this PEM file, and its chain behind it. It is read again when it
    /// changes, and at SIGHUP
    #[arg(
        long,
        value_name = "FILE",
        requires = "teleport_key",
        requires = "teleport_listen"
    )]
    pub teleport_certificate: Option<PathBuf>,

    /// The key of that: PEM, without a passphrase
    #[arg(long, value_name = "FILE", requires = "teleport_certificate")]
    pub teleport_key: Option<PathBuf>,

    /// Serve teleport to nobody but proxies with a certificate that leads to one in this PEM file
    #[arg(long, value_name = "FILE", requires = "teleport_certificate")]
    pub teleport_client_ca: Option<PathBuf>,

    /// Teleport connections per core; further ones are reset. Each takes 200 KiB, with zstd 1.7 MiB
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=65_536), default_value_t = ServiceLimits::default().connections_max)]
    pub teleport_connections_max: usize,

    /// Calls of a teleport connection that are open at once
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..=i64::from(Limits::CALLS_MAX)), default_value_t = Limits::default().calls_max)]
    pub teleport_calls_max: u16,

    /// Bytes of each call that may wait to be served; at least as many as a receive buffer has
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(16_384..=1 << 30), default_value_t = Limits::default().call_credit_bytes)]
    pub teleport_call_credit_bytes: u32,

    /// Bytes that a peer may have on their way on a connection
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(16_384..=1 << 30), default_value_t = Limits::default().window_bytes)]
    pub teleport_window_bytes: u32,

    /// The densest compression that is agreed to
    #[arg(long, value_enum, default_value_t = CompressionName::Zstd)]
    pub teleport_compression: CompressionName,

    /// A field that is kept out of the compressor, beside those with credentials and cookies; repeat it for more
    #[arg(long, value_name = "NAME")]
    pub teleport_secret_field: Vec<String>,
}

/// How batches are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CompressionName {
    /// Not at all
    None,
    /// LZ4, each batch by itself
    Lz4,
    /// zstd, with what was said before on the connection
    Zstd,
}

impl TeleportArgs {
    /// What teleport is encrypted with, if it is.
    pub fn identity(&self) -> Option<IdentityConfig> {
        let pair = (
            self.teleport_certificate.clone()?,
            self.teleport_key.clone()?,
        );
        Some(IdentityConfig {
            pairs: vec![pair],
            protocols: vec![ALPN.to_vec()],
            client_authorities: self.teleport_client_ca.clone(),
        })
    }

    /// What a core takes, where a connection may be shown `receive_buffer_bytes` at once.
    fn limits(&self, receive_buffer_bytes: usize, call_timeout_ms: u32) -> ServiceLimits {
        let least = u32::try_from(receive_buffer_bytes).unwrap_or(u32::MAX);
        ServiceLimits {
            connection: Limits {
                calls_max: self.teleport_calls_max,
                call_credit_bytes: self.teleport_call_credit_bytes.max(least),
                window_bytes: self.teleport_window_bytes,
                compression: match self.teleport_compression {
                    CompressionName::None => Compression::None,
                    CompressionName::Lz4 => Compression::Lz4,
                    CompressionName::Zstd => Compression::Zstd,
                },
                ..Limits::default()
            },
            connections_max: self.teleport_connections_max,
            call_timeout_ms,
            secret_fields: self.teleport_secret_field.clone(),
        }
    }
}

/// What is put around the service of each core, on the stacks that can have it.
pub trait Around: Clone + Send + 'static {
    /// The service with it around.
    type Service<S: Service + 'static>: Service + 'static;

    /// Puts it around the service of a core.
    fn around<S: Service + 'static>(&self, core: usize, service: S) -> Self::Service<S>;

    /// What the first `cores` count.
    fn counters(&self, cores: usize) -> Vec<CounterGroup>;

    /// The place of its listener in the stack's list of addresses, if it has one.
    fn listener(&self) -> Option<usize>;
}

/// Nothing: the stack has no listener for it.
#[cfg(feature = "xdp")]
#[derive(Debug, Clone)]
pub struct Nothing;

#[cfg(feature = "xdp")]
impl Around for Nothing {
    type Service<S: Service + 'static> = S;

    fn around<S: Service + 'static>(&self, _: usize, service: S) -> S {
        service
    }

    fn counters(&self, _: usize) -> Vec<CounterGroup> {
        Vec::new()
    }

    fn listener(&self) -> Option<usize> {
        None
    }
}

/// Teleport, at a listener of its own, if that is wanted.
#[derive(Debug, Clone)]
pub struct Unpacking {
    limits: ServiceLimits,
    is_wanted: bool,
    counters: Arc<[Arc<TeleportCounters>]>,
}

impl Unpacking {
    /// Behind the listener in plain text.
    const LISTENER: usize = 1;

    /// What `args` ask for, for at most so many cores.
    pub fn new(
        args: &TeleportArgs,
        receive_buffer_bytes: usize,
        call_timeout_ms: u32,
        cores_max: usize,
    ) -> Self {
        Unpacking {
            limits: args.limits(receive_buffer_bytes, call_timeout_ms),
            is_wanted: args.teleport_listen.is_some(),
            counters: (0..cores_max).map(|_| Arc::default()).collect(),
        }
    }
}

impl Around for Unpacking {
    type Service<S: Service + 'static> = Teleport<S>;

    fn around<S: Service + 'static>(&self, core: usize, service: S) -> Teleport<S> {
        // No connection comes in at a listener that there is none of.
        let listener = self.listener().unwrap_or(usize::MAX);
        let counters = Arc::clone(&self.counters[core]);
        Teleport::new(service, listener, self.limits.clone(), counters)
    }

    fn counters(&self, cores: usize) -> Vec<CounterGroup> {
        if !self.is_wanted {
            return Vec::new();
        }
        let counters = self.counters.iter().take(cores).enumerate();
        counters
            .map(|(core, counters)| CounterGroup {
                core: Some(core),
                queue: None,
                part: "teleport",
                counters: counters.clone(),
            })
            .collect()
    }

    fn listener(&self) -> Option<usize> {
        self.is_wanted.then_some(Self::LISTENER)
    }
}
