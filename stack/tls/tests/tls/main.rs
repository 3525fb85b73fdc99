//! TLS in memory, against the client of rustls.

mod connection;
mod handshake;
mod harness;
mod identity;
mod splits;
