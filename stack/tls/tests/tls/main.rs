//! TLS in memory, against the client of rustls.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod client;
mod connection;
mod handshake;
mod harness;
mod identity;
mod splits;
