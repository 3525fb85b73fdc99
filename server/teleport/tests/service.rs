//! The serving end around a service that answers by HTTP/1.1, without sockets.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use barewire_service::service::{
    Arrival, End, Expect, Id, Input, Next, Progress, Reply, Service, Want,
};
use barewire_service::time::Instant;
use barewire_teleport::{
    CallId, Connection, Endpoint, Event, Limits, Reason, ServiceLimits, Side, Teleport,
    TeleportCounters,
};

/// Answers a line with what it says: `len N`, `later`, `cookie`, `twice`, `abort`.
#[derive(Default)]
struct Inner {
    waiting: Vec<Id>,
    to_wake: Vec<Id>,
    ended: Vec<End>,
}

#[derive(Default)]
struct Line {
    id: Id,
    is_later: bool,
    left: usize,
}

impl Service for Inner {
    type Connection = Line;
    const REPLY_BYTES_MIN: usize = 1024;

    fn on_accept(&mut self, arrival: Arrival<'_>) -> (Line, Expect) {
        let line = Line {
            id: arrival.id,
            ..Line::default()
        };
        (line, Expect::Message)
    }

    fn on_input(&mut self, line: &mut Line, input: Input<'_>, reply: &mut Reply<'_>) -> Progress {
        let progress = |consumed, messages, next| Progress {
            consumed,
            messages,
            next,
        };
        if line.left > 0 {
            return fill(line, 0, reply);
        }
        if line.is_later {
            assert!(reply.put(b"HTTP/1.1 200 OK\r\n\r\nlater"));
            line.is_later = false;
            return progress(0, 1, Next::Receive(Expect::Message));
        }
        let Some(at) = input.bytes.iter().position(|byte| *byte == b'\n') else {
            return progress(0, 0, Next::Receive(Expect::Head));
        };
        let text = std::str::from_utf8(&input.bytes[..at]).unwrap();
        let idle = Next::Receive(Expect::Message);
        match text.split_once(' ').unwrap_or((text, "")) {
            ("len", count) => {
                line.left = count.parse().unwrap();
                fill(line, at + 1, reply)
            }
            ("later", _) => {
                line.is_later = true;
                self.waiting.push(line.id);
                progress(at + 1, 0, Next::Wait)
            }
            ("cookie", _) => {
                assert!(reply.put(b"HTTP/1.1 200 OK\r\nSet-Cookie: s=1\r\nA: b\r\n\r\nbody"));
                progress(at + 1, 1, idle)
            }
            ("twice", _) => progress(at + 1, 2, idle),
            ("abort", _) => progress(at + 1, 0, Next::Abort),
            _ => panic!("{text}"),
        }
    }

    fn wants(&mut self, _: Instant) -> Want {
        match self.to_wake.pop() {
            Some(id) => Want::Wake(id),
            None => Want::Nothing { until: None },
        }
    }

    fn on_end(&mut self, _: &mut Line, end: End) {
        self.ended.push(end);
    }
}

fn fill(line: &mut Line, consumed: usize, reply: &mut Reply<'_>) -> Progress {
    let count = line.left.min(reply.remaining());
    assert!(reply.put(&vec![b'x'; count]));
    line.left -= count;
    let is_over = line.left == 0;
    Progress {
        consumed,
        messages: u32::from(is_over),
        next: match is_over {
            true => Next::Receive(Expect::Message),
            false => Next::Send,
        },
    }
}

/// A client's end, and the service at the other end of a wire of 4 KiB.
struct Wire {
    client: Endpoint,
    service: Teleport<Inner>,
    connection: Connection<Line>,
    next: Next,
    counters: Arc<TeleportCounters>,
    heard: Vec<(u32, String, bool)>,
    resets: Vec<(u32, Reason)>,
    last_call: Option<u32>,
}

const ID: Id = Id {
    index: 3,
    generation: 7,
};

impl Wire {
    fn new(limits: Limits) -> Self {
        let counters = Arc::<TeleportCounters>::default();
        let of_service = ServiceLimits {
            connection: limits,
            connections_max: 1,
            ..ServiceLimits::default()
        };
        let mut service = Teleport::new(Inner::default(), 1, of_service, Arc::clone(&counters));
        let (connection, expect) = service.on_accept(arrival());
        assert_eq!(expect, Expect::Handshake);
        let mut wire = Wire {
            client: Endpoint::new(Side::Client, limits, Arc::default()),
            service,
            connection,
            next: Next::Receive(expect),
            counters,
            heard: Vec::new(),
            resets: Vec::new(),
            last_call: None,
        };
        wire.carry();
        assert!(wire.client.is_ready());
        wire
    }

    fn ask(&mut self, line: &str) -> CallId {
        let (id, count) = self.client.open_call(line.as_bytes(), true).unwrap();
        assert_eq!(count, line.len());
        id
    }

    /// Carries everything in both directions until nobody has anything to say. What arrives is granted again if
    /// `takes` says so of the call's number.
    fn carry_if(&mut self, takes: impl Fn(u32) -> bool) {
        loop {
            let mut space = [0; 4096];
            let len = self.client.write(&mut space).unwrap();
            let input = Input {
                bytes: &space[..len],
                full: false,
                ended: false,
            };
            let mut reply_space = [0; 4096];
            let mut reply = Reply::new(&mut reply_space);
            let progress = self
                .service
                .on_input(&mut self.connection, input, &mut reply);
            assert!(progress.consumed == len || matches!(progress.next, Next::Close));
            self.next = progress.next;
            if len == 0 && reply.is_empty() {
                return;
            }
            let mut bytes = reply.written();
            while !bytes.is_empty() {
                let taken = self.client.receive(bytes).unwrap();
                bytes = &bytes[taken..];
                let mut grants = Vec::new();
                while let Some(event) = self.client.next_event().unwrap() {
                    match event {
                        Event::Data {
                            call,
                            bytes,
                            is_last,
                        } => {
                            grants.push((call, bytes.len()));
                            let text = String::from_utf8_lossy(bytes).into_owned();
                            self.heard.push((call.number, text, is_last));
                        }
                        Event::Reset(call, reason) => self.resets.push((call.number, reason)),
                        Event::GoAway(last) => self.last_call = Some(last),
                        Event::Ready | Event::Credit(_) | Event::Pong => {}
                    }
                }
                for (call, count) in grants {
                    if takes(call.number) {
                        self.client.grant(call, count);
                    }
                }
            }
        }
    }

    fn carry(&mut self) {
        self.carry_if(|_| true);
    }

    /// What was heard of a call, and whether its end was.
    fn response(&self, call: CallId) -> (String, bool) {
        let parts = self.heard.iter().filter(|part| part.0 == call.number);
        parts.fold((String::new(), false), |(text, _), part| {
            (text + &part.1, part.2)
        })
    }
}

fn arrival() -> Arrival<'static> {
    Arrival {
        id: ID,
        listener: 1,
        ..Arrival::default()
    }
}

#[test]
fn a_fast_call_overtakes_one_that_waits() {
    let mut wire = Wire::new(Limits::default());
    let slow = wire.ask("later\n");
    let fast = wire.ask("len 5\n");
    wire.carry();
    assert_eq!(wire.response(fast), ("xxxxx".to_owned(), true));
    assert_eq!(wire.response(slow), (String::new(), false));
    assert_eq!(wire.next, Next::Receive(Expect::Anything));

    wire.service.on_time(1);
    let of_call = wire.service.inner().waiting[0];
    assert_ne!(
        of_call, ID,
        "to the service inside, a call is a connection of its own"
    );
    wake(&mut wire, of_call);
    assert_eq!(wire.service.wants(Instant::ZERO), Want::Wake(ID));
    wire.carry();
    let (text, is_whole) = wire.response(slow);
    assert!(text.ends_with("later") && is_whole);
    assert_eq!(wire.next, Next::Receive(Expect::Message));
}

fn wake(wire: &mut Wire, id: Id) {
    wire.service.inner_mut().to_wake.push(id);
}

#[test]
fn a_call_that_nobody_takes_holds_back_only_itself() {
    let limits = Limits {
        call_credit_bytes: 10_000,
        ..Limits::default()
    };
    let mut wire = Wire::new(limits);
    let big = wire.ask("len 1000000\n");
    let stuck = big.number;
    wire.carry_if(|call| call != stuck);
    let (text, is_whole) = wire.response(big);
    assert_eq!((text.len(), is_whole), (10_000, false));
    for _ in 0..20 {
        let small = wire.ask("len 100\n");
        wire.carry_if(|call| call != stuck);
        assert_eq!(wire.response(small).0.len(), 100);
    }
    wire.client.grant(big, 10_000);
    wire.carry();
    let (text, is_whole) = wire.response(big);
    assert_eq!((text.len(), is_whole), (1_000_000, true));
}

#[test]
fn what_a_response_sets_comes_behind_the_other_fields() {
    let mut wire = Wire::new(Limits::default());
    let call = wire.ask("cookie\n");
    wire.carry();
    let (text, is_whole) = wire.response(call);
    assert!(is_whole);
    assert_eq!(
        text,
        "HTTP/1.1 200 OK\r\nA: b\r\nSet-Cookie: s=1\r\n\r\nbody"
    );
    let parts: Vec<_> = wire.heard.iter().map(|part| &*part.1).collect();
    assert!(parts.contains(&"Set-Cookie: s=1\r\n\r\n"), "{parts:?}");
}

#[test]
fn a_call_that_brings_no_request_or_two_is_given_up_and_no_other() {
    let mut wire = Wire::new(Limits::default());
    let half = wire.ask("len 5");
    let two = wire.ask("twice\n");
    let broken = wire.ask("abort\n");
    let good = wire.ask("len 1\n");
    wire.carry();
    let mut resets = wire.resets.clone();
    resets.sort_by_key(|reset| reset.0);
    assert_eq!(
        resets,
        [
            (half.number, Reason::Malformed),
            (two.number, Reason::Malformed),
            (broken.number, Reason::Failed),
        ]
    );
    assert_eq!(wire.response(good), ("x".to_owned(), true));
    assert_eq!(wire.counters.malformed_calls.get(), 2);
    assert_eq!(wire.counters.calls_open.get(), 0);
}

#[test]
fn the_service_inside_is_told_of_each_call_that_is_over() {
    let mut wire = Wire::new(Limits::default());
    let slow = wire.ask("later\n");
    wire.ask("len 1\n");
    wire.carry();
    wire.client.reset(slow, Reason::Cancelled);
    wire.ask("later\n");
    wire.carry();
    assert_eq!(wire.service.inner().ended, [End::Closed, End::Reset]);
    let mut connection = std::mem::take(&mut wire.connection);
    wire.service.on_end(&mut connection, End::Silent);
    assert_eq!(wire.service.inner().ended.len(), 3);
    assert_eq!(wire.counters.connections.get(), 0);
}

#[test]
fn a_call_that_does_not_move_is_given_up_in_time() {
    let mut wire = Wire::new(Limits::default());
    wire.service.on_time(1_000_000_000);
    let (half, _) = wire.client.open_call(b"len", false).unwrap();
    let waits = wire.ask("later\n");
    wire.carry();
    assert!(matches!(
        wire.service.wants(Instant::ZERO),
        Want::Nothing { until: Some(_) }
    ));
    wire.service.on_time(40_000_000_000);
    assert_eq!(wire.service.wants(Instant::ZERO), Want::Wake(ID));
    wire.carry();
    assert_eq!(wire.resets, [(half.number, Reason::Failed)]);
    assert_eq!(wire.counters.timed_out_calls.get(), 1);
    assert_eq!(wire.response(waits), (String::new(), false));
}

#[test]
fn a_drain_answers_what_was_asked_and_then_ends() {
    let mut wire = Wire::new(Limits::default());
    let slow = wire.ask("later\n");
    wire.carry();
    wire.service.on_drain();
    assert_eq!(wire.service.wants(Instant::ZERO), Want::Wake(ID));
    wire.carry();
    assert_eq!(wire.last_call, Some(slow.number));
    let of_call = wire.service.inner().waiting[0];
    wake(&mut wire, of_call);
    assert_eq!(wire.service.wants(Instant::ZERO), Want::Wake(ID));
    wire.carry();
    assert!(wire.response(slow).1);
    assert_eq!(wire.next, Next::Close);
}

#[test]
fn garbage_ends_the_connection_and_one_too_many_is_refused() {
    let mut wire = Wire::new(Limits::default());
    let (mut second, _) = wire.service.on_accept(arrival());
    let (mut space, bytes) = ([0; 4096], b"GET / HTTP/1.1\r\n\r\n");
    let input = Input {
        bytes,
        full: false,
        ended: false,
    };
    let mut reply = Reply::new(&mut space);
    let progress = wire.service.on_input(&mut second, input, &mut reply);
    assert_eq!(progress.next, Next::Abort);
    assert_eq!(wire.counters.refused_connections.get(), 1);
    let mut reply = Reply::new(&mut space);
    let progress = wire
        .service
        .on_input(&mut wire.connection, input, &mut reply);
    assert_eq!(progress.next, Next::Close);
    assert_eq!(wire.counters.failed_protocol.get(), 1);
}

#[test]
fn nothing_is_allocated_for_a_call_once_a_connection_has_had_some() {
    const CALLS: usize = 50;
    let mut wire = Wire::new(Limits::default());
    wire.service.inner_mut().ended.reserve(10 * CALLS);
    let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut round = || {
        for _ in 0..CALLS {
            wire.client.open_call(b"cookie\n", true).unwrap();
        }
        let len = wire.client.write(&mut up).unwrap();
        let input = Input {
            bytes: &up[..len],
            full: false,
            ended: false,
        };
        let mut reply = Reply::new(&mut down);
        let counted = allocation_counter::measure(|| {
            wire.service
                .on_input(&mut wire.connection, input, &mut reply);
        });
        let mut bytes = reply.written();
        let mut ends = 0;
        while !bytes.is_empty() {
            let taken = wire.client.receive(bytes).unwrap();
            bytes = &bytes[taken..];
            while let Some(event) = wire.client.next_event().unwrap() {
                ends += usize::from(matches!(event, Event::Data { is_last: true, .. }));
            }
        }
        assert_eq!(ends, CALLS);
        counted.count_total
    };
    round();
    assert_eq!([round(), round(), round()], [0; 3]);
}
