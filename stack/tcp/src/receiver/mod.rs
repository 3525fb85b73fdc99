//! What the receiving half of a connection says that is served directly.

pub mod window;
