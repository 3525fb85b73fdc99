//! What a shard does with segments, told as packet traces.
//!
//! Every test is a conversation as tcpdump would show it: `>` is what a peer sends to the shard, `<`
//! is all that the shard answers, in that order and nothing else. See [`trace`] for the notation.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bulk;
mod calls;
mod close;
mod closing;
mod cookies;
mod data;
mod deadlines;
mod direct;
mod guards;
mod handshake;
mod limits;
mod links;
mod network;
mod paths;
mod pressure;
mod retransmission;
mod reuse;
mod shards;
mod time_wait;
mod timestamps;
mod trace;
mod travel;
mod window;
