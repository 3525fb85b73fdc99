//! Several servers that count together, through a real redis-server of the test's own.
//!
//! `BAREWIRE_TEST_FLEET_EVENTS=1000000` sends as many events (default 100,000),
//! `BAREWIRE_TEST_FLEET_USERS=1000000` has as many distinct users (default 30,000).
#![allow(clippy::unwrap_used)]

mod allocations;
mod client;
mod engine;
mod exact;
mod failures;
mod proxy;
#[path = "../e2e/server.rs"]
#[allow(dead_code, reason = "the other tests use the rest")]
mod server;
mod take_over;
mod wrong_use;
