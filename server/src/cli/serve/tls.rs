//! TLS beside plain text: certificates read at the start, and again when a file or SIGHUP says so.

use std::env;
use std::io;
use std::sync::Arc;

use barewire_service::service::Service;
use barewire_service::stack::CounterGroup;
use barewire_tls::{Identity, IdentityConfig, Tls, TlsCounters, TlsLimits};

use super::args::TlsArgs;
use super::reloads::Reloads;

/// What clients may choose from by ALPN, the best first; the first one only if HTTP/2 is on.
const PROTOCOLS: &[&[u8]] = &[b"h2", b"http/1.1"];

/// What a stack gives a connection, whatever runs on it.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    /// Connections of a core.
    pub connections: u32,
    /// Bytes that a service is shown at once.
    pub receive_buffer_bytes: usize,
}

/// What all cores serve TLS with.
#[derive(Debug, Clone)]
pub struct Secure {
    /// The place of its listener in a stack's list of addresses: the last.
    listener: usize,
    identity: Arc<Identity>,
    limits: TlsLimits,
    counters: Arc<[Arc<TlsCounters>]>,
}

impl Secure {
    /// Reads what `args` name, if they ask for TLS.
    ///
    /// # Errors
    ///
    /// If there is no certificate that could be served.
    pub fn open(
        args: &TlsArgs,
        http2: bool,
        capacity: Capacity,
        cores: usize,
        listener: usize,
    ) -> anyhow::Result<Option<Self>> {
        if !args.is_wanted() {
            return Ok(None);
        }
        if let Some(path) = env::var_os("SSLKEYLOGFILE") {
            let path = path.display();
            tracing::warn!(
                "the keys of all connections go to {path} (SSLKEYLOGFILE): whoever reads it can decrypt them"
            );
        }
        Ok(Some(Secure {
            listener,
            identity: identity(args, http2)?,
            limits: TlsLimits {
                connections: capacity.connections,
                input_bytes: capacity.receive_buffer_bytes,
                handshakes_max: args.tls_handshakes_max,
                handshakes_per_second: args.tls_handshakes_per_second,
            },
            counters: (0..cores).map(|_| Arc::default()).collect(),
        }))
    }

    /// What clients see of the server, and their tickets are sealed with.
    pub fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.identity)
    }

    /// `service` with TLS around it, for one core.
    pub fn around<S: Service>(&self, core: usize, service: S) -> Tls<S> {
        let counters = Arc::clone(&self.counters[core]);
        Tls::new(
            service,
            self.listener,
            &self.identity,
            self.limits,
            counters,
        )
    }

    /// What the first `cores` count.
    pub fn counters(&self, cores: usize) -> impl Iterator<Item = CounterGroup> + '_ {
        let counters = self.counters.iter().take(cores).enumerate();
        counters.map(|(core, counters)| CounterGroup {
            core: Some(core),
            queue: None,
            part: "tls",
            counters: counters.clone(),
        })
    }

    /// Reads the files again whenever they change, and when it is asked to. `enter` has returned, on the thread that
    /// does it, when this does.
    ///
    /// # Errors
    ///
    /// If the process is out of threads.
    pub fn follow_files(&self, enter: impl FnOnce() + Send + 'static) -> io::Result<Reloads> {
        let identity = Arc::clone(&self.identity);
        let mut stamp = identity.stamp();
        Reloads::follow("tls/reload", enter, move |is_asked| {
            let now = identity.stamp();
            if std::mem::replace(&mut stamp, now.clone()) == now && !is_asked {
                return;
            }
            match identity.reload() {
                Ok(()) => {
                    tracing::info!("certificates were read again, for handshakes from here on");
                }
                Err(error) => {
                    tracing::error!("{error}; the certificates from before go on to be used");
                }
            }
        })
    }
}

/// The identity that `args` describe.
///
/// # Errors
///
/// If there is no certificate that could be served.
pub fn identity(args: &TlsArgs, http2: bool) -> Result<Arc<Identity>, barewire_tls::IdentityError> {
    let protocols = &PROTOCOLS[usize::from(!http2)..];
    let pairs = args.tls_certificate.iter().zip(&args.tls_key);
    Identity::load(IdentityConfig {
        pairs: pairs
            .map(|(certificate, key)| (certificate.clone(), key.clone()))
            .collect(),
        protocols: protocols.iter().map(|name| name.to_vec()).collect(),
        client_authorities: args.tls_client_ca.clone(),
    })
}
