//! The 1-million-request challenge from end to end: whatever way an event comes, it counts once.
//!
//! The [`promises`] are kept on every stack: on the kernel's over loopback, on ours in a lab of two
//! network namespaces, for which root is needed. [`bad_wire`] adds what no lab does on demand: loss,
//! duplication, reordering and damage, from a seed.
#![allow(clippy::unwrap_used)]

mod bad_wire;
mod event;
mod go_client;
mod promises;
mod server;

use std::net::SocketAddr;
use std::thread::available_parallelism;

use server::Carrier;

macro_rules! keeps_the_promises {
    ($stack:ident, $with_server:path) => {
        mod $stack {
            keeps_the_promises! { @each $with_server;
                runs_are_exact_one_after_the_other
                #[ignore = "takes a minute; meant for a release build"]
                a_million_is_exact_one_after_the_other
                an_event_counts_once_however_it_is_framed_and_split
                curl_delivers_events
                clients_that_leave_answers_unread_keep_their_connections
                what_is_no_event_does_not_count
                an_event_that_was_cut_off_does_not_count
                an_event_whose_answer_is_lost_counts_once
            }
        }
    };
    (@each $with_server:path; $($(#[$attribute:meta])* $promise:ident)+) => {
        $(
            #[test]
            $(#[$attribute])*
            fn $promise() {
                $with_server(crate::promises::$promise);
            }
        )+
    };
}

#[cfg(feature = "epoll")]
keeps_the_promises!(epoll, crate::on_epoll);
#[cfg(feature = "uring")]
keeps_the_promises!(uring, crate::on_uring);
#[cfg(feature = "xdp")]
keeps_the_promises!(xdp, crate::on_xdp);

#[cfg(any(feature = "epoll", feature = "uring"))]
fn on_loopback() -> barewire_kernel::KernelConfig {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    barewire_kernel::KernelConfig::new(listen)
}

#[cfg(feature = "epoll")]
fn on_epoll(test: fn(&server::Server)) {
    let config = on_loopback();
    let stack = barewire_kernel::epoll::Epoll { config };
    test(&Carrier::start(stack, cores()).server());
}

#[cfg(feature = "uring")]
fn on_uring(test: fn(&server::Server)) {
    let stack = barewire_kernel::uring::Uring::new(on_loopback());
    test(&Carrier::start(stack, cores()).server());
}

#[cfg(feature = "xdp")]
fn on_xdp(test: fn(&server::Server)) {
    use barewire_lab::{Lab, SERVER_DEVICE};

    let Some(lab) = Lab::up(&["--queues", "2"]) else {
        return;
    };
    let stack = barewire_xdp::XdpConfig::new(SERVER_DEVICE, 8080);
    let carrier = lab.server(|| Carrier::start(stack, cores()));
    lab.client(|| test(&carrier.server()));
}

fn cores() -> usize {
    available_parallelism().unwrap().get()
}
