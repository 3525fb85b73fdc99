//! The receiving half of a connection that is served directly.

pub mod window;
