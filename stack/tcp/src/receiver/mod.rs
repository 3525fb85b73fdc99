//! The receiving half of a connection that is served directly: how much the peer may send, and where what the service
//! has not taken waits.

pub(crate) mod inbox;
pub mod window;
