//! Certificates and keys in files: which is shown to whom, what is wrong with them, and how they are replaced.

use std::path::{Path, PathBuf};

use barewire_tls::{Identity, IdentityError};
use rcgen::{KeyPair, date_time_ymd};

use crate::harness::{ClientSetup, Files, Served, TLS12, ask, client, config, identity, talk};

fn refusal(pairs: &[(PathBuf, PathBuf)]) -> String {
    Identity::load(config(pairs)).unwrap_err().to_string()
}

/// Whether a client that trusts only `certificate` gets to talk to `host`.
fn is_shown(identity: &std::sync::Arc<Identity>, certificate: &Path, host: &str) -> bool {
    let mut served = Served::new(identity);
    let mut client = client(&ClientSetup::trusting(certificate).config(), host);
    talk(&mut client, &mut served).is_ok()
}

#[test]
fn a_host_gets_its_certificate() {
    let files = Files::new("sni");
    let first = files.pair("first", &["one.test", "localhost"]);
    let second = files.pair("second", &["Two.test"]);
    let wild = files.pair("wild", &["*.three.test"]);
    let identity = identity(&[first.clone(), second.clone(), wild.clone()]);
    assert!(is_shown(&identity, &first.0, "one.test"));
    assert!(is_shown(&identity, &second.0, "two.test"));
    assert!(is_shown(&identity, &wild.0, "www.three.test"));
    // A star stands for one label, and who asks for nobody known sees the first.
    assert!(!is_shown(&identity, &wild.0, "a.b.three.test"));
    assert!(!is_shown(&identity, &second.0, "one.test"));
}

#[test]
fn of_two_certificates_for_a_host_a_client_gets_the_one_that_it_can_verify() {
    let files = Files::new("kinds");
    let ecdsa = files.pair("ecdsa", &["localhost"]);
    let rsa = files.rsa_pair("rsa", &["localhost"]);
    let identity = identity(&[ecdsa, rsa.clone()]);
    let setup = ClientSetup {
        versions: TLS12,
        suites: Some(rustls::CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
        ..ClientSetup::trusting(&rsa.0)
    };
    let mut served = Served::new(&identity);
    let mut client = client(&setup.config(), "localhost");
    assert_eq!(ask(&mut client, &mut served, "a\n"), "A\n");
}

#[test]
fn whatever_is_wrong_with_files_is_said_with_a_cure() {
    let files = Files::new("faults");
    let (certificate, key) = files.pair("good", &["localhost"]);
    let (_, other_key) = files.pair("other", &["localhost"]);
    let old = files.pair_of(
        "old",
        &["localhost"],
        &KeyPair::generate().unwrap(),
        |params| {
            params.not_before = date_time_ymd(2019, 1, 1);
            params.not_after = date_time_ymd(2020, 2, 29);
        },
    );
    let young = files.pair_of(
        "young",
        &["localhost"],
        &KeyPair::generate().unwrap(),
        |params| {
            params.not_before = date_time_ymd(2199, 3, 1);
            params.not_after = date_time_ymd(2200, 1, 1);
        },
    );
    let missing = files.path("missing.pem");
    let empty = files.write("empty.pem", "nothing\n");
    let encrypted = files.write(
        "encrypted.key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIHs\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let broken = files.write(
        "broken.pem",
        "-----BEGIN CERTIFICATE-----\nno base64 at all!\n-----END CERTIFICATE-----\n",
    );
    let no_key = files.write(
        "no.key",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    );
    for (pair, cause, cure) in [
        (
            (&missing, &key),
            "missing.pem: No such file",
            "check its path",
        ),
        (
            (&certificate, &missing),
            "missing.pem: No such file",
            "check its path",
        ),
        (
            (&empty, &key),
            "holds no certificate",
            "-----BEGIN CERTIFICATE-----",
        ),
        (
            (&certificate, &certificate),
            "holds no private key",
            "-----BEGIN PRIVATE KEY-----",
        ),
        ((&broken, &key), "broken.pem is no PEM file", "openssl x509"),
        (
            (&certificate, &encrypted),
            "protected by a passphrase",
            "openssl pkey -in",
        ),
        ((&certificate, &no_key), "cannot be used", "P-256"),
        (
            (&certificate, &other_key),
            "does not belong",
            "openssl pkey -pubout",
        ),
        ((&old.0, &old.1), "has expired on 2020-02-29", "renew it"),
        (
            (&young.0, &young.1),
            "is not valid before 2199-03-01",
            "set the clock",
        ),
    ] {
        let said = refusal(&[(pair.0.clone(), pair.1.clone())]);
        assert!(said.contains(cause), "{said} / {cause}");
        assert!(said.contains(cure), "{said} / {cure}");
    }
}

#[test]
fn a_reload_is_for_new_connections_and_one_that_fails_changes_nothing() {
    let files = Files::new("reload");
    let (certificate, key) = files.pair("used", &["localhost"]);
    let identity = identity(&[(certificate.clone(), key.clone())]);
    let old = files.path("old.pem");
    std::fs::copy(&certificate, &old).unwrap();
    let mut served = Served::new(&identity);
    let mut begun = client(&ClientSetup::trusting(&old).config(), "localhost");
    assert_eq!(ask(&mut begun, &mut served, "a\n"), "A\n");

    let stamp = identity.stamp();
    assert_eq!(identity.stamp(), stamp);
    let (new_certificate, new_key) = files.pair("new", &["localhost"]);
    std::fs::rename(&new_certificate, &certificate).unwrap();
    assert_ne!(identity.stamp(), stamp);
    // Half of a renewal.
    let error = identity.reload().unwrap_err();
    assert!(matches!(error, IdentityError::Mismatch { .. }), "{error}");
    assert!(is_shown(&identity, &old, "localhost"));

    std::fs::rename(&new_key, &key).unwrap();
    identity.reload().unwrap();
    assert!(!is_shown(&identity, &old, "localhost"));
    assert!(is_shown(&identity, &certificate, "localhost"));
    assert_eq!(ask(&mut begun, &mut served, "b\n"), "B\n");
}
