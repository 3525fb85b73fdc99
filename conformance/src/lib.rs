//! What an HTTP/1.1 origin server must answer, byte for byte.
//!
//! [`cases`] is a table of requests and their responses, each naming the section of the RFC that
//! demands it. It knows no server: a [`driver::Driver`] carries bytes to one and back, either a
//! [`driver::Memory`], which runs a [`Service`](barewire_stack::service::Service) by its contract, or
//! a [`driver::Tcp`], which talks to whatever listens on an address, on any stack.

pub mod driver;
