//! The client against answers that a test writes, by a clock that a test moves.

use super::*;
use crate::pace::Tickets;
use crate::request::Values;
use crate::tally::Failures;
use http::Method;
use std::cell::Cell;

mod http2;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const ASKED: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

impl Clock for &Cell<u64> {
    fn now_ns(&self) -> u64 {
        self.get()
    }
}

fn get() -> Arc<Request> {
    Arc::new(Request::fixed(&Method::GET, "/", &[], b"").unwrap())
}

fn tickets(count: u64) -> Arc<Tickets> {
    Arc::new(Tickets::new(count, 1))
}

/// A client and what one connection of it did.
struct Wire<'a> {
    client: Client<&'a Cell<u64>>,
    exchange: Exchange,
    space: Vec<u8>,
}

impl<'a> Wire<'a> {
    fn new(
        now: &'a Cell<u64>,
        request: &Arc<Request>,
        pipeline: usize,
        pace: Pace,
        tickets: &Arc<Tickets>,
    ) -> Self {
        let mut client = Client::new(now, request, pipeline, pace, Drawer::new(tickets));
        client.start();
        Wire {
            client,
            exchange: Exchange::default(),
            space: vec![0; 4 * REQUEST_BYTES_MAX],
        }
    }

    /// Shows `bytes`; what was written, and what is next.
    fn show(&mut self, bytes: &[u8], ended: bool) -> (Vec<u8>, Progress) {
        let mut reply = Reply::new(&mut self.space);
        let input = Input {
            bytes,
            full: false,
            ended,
        };
        let progress = self.client.on_input(&mut self.exchange, input, &mut reply);
        (reply.written().to_vec(), progress)
    }

    fn failures(&mut self) -> (Failures, u64) {
        (self.client.tally().failures, self.client.tally().unanswered)
    }
}

#[test]
fn rates_count_what_comes_in_the_window_and_latencies_what_is_due_in_it() {
    let now = Cell::new(0);
    let mut wire = Wire::new(&now, &get(), 1, Pace::ClosedLoop, &tickets(100));
    wire.client = wire.client.within(Window {
        warm_up: std::time::Duration::from_nanos(100),
        length: Some(std::time::Duration::from_nanos(1_000)),
    });
    wire.client.start();
    wire.show(b"", false);
    // Asked and answered before it; asked before; in it; asked in it and answered after; after.
    for at_ns in [50, 150, 500, 1_500, 1_600] {
        now.set(at_ns);
        wire.show(OK, false);
    }
    let tally = wire.client.take_tally();
    assert_eq!(tally.responses(), 5);
    assert_eq!(tally.in_window.responses, 2);
    assert_eq!(tally.in_window.bytes_read, 2 * OK.len() as u64);
    assert_eq!(tally.in_window.bytes_written, 2 * ASKED.len() as u64);
    assert_eq!((tally.latency_ns.len(), tally.latency_ns.max()), (2, 1_000));
}

#[test]
fn connections_of_a_closed_loop_begin_one_after_the_other() {
    let now = Cell::new(0);
    let mut wire = Wire::new(&now, &get(), 1, Pace::ClosedLoop, &tickets(100));
    wire.client = wire.client.ramping(Ramp::new(3, 1));
    let mut others = [Exchange::default(), Exchange::default()];
    assert_eq!(wire.show(b"", false).0, ASKED);
    // The first one has no answer yet: the next one stays idle.
    std::mem::swap(&mut wire.exchange, &mut others[0]);
    let (written, progress) = wire.show(b"", false);
    assert!(written.is_empty() && progress.next == Next::Receive(Expect::Message));
    assert_eq!(wire.client.due_ns(), None);
    // Its answer makes room, and the first one goes on as it likes.
    std::mem::swap(&mut wire.exchange, &mut others[0]);
    assert_eq!(wire.show(OK, false).0, ASKED);
    assert_eq!(wire.client.due_ns(), Some(0));
    std::mem::swap(&mut wire.exchange, &mut others[0]);
    assert_eq!(wire.show(b"", false).0, ASKED);
    assert_eq!(wire.client.due_ns(), None);
    // A connection that breaks makes room, too.
    let reason = || "reset".to_owned();
    (wire.client).on_lost(&mut wire.exchange, Failure::Reset, reason);
    assert_eq!(wire.client.due_ns(), Some(0));
    std::mem::swap(&mut wire.exchange, &mut others[1]);
    assert_eq!(wire.show(b"", false).0, ASKED);
}

#[test]
fn a_closed_loop_asks_again_when_it_has_its_answer() {
    let (now, request, tickets) = (Cell::new(0), get(), tickets(2));
    let mut wire = Wire::new(&now, &request, 1, Pace::ClosedLoop, &tickets);
    let (asked, progress) = wire.show(b"", false);
    assert_eq!(
        (asked.as_slice(), progress.next),
        (ASKED, Next::Receive(Expect::Head))
    );

    now.set(1000);
    let (asked, progress) = wire.show(&OK[..10], false);
    assert_eq!((asked.as_slice(), progress.consumed), (b"".as_slice(), 0));
    let (asked, progress) = wire.show(&OK[..OK.len() - 1], false);
    assert_eq!(
        (asked.as_slice(), progress.consumed),
        (b"".as_slice(), OK.len() - 1)
    );
    assert_eq!(progress.next, Next::Receive(Expect::Body));
    let (asked, progress) = wire.show(b"k", false);
    assert_eq!((asked.as_slice(), progress.messages), (ASKED, 1));

    now.set(3000);
    let (asked, progress) = wire.show(OK, false);
    assert_eq!(
        (asked.as_slice(), progress.messages, progress.next),
        (b"".as_slice(), 1, Next::Close)
    );
    let tally = wire.client.take_tally();
    assert_eq!((tally.responses(), tally.statuses[200]), (2, 2));
    assert_eq!(
        (tally.latency_ns.min(), tally.latency_ns.max() / 2),
        (1000, 1000)
    );
}

#[test]
fn a_pipeline_is_asked_in_one_piece_and_again_when_all_is_answered() {
    let (now, request, tickets) = (Cell::new(0), get(), tickets(100));
    let mut wire = Wire::new(&now, &request, 3, Pace::ClosedLoop, &tickets);
    assert_eq!(wire.show(b"", false).0, ASKED.repeat(3));
    let two_and_a_bit = [OK, OK, &OK[..30]].concat();
    let (asked, progress) = wire.show(&two_and_a_bit, false);
    assert_eq!(
        (asked.len(), progress.messages, progress.consumed),
        (0, 2, 2 * OK.len())
    );
    assert_eq!(wire.show(OK, false).0, ASKED.repeat(3));
}

#[test]
fn a_stalled_server_cannot_hide_its_stall_from_an_open_loop() {
    // One connection, a request due every microsecond, a server that stalls for ten.
    let (now, request, tickets) = (Cell::new(0), get(), tickets(11));
    let mut wire = Wire::new(&now, &request, 1, Pace::open_loop(1e6, 0, 1), &tickets);
    assert_eq!(wire.show(b"", false).0, ASKED);
    now.set(10_000);
    for _ in 0..11 {
        wire.show(OK, false);
    }
    let latency = wire.client.take_tally().latency_ns;
    let latencies: Vec<u64> = latency
        .iter_recorded()
        .map(|value| value.value_iterated_to() / 1000)
        .collect();
    // The last was due when the stall ended: nothing, recorded as one nanosecond.
    assert_eq!(latencies, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
}

#[test]
fn an_open_loop_lets_a_connection_idle_until_a_request_is_due() {
    let (now, request, tickets) = (Cell::new(0), get(), tickets(2));
    let mut wire = Wire::new(&now, &request, 1, Pace::open_loop(1000.0, 0, 1), &tickets);
    wire.show(b"", false);
    let (asked, progress) = wire.show(OK, false);
    assert_eq!(
        (asked.len(), progress.next),
        (0, Next::Receive(Expect::Message))
    );
    assert_eq!(wire.client.due_ns(), Some(1_000_000));
    now.set(1_000_700);
    assert_eq!(wire.show(b"", false).0, ASKED);
    assert_eq!(wire.client.tally().lateness_ns.max(), 700);
    assert_eq!(wire.show(OK, false).1.next, Next::Close);
}

#[test]
fn answers_that_do_not_come_are_booked_as_unanswered() {
    let (now, tickets) = (Cell::new(0), tickets(u64::MAX));
    let event = Arc::new(Request::event(Values::Integer, &[]).unwrap());
    let mut wire = Wire::new(&now, &event, 4, Pace::ClosedLoop, &tickets);

    wire.show(b"", false);
    let (_, progress) = wire.show(OK, true);
    assert_eq!(progress.next, Next::Close);
    assert_eq!(
        wire.failures(),
        (
            Failures {
                closed: 1,
                ..Failures::default()
            },
            3
        )
    );

    wire.show(b"", false);
    wire.client
        .on_timeout(&mut wire.exchange, &mut Reply::new(&mut []));
    assert_eq!(
        wire.failures(),
        (
            Failures {
                closed: 1,
                timeout: 1,
                ..Failures::default()
            },
            7
        )
    );

    wire.show(b"", false);
    let refusal = b"HTTP/1.1 507 Full\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    assert_eq!(wire.show(refusal, false).1.next, Next::Close);

    let tally = wire.client.take_tally();
    let receipts = tally.receipts.unwrap();
    assert_eq!(
        (receipts.acknowledged.count, receipts.unknown.count),
        (1, 3 + 4 + 3)
    );
    assert_eq!((tally.statuses[200], tally.statuses[507]), (1, 1));
}

#[test]
fn an_orderly_end_between_two_answers_is_no_failure() {
    let (now, request, tickets) = (Cell::new(0), get(), tickets(9));
    let mut wire = Wire::new(&now, &request, 1, Pace::ClosedLoop, &tickets);
    wire.show(b"", false);
    let last = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
    let (asked, progress) = wire.show(last, false);
    assert_eq!((asked.len(), progress.next), (0, Next::Close));
    assert_eq!(wire.failures(), (Failures::default(), 0));

    wire.exchange = Exchange::default();
    wire.show(b"", false);
    assert_eq!(
        wire.show(b"HTTP/1.0 200 OK\r\n\r\nall of it", true).1.next,
        Next::Close
    );
    assert_eq!(wire.failures(), (Failures::default(), 0));
    assert_eq!(wire.client.answered(), 2);
}

#[test]
fn garbage_and_what_nobody_asked_for_break_the_connection() {
    let (now, request, tickets) = (Cell::new(0), get(), tickets(u64::MAX));
    for garbage in [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(),
        &[OK, OK].concat(),
    ] {
        let mut wire = Wire::new(&now, &request, 1, Pace::ClosedLoop, &tickets);
        wire.show(b"", false);
        assert_eq!(wire.show(garbage, false).1.next, Next::Abort);
        assert_eq!(
            wire.failures().0,
            Failures {
                parse: 1,
                ..Failures::default()
            }
        );
    }
}

#[test]
fn after_a_drain_nothing_is_asked() {
    let (now, request, tickets) = (Cell::new(0), get(), tickets(u64::MAX));
    let mut wire = Wire::new(&now, &request, 1, Pace::ClosedLoop, &tickets);
    wire.show(b"", false);
    wire.client.on_drain();
    let (asked, progress) = wire.show(OK, false);
    assert_eq!(
        (asked.len(), progress.messages, progress.next),
        (0, 1, Next::Close)
    );
    assert!(wire.client.is_finished());
}

#[test]
fn a_pipeline_longer_than_the_room_is_asked_in_several_pieces() {
    let (now, tickets) = (Cell::new(0), tickets(u64::MAX));
    let request = Request::fixed(&Method::POST, "/", &[], &[b'x'; 5000]);
    let request = Arc::new(request.unwrap());
    let mut wire = Wire::new(&now, &request, 10, Pace::ClosedLoop, &tickets);
    let (mut asked, mut calls) = (0, 0);
    loop {
        let (written, progress) = wire.show(b"", false);
        (asked, calls) = (asked + written.len(), calls + 1);
        if progress.next != Next::Send {
            break;
        }
    }
    assert!(calls > 1);
    assert_eq!(asked % 10, 0);
    assert_eq!(wire.exchange.asked.len(), 10);
}

const LAST: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

#[test]
fn a_connection_of_a_churn_asks_once_and_leaves_the_closing_to_the_server() {
    let (now, request, tickets) = (Cell::new(0), get(), tickets(2));
    let mut wire = Wire::new(&now, &request, 1, Pace::ClosedLoop, &tickets);
    wire.client = wire.client.churning(Some(Churn::new(1000.0)));
    wire.client.start();
    assert_eq!(wire.client.take_call(0), Some(0));
    assert_eq!(wire.client.take_call(999_999), None);
    assert_eq!(wire.client.next_call_ns(), Some(1_000_000));

    wire.exchange = Exchange::for_ticket(0);
    now.set(500);
    assert_eq!(wire.show(b"", false).0, ASKED);
    now.set(700);
    let (asked, progress) = wire.show(LAST, false);
    assert_eq!(
        (asked.len(), progress.messages, progress.next),
        (0, 1, Next::Receive(Expect::Body))
    );
    assert_eq!(wire.show(b"", true).1.next, Next::Close);
    // From when the connection was due, its handshake included.
    assert_eq!(wire.client.tally().latency_ns.max(), 700);

    assert!(!wire.client.is_finished());
    wire.exchange = Exchange::for_ticket(wire.client.take_call(1_000_000).unwrap());
    assert!(wire.client.is_finished());
    wire.show(b"", false);
    assert_eq!(wire.show(OK, false).1.next, Next::Close);
    assert_eq!(wire.failures(), (Failures::default(), 0));
}

#[test]
fn a_churn_does_not_blame_a_server_that_is_slow_to_close() {
    let (now, request, tickets) = (Cell::new(0), get(), tickets(2));
    let mut wire = Wire::new(&now, &request, 1, Pace::ClosedLoop, &tickets);
    wire.client = wire.client.churning(Some(Churn::new(1000.0)));
    wire.exchange = Exchange::for_ticket(0);
    wire.show(b"", false);
    wire.show(LAST, false);
    wire.client
        .on_timeout(&mut wire.exchange, &mut Reply::new(&mut []));
    assert_eq!(wire.failures(), (Failures::default(), 0));
}

#[test]
fn bodies_are_compared_also_when_they_come_in_pieces() {
    let (now, request, tickets) = (Cell::new(0), get(), tickets(u64::MAX));
    let answer = |body: &str| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        (head + body).into_bytes()
    };
    for (body, wrong) in [
        ("hello", 0),
        ("hallo", 1),
        ("hell", 1),
        ("hello!", 1),
        ("", 1),
    ] {
        for cut in 0..answer(body).len() {
            let mut wire = Wire::new(&now, &request, 1, Pace::ClosedLoop, &tickets);
            wire.client = wire.client.expecting(Some(b"hello".as_slice().into()));
            wire.show(b"", false);
            let whole = answer(body);
            let consumed = wire.show(&whole[..cut], false).1.consumed;
            wire.show(&whole[consumed..], false);
            wire.show(&answer("hello"), false);
            let tally = wire.client.take_tally();
            assert_eq!(
                (tally.responses(), tally.wrong_bodies),
                (2, wrong),
                "{body} {cut}"
            );
        }
    }
}
