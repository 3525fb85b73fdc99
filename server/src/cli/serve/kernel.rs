//! From arguments to the configuration of a kernel stack.
#![cfg(any(feature = "epoll", feature = "uring"))]

use barewire_service::service::Service as _;

use super::args::ServeArgs;
use super::tls::Capacity;
use crate::site::Site;
use barewire_http::Responder;
#[cfg(feature = "epoll")]
use barewire_kernel::epoll::Epoll;
#[cfg(feature = "uring")]
use barewire_kernel::uring::Uring;
use barewire_kernel::{KernelConfig, StartError};

/// The epoll stack as `args` ask for it.
///
/// # Errors
///
/// If a limit is out of its bounds.
#[cfg(feature = "epoll")]
pub fn epoll(args: &ServeArgs) -> Result<Epoll, StartError> {
    Ok(Epoll {
        config: config(args)?,
    })
}

/// The io_uring stack as `args` ask for it.
///
/// # Errors
///
/// If a limit is out of its bounds.
#[cfg(feature = "uring")]
pub fn uring(args: &ServeArgs) -> Result<Uring, StartError> {
    let ring = &args.uring;
    Ok(Uring {
        config: config(args)?,
        sqpoll_idle_ms: ring.sqpoll_idle_ms,
        zero_copy_bytes_min: ring.zero_copy_bytes_min,
        ring_buffers: ring.ring_buffers,
        ring_buffer_bytes: ring.ring_buffer_bytes,
    })
}

/// What a connection of such a stack has.
pub fn capacity(config: &KernelConfig) -> Capacity {
    Capacity {
        connections: u32::try_from(config.connections).unwrap_or(u32::MAX),
        receive_buffer_bytes: config.receive_buffer_bytes,
    }
}

fn config(args: &ServeArgs) -> Result<KernelConfig, StartError> {
    let mut config = KernelConfig::new(args.listen());
    config.cores = args.place.cores.numbers().to_vec();
    config.deadlines = args.deadlines();
    config.backlog = args.kernel.backlog;
    config.defer_accept_s = args.kernel.defer_accept_s;
    config.busy_poll_us = args.place.busy_poll_us;
    config.prefer_busy_poll = args.kernel.prefer_busy_poll;
    let limits = &args.connection;
    config.connections = limits
        .connections
        .map_or(config.connections, |n| n as usize);
    config.receive_buffer_bytes = args.receive_buffer_bytes(config.receive_buffer_bytes);
    config.send_buffer_bytes = limits.send_buffer_bytes.unwrap_or(config.send_buffer_bytes);
    // In the order that `teleport` and `tls` know them by.
    config.listen_also.extend(args.teleport.teleport_listen);
    if args.tls.is_wanted() {
        config.listen_also.push(args.tls_listen());
    }
    config.check(Responder::<Site>::REPLY_BYTES_MIN)?;
    Ok(config)
}
