//! Certificates and keys in PEM files, and how a running server replaces them.
//!
//! All cores share one [`Identity`]. Each core has a [`Follower`], which reads one number when a handshake begins and
//! takes the lock only when that has changed. A connection keeps the certificates that its handshake began with.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::ResolvesClientCert;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, VerifierBuilderError,
    WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{
    CipherSuite, Error, KeyLog, KeyLogFile, RootCertStore, ServerConfig, SignatureScheme,
};
use webpki::{EndEntityCert, KeyUsage};
use zeroize::Zeroizing;

use crate::tickets::Tickets;

/// The files of certificates and keys, and what is offered with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityConfig {
    /// Pairs of PEM files: a certificate with its chain, leaf first, and its key. A client gets the first pair that
    /// names the host it asks for (SNI) and whose signatures it can verify; without one, the first that it can verify;
    /// and without that, the first.
    pub pairs: Vec<(PathBuf, PathBuf)>,
    /// Protocols for ALPN, the preferred one first.
    pub protocols: Vec<Vec<u8>>,
    /// A PEM file with the authorities of client certificates. Without it, clients need no certificate.
    pub client_authorities: Option<PathBuf>,
}

/// Why certificates and keys cannot be used. The messages name a cure.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}{}", path.display(), cure_of(source, path))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A file is not PEM.
    #[error("{} is no PEM file: {problem}; `openssl x509 -inform der` and `openssl pkey -inform der` convert", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file has no block of the kind that is needed.
    #[error("{} holds no {what}: it needs a block that begins with -----BEGIN {label}-----", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What kind is missing.
        what: &'static str,
        /// The label of its block.
        label: &'static str,
    },
    /// A key needs a passphrase.
    #[error(
        "the key in {0} is protected by a passphrase, and nobody is there to type it: \
         `(umask 077; openssl pkey -in {0} -out key.pem)` makes a key without, for --tls-key key.pem", path.display()
    )]
    Encrypted {
        /// The file.
        path: PathBuf,
    },
    /// A key is of a kind that cannot sign.
    #[error("the key in {} cannot be used: {problem}; use one for ECDSA (P-256, P-384), Ed25519 or RSA (2048 bits or more)", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A key belongs to another certificate.
    #[error(
        "the key in {key} does not belong to the certificate in {certificate}: give them in the same order; \
         `openssl x509 -noout -pubkey -in {certificate}` and `openssl pkey -pubout -in {key}` have to print the same",
        certificate = certificate.display(), key = key.display()
    )]
    Mismatch {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// A certificate cannot be used.
    #[error("the certificate in {} cannot be used: {problem}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A certificate has expired.
    #[error("the certificate in {} has expired on {}: renew it, or make one for a try with `barewire certificate --self-signed`", path.display(), Day(*since_unix_s))]
    Expired {
        /// The file.
        path: PathBuf,
        /// The end of its validity, in seconds of Unix time.
        since_unix_s: u64,
    },
    /// A certificate is not valid yet.
    #[error("the certificate in {} is not valid before {}: use one that is, or set the clock (`timedatectl`)", path.display(), Day(*from_unix_s))]
    NotYetValid {
        /// The file.
        path: PathBuf,
        /// The begin of its validity, in seconds of Unix time.
        from_unix_s: u64,
    },
    /// rustls refuses the configuration.
    #[error("TLS cannot be set up: {0}")]
    Library(#[from] Error),
}

fn cure_of(source: &io::Error, path: &Path) -> String {
    match source.kind() {
        io::ErrorKind::NotFound => ": check its path".into(),
        io::ErrorKind::PermissionDenied => format!(
            ": let the user that serves read it (`setfacl -m u:USER:r {}`)",
            path.display()
        ),
        _ => String::new(),
    }
}

/// The certificates, keys and ticket keys that all cores share.
pub struct Identity {
    source: IdentityConfig,
    current: Mutex<Arc<ServerConfig>>,
    tickets: Mutex<Arc<Tickets>>,
    /// How often `current` was replaced.
    generation: AtomicU64,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

impl Identity {
    /// Reads all files. If the environment variable `SSLKEYLOGFILE` names a file, the secrets of all connections are
    /// appended to it, for Wireshark: with them, recorded connections can be decrypted.
    ///
    /// # Errors
    ///
    /// The first fault of a file, or of what rustls makes of them.
    pub fn load(source: IdentityConfig) -> Result<Arc<Self>, IdentityError> {
        // Opened here: a confined server may not open files later.
        let key_log = Arc::new(KeyLogFile::new());
        let tickets = new_tickets()?;
        let config = configure(&source, tickets.clone(), key_log)?;
        Ok(Arc::new(Identity {
            source,
            tickets: Mutex::new(tickets),
            current: Mutex::new(Arc::new(config)),
            generation: AtomicU64::new(0),
        }))
    }

    /// Reads all files again, for the handshakes that begin from here on. Tickets stay valid, unless clients need
    /// certificates: the authorities may have changed.
    ///
    /// # Errors
    ///
    /// As [`Identity::load`]; then nothing changes.
    pub fn reload(&self) -> Result<(), IdentityError> {
        let tickets = match self.source.client_authorities {
            None => self.tickets(),
            Some(_) => new_tickets()?,
        };
        let key_log = Arc::clone(&self.current().key_log);
        let config = Arc::new(configure(&self.source, tickets.clone(), key_log)?);
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = config;
        *self.tickets.lock().unwrap_or_else(PoisonError::into_inner) = tickets;
        self.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// The keys of tickets, for a process that goes on in this one's place; none if clients need certificates, of which its
    /// authorities may be others.
    pub fn ticket_keys(&self) -> Zeroizing<Vec<u8>> {
        match self.source.client_authorities {
            None => self.tickets().to_bytes(),
            Some(_) => Zeroizing::default(),
        }
    }

    /// Goes on with the [keys](Identity::ticket_keys) of another process, so that its clients resume here. Says whether it
    /// does.
    pub fn adopt_ticket_keys(&self, keys: &[u8]) -> bool {
        self.source.client_authorities.is_none() && self.tickets().replace(keys)
    }

    fn tickets(&self) -> Arc<Tickets> {
        let tickets = self.tickets.lock();
        Arc::clone(&tickets.unwrap_or_else(PoisonError::into_inner))
    }

    /// Identifies the present contents of the files: it changes when one is replaced or written to.
    pub fn stamp(&self) -> Stamp {
        let pairs = self.source.pairs.iter();
        let files = pairs.flat_map(|(certificate, key)| [certificate, key]);
        let files = files.chain(&self.source.client_authorities);
        let stamp = |path: &PathBuf| {
            let metadata = fs::metadata(path).ok()?;
            Some((
                metadata.ino(),
                metadata.size(),
                metadata.mtime(),
                metadata.mtime_nsec(),
            ))
        };
        Stamp(files.map(stamp).collect())
    }

    fn current(&self) -> Arc<ServerConfig> {
        let current = self.current.lock();
        Arc::clone(&current.unwrap_or_else(PoisonError::into_inner))
    }
}

/// See [`Identity::stamp`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp(Vec<Option<(u64, u64, i64, i64)>>);

/// A core's view of an [`Identity`].
pub(crate) struct Follower {
    identity: Arc<Identity>,
    generation: u64,
    config: Arc<ServerConfig>,
}

impl Follower {
    pub(crate) fn new(identity: &Arc<Identity>) -> Self {
        Follower {
            identity: Arc::clone(identity),
            generation: identity.generation.load(Ordering::Acquire),
            config: identity.current(),
        }
    }

    /// The configuration for a handshake that begins now.
    pub(crate) fn current(&mut self) -> Arc<ServerConfig> {
        let generation = self.identity.generation.load(Ordering::Acquire);
        if generation != self.generation {
            self.generation = generation;
            self.config = self.identity.current();
        }
        Arc::clone(&self.config)
    }
}

fn new_tickets() -> Result<Arc<Tickets>, Error> {
    let tickets = Tickets::new().ok_or(Error::FailedToGetRandomBytes)?;
    Ok(Arc::new(tickets))
}

/// Makes the configuration of rustls from the files.
fn configure(
    source: &IdentityConfig,
    tickets: Arc<dyn ProducesTickets>,
    key_log: Arc<dyn KeyLog>,
) -> Result<ServerConfig, IdentityError> {
    let mut provider = aws_lc_rs::default_provider();
    // A stable sort keeps the order of rustls among suites with the same cipher.
    provider
        .cipher_suites
        .sort_by_key(|suite| preference(suite.suite()));
    let provider = Arc::new(provider);
    let pairs = source.pairs.iter();
    let offers = pairs
        .map(|(certificate, key)| Offer::load(certificate, key, &provider))
        .collect::<Result<Vec<_>, _>>()?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
    let builder = match &source.client_authorities {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let refused = |error: &dyn fmt::Display| IdentityError::Certificate {
                path: path.clone(),
                problem: error.to_string(),
            };
            let mut roots = RootCertStore::empty();
            for authority in certificates(path)? {
                roots.add(authority).map_err(|error| refused(&error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = verifier
                .build()
                .map_err(|error: VerifierBuilderError| refused(&error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(Offers(offers)));
    config.alpn_protocols.clone_from(&source.protocols);
    config.enable_secret_extraction = true;
    // All suites are secure; the cheapest that a client offers is chosen.
    config.ignore_client_order = true;
    // Each takes microseconds to make.
    config.send_tls13_tickets = 1;
    config.ticketer = tickets;
    config.key_log = key_log;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

/// The rank of a suite: lower ranks are preferred.
fn preference(suite: CipherSuite) -> u8 {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => 0,
        CipherSuite::TLS13_AES_256_GCM_SHA384
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => 1,
        _ => 2,
    }
}

/// A certificate with its key, and the names in it.
#[derive(Debug)]
pub(crate) struct Offer {
    /// In lower case.
    names: Vec<String>,
    key: Arc<CertifiedKey>,
}

impl Offer {
    pub(crate) fn load(
        certificate: &Path,
        key: &Path,
        provider: &CryptoProvider,
    ) -> Result<Self, IdentityError> {
        let chain = certificates(certificate)?;
        let leaf = chain.first().ok_or_else(|| no_certificate(certificate))?;
        let names = names(leaf, certificate, provider)?;
        let private = private_key(key)?;
        let signing = provider.key_provider.load_private_key(private);
        let signing = signing.map_err(|error| IdentityError::Key {
            path: key.to_owned(),
            problem: error.to_string(),
        })?;
        let certified = CertifiedKey::new(chain, signing);
        certified
            .keys_match()
            .map_err(|_| IdentityError::Mismatch {
                certificate: certificate.to_owned(),
                key: key.to_owned(),
            })?;
        Ok(Offer {
            names,
            key: Arc::new(certified),
        })
    }

    fn names_host(&self, host: &str) -> bool {
        let beyond_label = host.split_once('.').map(|(_, rest)| rest);
        self.names.iter().any(|name| {
            let under = name.strip_prefix("*.");
            name == host || under.is_some() && under == beyond_label
        })
    }
}

/// A client has only one, which the server judges.
impl ResolvesClientCert for Offer {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let can_verify = self.key.key.choose_scheme(schemes).is_some();
        can_verify.then(|| Arc::clone(&self.key))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// All certificates, in their order.
#[derive(Debug)]
struct Offers(Vec<Offer>);

impl ResolvesServerCert for Offers {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let host = hello.server_name().map(str::to_ascii_lowercase);
        let schemes = hello.signature_schemes();
        let can_verify = |offer: &&Offer| offer.key.key.choose_scheme(schemes).is_some();
        let named = |offer: &&Offer| host.as_deref().is_some_and(|host| offer.names_host(host));
        let usable = || self.0.iter().filter(can_verify);
        let chosen = usable().find(named).or_else(|| usable().next());
        // rustls answers an unusable certificate with handshake_failure, and none with access_denied.
        let chosen = chosen.or_else(|| self.0.first());
        chosen.map(|offer| Arc::clone(&offer.key))
    }
}

/// The names of a certificate that is valid now.
fn names(
    leaf: &CertificateDer<'_>,
    path: &Path,
    provider: &CryptoProvider,
) -> Result<Vec<String>, IdentityError> {
    let refused = |error: webpki::Error| IdentityError::Certificate {
        path: path.to_owned(),
        problem: error.to_string(),
    };
    let certificate = EndEntityCert::try_from(leaf).map_err(refused)?;
    // The client judges the chain. webpki checks dates first, so without authorities it still finds their faults.
    let judged = certificate.verify_for_usage(
        provider.signature_verification_algorithms.all,
        &[],
        &[],
        UnixTime::now(),
        KeyUsage::server_auth(),
        None,
        None,
    );
    match judged.err() {
        Some(webpki::Error::CertExpired { not_after, .. }) => Err(IdentityError::Expired {
            path: path.to_owned(),
            since_unix_s: not_after.as_secs(),
        }),
        Some(webpki::Error::CertNotValidYet { not_before, .. }) => {
            Err(IdentityError::NotYetValid {
                path: path.to_owned(),
                from_unix_s: not_before.as_secs(),
            })
        }
        _ => Ok(certificate
            .valid_dns_names()
            .map(str::to_ascii_lowercase)
            .collect()),
    }
}

pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let text = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if found.is_empty() => Err(no_certificate(path)),
        Ok(found) => Ok(found),
        Err(error) => Err(malformed(path, &error)),
    }
}

fn no_certificate(path: &Path) -> IdentityError {
    IdentityError::Missing {
        path: path.to_owned(),
        what: "certificate",
        label: "CERTIFICATE",
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, IdentityError> {
    let text = read(path)?;
    let has = |part: &[u8]| text.windows(part.len()).any(|window| window == part);
    if has(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || has(b"Proc-Type: 4,ENCRYPTED") {
        return Err(IdentityError::Encrypted {
            path: path.to_owned(),
        });
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound => IdentityError::Missing {
            path: path.to_owned(),
            what: "private key",
            label: "PRIVATE KEY",
        },
        error => malformed(path, &error),
    })
}

fn malformed(path: &Path, error: &pem::Error) -> IdentityError {
    IdentityError::Malformed {
        path: path.to_owned(),
        problem: error.to_string(),
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
    let text = fs::read(path).map_err(|source| IdentityError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    Ok(Zeroizing::new(text))
}

/// Displays seconds of Unix time as a date, as in 2026-11-26.
struct Day(u64);

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DAYS_OF_400_YEARS: u64 = 146_097;
        // Years that begin in March end with the day that some lack; 719,468 days lie between 0000-03-01 and 1970.
        let days = self.0 / 86_400 + 719_468;
        let (era, day) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (month, next_year) = match month {
            0..=9 => (month + 3, 0),
            _ => (month - 9, 1),
        };
        write!(f, "{:04}-{month:02}-{day:02}", era * 400 + year + next_year)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (unix_s, day) in [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_798_761_599, "2026-12-31"),
            (4_107_542_400, "2100-03-01"),
        ] {
            assert_eq!(Day(unix_s).to_string(), day);
        }
    }
}
