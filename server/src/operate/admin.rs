//! The admin address: `GET /metrics`, and nothing else.
//!
//! It is off unless an operator asks for it, and stays on the loopback interface unless an operator
//! says otherwise. The same responder answers there as everywhere else, on the epoll stack, on one thread
//! of its own that belongs to no core. A client that scrapes slowly, often or maliciously affects no other: there
//! are limits and deadlines as for every other connection, and what is asked for again within a tenth of
//! a second is not computed again.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::str::FromStr;
use std::time::{Duration, Instant};

use barewire_service::cores::allowed_cpus;
use barewire_service::deadline::Deadlines;
use barewire_service::lifecycle::{Lifecycle, Phase};
use bytes::Bytes;

use super::{Instruments, metrics};
use barewire_http::{
    Answer, ContentType, Limits, Request, Responder, Response, Route, RouteError, Routes,
};
use barewire_kernel::epoll::Epoll;
use barewire_kernel::handover::HandOver;
use barewire_kernel::{KernelConfig, StartError};
use barewire_service::stack::Stack;

/// Where to answer. A port alone means the loopback interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdminAddress(pub SocketAddr);

impl FromStr for AdminAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = text.parse::<u16>();
        let on_loopback = |port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        port.map(on_loopback)
            .or_else(|_| text.parse())
            .map(AdminAddress)
            .map_err(|_| "write PORT, or ADDR:PORT as in 127.0.0.1:9100 or [::]:9100".to_owned())
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Connections at the same time; further ones wait.
const CONNECTIONS: usize = 256;
/// How long any of them may take for anything.
const TIMEOUT_MS: u32 = 5_000;
/// The longest head of a request, and the room to receive it.
const HEAD_BYTES_MAX: usize = 8192;
/// The most fields in it.
const FIELDS_MAX: usize = 64;
/// How long an answer is as good as a new one.
const FRESH: Duration = Duration::from_millis(100);

const ROUTES: &[Route<Board>] = &[Route::new("/metrics").get(metrics)];

/// Why the address cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address cannot be served.
    #[error("cannot listen at {address}: {source}; choose another --admin-listen")]
    Start {
        /// The address.
        address: AdminAddress,
        /// What is in the way.
        source: StartError,
    },
    /// The table of routes is inconsistent.
    #[error(transparent)]
    Routes(#[from] RouteError),
}

/// The thread that answers. It stops when this is dropped.
#[derive(Debug)]
pub struct Admin {
    address: SocketAddr,
    lifecycle: Lifecycle,
    hand_over: HandOver,
    is_inherited: bool,
}

impl Admin {
    /// Answers at `address` from here on, by the listener of the server before if it is `inherited`: then not before
    /// [`Admin::begin`]. The thread calls `enter` when it has everything that takes
    /// privileges.
    ///
    /// # Errors
    ///
    /// If the address cannot be had.
    pub fn start(
        address: AdminAddress,
        instruments: &Instruments,
        inherited: Option<OwnedFd>,
        enter: impl Fn() + Clone + Send + 'static,
    ) -> Result<Admin, AdminError> {
        let is_inherited = inherited.is_some();
        let hand_over = match inherited {
            None => HandOver::default(),
            Some(listener) => HandOver::inheriting(vec![vec![listener]]),
        };
        let routes = Routes::new(ROUTES)?;
        let limits = Limits {
            head_bytes_max: HEAD_BYTES_MAX,
            headers_max: FIELDS_MAX,
            ..Limits::default()
        };
        let config = KernelConfig {
            cores: any_cpu().into_iter().collect(),
            pin: false,
            connections: CONNECTIONS,
            receive_buffer_bytes: HEAD_BYTES_MAX,
            deadlines: Deadlines {
                idle_ms: TIMEOUT_MS,
                head_ms: TIMEOUT_MS,
                body_ms: TIMEOUT_MS,
                send_ms: TIMEOUT_MS,
                ..Deadlines::default()
            },
            hand_over: Some(hand_over.clone()),
            ..KernelConfig::new(address.0)
        };
        let instruments = instruments.clone();
        let make_service = move |_| {
            enter();
            let board = Board {
                instruments: instruments.clone(),
                last: None,
            };
            Responder::new(&routes, board).with_limits(limits)
        };
        let lifecycle = Lifecycle::new();
        let running = Epoll { config }.start(make_service, &lifecycle);
        let running = running.map_err(|source| AdminError::Start { address, source })?;
        Ok(Admin {
            // A kernel stack serves exactly one.
            address: running.addresses.first().copied().unwrap_or(address.0),
            lifecycle,
            hand_over,
            is_inherited,
        })
    }

    /// The server before answers no more.
    pub fn begin(&self) {
        if self.is_inherited {
            self.hand_over.begin();
        }
    }

    /// Its listener, for another process.
    ///
    /// # Errors
    ///
    /// If the process is out of descriptors.
    pub fn socket(&self) -> io::Result<OwnedFd> {
        let listeners = self.hand_over.listeners().iter().flatten().next();
        listeners.ok_or(io::ErrorKind::NotFound)?.try_clone()
    }

    /// Another process answers from here on.
    pub fn give_away(&self) {
        self.hand_over.leave_listeners_open();
        self.lifecycle.advance(Phase::Stop);
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.lifecycle.advance(Phase::Stop);
    }
}

/// One that the process may use, whichever: the thread is not pinned to it.
fn any_cpu() -> Option<usize> {
    allowed_cpus().first().copied()
}

/// The metrics, and when they were read last.
struct Board {
    instruments: Instruments,
    last: Option<(Instant, Bytes)>,
}

impl Board {
    fn metrics(&mut self) -> Bytes {
        match &self.last {
            Some((read, text)) if read.elapsed() < FRESH => text.clone(),
            _ => {
                let text = Bytes::from(metrics::encode(&self.instruments));
                self.last = Some((Instant::now(), text.clone()));
                text
            }
        }
    }
}

fn metrics(board: &mut Board, _: &Request<'_>, response: Response<'_, '_>) -> Answer {
    const TYPE: &ContentType = &ContentType::from_static(metrics::CONTENT_TYPE);

    response.close().send(TYPE, board.metrics())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_stays_on_this_machine() {
        let address = |text: &str| {
            text.parse::<AdminAddress>()
                .map(|address| address.to_string())
        };
        assert_eq!(address("9100").unwrap(), "127.0.0.1:9100");
        assert_eq!(address("[::]:9100").unwrap(), "[::]:9100");
        for text in ["", "x", "localhost:9100", "70000", "127.0.0.1"] {
            assert!(address(text).is_err(), "{text:?}");
        }
    }
}
