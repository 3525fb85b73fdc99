//! From arguments to the configuration of a kernel stack.
#![cfg(any(feature = "epoll", feature = "uring"))]

use super::args::ServeArgs;
use crate::stacks::kernel::KernelConfig;

#[cfg(feature = "epoll")]
pub fn epoll(args: &ServeArgs) -> crate::stacks::epoll::Epoll {
    crate::stacks::epoll::Epoll {
        config: config(args),
    }
}

fn config(args: &ServeArgs) -> KernelConfig {
    let mut config = KernelConfig::new(args.listen());
    config.cores = args.place.cores.numbers().to_vec();
    config.deadlines = args.deadlines();
    config.backlog = args.kernel.backlog;
    config.defer_accept_s = args.kernel.defer_accept_s;
    config.busy_poll_us = args.kernel.busy_poll_us;
    config.prefer_busy_poll = args.kernel.prefer_busy_poll;
    let limits = &args.connection;
    config.connections = limits
        .connections
        .map_or(config.connections, |n| n as usize);
    config.receive_buffer_bytes = limits
        .receive_buffer_bytes
        .unwrap_or(config.receive_buffer_bytes);
    config.send_buffer_bytes = limits.send_buffer_bytes.unwrap_or(config.send_buffer_bytes);
    config
}
