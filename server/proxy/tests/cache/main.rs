//! The cache of a proxy: RFC 9111, and what it does when much comes at once.

#![allow(clippy::unwrap_used)]

mod allocations;
mod bounds;
mod flights;
mod reuse;
mod rules;
mod world;
