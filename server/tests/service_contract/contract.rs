//! What every stack guarantees to a service and to its peers (`barewire_service::service`).

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use barewire_service::deadline::Deadlines;

use crate::line_service::pattern;
use crate::server::{Limits, Server};

type Start = fn(Limits) -> Server;

/// Deadlines that are never reached in a test.
const LENIENT: Deadlines = Deadlines {
    half_open_ms: 600_000,
    handshake_ms: 600_000,
    idle_ms: 600_000,
    head_ms: 600_000,
    body_ms: 600_000,
    send_ms: 600_000,
    send_bytes_min: 1_024,
    close_ms: 600_000,
    user_timeout_ms: 600_000,
};

/// Long enough to be set, short enough to be waited for.
const SHORT_MS: u32 = 50;

fn lenient() -> Limits {
    Limits {
        deadlines: LENIENT,
        ..Limits::default()
    }
}

fn send(mut client: &TcpStream, text: &str) {
    client.write_all(text.as_bytes()).unwrap();
}

fn expect(mut client: &TcpStream, text: &str) {
    let mut received = vec![0; text.len()];
    client.read_exact(&mut received).unwrap();
    assert_eq!(String::from_utf8_lossy(&received), text);
}

fn expect_end(mut client: &TcpStream) {
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert_eq!(String::from_utf8_lossy(&rest), "");
}

fn expect_reset(mut client: &TcpStream) {
    let mut rest = Vec::new();
    let error = client.read_to_end(&mut rest).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

fn expect_pattern(mut client: &TcpStream, len: usize) {
    let mut received = vec![0; len];
    client.read_exact(&mut received).unwrap();
    let wrong = (0..len).find(|&at| received[at] != pattern(len - 1 - at));
    assert_eq!(wrong, None, "first wrong byte");
}

pub fn a_message_is_answered(start: Start) {
    let server = start(lenient());
    let client = server.connect();
    for text in ["one", "", "three"] {
        send(&client, &format!("echo {text}\n"));
        expect(&client, &format!("{text}\n"));
    }
    server.wait_for("messages", 3);
}

pub fn the_clock_is_told_before_the_first_message(start: Start) {
    let server = start(lenient());
    let client = server.connect();
    send(&client, "time\n");
    expect(&client, "yes\n");
}

pub fn a_message_may_arrive_byte_by_byte(start: Start) {
    let server = start(lenient());
    let client = server.connect();
    for byte in "echo slowly\nbody 3\nabcecho x\n".bytes() {
        (&client).write_all(&[byte]).unwrap();
    }
    expect(&client, "slowly\ngot 3\nx\n");
}

pub fn pipelined_messages_are_answered_in_order(start: Start) {
    let server = start(lenient());
    let client = server.connect();
    // Several times the receive buffer, with a message across each of its ends.
    let (mut requests, mut replies) = (String::new(), String::new());
    for number in 0..3_000 {
        requests += &format!("echo number {number}\n");
        replies += &format!("number {number}\n");
    }
    std::thread::scope(|scope| {
        scope.spawn(|| send(&client, &requests));
        expect(&client, &replies);
    });
    server.wait_for("messages", 3_000);
}

pub fn a_body_longer_than_the_receive_buffer_is_consumed_in_pieces(start: Start) {
    let server = start(lenient());
    let client = server.connect();
    let len = 1_000_000;
    send(&client, &format!("body {len}\n"));
    send(&client, &"x".repeat(len));
    expect(&client, &format!("got {len}\n"));
}

pub fn a_message_that_fills_the_receive_buffer_is_refused(start: Start) {
    let server = start(lenient());
    let client = server.connect();
    let longest = lenient().receive_buffer_bytes;
    send(&client, &format!("echo {}\n", "x".repeat(longest - 700)));
    expect(&client, &format!("{}\n", "x".repeat(longest - 700)));
    send(&client, &"x".repeat(longest));
    expect(&client, "too long\n");
    expect_end(&client);
}

pub fn a_reply_longer_than_every_buffer_arrives_whole(start: Start) {
    let server = start(lenient());
    let client = server.connect();
    let len = 20_000_000;
    send(&client, &format!("fill {len}\necho after\n"));
    expect_pattern(&client, len);
    expect(&client, "after\n");
}

pub fn a_client_that_does_not_read_is_not_read_from(start: Start) {
    let server = start(lenient());
    let client = server.connect();
    let reply = "x".repeat(400) + "\n";
    let request = format!("echo {reply}");
    let requests = request.repeat(100);
    let patience = Some(Duration::from_millis(300));
    client.set_write_timeout(patience).unwrap();
    let mut sent = 0;
    // Without back-pressure this would not end before the server's memory does.
    loop {
        match (&client).write(&requests.as_bytes()[sent % requests.len()..]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    // Nothing is lost: what was sent whole is answered whole.
    client.shutdown(Shutdown::Write).unwrap();
    for _ in 0..sent / request.len() {
        expect(&client, &reply);
    }
    expect_end(&client);
}

pub fn a_peer_is_heard_while_it_is_sent_to(start: Start) {
    let server = start(lenient());
    let mut client = server.connect();
    send(&client, "flow\n");
    let mut received = vec![0; 1 << 20];
    client.read_exact(&mut received).unwrap();
    // It has more to send at any time, and is never waited for.
    send(&client, "stop\n");
    while !received.ends_with(b"stopped\n") {
        received.clear();
        received.resize(1 << 16, 0);
        let count = client.read(&mut received).unwrap();
        received.truncate(count);
    }
    send(&client, "echo after\n");
    expect(&client, "after\n");
}

pub fn others_are_served_while_one_does_not_read(start: Start) {
    let server = start(lenient());
    let stuck: Vec<TcpStream> = (0..8).map(|_| server.connect()).collect();
    for client in &stuck {
        send(client, "fill 50000000\n");
    }
    let client = server.connect();
    for _ in 0..100 {
        send(&client, "echo still here\n");
        expect(&client, "still here\n");
    }
}

pub fn what_was_asked_before_a_half_close_is_answered(start: Start) {
    let server = start(lenient());
    let client = server.connect();
    send(&client, "fill 1000000\necho last\n");
    client.shutdown(Shutdown::Write).unwrap();
    expect_pattern(&client, 1_000_000);
    expect(&client, "last\n");
    expect_end(&client);
    server.wait_for("closed", 1);
    server.wait_for_nobody();
}

pub fn half_a_message_and_a_half_close_end_the_connection(start: Start) {
    let server = start(lenient());
    let client = server.connect();
    send(&client, "echo unfini");
    client.shutdown(Shutdown::Write).unwrap();
    expect_end(&client);
}

pub fn a_connection_without_a_word_ends_with_its_peer(start: Start) {
    let server = start(lenient());
    for _ in 0..200 {
        drop(server.connect());
    }
    server.wait_for("accepted", 200);
    server.wait_for_nobody();
}

pub fn a_reset_in_the_middle_of_a_message_frees_the_connection(start: Start) {
    let server = start(lenient());
    for rest in ["body 100\nabc", "fill 50000000\n"] {
        let client = server.connect();
        send(&client, "echo hello\n");
        expect(&client, "hello\n");
        send(&client, rest);
        reset(client);
    }
    server.wait_for("broken", 2);
    server.wait_for_nobody();
}

/// Closes with a reset instead of a FIN.
fn reset(client: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
}

pub fn a_connection_that_waits_is_woken_by_another(start: Start) {
    let server = start(lenient());
    let parked: Vec<TcpStream> = (0..3).map(|_| server.connect()).collect();
    for client in &parked {
        // What follows is not read before its time, and then in order.
        send(client, "echo before\npark\necho after\n");
        expect(client, "before\n");
    }
    let other = server.connect();
    send(&other, "wake\n");
    expect(&other, "3\n");
    for client in &parked {
        expect(client, "woken\nafter\n");
    }
    server.wait_for("wakes", 3);
}

pub fn a_connection_that_waits_holds_its_peer_back(start: Start) {
    let server = start(lenient());
    let parked = server.connect();
    send(&parked, "park\n");
    let request = "echo 0123456789\n".repeat(1000);
    parked
        .set_write_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let mut sent = 0;
    loop {
        match (&parked).write(&request.as_bytes()[sent % request.len()..]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    parked.shutdown(Shutdown::Write).unwrap();
    let other = server.connect();
    send(&other, "wake\n");
    expect(&other, "1\n");
    expect(&parked, "woken\n");
    for _ in 0..sent / "echo 0123456789\n".len() {
        expect(&parked, "0123456789\n");
    }
    expect_end(&parked);
}

pub fn a_connection_that_waits_can_be_reset_and_its_name_is_not_anothers(start: Start) {
    let server = start(lenient());
    let (parked, other) = (server.connect(), server.connect());
    send(&parked, "echo here\npark\n");
    expect(&parked, "here\n");
    send(&other, "drop\n");
    expect(&other, "1\n");
    expect_reset(&parked);
    // One that is over is forgotten, and who takes its place is not meant.
    let parked = server.connect();
    send(&parked, "echo here\npark\n");
    expect(&parked, "here\n");
    reset(parked);
    server.wait_for("broken", 1);
    let next = server.connect();
    send(&other, "wake\nover\n");
    expect(&other, "0\n2\n");
    send(&next, "echo undisturbed\n");
    expect(&next, "undisturbed\n");
}

pub fn a_client_that_has_half_closed_is_answered_later_all_the_same(start: Start) {
    let server = start(lenient());
    let (parked, other) = (server.connect(), server.connect());
    send(&parked, "echo here\npark\n");
    expect(&parked, "here\n");
    parked.shutdown(Shutdown::Write).unwrap();
    send(&other, "wake\n");
    expect(&other, "1\n");
    expect(&parked, "woken\n");
    expect_end(&parked);
}

pub fn a_service_calls_and_passes_on_what_it_is_told(start: Start) {
    let server = start(lenient());
    let answering = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = answering.local_addr().unwrap().port();
    let client = server.connect();
    // One more than can be open at once.
    for call in 0..=lenient().outbound {
        send(&client, &format!("dial {port} question {call}\n"));
        let (called, _) = answering.accept().unwrap();
        expect(&called, &format!("question {call}\n"));
        send(&called, &format!("answer {call}\n"));
        expect(&client, &format!("answer {call}\n"));
        expect_end(&called);
    }
    server.wait_for("connected", lenient().outbound as u64 + 1);
}

pub fn a_service_is_told_why_it_cannot_call(start: Start) {
    let server = start(lenient());
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = nobody.local_addr().unwrap().port();
    let client = server.connect();
    // All that may be open.
    let clients: Vec<TcpStream> = (0..lenient().outbound).map(|_| server.connect()).collect();
    let calls: Vec<TcpStream> = (clients.iter())
        .map(|client| {
            send(client, &format!("dial {port} question\n"));
            nobody.accept().unwrap().0
        })
        .collect();
    send(&client, &format!("dial {port} question\n"));
    expect(&client, "NoConnection\n");
    calls.into_iter().for_each(reset);
    for client in &clients {
        expect(client, "Reset\n");
    }
    drop(nobody);
    send(&client, &format!("dial {port} question\n"));
    expect(&client, "Refused\n");
}

pub fn a_service_is_told_who_called(start: Start) {
    let server = start(lenient());
    let client = server.connect();
    send(&client, "peer\n");
    expect(&client, &format!("{}\n", client.local_addr().unwrap()));
}

pub fn the_service_can_close_and_its_last_words_arrive(start: Start) {
    let server = start(lenient());
    let client = server.connect();
    // What follows is never read by the service; it must not destroy the reply.
    send(
        &client,
        &format!("fill 100000\nclose\n{}", "ignored\n".repeat(300)),
    );
    expect_pattern(&client, 100_000);
    expect(&client, "bye\n");
    expect_end(&client);
    drop(client);
    server.wait_for("closed", 1);
}

pub fn the_service_can_reset(start: Start) {
    let server = start(lenient());
    let client = server.connect();
    send(&client, "echo lost or not\nabort\n");
    expect_reset(&client);
    server.wait_for("aborted", 1);
    server.wait_for_nobody();
}

pub fn connections_beyond_the_limit_wait_for_their_turn(start: Start) {
    let limits = Limits {
        connections: 4,
        ..lenient()
    };
    let server = start(limits);
    let clients: Vec<TcpStream> = (0..12).map(|_| server.connect()).collect();
    for (number, client) in clients.iter().enumerate() {
        send(client, &format!("echo {number}\nclose\n"));
    }
    for (number, client) in clients.into_iter().enumerate() {
        expect(&client, &format!("{number}\nbye\n"));
        expect_end(&client);
    }
    server.wait_for("accepted", 12);
    assert!(server.counter("accept_paused") > 0);
}

pub fn many_connections_come_and_go(start: Start) {
    let server = start(lenient());
    for round in 0..50 {
        let clients: Vec<TcpStream> = (0..60).map(|_| server.connect()).collect();
        for client in &clients {
            send(client, &format!("echo {round}\n"));
        }
        for client in &clients {
            expect(client, &format!("{round}\n"));
        }
    }
    server.wait_for("closed", 3_000);
    server.wait_for("messages", 3_000);
}

fn one_short(shorten: fn(&mut Deadlines)) -> Limits {
    let mut limits = lenient();
    shorten(&mut limits.deadlines);
    limits
}

pub fn an_idle_connection_ends(start: Start) {
    let server = start(one_short(|deadlines| deadlines.idle_ms = SHORT_MS));
    let silent = server.connect();
    let served = server.connect();
    send(&served, "echo once\n");
    expect(&served, "once\n");
    for client in [&silent, &served] {
        expect(client, "timeout\n");
        expect_end(client);
    }
    assert_eq!(server.counter("idle_timeouts"), 2);
}

pub fn a_head_that_takes_too_long_ends_the_connection(start: Start) {
    let server = start(one_short(|deadlines| deadlines.head_ms = SHORT_MS));
    let client = server.connect();
    send(&client, "echo half a me");
    expect(&client, "timeout\n");
    expect_end(&client);
    assert_eq!(server.counter("head_timeouts"), 1);
}

pub fn a_body_that_takes_too_long_ends_the_connection(start: Start) {
    let server = start(one_short(|deadlines| deadlines.body_ms = SHORT_MS));
    let client = server.connect();
    send(&client, "body 10\nabc");
    expect(&client, "timeout\n");
    expect_end(&client);
    assert_eq!(server.counter("body_timeouts"), 1);
}

pub fn a_peer_that_does_not_read_is_reset(start: Start) {
    let server = start(one_short(|deadlines| deadlines.send_ms = SHORT_MS));
    let client = server.connect();
    send(&client, "fill 50000000\n");
    server.wait_for("send_timeouts", 1);
    server.wait_for_nobody();
    expect_reset(&client);
}

pub fn a_peer_that_does_not_close_is_reset(start: Start) {
    let server = start(one_short(|deadlines| deadlines.close_ms = SHORT_MS));
    let client = server.connect();
    send(&client, "close\n");
    server.wait_for("close_timeouts", 1);
    server.wait_for_nobody();
}

pub fn drain_finishes_what_has_begun_and_accepts_nothing_new(start: Start) {
    let mut server = start(lenient());
    let idle = server.connect();
    let busy = server.connect();
    for client in [&idle, &busy] {
        send(client, "echo hello\n");
        expect(client, "hello\n");
    }
    send(&busy, "body 6\nabc");
    server.wait_for_bytes(&busy, 11 + 11 + 10);

    server.drain();
    expect_end(&idle);
    drop(idle);
    send(&busy, "def");
    expect(&busy, "got 6\n");
    expect_end(&busy);
    drop(busy);

    server.join();
    let refused = server.try_connect().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

pub fn drain_ends_at_once_when_nobody_is_there(start: Start) {
    let mut server = start(lenient());
    server.drain();
    server.join();
}

pub fn a_core_with_nothing_to_do_sleeps(start: Start) {
    let server = start(lenient());
    let client = server.connect();
    send(&client, "echo hello\n");
    expect(&client, "hello\n");
    // Whatever it still does for this request, it comes to rest.
    server.wait_for_rest();
}
