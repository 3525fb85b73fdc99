//! A limit for the connections of all cores together, and the answer to those beyond it.
//!
//! ```text
//!   on_accept ──▶ Seats::take ──▶ a seat: the service inside has the connection, the seat is its own until the end
//!                            └──▶ none: 503 or GOAWAY as soon as it asks something, or not a word
//! ```
//!
//! It wraps the HTTP service and is wrapped by TLS, so that a client that it refuses can read why. A connection in its TLS
//! handshake takes no seat; TLS has limits of its own for that.

use std::sync::Arc;

use barewire_service::counters;
use barewire_service::seats::{Seat, Seats};
use barewire_service::service::{
    Arrival, End, Expect, Id, Input, Next, Progress, Reply, Service, Want,
};
use barewire_service::time::Instant;

use super::http2::frame::PREFACE;

/// The answer to every request of HTTP/1.1.
const UNAVAILABLE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n\
    Content-Type: text/plain\r\nContent-Length: 40\r\n\r\nToo many connections; try again later.\r\n";
/// SETTINGS, which must come first, and GOAWAY with ENHANCE_YOUR_CALM: no stream was served, and each may be tried again.
const GOAWAY: &[u8] = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00\
    \x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x0b";

counters! {
    /// What a core counts of connections that have no seat.
    pub struct BulkheadCounters {
        /// Connections beyond `--connections-total`.
        surplus: Loss,
    }
}

/// How connections that have no seat are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surplus {
    /// They are answered 503 with Retry-After, or GOAWAY.
    Answer,
    /// They are not answered, but reset at their first request.
    Drop,
}

/// A limit around `S`, or none.
#[derive(Debug)]
pub struct Bulkhead<S> {
    inner: S,
    seats: Option<Arc<Seats>>,
    surplus: Surplus,
    counters: Arc<BulkheadCounters>,
}

/// A connection with a seat, if it needs one.
#[derive(Debug)]
pub struct Seated<C>(Result<(C, Option<Seat>), ()>);

impl<C: Default> Default for Seated<C> {
    fn default() -> Self {
        Seated(Ok((C::default(), None)))
    }
}

impl<S> Bulkhead<S> {
    /// At most as many connections as there are `seats`; any number without.
    pub fn new(
        inner: S,
        seats: Option<Arc<Seats>>,
        surplus: Surplus,
        counters: Arc<BulkheadCounters>,
    ) -> Self {
        Bulkhead {
            inner,
            seats,
            surplus,
            counters,
        }
    }
}

impl<S: Service> Service for Bulkhead<S> {
    type Connection = Seated<S::Connection>;

    const REPLY_BYTES_MIN: usize = {
        assert!(UNAVAILABLE.len() <= S::REPLY_BYTES_MIN && GOAWAY.len() <= S::REPLY_BYTES_MIN);
        S::REPLY_BYTES_MIN
    };

    fn on_accept(&mut self, arrival: Arrival<'_>) -> (Self::Connection, Expect) {
        let seat = match self.seats.as_ref().map(Seats::take) {
            None => None,
            Some(Some(seat)) => Some(seat),
            Some(None) => {
                self.counters.surplus.increment();
                return (Seated(Err(())), Expect::Head);
            }
        };
        let (connection, expect) = self.inner.on_accept(arrival);
        (Seated(Ok((connection, seat))), expect)
    }

    #[inline]
    fn on_input(
        &mut self,
        connection: &mut Self::Connection,
        input: Input<'_>,
        reply: &mut Reply<'_>,
    ) -> Progress {
        match &mut connection.0 {
            Ok((connection, _)) => self.inner.on_input(connection, input, reply),
            Err(()) => self.turn_away(input, reply),
        }
    }

    fn on_timeout(&mut self, connection: &mut Self::Connection, reply: &mut Reply<'_>) {
        if let Ok((connection, _)) = &mut connection.0 {
            self.inner.on_timeout(connection, reply);
        }
    }

    fn on_dismiss(&mut self, connection: &mut Self::Connection, reply: &mut Reply<'_>) {
        if let Ok((connection, _)) = &mut connection.0 {
            self.inner.on_dismiss(connection, reply);
        }
    }

    fn on_clock(&mut self, unix_time_s: u64) {
        self.inner.on_clock(unix_time_s);
    }

    #[inline]
    fn on_time(&mut self, now_ns: u64) {
        self.inner.on_time(now_ns);
    }

    fn on_drain(&mut self) {
        self.inner.on_drain();
    }

    fn on_stay(&mut self) {
        self.inner.on_stay();
    }

    fn wants(&mut self, now: Instant) -> Want {
        self.inner.wants(now)
    }

    fn on_open(&mut self, token: u64, id: Id) -> Self::Connection {
        Seated(Ok((self.inner.on_open(token, id), None)))
    }

    /// A seat is more than a byte.
    #[inline]
    fn rest(connection: &Self::Connection) -> Option<u8> {
        match &connection.0 {
            Ok((connection, None)) => S::rest(connection),
            Ok((_, Some(_))) | Err(()) => None,
        }
    }

    #[inline]
    fn resume(connection: &mut Self::Connection, rest: u8) {
        if let Ok((connection, _)) = &mut connection.0 {
            S::resume(connection, rest);
        }
    }

    /// There it takes a seat of that process.
    fn departs(connection: &Self::Connection) -> Option<u8> {
        match &connection.0 {
            Ok((connection, _)) => S::departs(connection),
            Err(()) => None,
        }
    }

    fn on_end(&mut self, connection: &mut Self::Connection, end: End) {
        if let Ok((connection, _)) = &mut connection.0 {
            self.inner.on_end(connection, end);
        }
    }
}

impl<S> Bulkhead<S> {
    /// Answers the first request of a client without a seat, and closes the connection.
    #[cold]
    fn turn_away(&self, input: Input<'_>, reply: &mut Reply<'_>) -> Progress {
        let ending = |next| Progress {
            consumed: input.bytes.len(),
            messages: 0,
            next,
        };
        // Enough to tell the preface of HTTP/2 from a method.
        const ENOUGH_BYTES: usize = 3;
        match self.surplus {
            Surplus::Drop => return ending(Next::Abort),
            Surplus::Answer if input.bytes.len() < ENOUGH_BYTES && !input.ended => {
                return Progress {
                    consumed: 0,
                    messages: 0,
                    next: Next::Receive(Expect::Head),
                };
            }
            Surplus::Answer => {}
        }
        let answer = match input.bytes.starts_with(&PREFACE[..ENOUGH_BYTES]) {
            true => GOAWAY,
            false => UNAVAILABLE,
        };
        let said = reply.put(answer);
        debug_assert!(said, "a reply has room for it");
        ending(Next::Close)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Echoes what it is sent.
    struct Echo;

    impl Service for Echo {
        type Connection = ();
        const REPLY_BYTES_MIN: usize = 512;

        fn on_input(&mut self, (): &mut (), input: Input<'_>, reply: &mut Reply<'_>) -> Progress {
            assert!(reply.put(input.bytes));
            Progress {
                consumed: input.bytes.len(),
                messages: 1,
                next: Next::Receive(Expect::Message),
            }
        }
    }

    fn say(
        bulkhead: &mut Bulkhead<Echo>,
        connection: &mut Seated<()>,
        bytes: &[u8],
    ) -> (Vec<u8>, Next) {
        let mut space = [0; 512];
        let mut reply = Reply::new(&mut space);
        let input = Input {
            bytes,
            full: false,
            ended: false,
        };
        let progress = bulkhead.on_input(connection, input, &mut reply);
        (reply.written().to_vec(), progress.next)
    }

    #[test]
    fn who_has_no_seat_is_told_so_until_one_is_free() {
        let seats = Seats::new(2);
        let counters = Arc::<BulkheadCounters>::default();
        let cores = [(); 2].map(|()| {
            let (seats, counters) = (Some(Arc::clone(&seats)), Arc::clone(&counters));
            Bulkhead::new(Echo, seats, Surplus::Answer, counters)
        });
        let [mut one, mut other] = cores;
        let (mut first, _) = one.on_accept(Arrival::default());
        let (mut second, _) = other.on_accept(Arrival::default());
        assert_eq!(say(&mut one, &mut first, b"GET").0, b"GET");
        assert_eq!(say(&mut other, &mut second, b"GET").0, b"GET");

        let (mut third, expect) = one.on_accept(Arrival::default());
        assert_eq!(expect, Expect::Head);
        assert_eq!(say(&mut one, &mut third, b"G").0, b"");
        let (said, next) = say(&mut one, &mut third, b"GET");
        assert!(said.starts_with(b"HTTP/1.1 503 ") && next == Next::Close);
        let (mut fourth, _) = other.on_accept(Arrival::default());
        assert_eq!(say(&mut other, &mut fourth, PREFACE).0, GOAWAY);
        assert_eq!(counters.surplus.get(), 2);

        // Not theirs, but that of a connection that had one.
        drop((third, fourth));
        assert!(seats.are_taken());
        drop(first);
        let (mut fifth, _) = other.on_accept(Arrival::default());
        assert_eq!(say(&mut other, &mut fifth, b"GET").0, b"GET");
        assert_eq!(counters.surplus.get(), 2);
    }

    #[test]
    fn what_is_said_is_whole() {
        let text = std::str::from_utf8(UNAVAILABLE).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())));
        assert_eq!(GOAWAY.len(), 9 + 9 + 8);
    }

    #[test]
    fn a_drop_is_silent_and_without_seats_there_is_no_limit() {
        let counters = Arc::<BulkheadCounters>::default();
        let seats = Some(Seats::new(0));
        let mut none = Bulkhead::new(Echo, seats, Surplus::Drop, Arc::clone(&counters));
        let (mut connection, _) = none.on_accept(Arrival::default());
        assert_eq!(
            say(&mut none, &mut connection, b"G"),
            (Vec::new(), Next::Abort)
        );
        let mut any = Bulkhead::new(Echo, None, Surplus::Answer, counters);
        let (mut connection, _) = any.on_accept(Arrival::default());
        assert_eq!(say(&mut any, &mut connection, b"GET").0, b"GET");
    }
}
