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
    /// Where TLS begins in a stack's list of addresses, and what is shown there.
    first: (usize, Arc<Identity>),
    /// The listener of teleport and what is shown there, if others are served by TLS as well.
    special: Option<(usize, Arc<Identity>)>,
    has_https: bool,
    limits: TlsLimits,
    counters: Arc<[Arc<TlsCounters>]>,
}

impl Secure {
    /// Reads what `args` name, if they ask for TLS, and what `teleport` names for its listener.
    ///
    /// # Errors
    ///
    /// If there is no certificate that could be served.
    pub fn open(
        args: &TlsArgs,
        http2: bool,
        capacity: Capacity,
        cores: usize,
        (teleport, listener): (Option<(usize, IdentityConfig)>, usize),
    ) -> anyhow::Result<Option<Self>> {
        let https = args.is_wanted().then(|| identity(args, http2));
        let https = https.transpose()?.map(|identity| (listener, identity));
        let load = |(listener, config)| Ok((listener, Identity::load(config)?));
        let teleport: anyhow::Result<_> = teleport.map(load).transpose();
        let has_https = https.is_some();
        let mut both = https.into_iter().chain(teleport?);
        let Some(first) = both.next() else {
            return Ok(None);
        };
        if let Some(path) = env::var_os("SSLKEYLOGFILE") {
            let path = path.display();
            tracing::warn!(
                "the keys of all connections go to {path} (SSLKEYLOGFILE): whoever reads it can decrypt them"
            );
        }
        Ok(Some(Secure {
            first,
            special: both.next(),
            has_https,
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
    pub fn identity(&self) -> Option<Arc<Identity>> {
        self.has_https.then(|| Arc::clone(&self.first.1))
    }

    /// Whether clients are served by TLS.
    pub fn has_https(&self) -> bool {
        self.has_https
    }

    /// `service` with TLS around it, for one core.
    pub fn around<S: Service>(&self, core: usize, service: S) -> Tls<S> {
        let (limits, counters) = (self.limits, Arc::clone(&self.counters[core]));
        let (listener, identity) = &self.first;
        let tls = Tls::new(service, *listener, identity, limits, counters);
        match &self.special {
            None => tls,
            Some((listener, identity)) => tls.with_listener(*listener, identity),
        }
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
        let both = [&self.first].into_iter().chain(&self.special);
        let mut stamped: Vec<_> = both
            .map(|(_, identity)| (Arc::clone(identity), identity.stamp()))
            .collect();
        Reloads::follow("tls/reload", enter, move |is_asked| {
            for (identity, stamp) in &mut stamped {
                let now = identity.stamp();
                if std::mem::replace(stamp, now.clone()) == now && !is_asked {
                    continue;
                }
                match identity.reload() {
                    Ok(()) => {
                        tracing::info!("certificates were read again, for handshakes from here on");
                    }
                    Err(error) => {
                        tracing::error!("{error}; the certificates from before go on to be used");
                    }
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
