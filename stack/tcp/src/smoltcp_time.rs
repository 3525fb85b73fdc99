//! smoltcp's time and ours: both count microseconds, but only ours is in signatures that others see.

use std::cell::Cell;

use barewire_service::time::Instant;
use smoltcp::iface::{Interface, SocketSet};

/// `at`, as smoltcp counts it.
#[inline]
pub(crate) fn at(at: Instant) -> smoltcp::time::Instant {
    smoltcp::time::Instant::from_micros_const(at.total_micros())
}

/// When a socket of `sockets` has something to do; `None`: when it receives something.
#[inline]
pub(crate) fn poll_at(
    interface: &mut Interface,
    now: Instant,
    sockets: &SocketSet<'_>,
) -> Option<Instant> {
    let due = interface.poll_at(at(now), sockets)?;
    Some(Instant::from_micros(due.total_micros()))
}

thread_local! {
    static TS_VALUE: Cell<u32> = const { Cell::new(0) };
}

/// Sets what [`ts_value`] returns on this thread. smoltcp asks a function without arguments.
#[inline]
pub(crate) fn set_ts_value(value: u32) {
    TS_VALUE.set(value);
}

/// TSval of what smoltcp sends (RFC 7323).
pub(crate) fn ts_value() -> u32 {
    TS_VALUE.get()
}
