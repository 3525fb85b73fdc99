//! The contract of `barewire_service::service`, run against every stack over real sockets.
//!
//! Our own stack keeps it in a lab, for which root is needed.

#![allow(clippy::unwrap_used)]

mod contract;
mod line_service;
mod server;

/// Runs every test of the contract against the stack that `$start` starts, and `$more`.
macro_rules! keeps_the_contract {
    (@each $stack:ident, $start:expr; $($promise:ident)+) => {
        mod $stack {
            $(
                #[test]
                fn $promise() {
                    if super::is_possible(stringify!($stack)) {
                        super::contract::$promise($start);
                    }
                }
            )+
        }
    };
    ($stack:ident, $start:expr $(, $more:ident)*) => {
        keeps_the_contract! { @each $stack, $start;
            a_message_is_answered
            the_clock_is_told_before_the_first_message
            a_message_may_arrive_byte_by_byte
            pipelined_messages_are_answered_in_order
            a_body_longer_than_the_receive_buffer_is_consumed_in_pieces
            a_message_that_fills_the_receive_buffer_is_refused
            a_reply_longer_than_every_buffer_arrives_whole
            a_client_that_does_not_read_is_not_read_from
            a_peer_is_heard_while_it_is_sent_to
            others_are_served_while_one_does_not_read
            what_was_asked_before_a_half_close_is_answered
            half_a_message_and_a_half_close_end_the_connection
            a_connection_without_a_word_ends_with_its_peer
            a_reset_in_the_middle_of_a_message_frees_the_connection
            the_service_can_close_and_its_last_words_arrive
            the_service_can_reset
            many_connections_come_and_go
            an_idle_connection_ends
            a_head_that_takes_too_long_ends_the_connection
            a_body_that_takes_too_long_ends_the_connection
            a_peer_that_does_not_read_is_reset
            a_peer_that_does_not_close_is_reset
            drain_finishes_what_has_begun_and_accepts_nothing_new
            drain_ends_at_once_when_nobody_is_there
            a_core_with_nothing_to_do_sleeps
            $($more)*
        }
    };
}

/// Without root there is no lab.
fn is_possible(stack: &str) -> bool {
    let possible = stack != "xdp" || rustix::process::geteuid().is_root();
    if !possible {
        eprintln!("SKIPPED: network namespaces need root");
    }
    possible
}

#[cfg(any(feature = "epoll", feature = "uring"))]
fn on_loopback(limits: server::Limits) -> barewire_kernel::KernelConfig {
    let listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    barewire_kernel::KernelConfig {
        cores: vec![rustix::thread::sched_getcpu()],
        connections: limits.connections,
        outbound: limits.outbound,
        tell_peers: true,
        receive_buffer_bytes: limits.receive_buffer_bytes,
        send_buffer_bytes: limits.send_buffer_bytes,
        deadlines: limits.deadlines,
        ..barewire_kernel::KernelConfig::new(listen)
    }
}

/// The same of a stack of the kernel, where connections also wait for their turn, and a service opens and wakes them.
#[cfg(any(feature = "epoll", feature = "uring"))]
macro_rules! kernel_stack_keeps_the_contract {
    ($stack:ident, |$config:ident| $value:expr) => {
        keeps_the_contract!(
            $stack,
            |limits| {
                let $config = super::on_loopback(limits);
                super::server::Server::start($value)
            },
            connections_beyond_the_limit_wait_for_their_turn,
            a_connection_that_waits_is_woken_by_another,
            a_connection_that_waits_holds_its_peer_back,
            a_connection_that_waits_can_be_reset_and_its_name_is_not_anothers,
            a_client_that_has_half_closed_is_answered_later_all_the_same,
            a_service_calls_and_passes_on_what_it_is_told,
            a_service_is_told_why_it_cannot_call,
            a_service_is_told_who_called
        );
    };
}

#[cfg(feature = "epoll")]
kernel_stack_keeps_the_contract!(epoll, |config| barewire_kernel::epoll::Epoll { config });

#[cfg(feature = "uring")]
kernel_stack_keeps_the_contract!(uring, |config| barewire_kernel::uring::Uring::new(config));

#[cfg(feature = "uring")]
kernel_stack_keeps_the_contract!(uring_without_copies, |config| {
    barewire_kernel::uring::Uring {
        zero_copy_bytes_min: Some(1),
        ..barewire_kernel::uring::Uring::new(config)
    }
});

#[cfg(feature = "uring")]
kernel_stack_keeps_the_contract!(uring_with_a_submitting_thread, |config| {
    barewire_kernel::uring::Uring {
        sqpoll_idle_ms: Some(1),
        ..barewire_kernel::uring::Uring::new(config)
    }
});

// What does not fit does not wait here: its SYN is dropped, and the peer tries again.
#[cfg(feature = "xdp")]
keeps_the_contract!(xdp, |limits| {
    let lab = barewire_lab::Lab::up(&["--queues", "1"]).unwrap();
    let mut config = barewire_xdp::XdpConfig::new(barewire_lab::SERVER_DEVICE, 8080);
    config.cores = vec![rustix::thread::sched_getcpu()];
    // Connections that the peer has just closed are in use for a moment longer.
    config.stack.connections = 4 * limits.connections as u32;
    config.stack.half_open = config.stack.connections;
    config.stack.receive_buffer_bytes = limits.receive_buffer_bytes;
    config.stack.send_buffer_bytes = limits.send_buffer_bytes;
    config.stack.deadlines = limits.deadlines;
    super::server::Server::start_in(lab, config)
});
