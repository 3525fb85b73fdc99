//! A connection to a Redis or Valkey: one command, one answer, within a time.
//!
//! Names are resolved once, at the start: a server that has started opens sockets, but asks nobody for addresses (its
//! filter of system calls, see [`crate::confine`]). All addresses of a name are tried in turn, and the next one when the
//! engine behind one has become a replica. Of the crate `redis`, what speaks the protocol is used, over our own
//! sockets: the crate resolves names whenever it connects.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, Parser, RedisError, Value};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// Longest answer that is read: the counts of some 500,000 incarnations.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The address is none.
    #[error(
        "{0:?} is no address of an engine: use redis://[USER:PASSWORD@]HOST[:PORT][/DB], rediss://... for TLS, or unix:///PATH"
    )]
    Url(String),
    /// The name has no address.
    #[error("cannot find {host}: {source}")]
    Name {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// TLS without anybody to trust.
    #[error(
        "cannot read the certificates in {path}, which the engine's has to lead to: {reason}; name others with --counts-ca"
    )]
    Ca {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Nobody is there, or the connection broke.
    #[error("cannot reach the engine at {place}: {source}")]
    Unreachable {
        /// Where.
        place: String,
        /// What the system said.
        source: io::Error,
    },
    /// No answer in time.
    #[error("the engine at {place} does not answer within {timeout_ms} ms (--counts-timeout-ms)")]
    Timeout {
        /// Where.
        place: String,
        /// How long that was.
        timeout_ms: u128,
    },
    /// Wrong user or password.
    #[error(
        "the engine refuses user or password: give them as redis://USER:PASSWORD@HOST; it says: {0}"
    )]
    Password(String),
    /// The user may not do it.
    #[error(
        "the engine's user may not do that: it needs `~{{PREFIX}}:* +eval +get +set +setnx +hget +hset +hgetall +hvals +sadd +scard +unlink +type +time`; it says: {0}"
    )]
    Permission(String),
    /// It has no memory left.
    #[error("the engine is full: raise its maxmemory; it says: {0}")]
    Full(String),
    /// It is a replica.
    #[error("the engine takes no writes: it has become a replica; it says: {0}")]
    Replica(String),
    /// One of the keys is something else.
    #[error(
        "a key behind the prefix is of another type: choose another --counts-prefix; the engine says: {0}"
    )]
    Type(String),
    /// Anything else.
    #[error("the engine refuses: {0}")]
    Refused(String),
}

/// An engine, connected or not.
pub struct Engine {
    place: Place,
    info: ConnectionInfo,
    timeout: Duration,
    connection: Option<Box<dyn Stream>>,
    connects: u64,
}

enum Place {
    Unix(PathBuf),
    Tcp {
        addresses: Vec<SocketAddr>,
        /// The one to try next.
        next: usize,
        tls: Option<(ServerName<'static>, Arc<ClientConfig>)>,
    },
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// Reads on when a signal came in between, as it does when threads give up their privileges: a read with a timeout is
/// not begun again by the kernel (signal(7)), and not by the parser.
struct Uninterrupted<'s>(&'s mut dyn Stream);

impl Read for Uninterrupted<'_> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(space) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }
}

impl Engine {
    /// The engine at `url`. Connects to nobody yet.
    ///
    /// # Errors
    ///
    /// If the address is none, or is not to be found.
    pub fn new(url: &str, ca: &Path, timeout: Duration) -> Result<Self, EngineError> {
        let invalid = || EngineError::Url(without_password(url));
        // The crate takes these only if TLS is its business.
        let plain = ["rediss://", "valkeys://"]
            .iter()
            .find_map(|scheme| Some(format!("redis://{}", url.strip_prefix(scheme)?)));
        let is_tls = plain.is_some();
        let info = plain.as_deref().unwrap_or(url);
        let info = info.into_connection_info().map_err(|_| invalid())?;
        let place = match info.addr() {
            ConnectionAddr::Unix(path) => Place::Unix(path.clone()),
            ConnectionAddr::Tcp(host, port) => {
                let found = (&**host, *port).to_socket_addrs();
                let addresses: Vec<_> = found
                    .map_err(|source| EngineError::Name {
                        host: host.clone(),
                        source,
                    })?
                    .collect();
                let name = || ServerName::try_from(host.clone()).map_err(|_| invalid());
                let tls = match is_tls {
                    true => Some((name()?, trust(ca)?)),
                    false => None,
                };
                Place::Tcp {
                    addresses,
                    next: 0,
                    tls,
                }
            }
            _ => return Err(invalid()),
        };
        Ok(Engine {
            place,
            info,
            timeout,
            connection: None,
            connects: 0,
        })
    }

    /// Whether it is behind a network, not only behind a name in the file system.
    pub fn is_remote(&self) -> bool {
        matches!(self.place, Place::Tcp { .. })
    }

    /// How often it was connected to.
    pub fn connects(&self) -> u64 {
        self.connects
    }

    /// Asks, and connects before if need be. After an error the next call connects anew.
    ///
    /// # Errors
    ///
    /// Why there is no answer.
    pub fn call(&mut self, command: &Cmd) -> Result<Value, EngineError> {
        if self.connection.is_none() {
            self.connect()?;
        }
        let outcome = self.exchange(command);
        match &outcome {
            Ok(_) => {}
            Err(EngineError::Replica(_)) => {
                self.connection = None;
                if let Place::Tcp { next, .. } = &mut self.place {
                    *next += 1;
                }
            }
            // Whatever arrives late must not be taken for the answer to another command.
            Err(EngineError::Unreachable { .. } | EngineError::Timeout { .. }) => {
                self.connection = None;
            }
            Err(_) => {}
        }
        outcome
    }

    fn connect(&mut self) -> Result<(), EngineError> {
        let connection = self.open().map_err(|error| self.io_error(error))?;
        self.connection = Some(connection);
        self.connects += 1;
        let outcome = self.introduce();
        if outcome.is_err() {
            self.connection = None;
        }
        outcome
    }

    fn open(&mut self) -> io::Result<Box<dyn Stream>> {
        let timeout = Some(self.timeout);
        match &mut self.place {
            Place::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(timeout)?;
                stream.set_write_timeout(timeout)?;
                Ok(Box::new(stream))
            }
            Place::Tcp {
                addresses,
                next,
                tls,
            } => {
                let mut failure = ErrorKind::AddrNotAvailable.into();
                let connected = (0..addresses.len()).find_map(|_| {
                    let address = &addresses[*next % addresses.len()];
                    TcpStream::connect_timeout(address, self.timeout)
                        .inspect_err(|_| *next += 1)
                        .map_err(|error| failure = error)
                        .ok()
                });
                let stream = connected.ok_or(failure)?;
                stream.set_read_timeout(timeout)?;
                stream.set_write_timeout(timeout)?;
                stream.set_nodelay(true)?;
                match tls {
                    None => Ok(Box::new(stream)),
                    Some((name, config)) => {
                        let tls = ClientConnection::new(Arc::clone(config), name.clone());
                        let tls = tls.map_err(io::Error::other)?;
                        Ok(Box::new(StreamOwned::new(tls, stream)))
                    }
                }
            }
        }
    }

    /// Says who we are, and which database is ours.
    fn introduce(&mut self) -> Result<(), EngineError> {
        let redis = self.info.redis_settings();
        let database = redis.db();
        if let Some(password) = redis.password() {
            let mut auth = redis::cmd("AUTH");
            if let Some(user) = redis.username() {
                auth.arg(user);
            }
            auth.arg(password);
            // Whatever it says, it is about the password.
            self.exchange(&auth).map_err(|error| match error {
                EngineError::Refused(reason) => EngineError::Password(reason),
                other => other,
            })?;
        }
        if database != 0 {
            self.exchange(redis::cmd("SELECT").arg(database))?;
        }
        Ok(())
    }

    fn exchange(&mut self, command: &Cmd) -> Result<Value, EngineError> {
        let Some(stream) = &mut self.connection else {
            return Err(self.io_error(ErrorKind::NotConnected.into()));
        };
        let sent = stream
            .write_all(&command.get_packed_command())
            .and_then(|()| stream.flush());
        let answer = sent.map_err(RedisError::from).and_then(|()| {
            let answer = Uninterrupted(stream.as_mut()).take(ANSWER_BYTES_MAX);
            Parser::new().parse_value(answer)?.extract_error()
        });
        answer.map_err(|error| self.error(&error))
    }

    fn error(&self, error: &RedisError) -> EngineError {
        let said = error.to_string();
        match error.code() {
            _ if error.is_timeout() => self.io_error(ErrorKind::TimedOut.into()),
            Some("WRONGPASS" | "NOAUTH") => EngineError::Password(said),
            Some("NOPERM") => EngineError::Permission(said),
            Some("OOM") => EngineError::Full(said),
            Some("READONLY") => EngineError::Replica(said),
            Some("WRONGTYPE") => EngineError::Type(said),
            Some(_) => EngineError::Refused(said),
            None => self.io_error(io::Error::other(said)),
        }
    }

    fn io_error(&self, source: io::Error) -> EngineError {
        let place = self.to_string();
        match source.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => EngineError::Timeout {
                place,
                timeout_ms: self.timeout.as_millis(),
            },
            _ => EngineError::Unreachable { place, source },
        }
    }
}

/// Where it is, without user and password.
impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.info.addr() {
            ConnectionAddr::Unix(path) => write!(f, "{}", path.display()),
            ConnectionAddr::Tcp(host, port) => write!(f, "{host}:{port}"),
            _ => f.write_str("an unknown place"),
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Engine({self})")
    }
}

/// A URL as it may be shown.
fn without_password(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, place))) => format!("{scheme}://...@{place}"),
        _ => url.to_owned(),
    }
}

fn trust(ca: &Path) -> Result<Arc<ClientConfig>, EngineError> {
    let failed = |reason: String| EngineError::Ca {
        path: ca.to_owned(),
        reason,
    };
    let bytes = fs::read(ca).map_err(|error| failed(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_slice_iter(&bytes).filter_map(Result::ok);
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 {
        return Err(failed("there is none in it".into()));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let timeout = Duration::from_millis(1);
        for url in ["http://user:secret@host", "redis://:secret@"] {
            let error = Engine::new(url, Path::new("/"), timeout).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
        }
        let engine = Engine::new("redis://u:secret@127.0.0.1:1", Path::new("/"), timeout).unwrap();
        assert_eq!(
            format!("{engine} {engine:?}"),
            "127.0.0.1:1 Engine(127.0.0.1:1)"
        );
    }

    /// Answers one byte at a time, with a signal before each.
    struct Disturbed(&'static [u8], bool);

    impl Read for Disturbed {
        fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            match self.1 {
                true => Err(ErrorKind::Interrupted.into()),
                false => self.0.read(&mut space[..1]),
            }
        }
    }

    impl Write for Disturbed {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_signal_does_not_end_an_answer() {
        let timeout = Duration::from_millis(1);
        let mut engine = Engine::new("redis://127.0.0.1:1", Path::new("/"), timeout).unwrap();
        engine.connection = Some(Box::new(Disturbed(b"+PONG\r\n", false)));
        let answer = engine.exchange(&redis::cmd("PING")).unwrap();
        assert_eq!(answer, Value::SimpleString("PONG".into()));
    }
}
