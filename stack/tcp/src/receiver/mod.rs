//! What the receiving half of a connection says: when to acknowledge, and how large a window.
//!
//! | concept | where | source |
//! |---|---|---|
//! | ACKs delayed and coalesced | [`ack`] | RFC 9293, 3.8.6.3; RFC 5681, 4.2 |
//! | the window that is told, and how it grows | [`window`] | RFC 9293, 3.8.6.2.2; RFC 7323, 2 |

pub mod ack;
pub mod window;
