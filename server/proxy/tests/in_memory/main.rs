//! A proxy without sockets: its cache (RFC 9111), and what happens when its routes change.

#![allow(clippy::unwrap_used)]

mod allocations;
mod bounds;
mod flights;
mod ranges;
mod reload;
mod reuse;
mod rules;
mod teleport;
mod world;
