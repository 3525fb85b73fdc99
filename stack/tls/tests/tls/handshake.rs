//! Handshakes that are completed, and those that are not.

use barewire_service::service::{Expect, Next};
use barewire_tls::{Identity, IdentityConfig, TlsLimits};
use rustls::{CipherSuite, HandshakeKind, NamedGroup, ProtocolVersion};

use crate::harness::{
    ClientSetup, Ended, Files, Served, TLS12, TLS13, ask, client, config, hear, identity, limits,
    of_each_version, said, talk,
};

#[test]
fn every_version_and_suite_is_spoken_with_either_kind_of_key() {
    let files = Files::new("suites");
    let ecdsa = files.pair("ecdsa", &["localhost"]);
    let rsa = files.rsa_pair("rsa", &["localhost"]);
    for (pair, suites) in [
        (
            &ecdsa,
            [
                CipherSuite::TLS13_AES_128_GCM_SHA256,
                CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
                CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
                CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            ],
        ),
        (
            &rsa,
            [
                CipherSuite::TLS13_AES_256_GCM_SHA384,
                CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
                CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
                CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
            ],
        ),
    ] {
        let identity = identity(std::slice::from_ref(pair));
        for suite in suites {
            let is_tls13 = format!("{suite:?}").starts_with("TLS13");
            let setup = ClientSetup {
                suites: Some(suite),
                versions: if is_tls13 { TLS13 } else { TLS12 },
                ..ClientSetup::trusting(&pair.0)
            };
            let mut served = Served::new(&identity);
            let mut client = client(&setup.config(), "localhost");
            assert_eq!(
                ask(&mut client, &mut served, "hello\n"),
                "HELLO\n",
                "{suite:?}"
            );
            // Longer than a record, both ways.
            let long = "y".repeat(20_000) + "\nbig 40000\n";
            let answer = ask(&mut client, &mut served, &long);
            assert_eq!(answer.len(), 20_001 + 40_000, "{suite:?}");
            assert_eq!(client.negotiated_cipher_suite().unwrap().suite(), suite);
            let tls13 = u64::from(is_tls13);
            assert_eq!(served.counters.handshakes_tls13.get(), tls13);
            assert_eq!(served.counters.handshakes_tls12.get(), 1 - tls13);
        }
    }
}

#[test]
fn keys_are_exchanged_in_the_way_that_quantum_computers_do_not_break() {
    let files = Files::new("pq");
    let pair = files.pair("a", &["localhost"]);
    let mut served = Served::new(&identity(std::slice::from_ref(&pair)));
    let mut client = client(&ClientSetup::trusting(&pair.0).config(), "localhost");
    talk(&mut client, &mut served).unwrap();
    let group = client.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
}

#[test]
fn the_service_is_told_what_alpn_chose() {
    let files = Files::new("alpn");
    let pair = files.pair("a", &["localhost"]);
    let identity = identity(std::slice::from_ref(&pair));
    for (offered, chosen) in [
        (&["http/1.1", "h2"][..], "true h2\n"),
        (&["http/1.1"], "true http/1.1\n"),
        (&[], "true -\n"),
    ] {
        let setup = ClientSetup {
            protocols: offered.iter().map(|name| name.as_bytes().into()).collect(),
            ..ClientSetup::trusting(&pair.0)
        };
        let mut served = Served::new(&identity);
        let mut client = client(&setup.config(), "localhost");
        assert_eq!(ask(&mut client, &mut served, "alpn\n"), chosen);
    }
    let setup = ClientSetup {
        protocols: vec![b"gopher".to_vec()],
        ..ClientSetup::trusting(&pair.0)
    };
    let mut served = Served::new(&identity);
    let mut client = client(&setup.config(), "localhost");
    let error = talk(&mut client, &mut served).unwrap_err();
    assert!(
        error.to_string().contains("NoApplicationProtocol"),
        "{error}"
    );
    assert_eq!(served.counters.failed_alpn.get(), 1);
    assert_eq!(served.ended, Some(Ended::Closed));
}

#[test]
fn a_ticket_resumes_the_session_at_another_core() {
    let files = Files::new("tickets");
    let pair = files.pair("a", &["localhost"]);
    let identity = identity(std::slice::from_ref(&pair));
    for setup in of_each_version(&pair.0) {
        let config = setup.config();
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut served = Served::new(&identity);
            let mut client = client(&config, "localhost");
            assert_eq!(ask(&mut client, &mut served, "a\n"), "A\n");
            let kind = client.handshake_kind().unwrap();
            // A retry is a full one too.
            assert_eq!(
                kind == HandshakeKind::Resumed,
                expected == HandshakeKind::Resumed
            );
            let resumed = u64::from(expected == HandshakeKind::Resumed);
            assert_eq!(served.counters.handshakes_resumed.get(), resumed);
        }
        // Nor does a reload forget them.
        identity.reload().unwrap();
        let mut served = Served::new(&identity);
        let mut client = client(&config, "localhost");
        talk(&mut client, &mut served).unwrap();
        assert_eq!(client.handshake_kind(), Some(HandshakeKind::Resumed));
    }
}

#[test]
fn clients_need_certificates_where_they_are_asked_for() {
    let files = Files::new("mtls");
    let server = files.pair("server", &["localhost"]);
    let member = files.pair("member", &["member"]);
    let stranger = files.pair("stranger", &["stranger"]);
    let identity = Identity::load(IdentityConfig {
        client_authorities: Some(member.0.clone()),
        ..config(std::slice::from_ref(&server))
    })
    .unwrap();
    let talk_as = |certificate: Option<_>| {
        let setup = ClientSetup {
            certificate,
            ..ClientSetup::trusting(&server.0)
        };
        let mut served = Served::new(&identity);
        let mut client = client(&setup.config(), "localhost");
        let outcome = talk(&mut client, &mut served);
        (
            outcome.is_ok(),
            served.counters.failed_client_certificate.get(),
        )
    };
    assert_eq!(talk_as(Some(member)), (true, 0));
    assert_eq!(talk_as(Some(stranger)), (false, 1));
    assert_eq!(talk_as(None), (false, 1));
}

#[test]
fn what_is_no_tls_is_told_so_by_an_alert() {
    let files = Files::new("plain");
    let pair = files.pair("a", &["localhost"]);
    let mut served = Served::new(&identity(&[pair]));
    served.receive(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(served.ended, Some(Ended::Closed));
    // A fatal alert of TLS 1.2 (RFC 8446, section 5.1).
    assert_eq!(served.out[..2], [21, 3]);
    assert_eq!(served.out[5], 2);
    assert_eq!(served.counters.failed_not_tls.get(), 1);
}

#[test]
fn a_client_that_does_not_trust_us_is_counted() {
    let files = Files::new("untrusted");
    let pair = files.pair("a", &["localhost"]);
    let other = files.pair("b", &["localhost"]);
    let mut served = Served::new(&identity(&[pair]));
    let mut client = client(&ClientSetup::trusting(&other.0).config(), "localhost");
    talk(&mut client, &mut served).unwrap_err();
    served.receive(&said(&mut client));
    assert_eq!(served.counters.failed_by_client.get(), 1);
    assert_eq!(served.ended, Some(Ended::Closed));
}

#[test]
fn a_client_that_goes_away_or_falls_silent_gives_its_place_back() {
    let files = Files::new("places");
    let pair = files.pair("a", &["localhost"]);
    let identity = identity(std::slice::from_ref(&pair));
    let few = TlsLimits {
        handshakes_max: 1,
        ..limits()
    };
    let mut served = Served::with(&identity, few, 4096, 1024);
    let mut first = client(&ClientSetup::trusting(&pair.0).config(), "localhost");
    served.receive(&said(&mut first));
    assert_eq!(served.next, Next::Receive(Expect::Handshake));

    // There is one place.
    let waiting = std::mem::take(&mut served.connection);
    served.accept();
    served.receive(b"\x16");
    assert_eq!(served.ended, Some(Ended::Aborted));
    assert_eq!(served.counters.refused_handshaking.get(), 1);

    // The stack forgets the connection, whatever has become of it.
    drop(waiting);
    served.accept();
    served.receive(&said(&mut client(
        &ClientSetup::trusting(&pair.0).config(),
        "localhost",
    )));
    served.end();
    assert_eq!(served.counters.failed_ended.get(), 1);
    served.accept();
    served.time_out();
    assert_eq!(served.counters.failed_timeout.get(), 1);
    served.accept();
    let mut last = client(&ClientSetup::trusting(&pair.0).config(), "localhost");
    assert_eq!(ask(&mut last, &mut served, "a\n"), "A\n");
    assert_eq!(served.counters.refused_handshaking.get(), 1);
}

#[test]
fn no_more_handshakes_begin_in_a_second_than_are_allowed() {
    use barewire_service::service::Service as _;

    let files = Files::new("rate");
    let pair = files.pair("a", &["localhost"]);
    let few = TlsLimits {
        handshakes_per_second: 2,
        ..limits()
    };
    let mut served = Served::with(&identity(&[pair]), few, 4096, 1024);
    served.accept();
    served.accept();
    served.receive(b"\x16");
    assert_eq!(served.ended, Some(Ended::Aborted));
    assert_eq!(served.counters.refused_rate.get(), 1);
    served.tls.on_time(1_000_000_000);
    served.accept();
    served.receive(b"\x16");
    assert_eq!(served.ended, None);
}

#[test]
fn what_follows_the_handshake_in_the_same_segment_is_not_lost() {
    let files = Files::new("together");
    let pair = files.pair("a", &["localhost"]);
    let mut served = Served::new(&identity(std::slice::from_ref(&pair)));
    let mut client = client(&ClientSetup::trusting(&pair.0).config(), "localhost");
    served.receive(&said(&mut client));
    hear(&mut client, &mut served.out).unwrap();
    std::io::Write::write_all(&mut client.writer(), b"at once\n").unwrap();
    served.receive(&said(&mut client));
    assert_eq!(hear(&mut client, &mut served.out).unwrap(), b"AT ONCE\n");
    assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
}

/// Whatever is changed of what a client says: it is refused, or means the same.
#[test]
fn handshakes_that_were_spoilt_are_refused() {
    let files = Files::new("spoilt");
    let pair = files.pair("a", &["localhost"]);
    let member = files.pair("member", &["member"]);
    let identity = Identity::load(IdentityConfig {
        client_authorities: Some(member.0.clone()),
        ..config(std::slice::from_ref(&pair))
    })
    .unwrap();
    for setup in of_each_version(&pair.0) {
        let setup = ClientSetup {
            certificate: Some(member.clone()),
            ..setup
        };
        let config = setup.config();
        let mut random = 0x9e37_79b9_u32;
        let mut next = |end: usize| {
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            random as usize % end
        };
        for round in 0..400 {
            let mut served = Served::new(&identity);
            let mut client = client(&config, "localhost");
            let mut flights = 0;
            while served.ended.is_none() && (client.wants_write() || !served.out.is_empty()) {
                let mut bytes = said(&mut client);
                if flights == round % 2 && !bytes.is_empty() {
                    match round % 3 {
                        0 => {
                            let at = next(bytes.len());
                            bytes[at] ^= 1 << next(8);
                        }
                        1 => bytes.truncate(1 + next(bytes.len())),
                        _ => {
                            let (from, at) = (next(bytes.len()), next(bytes.len()));
                            let part = bytes[from..].to_vec();
                            bytes.splice(at..at, part);
                        }
                    }
                }
                flights += 1;
                served.receive(&bytes);
                if hear(&mut client, &mut served.out).is_err() {
                    served.receive(&said(&mut client));
                    break;
                }
            }
            served.end();
            let counted = served.counters.handshakes.get()
                + served.counters.failed_not_tls.get()
                + served.counters.failed_malformed.get()
                + served.counters.failed_incompatible.get()
                + served.counters.failed_alpn.get()
                + served.counters.failed_client_certificate.get()
                + served.counters.failed_by_client.get()
                + served.counters.failed_ended.get()
                + served.counters.failed_other.get();
            assert_eq!(counted, 1, "round {round}");
        }
    }
}

#[test]
fn the_cheapest_suite_is_chosen_whatever_a_client_prefers() {
    let files = Files::new("preferred");
    let pair = files.pair("a", &["localhost"]);
    // rustls prefers AES-256.
    for setup in of_each_version(&pair.0) {
        let mut served = Served::new(&identity(std::slice::from_ref(&pair)));
        let mut client = client(&setup.config(), "localhost");
        assert_eq!(ask(&mut client, &mut served, "hello\n"), "HELLO\n");
        assert_eq!(served.counters.handshakes_aes128_gcm.get(), 1);
    }
}

#[test]
fn who_cannot_use_our_key_is_told_that_it_is_no_use() {
    const HANDSHAKE_FAILURE: u8 = 40;
    let files = Files::new("no_use");
    let pair = files.pair("ecdsa", &["localhost"]);
    let setup = ClientSetup {
        suites: Some(CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
        versions: TLS12,
        ..ClientSetup::trusting(&pair.0)
    };
    let mut served = Served::new(&identity(&[pair]));
    served.receive(&said(&mut client(&setup.config(), "localhost")));
    assert_eq!(served.out[5..7], [2, HANDSHAKE_FAILURE]);
    assert_eq!(served.counters.failed_incompatible.get(), 1);
}
