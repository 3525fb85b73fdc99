//! The options of `barewire load`, and what they amount to.

use std::env;
use std::fs;
use std::io::{self, Read};
use std::net::IpAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::{Parser, ValueEnum};
use http::{HeaderName, HeaderValue, Method};

use crate::cli::list::List;
use crate::cli::mode::ModeName;
use barewire_load::plan::{BypassPlan, Mode, Plan, Secure, Trust};
use barewire_load::request::{self, Request};
use barewire_load::target::Target;
use barewire_load::window::Window;

/// What the options together amount to, for `--help`.
const ABOUT: &str = "\
Without a path it is the client of the 1-million-request challenge: it sends events to POST /event, \
reads GET /stats before and after, and verifies that every event was counted exactly once. With a path \
it asks the same request again and again.

Exit codes: 0, every request was answered with a success and all totals are right; 1, something was \
not, or it could not run; 2, wrong use.";

/// The options of `barewire load`.
#[derive(Debug, Clone, Parser)]
#[command(after_long_help = ABOUT)]
pub struct Args {
    /// The server: http://HOST:PORT or https://HOST:PORT, with a path behind it instead of --path if you like
    #[arg(
        value_name = "URL",
        required_unless_present = "target",
        conflicts_with = "target"
    )]
    pub url: Option<String>,

    /// The same as an option
    #[arg(long, value_name = "URL")]
    pub target: Option<String>,

    /// How many requests to send [default: 1000000 events; with a path, as many as fit in 10s]
    #[arg(short = 'n', long, value_name = "N")]
    pub requests: Option<NonZeroU64>,

    /// How long to measure: 10s, 500ms, 2m. Rates count the answers that come in this time
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,

    /// How long to send requests before that, which then are in no figure
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub warm_up: Option<Duration>,

    /// Connections, spread over the threads [default: 1000 for events, 64 with a path]
    #[arg(short, long, value_name = "N", visible_alias = "connections")]
    pub concurrency: Option<NonZeroUsize>,

    /// Threads [default: half of the cores that this process may use]
    #[arg(short, long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,

    /// Requests that are sent on a connection before waiting for their answers
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub pipeline: u16,

    /// Open this many connections per second, each for one request; --concurrency is then how many
    /// there may be at once. Latency counts from when a connection was due, its handshake included
    #[arg(long, value_name = "PER_SECOND", value_parser = parse_rate, conflicts_with_all = ["rate", "pipeline"])]
    pub connections_per_second: Option<f64>,

    /// Send this many requests per second, whether or not answers have come (open loop). Latency
    /// then counts from when a request was due. In this mode a pipeline serves only to catch up
    #[arg(short = 'R', long, value_name = "PER_SECOND", value_parser = parse_rate)]
    pub rate: Option<f64>,

    /// How long an answer, or opening a connection, may take
    #[arg(long, value_name = "MS", default_value = "5000")]
    pub timeout_ms: NonZeroU64,

    /// What events carry: i % 1000 + 0.5 (official) or i % 1000 (integer) [default: official]
    #[arg(long, value_enum, help_heading = "Events")]
    pub values: Option<Values>,

    /// How many users the server must know afterwards, if that is known: verifies uniqueUsers
    /// exactly on a server that had counted events before
    #[arg(long, value_name = "N", help_heading = "Events")]
    pub unique_users: Option<u64>,

    /// What to ask for instead of sending events: /plaintext
    #[arg(long, conflicts_with_all = ["values", "unique_users"], help_heading = "Requests")]
    pub path: Option<String>,

    /// The request's method
    #[arg(short, long, default_value = "GET", help_heading = "Requests")]
    pub method: Method,

    /// A header field to send, "Name: value"; may be given several times
    #[arg(short = 'H', long = "header", value_name = "FIELD", value_parser = parse_field, help_heading = "Requests")]
    pub headers: Vec<(HeaderName, HeaderValue)>,

    /// The request's body; @FILE reads it from a file, @- from standard input
    #[arg(short, long, default_value = "", help_heading = "Requests")]
    pub body: String,

    /// What of an answer is compared, besides its status and its length. The body must be that of one
    /// answer that is asked for first
    #[arg(long, value_enum, conflicts_with_all = ["values", "unique_users"], help_heading = "Requests")]
    pub verify: Option<Verify>,

    /// Ask in TLS, as https:// in the URL says, too
    #[arg(long, help_heading = "TLS and HTTP/2")]
    pub tls: bool,

    /// Authorities whose certificates are believed, PEM [default: $SSL_CERT_FILE, or the system's]
    #[arg(long, value_name = "FILE", help_heading = "TLS and HTTP/2")]
    pub tls_ca: Option<PathBuf>,

    /// Believe any certificate
    #[arg(long, conflicts_with = "tls_ca", help_heading = "TLS and HTTP/2")]
    pub tls_insecure: bool,

    /// The name that the server's certificate has to be for [default: that of the URL]
    #[arg(long, value_name = "NAME", help_heading = "TLS and HTTP/2")]
    pub tls_server_name: Option<String>,

    /// Ask by HTTP/2: as agreed by ALPN in TLS, else by prior knowledge. What is asked beside the run (/stats, the
    /// body to compare with) is asked by HTTP/1.1
    #[arg(long, help_heading = "TLS and HTTP/2")]
    pub http2: bool,

    /// Requests that wait for their answers at once on a connection of HTTP/2, each in a stream; fewer
    /// where the server allows fewer [default: 1]
    #[arg(
        long,
        value_name = "N",
        requires = "http2",
        conflicts_with_all = ["pipeline", "connections_per_second"],
        value_parser = clap::value_parser!(u16).range(1..=1024),
        help_heading = "TLS and HTTP/2"
    )]
    pub streams: Option<u16>,

    /// Network stack [default: xdp with --interface, else epoll]
    #[arg(long, value_enum, help_heading = "Stack")]
    pub stack: Option<StackName>,

    /// Interface whose queues AF_XDP takes over for our source ports
    #[arg(long, value_name = "IFACE", help_heading = "Stack")]
    pub interface: Option<String>,

    /// Cores to ask from, as in 0,2 or 2-3; each gets one pinned thread [default: the last --threads]
    #[arg(
        long,
        value_name = "LIST",
        requires = "interface",
        conflicts_with = "threads",
        help_heading = "Stack"
    )]
    pub cores: Option<List>,

    /// Address of the interface to call from; repeat it for more [default: as the kernel would]
    #[arg(
        long = "source-address",
        value_name = "ADDR",
        requires = "interface",
        help_heading = "Stack"
    )]
    pub source_addresses: Vec<IpAddr>,

    /// Ports to call from, as in 20000-60000; until the end no other connection of this machine can
    /// use them [default: 61000-65535, or as many below as it takes]
    #[arg(long, value_name = "FIRST-LAST", value_parser = parse_ports, requires = "interface", help_heading = "Stack")]
    pub source_ports: Option<RangeInclusive<u16>>,

    /// Hardware address of the server or of the gateway to it [default: as the kernel knows it]
    #[arg(long, value_name = "MAC", value_parser = parse_mac, requires = "interface", help_heading = "Stack")]
    pub next_hop_mac: Option<[u8; 6]>,

    /// Longest IP packet to send, and what the announced segment size follows from [default: the
    /// interface's MTU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1280..=9216), requires = "interface", help_heading = "Stack")]
    pub mtu: Option<u16>,

    /// Where the XDP program runs: in the driver (native), or in the kernel's stack (generic, slower)
    #[arg(long, value_enum, default_value_t = ModeName::Auto, requires = "interface", help_heading = "Stack")]
    pub mode: ModeName,

    /// How long an idle core spins before it sleeps [default: 50]
    #[arg(
        long,
        value_name = "US",
        requires = "interface",
        help_heading = "Stack"
    )]
    pub spin_us: Option<u32>,

    /// Print the results as JSON
    #[arg(long, help_heading = "Output")]
    pub json: bool,

    /// Print all percentiles of the latency
    #[arg(long, conflicts_with = "json", help_heading = "Output")]
    pub latency: bool,

    /// Write all percentiles of the latency to this file, as HdrHistogram's plotter reads them, in microseconds
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub hdr: Option<PathBuf>,

    /// Write what came in each second to this file
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub csv: Option<PathBuf>,
}

/// What events carry as their value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Values {
    /// i % 1000 + 0.5, as the official client sends
    Official,
    /// i % 1000
    Integer,
}

/// A network stack that can ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StackName {
    /// Ours, on AF_XDP: the kernel never sees the connections
    Xdp,
    /// The kernel's, with readiness events
    Epoll,
}

/// What of an answer is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Verify {
    /// Its body, byte for byte
    Body,
}

/// Where Debian and those that follow it have the authorities that they believe.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

const EVENTS: u64 = 1_000_000;
const EVENT_CONNECTIONS: usize = 1000;
const CONNECTIONS: usize = 64;
const DURATION: Duration = Duration::from_secs(10);

impl Args {
    /// What is to be done, with what was not said filled in.
    ///
    /// # Errors
    ///
    /// If the options contradict each other, or a body cannot be read.
    pub fn plan(self) -> anyhow::Result<Plan> {
        let args = self;
        let url = args.url.or(args.target).context("no URL was given")?;
        let target = Target::parse(&url)?;
        let is_secure = args.tls || target.is_secure;
        ensure!(
            is_secure
                || args.tls_ca.is_none() && !args.tls_insecure && args.tls_server_name.is_none(),
            "--tls-ca, --tls-insecure and --tls-server-name need --tls, or https:// in the URL"
        );
        let secure = is_secure.then(|| Secure {
            name: (args.tls_server_name).unwrap_or_else(|| target.host().to_owned()),
            trust: match args.tls_insecure {
                true => Trust::Anybody,
                false => Trust::Authorities(args.tls_ca.unwrap_or_else(authorities)),
            },
        });
        ensure!(
            !args.http2 || args.pipeline == 1,
            "--pipeline is HTTP/1.1's; give --streams with --http2"
        );
        let path = match (args.path, target.path.clone()) {
            (Some(_), Some(_)) => {
                bail!("give the path either with --path or in the URL, not twice")
            }
            (option, of_url) => option.or(of_url),
        };
        let body = read_body(&args.body)?;
        let mut fields = args.headers;
        if !fields.iter().any(|(name, _)| name == http::header::HOST) {
            let host = HeaderValue::from_str(&target.authority).context("invalid host")?;
            fields.insert(0, (http::header::HOST, host));
        }
        let own_fields = fields.clone();
        if args.connections_per_second.is_some()
            && !fields
                .iter()
                .any(|(name, _)| name == http::header::CONNECTION)
        {
            fields.push((http::header::CONNECTION, HeaderValue::from_static("close")));
        }
        let bypass = match (args.stack, args.interface) {
            (Some(StackName::Xdp), None) => bail!("--stack xdp needs an --interface"),
            (Some(StackName::Epoll), Some(_)) => {
                bail!("--interface is for --stack xdp; epoll asks by whichever the route says")
            }
            (_, None) => None,
            (_, Some(interface)) => Some(BypassPlan {
                interface,
                cores: args
                    .cores
                    .map_or(Vec::new(), |cores| cores.numbers().to_vec()),
                source_addresses: args.source_addresses,
                source_ports: args.source_ports,
                next_hop_mac: args.next_hop_mac,
                mtu: args.mtu,
                mode: match args.mode {
                    ModeName::Auto => Mode::Auto,
                    ModeName::Native => Mode::Native,
                    ModeName::Generic => Mode::Generic,
                },
                spin_us: args.spin_us,
            }),
        };
        ensure!(
            bypass.is_none() || cfg!(feature = "xdp"),
            "the bypass was left out of this build: build with --features xdp"
        );
        let is_general = path.is_some();
        // Closed by us, so that the server does not remember it when its port is called from again.
        let probe = match (args.verify, &path) {
            (Some(Verify::Body), Some(path)) => {
                Some(Request::fixed(&args.method, path, &own_fields, &body)?)
            }
            _ => None,
        };
        let (path, request, stats) = match path {
            Some(path) => {
                ensure!(
                    path.starts_with('/'),
                    "--path begins with a slash: \"/{path}\""
                );
                let is_clean = path.bytes().all(|byte| byte.is_ascii_graphic());
                ensure!(
                    is_clean,
                    "--path holds spaces or other characters that must be %-encoded"
                );
                ensure!(
                    args.values.is_none() && args.unique_users.is_none(),
                    "--values and --unique-users are for events, that is, without a path"
                );
                let request = Request::fixed(&args.method, &path, &fields, &body)?;
                (path, request, None)
            }
            None => {
                ensure!(
                    args.method == Method::GET && body.is_empty(),
                    "--method and --body need a --path; without one, events are sent"
                );
                let request = Request::event(
                    args.values
                        .map_or(request::Values::Official, Values::of_request),
                    &fields,
                )?;
                let stats = Request::fixed(&Method::GET, "/stats", &fields, b"")?;
                ("/event".to_owned(), request, Some(stats))
            }
        };
        let request = match args.http2 {
            true => request.over_http2(is_secure)?,
            false => request,
        };
        let default_connections = if is_general {
            CONNECTIONS
        } else {
            EVENT_CONNECTIONS
        };
        let connections = args
            .concurrency
            .map_or(default_connections, NonZeroUsize::get);
        ensure!(
            is_general || args.verify.is_none(),
            "--verify needs a --path; the totals of events are always verified"
        );
        let cores = available_parallelism().map_or(1, NonZeroUsize::get);
        let threads = args
            .threads
            .map_or(cores.div_ceil(2), NonZeroUsize::get)
            .min(connections);
        let (requests, duration) = match (args.requests.map(NonZeroU64::get), args.duration) {
            (None, None) if is_general => (None, Some(DURATION)),
            (None, None) => (Some(EVENTS), None),
            given => given,
        };
        // An open loop knows how many requests fall due in its time.
        let window = Window {
            warm_up: args.warm_up.unwrap_or_default(),
            length: duration,
        };
        let due = (args.rate.or(args.connections_per_second))
            .zip(window.asking())
            .map(|(rate, time)| (rate * time.as_secs_f64()).ceil() as u64);
        let requests = requests.into_iter().chain(due).min();
        Ok(Plan {
            target,
            secure,
            path,
            request: Arc::new(request),
            probe,
            stats,
            requests,
            window,
            connections,
            threads,
            pipeline: usize::from(args.streams.unwrap_or(args.pipeline)),
            rate: args.rate,
            connections_per_s: args.connections_per_second,
            timeout: Duration::from_millis(args.timeout_ms.get()),
            unique_users: args.unique_users,
            bypass,
        })
    }
}

impl Values {
    fn of_request(self) -> request::Values {
        match self {
            Values::Official => request::Values::Official,
            Values::Integer => request::Values::Integer,
        }
    }
}

/// Whom this system believes.
fn authorities() -> PathBuf {
    env::var_os("SSL_CERT_FILE").map_or_else(|| AUTHORITIES.into(), PathBuf::from)
}

/// The body that an argument means.
fn read_body(argument: &str) -> anyhow::Result<Vec<u8>> {
    match argument.strip_prefix('@') {
        None => Ok(argument.as_bytes().to_vec()),
        Some("-") => {
            let mut body = Vec::new();
            let read = io::stdin().read_to_end(&mut body);
            read.context("cannot read the body from standard input")?;
            Ok(body)
        }
        Some(path) => fs::read(path).with_context(|| format!("cannot read the body from {path}")),
    }
}

/// Parses a number with a unit, or of seconds.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit_s = match &text[digits.len()..] {
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("a time is a number with ms, s, m or h behind it".to_owned()),
    };
    let number: f64 = digits
        .parse()
        .map_err(|_| "a time is a number with its unit".to_owned())?;
    match Duration::try_from_secs_f64(number * unit_s) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("a time must be longer than nothing, and end".to_owned()),
    }
}

/// Parses `FIRST-LAST`.
fn parse_ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let bounds = text.split_once('-').unwrap_or((text, text));
    match (bounds.0.parse::<u16>(), bounds.1.parse::<u16>()) {
        (Ok(first), Ok(last)) if 0 < first && first <= last => Ok(first..=last),
        _ => Err("ports are a range as in 20000-60000, between 1 and 65535".to_owned()),
    }
}

/// Parses `02:00:00:00:00:01`.
fn parse_mac(text: &str) -> Result<[u8; 6], String> {
    let bytes = text.split(':').map(|byte| match byte.len() {
        2 => u8::from_str_radix(byte, 16).ok(),
        _ => None,
    });
    let bytes: Option<Vec<u8>> = bytes.collect();
    let mac = bytes.and_then(|bytes| <[u8; 6]>::try_from(bytes).ok());
    match mac {
        Some(mac) if mac[0] & 1 == 0 => Ok(mac),
        Some(_) => Err("this is the address of a group, not of a next hop".to_owned()),
        None => Err("a hardware address is six bytes as in 02:00:00:00:00:01".to_owned()),
    }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        _ => Err("a rate is a number per second, more than 0".to_owned()),
    }
}

/// Parses `Name: value`.
///
/// # Errors
///
/// If it has no colon, or holds characters that would break the request apart.
pub fn parse_field(text: &str) -> anyhow::Result<(HeaderName, HeaderValue)> {
    let Some((name, value)) = text.split_once(':') else {
        bail!("a header is written as \"Name: value\"");
    };
    let name = HeaderName::from_bytes(name.trim().as_bytes()).context("invalid header name")?;
    let value = HeaderValue::from_str(value.trim()).context("invalid header value")?;
    ensure!(
        name != http::header::TRANSFER_ENCODING,
        "a body is always sent with its length"
    );
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(options: &str) -> anyhow::Result<Plan> {
        let words = ["load"].into_iter().chain(options.split_whitespace());
        Args::try_parse_from(words)?.plan()
    }

    #[test]
    fn without_a_path_it_is_the_challenge() {
        let plan = plan("--target http://h:1").unwrap();
        assert_eq!(
            (plan.requests, plan.window.length, plan.connections),
            (Some(1_000_000), None, 1000)
        );
        assert_eq!(plan.request.events(), Some(request::Values::Official));
        assert!(plan.stats.is_some());
    }

    #[test]
    fn with_a_path_it_is_a_load_generator() {
        for options in [
            "--target http://h:1/plaintext",
            "--target http://h:1 --path /plaintext",
        ] {
            let plan = plan(options).unwrap();
            assert_eq!((plan.requests, plan.window.length), (None, Some(DURATION)));
            assert_eq!((plan.path.as_str(), plan.connections), ("/plaintext", 64));
            assert!(plan.stats.is_none() && plan.request.events().is_none());
        }
        assert_eq!(
            plan("--target http://h/a --concurrency 3 --threads 8")
                .unwrap()
                .threads,
            3
        );
        assert!(
            plan("--target http://h/a --method HEAD")
                .unwrap()
                .request
                .is_head()
        );
    }

    #[test]
    fn what_people_type_for_other_load_generators_works() {
        let wrk = plan("-t2 -c100 -d30s http://h:1/index.html").unwrap();
        assert_eq!((wrk.threads, wrk.connections), (2, 100));
        assert_eq!(wrk.window.length, Some(Duration::from_secs(30)));
        let wrk2 = plan("http://h/a -R 2000 -d 30 -c 100 --latency --warm-up 10s").unwrap();
        assert_eq!((wrk2.rate, wrk2.requests), (Some(2000.0), Some(80_000)));
        assert_eq!(wrk2.window.warm_up, Duration::from_secs(10));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"\xffhello").unwrap();
        let hey = format!(
            "-n 200 -m POST -H X:y -b @{} http://h/",
            file.path().display()
        );
        let hey = plan(&hey).unwrap();
        assert_eq!((hey.path.as_str(), hey.requests), ("/", Some(200)));
        let mut space = [0; 256];
        let mut reply = barewire_service::service::Reply::new(&mut space);
        assert!(hey.request.write(0, &mut reply));
        let expected = b"POST / HTTP/1.1\r\nhost: h\r\nx: y\r\nContent-Length: 6\r\n\r\n\xffhello";
        assert_eq!(reply.written(), expected);
    }

    #[test]
    fn tls_and_http2_are_chosen_by_url_or_option() {
        let https = plan("https://h/a --tls-insecure --http2 --streams 32").unwrap();
        assert!(https.request.is_http2());
        assert_eq!(https.pipeline, 32);
        let secure = https.secure.unwrap();
        assert_eq!((secure.name.as_str(), secure.trust), ("h", Trust::Anybody));
        let tls = plan("http://h:8443/a --tls --tls-ca /ca.pem --tls-server-name n").unwrap();
        let secure = tls.secure.unwrap();
        assert_eq!(secure.name, "n");
        assert_eq!(secure.trust, Trust::Authorities("/ca.pem".into()));
        assert!(!tls.request.is_http2());
        let prior = plan("http://h/a --http2").unwrap();
        assert!(prior.request.is_http2() && prior.secure.is_none() && prior.pipeline == 1);
    }

    #[test]
    fn an_open_loop_asks_what_falls_due_in_its_time() {
        let options = "--target http://h/a --rate 500 --duration 200ms";
        assert_eq!(plan(options).unwrap().requests, Some(100));
        assert_eq!(
            plan(&format!("{options} --requests 9")).unwrap().requests,
            Some(9)
        );
    }

    #[test]
    fn contradictions_are_refused() {
        for options in [
            "--target http://h/a --path /b",
            "--target http://h --path b",
            "--target http://h --stack xdp",
            "--target http://h --stack epoll --interface lo",
            "--target http://h --cores 1",
            "--target http://h --interface lo --cores 1 --threads 2",
            "--target http://h --interface lo --source-ports 9-8",
            "--target http://h --interface lo --source-ports 0-8",
            "--target http://h --interface lo --next-hop-mac 02:00",
            "--target http://h --interface lo --next-hop-mac 01:00:00:00:00:00",
            "--target http://h --verify body",
            "--target http://h/a --connections-per-second 5 --rate 5",
            "--target http://h/a --connections-per-second 5 --pipeline 2",
            "http://h/a --tls-insecure",
            "http://h/a --tls-ca /a.pem",
            "https://h/a --tls-insecure --tls-ca /a.pem",
            "http://h/a --streams 2",
            "http://h/a --http2 --pipeline 2",
            "http://h/a --http2 --streams 0",
            "--target http://h --path /\u{e4}",
            "--target http://h/a --values integer",
            "--target http://h --method POST",
            "--target http://h --body x",
            "--target http://h --pipeline 0",
            "--target http://h --rate 0",
            "--target http://h --rate inf",
            "--target http://h --duration 0",
            "--target http://h --duration 1e30h",
            "--target http://h --duration 5d",
            "--target http://h --requests 0",
            "--target h",
            "",
            "http://h --target http://h",
            "http://h/ --path /a",
            "http://h/a -b @/nowhere/at-all",
            "http://h/a --warm-up 0",
        ] {
            assert!(plan(options).is_err(), "{options}");
        }
    }

    #[cfg(feature = "xdp")]
    #[test]
    fn an_interface_means_the_bypass() {
        let options = "--target http://h --interface eth9 --cores 3,1 --source-ports 20000-30000 \
                       --source-address 10.0.0.9 --next-hop-mac 02:00:00:00:00:0a";
        let bypass = plan(options).unwrap().bypass.unwrap();
        assert_eq!(
            (bypass.interface.as_str(), bypass.cores),
            ("eth9", vec![3, 1])
        );
        assert_eq!(bypass.source_ports, Some(20_000..=30_000));
        assert_eq!(bypass.source_addresses, [IpAddr::from([10, 0, 0, 9])]);
        assert_eq!(bypass.next_hop_mac, Some([2, 0, 0, 0, 0, 10]));
        assert!(plan("--target http://h").unwrap().bypass.is_none());
    }

    #[test]
    fn connections_for_one_request_each_ask_the_server_to_close() {
        let options = "--target http://h/a --connections-per-second 500 --duration 200ms";
        let plan = plan(options).unwrap();
        assert_eq!(
            (plan.requests, plan.connections_per_s),
            (Some(100), Some(500.0))
        );
        let mut space = [0; 256];
        let mut reply = barewire_service::service::Reply::new(&mut space);
        assert!(plan.request.write(0, &mut reply));
        assert!(reply.written().ends_with(b"connection: close\r\n\r\n"));
    }

    #[test]
    fn times_have_units() {
        for (text, ms) in [
            ("10s", 10_000),
            ("250ms", 250),
            ("1.5", 1500),
            ("2m", 120_000),
            ("1h", 3_600_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)));
        }
    }

    #[test]
    fn a_header_cannot_break_the_request_apart() {
        for text in [
            "no colon",
            "X: a\r\nY: b",
            ": x",
            "X Y: z",
            "Transfer-Encoding: chunked",
        ] {
            assert!(parse_field(text).is_err(), "{text}");
        }
    }
}
