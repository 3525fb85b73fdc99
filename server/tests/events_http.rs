//! Events over HTTP, in memory: requests of any kind to two cores, pipelined, split anywhere, are
//! answered as a model of the challenge answers them.

#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::io::Write;
use std::sync::Arc;

use barewire::events::{Events, EventsConfig};
use barewire::site::{self, Site, SiteResponder};
use barewire_conformance::driver::{Connection, Memory};
use barewire_http::{HttpCounters, Limits};
use proptest::prelude::*;
use serde_json::json;

const CORES: usize = 2;
const USERS_MAX: usize = 4;

/// A request, without what carries it.
#[derive(Debug, Clone)]
enum Ask {
    /// An event of this user with half this value.
    Event {
        user: usize,
        halves: i32,
        spelling: usize,
        chunk_bytes: Option<usize>,
    },
    /// A body that is no event, and why.
    NoEvent(&'static str, &'static str),
    Stats,
    Reset,
}

/// The same event in several spellings.
const SPELLINGS: [fn(usize, f64) -> String; 4] = [
    |user, value| format!(r#"{{"userId":"user_{user}","value":{value:?}}}"#),
    |user, value| format!("{{ \"value\": {value:e} ,\r\n\t\"userId\": \"user_{user}\" }}\n"),
    |user, value| {
        format!(r#"{{"userId":"us\u0065r_{user}","x":[{{"value":[]}}],"value":{value}}}"#)
    },
    |user, value| format!(r#"{{"\u0075serId":"user_{user}","value":{value:?}E+00}}"#),
];

const NO_EVENTS: [(&str, &str); 7] = [
    ("", "the body is not valid JSON"),
    (r#"{"userId":"user_1"}"#, "value is missing"),
    (r#"{"userId":"","value":1}"#, "userId is empty"),
    (
        r#"{"userId":"user_1","value":1e999}"#,
        "value is beyond the range of a 64-bit float",
    ),
    (
        r#"{"userId":"user_1","value":1}{}"#,
        "the body goes on after the JSON object",
    ),
    (
        r#"{"userId":"user_1","value":1,"value":1}"#,
        "value is there twice",
    ),
    (
        r#"[{"userId":"user_1","value":1}]"#,
        "the body is not a JSON object",
    ),
];

impl Ask {
    fn request(&self) -> Vec<u8> {
        match self {
            &Ask::Event {
                user,
                halves,
                spelling,
                chunk_bytes,
            } => {
                let body = SPELLINGS[spelling](user, f64::from(halves) / 2.0);
                post("/event", &body, chunk_bytes)
            }
            Ask::NoEvent(body, _) => post("/event", body, None),
            Ask::Stats => b"GET /stats HTTP/1.1\r\nHost: test\r\n\r\n".to_vec(),
            Ask::Reset => post("/reset", "", None),
        }
    }
}

fn post(path: &str, body: &str, chunk_bytes: Option<usize>) -> Vec<u8> {
    let mut request = format!("POST {path} HTTP/1.1\r\nHost: test\r\n").into_bytes();
    let Some(chunk_bytes) = chunk_bytes else {
        write!(request, "Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        return request;
    };
    request.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
    for chunk in body.as_bytes().chunks(chunk_bytes) {
        write!(request, "{:x}\r\n", chunk.len()).unwrap();
        request.extend_from_slice(chunk);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    request
}

/// What a response says: its status, and its body.
type Said = (u16, String);

/// The challenge in a few lines; halves of small numbers add up exactly.
#[derive(Default)]
struct Model {
    events: u64,
    users: HashSet<usize>,
    halves: i64,
}

impl Model {
    fn answer(&mut self, ask: &Ask) -> Said {
        match *ask {
            Ask::Event { user, halves, .. } => {
                if self.users.len() == USERS_MAX && !self.users.contains(&user) {
                    let reason = "no more users can be counted: restart with a larger --max-users";
                    return (507, reason.to_owned());
                }
                self.users.insert(user);
                self.events += 1;
                self.halves += i64::from(halves);
                (200, String::new())
            }
            Ask::NoEvent(_, reason) => (400, reason.to_owned()),
            Ask::Stats => {
                let sum = self.halves as f64 / 2.0;
                let stats = json!({
                    "totalRequests": self.events,
                    "uniqueUsers": self.users.len(),
                    "sum": sum,
                    "avg": sum / self.events.max(1) as f64,
                });
                (200, stats.to_string())
            }
            Ask::Reset => {
                *self = Model::default();
                (200, "ok\n".to_owned())
            }
        }
    }
}

/// A core of the server, and a connection to it.
type Core = (Memory<SiteResponder>, Connection<SiteResponder>);

struct Server {
    cores: Vec<Core>,
}

impl Server {
    fn start() -> Self {
        let config = EventsConfig {
            users_max: USERS_MAX,
            reset_allowed: true,
            ..EventsConfig::new(CORES)
        };
        let events = Events::new(config).unwrap();
        let routes = site::routes(false).expect("the table is consistent");
        let core = |core| {
            let site = Site::new(events.shard(core));
            let counters = Arc::new(HttpCounters::new(&routes));
            let memory = Memory::new(site::responder(&routes, site, Limits::default(), counters));
            let connection = memory.connect();
            (memory, connection)
        };
        Server {
            cores: (0..CORES).map(core).collect(),
        }
    }

    /// Sends `bytes` in segments that end at `cuts`, and reads what came back.
    fn send(&mut self, core: usize, bytes: &[u8], cuts: &[prop::sample::Index]) -> Vec<Said> {
        let (memory, connection) = &mut self.cores[core];
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.push(bytes.len());
        cuts.sort_unstable();
        let mut start = 0;
        for end in cuts {
            memory.send(connection, &bytes[start..end]);
            start = end;
        }
        read(&std::mem::take(&mut connection.sent))
    }
}

/// Takes responses apart.
fn read(mut bytes: &[u8]) -> Vec<Said> {
    let mut said = Vec::new();
    while !bytes.is_empty() {
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut response = httparse::Response::new(&mut headers);
        let head_bytes = response.parse(bytes).unwrap().unwrap();
        let length = response
            .headers
            .iter()
            .find(|header| header.name == "Content-Length")
            .unwrap();
        let length: usize = std::str::from_utf8(length.value).unwrap().parse().unwrap();
        let (body, rest) = bytes[head_bytes..].split_at(length);
        let body = match serde_json::from_slice::<serde_json::Value>(body) {
            Ok(value) => value.to_string(),
            Err(_) => String::from_utf8(body.to_vec()).unwrap(),
        };
        said.push((response.code.unwrap(), body));
        bytes = rest;
    }
    said
}

fn ask() -> impl Strategy<Value = Ask> {
    let event = (
        0..6_usize,
        -2_000..2_000,
        0..SPELLINGS.len(),
        prop::option::of(1..40_usize),
    );
    prop_oneof![
        12 => event.prop_map(|(user, halves, spelling, chunk_bytes)| Ask::Event {
            user,
            halves,
            spelling,
            chunk_bytes,
        }),
        2 => prop::sample::select(&NO_EVENTS[..]).prop_map(|(body, reason)| Ask::NoEvent(body, reason)),
        4 => Just(Ask::Stats),
        1 => Just(Ask::Reset),
    ]
}

proptest! {
    #[test]
    fn whatever_way_events_come_each_counts_once(
        pipelines in prop::collection::vec(
            (
                0..CORES,
                prop::collection::vec(ask(), 1..12),
                prop::collection::vec(any::<prop::sample::Index>(), 0..6),
            ),
            1..12,
        ),
    ) {
        let mut server = Server::start();
        let mut model = Model::default();
        for (core, asks, cuts) in pipelines {
            let requests: Vec<u8> = asks.iter().flat_map(Ask::request).collect();
            let expected: Vec<_> = asks.iter().map(|ask| model.answer(ask)).collect();
            prop_assert_eq!(server.send(core, &requests, &cuts), expected);
        }
        for core in 0..CORES {
            let expected = model.answer(&Ask::Stats);
            prop_assert_eq!(server.send(core, &Ask::Stats.request(), &[]), [expected]);
        }
    }
}
