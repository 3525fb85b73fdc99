//! Where the requests go.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use thiserror::Error;

/// A server that was asked for by URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Host and port as the URL has them: the `Host` field.
    pub authority: String,
    /// What the URL has behind them, if anything.
    pub path: Option<String>,
    /// The URL begins with https.
    pub is_secure: bool,
    host: String,
    port: u16,
}

/// Why a target cannot be used.
#[derive(Debug, Error)]
pub enum TargetError {
    /// Not a URL.
    #[error(
        "\"{url}\" is not a URL: write http://HOST:PORT or https://HOST:PORT, with an IPv6 address in brackets"
    )]
    NotUrl {
        /// What was given.
        url: String,
    },
    /// Neither http nor https.
    #[error("\"{url}\": only http:// and https:// can be asked")]
    NotHttp {
        /// What was given.
        url: String,
    },
    /// The name has no address.
    #[error("cannot resolve \"{host}\": {cause}; check the spelling, or give an address")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        cause: io::Error,
    },
    /// None of its addresses accepts a connection.
    #[error("cannot connect to {address}: {cause}; {}", cure(cause))]
    Unreachable {
        /// The address tried last.
        address: SocketAddr,
        /// Why it failed.
        cause: io::Error,
    },
}

impl Target {
    /// Parses `http://HOST[:PORT][/PATH]`, or https.
    ///
    /// # Errors
    ///
    /// If it is not of this form.
    pub fn parse(url: &str) -> Result<Self, TargetError> {
        let not_url = || TargetError::NotUrl {
            url: url.to_owned(),
        };
        let uri: Uri = url.parse().map_err(|_| not_url())?;
        let authority = uri.authority().ok_or_else(not_url)?;
        let is_secure = uri.scheme() == Some(&Scheme::HTTPS);
        match uri.scheme() {
            Some(scheme) if is_secure || *scheme == Scheme::HTTP => {}
            Some(_) => {
                return Err(TargetError::NotHttp {
                    url: url.to_owned(),
                });
            }
            None => return Err(not_url()),
        }
        let host = authority.host();
        let behind_host = authority.as_str().strip_prefix(host).ok_or_else(not_url)?;
        let port = match (behind_host, authority.port_u16()) {
            _ if host.is_empty() => return Err(not_url()),
            ("", _) if is_secure => 443,
            ("", _) => 80,
            (_, Some(port)) => port,
            (_, None) => return Err(not_url()),
        };
        let behind = (url.split_once("://"))
            .and_then(|(_, rest)| rest.strip_prefix(authority.as_str()))
            .unwrap_or_default();
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Target {
            authority: authority.to_string(),
            path: (!behind.is_empty()).then(|| path.to_owned()),
            is_secure,
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
        })
    }

    /// The name or the address of the server.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The first of the target's addresses that accepts a connection.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn reach(&self, timeout: Duration) -> Result<SocketAddr, TargetError> {
        let unresolved = |cause| TargetError::Resolve {
            host: self.host.clone(),
            cause,
        };
        let addresses = (self.host.as_str(), self.port)
            .to_socket_addrs()
            .map_err(unresolved)?;
        let mut failed = None;
        for address in addresses {
            match TcpStream::connect_timeout(&address, timeout) {
                Ok(_) => return Ok(address),
                Err(cause) => failed = Some(TargetError::Unreachable { address, cause }),
            }
        }
        Err(failed.unwrap_or_else(|| unresolved(ErrorKind::NotFound.into())))
    }
}

/// What to do about a connection that could not be opened.
fn cure(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::ConnectionRefused => "is the server started, and on this port?",
        ErrorKind::TimedOut => {
            "nothing answers there: is the address right, and no firewall between?"
        }
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
            "there is no route or no such neighbour: check the address and `ip route get`"
        }
        _ => "check the address and the network",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let cases = [
            (
                "http://10.77.0.2:8080",
                "10.77.0.2:8080",
                "10.77.0.2",
                8080,
                None,
            ),
            ("http://localhost", "localhost", "localhost", 80, None),
            ("http://localhost/", "localhost", "localhost", 80, Some("/")),
            ("https://localhost", "localhost", "localhost", 443, None),
            (
                "http://[fd77::2]:81/a?b=c",
                "[fd77::2]:81",
                "fd77::2",
                81,
                Some("/a?b=c"),
            ),
        ];
        for (url, authority, host, port, path) in cases {
            let expected = Target {
                authority: authority.into(),
                path: path.map(str::to_owned),
                is_secure: url.starts_with("https"),
                host: host.into(),
                port,
            };
            assert_eq!(Target::parse(url).unwrap(), expected);
        }
    }

    #[test]
    fn what_is_no_target_is_refused_with_the_cure() {
        for url in [
            "",
            "localhost:80",
            "/path",
            "http://",
            "http://u@h/",
            "http://h:99999/",
            "http://a b",
        ] {
            assert!(
                Target::parse(url)
                    .unwrap_err()
                    .to_string()
                    .contains("http://HOST:PORT"),
                "{url}"
            );
        }
        assert!(matches!(
            Target::parse("ftp://h"),
            Err(TargetError::NotHttp { .. })
        ));
    }

    #[test]
    fn a_refused_port_says_so() {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let target = Target::parse(&format!("http://127.0.0.1:{port}")).unwrap();
        let message = target
            .reach(Duration::from_secs(5))
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("refused") && message.contains("is the server started"),
            "{message}"
        );
    }
}
