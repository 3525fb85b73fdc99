//! What happens on a connection that has keys.

use std::io::Write as _;

use barewire_service::service::{Expect, Next};
use rustls::ClientConnection;

use crate::harness::{
    ClientSetup, Ended, Files, LINE_BYTES_MAX, Served, TLS12, TLS13, ask, client, hear, identity,
    limits, said, talk,
};

/// A connection whose handshake is complete.
fn open(name: &str, setup: impl FnOnce(&mut ClientSetup)) -> (Files, Served, ClientConnection) {
    let files = Files::new(name);
    let pair = files.pair("a", &["localhost"]);
    let mut wanted = ClientSetup::trusting(&pair.0);
    setup(&mut wanted);
    let mut served = Served::with(&identity(&[pair]), limits(), 4096, 2048);
    let mut client = client(&wanted.config(), "localhost");
    talk(&mut client, &mut served).unwrap();
    (files, served, client)
}

/// A record of ours, behind the header that `kind` and its length make, as if it were encrypted.
fn forged(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut record = vec![kind, 3, 3];
    record.extend((body.len() as u16).to_be_bytes());
    record.extend(body);
    record
}

#[test]
fn requests_that_arrive_together_are_answered_in_one_record() {
    let (_files, mut served, mut client) = open("pipeline", |_| {});
    for line in ["a\n", "b\n", "c\n"] {
        client.writer().write_all(line.as_bytes()).unwrap();
    }
    served.receive(&said(&mut client));
    assert_eq!(served.counters.records_in.get(), 3);
    assert_eq!(served.counters.records_out.get(), 1);
    assert_eq!(served.messages, 3);
    assert_eq!(hear(&mut client, &mut served.out).unwrap(), b"A\nB\nC\n");
}

#[test]
fn half_a_message_waits_for_its_rest_and_half_a_record_has_the_deadline_of_a_head() {
    let (_files, mut served, mut client) = open("half", |_| {});
    assert_eq!(ask(&mut client, &mut served, "one\ntw"), "ONE\n");
    assert_eq!(served.next, Next::Receive(Expect::Head));
    assert_eq!(ask(&mut client, &mut served, "o\n"), "TWO\n");
    assert_eq!(served.next, Next::Receive(Expect::Message));
    client.writer().write_all(b"three\n").unwrap();
    let record = said(&mut client);
    served.receive(&record[..4]);
    assert_eq!(served.next, Next::Receive(Expect::Head));
    served.receive(&record[4..]);
    assert_eq!(served.next, Next::Receive(Expect::Message));
}

#[test]
fn no_more_is_shown_at_once_than_is_allowed() {
    let (_files, mut served, mut client) = open("long", |_| {});
    client.set_buffer_limit(None);
    let fits = "z".repeat(LINE_BYTES_MAX - 1) + "\n";
    assert_eq!(ask(&mut client, &mut served, &fits).len(), fits.len());
    // The service refuses what it is told can never be whole.
    client
        .writer()
        .write_all(&vec![b'z'; 2 * LINE_BYTES_MAX])
        .unwrap();
    served.receive(&said(&mut client));
    assert_eq!(served.ended, Some(Ended::Closed));
}

#[test]
fn both_sides_end_their_streams_by_an_alert() {
    for versions in [TLS13, TLS12] {
        let (_files, mut served, mut client) = open("bye", |setup| setup.versions = versions);
        client.writer().write_all(b"bye\n").unwrap();
        served.receive(&said(&mut client));
        assert_eq!(served.ended, Some(Ended::Closed));
        let mut left = &served.out[..];
        let mut is_closed = false;
        while !left.is_empty() {
            client.read_tls(&mut left).unwrap();
            is_closed = client.process_new_packets().unwrap().peer_has_closed();
        }
        assert!(is_closed);

        let (_files, mut served, mut client) =
            open("close_notify", |setup| setup.versions = versions);
        client.writer().write_all(b"last\n").unwrap();
        client.send_close_notify();
        served.receive(&said(&mut client));
        assert_eq!(served.ended, Some(Ended::Closed));
        assert_eq!(hear(&mut client, &mut served.out).unwrap(), b"LAST\n");
        assert_eq!(served.counters.truncated.get(), 0);
    }
}

#[test]
fn an_end_without_an_alert_is_counted() {
    let (_files, mut served, mut client) = open("truncated", |_| {});
    client.writer().write_all(b"last\n").unwrap();
    served.receive(&said(&mut client));
    served.end();
    assert_eq!(served.ended, Some(Ended::Closed));
    assert_eq!(served.counters.truncated.get(), 1);
}

#[test]
fn a_service_that_aborts_says_nothing() {
    let (_files, mut served, mut client) = open("abort", |_| {});
    client.writer().write_all(b"a\nabort\n").unwrap();
    served.receive(&said(&mut client));
    assert_eq!(served.ended, Some(Ended::Aborted));
}

#[test]
fn what_a_service_sends_at_a_timeout_is_encrypted_too() {
    let (_files, mut served, mut client) = open("late", |_| {});
    served.time_out();
    assert_eq!(hear(&mut client, &mut served.out).unwrap(), b"late\n");
}

#[test]
fn an_idle_connection_that_a_drain_ends_is_told_so() {
    use barewire_service::service::{Reply, Service as _};

    let (_files, mut served, mut client) = open("dismissed", |_| {});
    let mut space = [0; 2048];
    let mut reply = Reply::new(&mut space);
    served.tls.on_dismiss(&mut served.connection, &mut reply);
    client.read_tls(&mut reply.written()).unwrap();
    assert!(client.process_new_packets().unwrap().peer_has_closed());
}

#[test]
fn keys_are_replaced_when_the_peer_replaces_its_own() {
    let (_files, mut served, mut client) = open("key_update", |_| {});
    for round in 1..=3 {
        // It asks for ours in return, which the client reads the answer with.
        client.refresh_traffic_keys().unwrap();
        assert_eq!(ask(&mut client, &mut served, "a\nb\n"), "A\nB\n");
        assert_eq!(served.counters.key_updates.get(), 2 * round);
    }
}

#[test]
fn a_peer_that_only_replaces_keys_is_sent_away() {
    let (_files, mut served, mut client) = open("key_updates", |_| {});
    for _ in 0..33 {
        client.refresh_traffic_keys().unwrap();
    }
    served.receive(&said(&mut client));
    assert_eq!(served.ended, Some(Ended::Closed));
    assert_eq!(served.counters.records_refused.get(), 1);
    let error = hear(&mut client, &mut served.out).unwrap_err();
    assert!(error.to_string().contains("UnexpectedMessage"), "{error}");
}

#[test]
fn a_record_that_was_changed_ends_the_connection() {
    for versions in [TLS13, TLS12] {
        for at in [5, 14, 20] {
            let (_files, mut served, mut client) =
                open("changed", |setup| setup.versions = versions);
            client.writer().write_all(b"hello\n").unwrap();
            let mut record = said(&mut client);
            record[at] ^= 1;
            served.receive(&record);
            assert_eq!(served.ended, Some(Ended::Closed));
            let error = hear(&mut client, &mut served.out).unwrap_err();
            assert!(error.to_string().contains("BadRecordMac"), "{error}");
            assert_eq!(served.counters.records_refused.get(), 1);
        }
    }
}

#[test]
fn records_that_cannot_be_are_refused_by_name() {
    for (record, alert) in [
        (forged(23, &[0; 16_641]), "RecordOverflow"),
        (forged(23, &[]), "BadRecordMac"),
        (forged(23, &[0; 15]), "BadRecordMac"),
        (forged(22, &[0; 40]), "UnexpectedMessage"),
        (forged(20, &[1; 40]), "UnexpectedMessage"),
        (forged(99, &[0; 40]), "UnexpectedMessage"),
    ] {
        let (_files, mut served, mut client) = open("forged", |_| {});
        served.receive(&record);
        assert_eq!(served.ended, Some(Ended::Closed));
        let error = hear(&mut client, &mut served.out).unwrap_err();
        assert!(error.to_string().contains(alert), "{error} {alert}");
    }
}

#[test]
fn a_buffer_comes_back_from_a_connection_that_vanishes() {
    let files = Files::new("vanish");
    let pair = files.pair("a", &["localhost"]);
    let few = barewire_tls::TlsLimits {
        connections: 1,
        ..limits()
    };
    let mut served = Served::with(&identity(std::slice::from_ref(&pair)), few, 4096, 2048);
    let config = ClientSetup::trusting(&pair.0).config();
    for _ in 0..5 {
        let mut client = client(&config, "localhost");
        talk(&mut client, &mut served).unwrap();
        // Half a message, and half a record behind it.
        client.writer().write_all(b"half").unwrap();
        client.writer().write_all(b"of it\n").unwrap();
        let bytes = said(&mut client);
        served.receive(&bytes[..bytes.len() - 1]);
        assert_eq!(served.ended, None);
        served.accept();
    }
}

#[test]
fn a_drain_reaches_the_service() {
    let (_files, mut served, _client) = open("drain", |_| {});
    barewire_service::service::Service::on_drain(&mut served.tls);
    assert!(served.tls.inner().drained);
}
