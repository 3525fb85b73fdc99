//! The options of `barewire load`, and what they amount to.

use std::num::{NonZeroU64, NonZeroUsize};
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use http::{HeaderName, HeaderValue, Method};

use super::request::{Request, Values, parse_field};
use super::target::Target;

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
    /// The server: http://HOST:PORT, with a path behind it instead of --path if you like
    #[arg(long, value_name = "URL")]
    pub target: String,

    /// How many requests to send [default: 1000000 events; with a path, as many as fit in 10s]
    #[arg(long, value_name = "N")]
    pub requests: Option<NonZeroU64>,

    /// How long to send requests: 10s, 500ms, 2m
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,

    /// Connections, spread over the threads [default: 1000 for events, 64 with a path]
    #[arg(long, value_name = "N", visible_alias = "connections")]
    pub concurrency: Option<NonZeroUsize>,

    /// Threads [default: half of the cores that this process may use]
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,

    /// Requests that are sent on a connection before waiting for their answers
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub pipeline: u16,

    /// Send this many requests per second, whether or not answers have come (open loop). Latency
    /// then counts from when a request was due. In this mode a pipeline serves only to catch up
    #[arg(long, value_name = "PER_SECOND", value_parser = parse_rate)]
    pub rate: Option<f64>,

    /// How long an answer, or opening a connection, may take
    #[arg(long, value_name = "MS", default_value = "5000")]
    pub timeout_ms: NonZeroU64,

    /// What events carry: i % 1000 + 0.5 (official) or i % 1000 (integer) [default: official]
    #[arg(long, help_heading = "Events")]
    pub values: Option<Values>,

    /// How many users the server must know afterwards, if that is known: verifies uniqueUsers
    /// exactly on a server that had counted events before
    #[arg(long, value_name = "N", help_heading = "Events")]
    pub unique_users: Option<u64>,

    /// What to ask for instead of sending events: /plaintext
    #[arg(long, conflicts_with_all = ["values", "unique_users"], help_heading = "Requests")]
    pub path: Option<String>,

    /// The request's method
    #[arg(long, default_value = "GET", help_heading = "Requests")]
    pub method: Method,

    /// A header field to send, "Name: value"; may be given several times
    #[arg(long = "header", value_name = "FIELD", value_parser = parse_field, help_heading = "Requests")]
    pub headers: Vec<(HeaderName, HeaderValue)>,

    /// The request's body
    #[arg(long, default_value = "", help_heading = "Requests")]
    pub body: String,

    /// Print the results as JSON
    #[arg(long)]
    pub json: bool,
}

/// What is to be done.
#[derive(Debug)]
pub struct Plan {
    /// Where.
    pub target: Target,
    /// The path asked for.
    pub path: String,
    /// What to ask.
    pub request: Request,
    /// How to ask for `/stats`, if events are sent.
    pub stats: Option<Request>,
    /// How often.
    pub requests: Option<u64>,
    /// How long.
    pub duration: Option<Duration>,
    /// On how many connections.
    pub connections: usize,
    /// By how many threads.
    pub threads: usize,
    /// How many at once on a connection.
    pub pipeline: usize,
    /// How many per second, in an open loop.
    pub rate: Option<f64>,
    /// How long anything may take.
    pub timeout: Duration,
    /// How many users there must be afterwards.
    pub unique_users: Option<u64>,
    /// Print JSON.
    pub json: bool,
}

const EVENTS: u64 = 1_000_000;
const EVENT_CONNECTIONS: usize = 1000;
const CONNECTIONS: usize = 64;
const DURATION: Duration = Duration::from_secs(10);

impl Plan {
    /// Fills in what was not said.
    ///
    /// # Errors
    ///
    /// If the options contradict each other.
    pub fn of(args: Args) -> anyhow::Result<Self> {
        let target = Target::parse(&args.target)?;
        let path = match (args.path, target.path.as_str()) {
            (path, "/") => path,
            (None, path) => Some(path.to_owned()),
            (Some(_), _) => bail!("give the path either with --path or with --target, not twice"),
        };
        let mut fields = args.headers;
        if !fields.iter().any(|(name, _)| name == http::header::HOST) {
            let host = HeaderValue::from_str(&target.authority).context("invalid host")?;
            fields.insert(0, (http::header::HOST, host));
        }
        let is_general = path.is_some();
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
                let request = Request::fixed(&args.method, &path, &fields, &args.body)?;
                (path, request, None)
            }
            None => {
                ensure!(
                    args.method == Method::GET && args.body.is_empty(),
                    "--method and --body need a --path; without one, events are sent"
                );
                let request = Request::event(args.values.unwrap_or(Values::Official), &fields)?;
                let stats = Request::fixed(&Method::GET, "/stats", &fields, "")?;
                ("/event".to_owned(), request, Some(stats))
            }
        };
        let default_connections = if is_general {
            CONNECTIONS
        } else {
            EVENT_CONNECTIONS
        };
        let connections = args
            .concurrency
            .map_or(default_connections, NonZeroUsize::get);
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
        let due = args
            .rate
            .zip(duration)
            .map(|(rate, time)| (rate * time.as_secs_f64()).ceil() as u64);
        let requests = requests.into_iter().chain(due).min();
        Ok(Plan {
            target,
            path,
            request,
            stats,
            requests,
            duration,
            connections,
            threads,
            pipeline: usize::from(args.pipeline),
            rate: args.rate,
            timeout: Duration::from_millis(args.timeout_ms.get()),
            unique_users: args.unique_users,
            json: args.json,
        })
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

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        _ => Err("a rate is a number of requests per second, more than 0".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(options: &str) -> anyhow::Result<Plan> {
        let words = ["load"].into_iter().chain(options.split_whitespace());
        Plan::of(Args::try_parse_from(words)?)
    }

    #[test]
    fn without_a_path_it_is_the_challenge() {
        let plan = plan("--target http://h:1").unwrap();
        assert_eq!(
            (plan.requests, plan.duration, plan.connections),
            (Some(1_000_000), None, 1000)
        );
        assert_eq!(plan.request.events(), Some(Values::Official));
        assert!(plan.stats.is_some());
    }

    #[test]
    fn with_a_path_it_is_a_load_generator() {
        for options in [
            "--target http://h:1/plaintext",
            "--target http://h:1 --path /plaintext",
        ] {
            let plan = plan(options).unwrap();
            assert_eq!((plan.requests, plan.duration), (None, Some(DURATION)));
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
        ] {
            assert!(plan(options).is_err(), "{options}");
        }
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
}
