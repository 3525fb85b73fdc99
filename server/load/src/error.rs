//! Why a run could not take place. What the server does wrong is no error, but in the report.

use std::io;

use thiserror::Error;

use barewire_http::received::ResponseError;
use barewire_tls::ClientError;

use super::limits::LimitError;
use super::target::TargetError;
use super::transport::TransportError;

/// Why there is no report.
#[derive(Debug, Error)]
pub enum LoadError {
    /// See [`TargetError`].
    #[error(transparent)]
    Target(#[from] TargetError),
    /// See [`LimitError`].
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// See [`ClientError`].
    #[error(transparent)]
    Tls(#[from] ClientError),
    /// See [`TransportError`].
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// There is no answer to compare bodies with.
    #[error("cannot read the body to compare with: {0}")]
    Probe(FetchError),
    /// The answer to compare bodies with is no success.
    #[error("the answer to compare bodies with has status {0}")]
    ProbeStatus(u16),
    /// There is no answer to `GET /stats`.
    #[error("cannot read GET /stats: {0}")]
    Stats(FetchError),
    /// 404 for `/stats`.
    #[error(
        "the server has no GET /stats (404), so it does not take part in the challenge; \
         give a --path to ask it for something else"
    )]
    NoStats,
    /// Another status for `/stats`.
    #[error("GET /stats answered {0}")]
    StatsStatus(u16),
    /// `/stats` is not the challenge's.
    #[error("GET /stats answered something else than the challenge's totals: {start}: {cause}")]
    NotTotals {
        /// The first bytes of it.
        start: String,
        /// What does not fit.
        cause: serde_json::Error,
    },
    /// The bypass cannot be used.
    #[cfg(feature = "xdp")]
    #[error("{}", chain(.0.as_ref()))]
    Bypass(Box<dyn std::error::Error + Send + Sync>),
    /// A core of the bypass ended before it was told to.
    #[cfg(feature = "xdp")]
    #[error("a core ended early")]
    CoreEnded,
    /// The bypass is not in this build.
    #[cfg(not(feature = "xdp"))]
    #[error("the bypass was left out of this build: build with --features xdp")]
    NoBypass,
}

/// Why one request had no answer of use.
#[derive(Debug, Error)]
pub enum FetchError {
    /// The socket failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// See [`ClientError`].
    #[error(transparent)]
    Tls(#[from] ClientError),
    /// Nothing came for too long.
    #[error("the connection opens, but no answer comes: is the server stuck, or is this not HTTP?")]
    NoAnswer,
    /// See [`ResponseError`].
    #[error("the answer is not HTTP: {0}")]
    NotHttp(#[from] ResponseError),
    /// The body is too long to be what was asked for.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    /// The end came first.
    #[error("the server closed the connection instead of answering")]
    Closed,
}

/// An error with its causes, as far as it does not name them itself.
#[cfg(feature = "xdp")]
fn chain(error: &(dyn std::error::Error + Send + Sync + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}
