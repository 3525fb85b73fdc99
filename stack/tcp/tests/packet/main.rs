//! What is read of a received frame.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod icmp;
mod parse;
