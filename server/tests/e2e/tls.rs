//! HTTPS on every stack: curl and openssl at the other end, certificates that change, and wrong use.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::server::{BAREWIRE, Server, wait_until};

/// A directory with a certificate of `barewire certificate` in it.
pub struct Certificate {
    directory: TempDir,
}

impl Certificate {
    pub fn new(names: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        make_certificate(directory.path(), names);
        Certificate { directory }
    }

    pub fn path(&self, name: &str) -> String {
        let path = self.directory.path().join(name);
        path.into_os_string().into_string().unwrap()
    }

    pub fn pem(&self) -> String {
        self.path("certificate.pem")
    }

    /// Makes another one in its place, which is empty.
    pub fn renew(&self, names: &[&str]) {
        make_certificate(self.directory.path(), names);
    }

    /// The options that serve it.
    pub fn options(&self) -> [String; 4] {
        [
            "--tls-certificate".to_owned(),
            self.pem(),
            "--tls-key".to_owned(),
            self.path("key.pem"),
        ]
    }
}

fn make_certificate(directory: &Path, names: &[&str]) {
    let mut command = Command::new(BAREWIRE);
    command.args(["certificate", "--self-signed", "--directory"]);
    command.arg(directory);
    for name in names {
        command.args(["--name", name]);
    }
    let made = Server::fail(&mut command);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
}

fn serve(stack: &str, certificate: &Certificate, more: &[&str]) -> Server {
    let options = certificate.options();
    let mut arguments: Vec<&str> = options.iter().map(String::as_str).collect();
    arguments.extend(["--tls-listen", "127.0.0.1:0"]);
    arguments.extend(more);
    Server::on_loopback(stack, &arguments)
}

/// What curl prints that trusts `certificate`, or its error.
fn curl(
    certificate: &str,
    address: SocketAddr,
    path: &str,
    more: &[&str],
) -> Result<String, String> {
    let url = format!("https://{address}{path}");
    let output = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--fail",
            "--max-time",
            "20",
            "--cacert",
            certificate,
        ])
        .args(more)
        .arg(url)
        .output()
        .unwrap();
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// What `openssl s_client` prints when it has asked for /health.
fn s_client(address: SocketAddr, more: &[&str]) -> String {
    let mut child = Command::new("openssl")
        .args(["s_client", "-ign_eof", "-connect", &address.to_string()])
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let request = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), request).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn curl_and_openssl_are_served_on_the_kernel_stacks_in_both_versions() {
    let certificate = Certificate::new(&["localhost", "127.0.0.1"]);
    for stack in ["epoll", "uring"] {
        let server = serve(stack, &certificate, &["--test-routes"]);
        let [plain, secure] = server.addresses[..] else {
            panic!("{:?}", server.addresses);
        };
        for version in [&["--tls-max", "1.2"][..], &["--tlsv1.3"]] {
            let health = curl(&certificate.pem(), secure, "/health", version);
            assert_eq!(health, Ok("ok\n".to_owned()));
            // Longer than all buffers, both ways.
            let length = ["--output", "/dev/null", "--write-out", "%{size_download}"];
            let stream = [version, &length].concat();
            let downloaded = curl(
                &certificate.pem(),
                secure,
                "/test/stream?bytes=3000000",
                &stream,
            );
            assert_eq!(downloaded, Ok("3000000".to_owned()));
            let body = "e".repeat(100_000);
            let echo = [version, &["--data-binary", &body]].concat();
            assert_eq!(
                curl(&certificate.pem(), secure, "/test/echo", &echo),
                Ok(body)
            );
        }
        // Plain text goes on beside it.
        let health = Command::new("curl")
            .args(["--silent", &format!("http://{plain}/health")])
            .output()
            .unwrap();
        assert_eq!(health.stdout, b"ok\n");

        let said = s_client(secure, &["-CAfile", &certificate.pem()]);
        assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
        assert!(said.contains("HTTP/1.1 200 OK"), "{said}");
        let session = certificate.path("session");
        s_client(secure, &["-tls1_2", "-sess_out", &session]);
        let resumed = s_client(secure, &["-tls1_2", "-sess_in", &session]);
        assert!(resumed.contains("Reused, TLSv1.2"), "{resumed}");
        // A client may replace its keys, and ask for ours.
        assert!(!said.contains("no peer certificate"), "{said}");
        let ended = server.terminate();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(
            ended.stderr.contains("handshakes_resumed=1"),
            "{}",
            ended.stderr
        );
    }
}

#[cfg(feature = "xdp")]
#[test]
fn curl_and_openssl_are_served_on_the_bypass() {
    let Some(lab) = crate::bypass::lab() else {
        return;
    };
    let certificate = Certificate::new(&["localhost", "10.77.0.2"]);
    for direct_path in ["never", "always"] {
        let options = certificate.options();
        let mut arguments: Vec<&str> = options.iter().map(String::as_str).collect();
        arguments.extend(["--test-routes", "--direct-path", direct_path]);
        let server = crate::bypass::serve(&lab, &arguments);
        let ask = |path: &str, more: &str| {
            let pem = certificate.pem();
            lab.client_runs(&[
                "sh",
                "-c",
                &format!(
                    "head -c 100000 /dev/zero | tr '\\0' e | \
                     curl --silent --show-error --fail --max-time 20 --cacert {pem} {more} https://10.77.0.2:8443{path}"
                ),
            ])
        };
        assert_eq!(ask("/health", "--tlsv1.3"), "ok\n");
        assert_eq!(ask("/health", "--tls-max 1.2"), "ok\n");
        let size = "--output /dev/null --write-out %{size_download}";
        assert_eq!(ask("/test/stream?bytes=3000000", size), "3000000");
        assert_eq!(ask("/test/echo", "--data-binary @-").len(), 100_000);
        let said = lab.client_runs(&[
            "sh",
            "-c",
            "printf 'GET /health HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n' | \
             openssl s_client -ign_eof -connect 10.77.0.2:8443 2>/dev/null",
        ]);
        assert!(said.contains("HTTP/1.1 200 OK"), "{said}");
        let ended = server.terminate();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(
            ended.stderr.contains("handshakes_tls12=1"),
            "{}",
            ended.stderr
        );
    }
}

#[test]
fn certificates_are_read_again_when_they_change_and_at_sighup() {
    let certificate = Certificate::new(&["localhost", "127.0.0.1"]);
    let server = serve("epoll", &certificate, &[]);
    let secure = server.addresses[1];
    let (old, key) = (certificate.path("old.pem"), certificate.path("key.pem"));
    std::fs::copy(certificate.pem(), &old).unwrap();
    assert!(curl(&old, secure, "/health", &[]).is_ok());

    // Half of a renewal: nothing changes but the log.
    std::fs::write(&key, "nothing").unwrap();
    server.signal(Signal::HUP);
    server.logs("holds no private key");
    server.logs("the certificates from before go on to be used");
    assert!(curl(&old, secure, "/health", &[]).is_ok());

    std::fs::remove_file(&key).unwrap();
    std::fs::remove_file(certificate.pem()).unwrap();
    make_certificate(certificate.directory.path(), &["localhost", "127.0.0.1"]);
    wait_until("the new certificate is shown", || {
        curl(&certificate.pem(), secure, "/health", &[]).is_ok()
    });
    assert!(curl(&old, secure, "/health", &[]).is_err());
    let ended = server.terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

#[test]
fn clients_without_a_certificate_are_refused_where_one_is_asked_for() {
    let certificate = Certificate::new(&["localhost", "127.0.0.1"]);
    let directory = tempfile::tempdir().unwrap();
    let client = |name: &str| -> PathBuf { directory.path().join(name) };
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ])
        .args([
            "-subj",
            "/CN=client",
            "-days",
            "2",
            "-addext",
            "extendedKeyUsage=clientAuth",
        ])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(client("client.key"))
        .arg("-out")
        .arg(client("client.pem"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let (pem, key) = (client("client.pem"), client("client.key"));
    let (pem, key) = (pem.to_str().unwrap(), key.to_str().unwrap());
    let server = serve("epoll", &certificate, &["--tls-client-ca", pem]);
    let secure = server.addresses[1];
    let known = curl(
        &certificate.pem(),
        secure,
        "/health",
        &["--cert", pem, "--key", key],
    );
    assert_eq!(known, Ok("ok\n".to_owned()));
    assert!(curl(&certificate.pem(), secure, "/health", &[]).is_err());
    let ended = server.terminate();
    assert!(
        ended.stderr.contains("failed_client_certificate=1"),
        "{}",
        ended.stderr
    );
}

#[test]
fn wrong_use_is_told_what_is_right() {
    let certificate = Certificate::new(&["localhost"]);
    let (pem, key) = (certificate.pem(), certificate.path("key.pem"));
    let missing = certificate.path("missing.pem");
    for (arguments, code, answer) in [
        (&["--tls-certificate", &pem][..], 2, "--tls-key"),
        (&["--tls-key", &key], 2, "--tls-certificate"),
        (&["--tls-listen", "127.0.0.1:8443"], 2, "--tls-certificate"),
        (
            &[
                "--tls-certificate",
                &pem,
                "--tls-certificate",
                &pem,
                "--tls-key",
                &key,
            ],
            2,
            "there are 2 and 1",
        ),
        (
            &[
                "--tls-certificate",
                &pem,
                "--tls-key",
                &key,
                "--tls-port",
                "8080",
            ],
            2,
            "choose another --tls-port",
        ),
        (
            &[
                "--tls-certificate",
                &pem,
                "--tls-key",
                &key,
                "--interface",
                "lo",
                "--tls-listen",
                "127.0.0.1:1",
            ],
            2,
            "--tls-listen",
        ),
        (
            &["--tls-certificate", &missing, "--tls-key", &key],
            1,
            "check its path",
        ),
        (
            &["--tls-certificate", &pem, "--tls-key", &pem],
            1,
            "holds no private key",
        ),
    ] {
        let mut command = Command::new(BAREWIRE);
        let refused = Server::fail(command.arg("serve").args(arguments));
        assert_eq!(refused.code, Some(code), "{}", refused.stderr);
        assert!(
            refused.stderr.contains(answer),
            "{} / {answer}",
            refused.stderr
        );
    }
    // A certificate that is there already is not overwritten.
    let mut command = Command::new(BAREWIRE);
    command.args(["certificate", "--self-signed", "--directory"]);
    let refused = Server::fail(command.arg(certificate.directory.path()));
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("choose another --directory"),
        "{}",
        refused.stderr
    );
}

#[test]
fn a_handshake_has_a_deadline_of_its_own() {
    use std::io::{Read as _, Write as _};

    let certificate = Certificate::new(&["localhost"]);
    for stack in ["epoll", "uring"] {
        let server = serve(stack, &certificate, &["--tls-handshake-timeout-ms", "100"]);
        for said in [&b""[..], b"\x16\x03\x01"] {
            let mut client = std::net::TcpStream::connect(server.addresses[1]).unwrap();
            client.write_all(said).unwrap();
            // The end of the stream, or a reset.
            let mut rest = Vec::new();
            let _ = client.read_to_end(&mut rest);
            assert_eq!(rest, b"");
        }
        let ended = server.terminate();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        for counted in ["handshake_timeouts=", "failed_timeout="] {
            assert!(ended.stderr.contains(counted), "{}", ended.stderr);
        }
    }
}
