//! Calls as many clients make them, of which no two are the same.

use std::fmt::Write as _;

/// What clients ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Traffic {
    /// `POST /event` with a user and a value.
    Event,
    /// A bid request of 1.2 KB and its answer.
    Bid,
    /// `GET` with a browser's fields.
    Browser,
}

/// Numbers that differ: xorshift64.
#[derive(Debug)]
pub struct Random(u64);

impl Default for Random {
    fn default() -> Self {
        Random(88_172_645_463_325_252)
    }
}

impl Random {
    /// One below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// A request and its response.
pub type Message = (Vec<u8>, Vec<u8>);

/// The next call of this kind, which differs from others as those of many clients do.
pub fn message(traffic: Traffic, random: &mut Random) -> Message {
    let mut r = |end| random.below(end);
    let (request, fields, body, answer) = match traffic {
        Traffic::Event => (
            "POST /event".to_owned(),
            "Host: localhost:8080\r\nContent-Type: application/json\r\n".to_owned(),
            format!(
                "{{\"userId\":\"user_{}\",\"value\":{}.{}}}",
                r(75_000),
                r(1_000),
                r(10)
            ),
            String::new(),
        ),
        Traffic::Bid => {
            let mut body = format!(
                "{{\"id\":\"{:016x}{:016x}\",\"imp\":[{{\"id\":\"1\",",
                r(u64::MAX),
                r(u64::MAX)
            );
            let _ = write!(
                body,
                "\"banner\":{{\"w\":{},\"h\":{},\"pos\":{},\"battr\":[1,3,5,8,9]}},\"bidfloor\":0.{:02},\"bidfloorcur\":\"USD\",\"secure\":1}}],",
                300 + 20 * r(4),
                50 * (1 + r(4)),
                r(8),
                r(100)
            );
            let site = r(5_000);
            let _ = write!(
                body,
                "\"site\":{{\"id\":\"{site}\",\"domain\":\"news{}.example.com\",\"cat\":[\"IAB{}\",\"IAB{}-{}\"],\"page\":\"https://news{}.example.com/a/{:x}\",\"publisher\":{{\"id\":\"{}\"}}}},",
                r(300),
                r(26),
                r(26),
                r(30),
                r(300),
                r(1 << 40),
                r(900)
            );
            let _ = write!(
                body,
                "\"device\":{{\"ua\":\"Mozilla/5.0 (iPhone; CPU iPhone OS {}_{} like Mac OS X) AppleWebKit/605.1.15\",\"ip\":\"{}.{}.{}.{}\",\"geo\":{{\"country\":\"DEU\",\"lat\":{}.{},\"lon\":{}.{}}},\"language\":\"en\",\"os\":\"iOS\",\"devicetype\":4}},\"user\":{{\"id\":\"{:016x}\"}},\"at\":2,\"tmax\":120,\"cur\":[\"USD\"]}}",
                12 + r(14),
                r(7),
                r(224),
                r(256),
                r(256),
                r(256),
                r(60),
                r(10_000),
                r(120),
                r(10_000),
                r(u64::MAX)
            );
            let answer = format!(
                "{{\"id\":\"{:016x}\",\"seatbid\":[{{\"bid\":[{{\"id\":\"{:x}\",\"impid\":\"1\",\"price\":{}.{:02},\"adid\":\"{}\",\"nurl\":\"https://win.example.net/n?p=${{AUCTION_PRICE}}&i={:x}\",\"adomain\":[\"brand{}.example\"],\"crid\":\"{}\",\"w\":320,\"h\":50}}],\"seat\":\"{}\"}}],\"cur\":\"USD\"}}",
                r(u64::MAX),
                r(u64::MAX),
                r(9),
                r(100),
                r(9_999),
                r(u64::MAX),
                r(500),
                r(99_999),
                r(90)
            );
            (
                "POST /openrtb2/bid".to_owned(),
                "Host: bidder.example.net\r\nUser-Agent: exchange/4.2\r\nAccept: application/json\r\nAccept-Encoding: gzip\r\nX-Openrtb-Version: 2.5\r\nContent-Type: application/json\r\n".to_owned(),
                body,
                answer,
            )
        }
        Traffic::Browser => (
            format!("GET /api/v1/items/{}?lang=en&page={}", r(99_999), r(20)),
            format!(
                "Host: www.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:{}.0) Gecko/20100101\r\nAccept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nReferer: https://www.example.com/list?page={}\r\nSec-Fetch-Dest: empty\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Site: same-origin\r\nPriority: u=4\r\n",
                100 + r(40),
                r(50)
            ),
            String::new(),
            format!(
                "{{\"id\":{},\"name\":\"item {}\",\"price\":{}.{:02},\"stock\":{},\"tags\":[\"a{}\",\"b{}\"]}}",
                r(9_999),
                r(9_999),
                r(90),
                r(100),
                r(50),
                r(9),
                r(9)
            ),
        ),
    };
    let request = match body.is_empty() {
        true => format!("{request} HTTP/1.1\r\n{fields}\r\n"),
        false => format!(
            "{request} HTTP/1.1\r\n{fields}Content-Length: {}\r\n\r\n{body}",
            body.len()
        ),
    };
    let response = format!(
        "HTTP/1.1 200 OK\r\nServer: barewire\r\nDate: Thu, 26 Nov 2026 01:40:00 GMT\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{answer}",
        answer.len()
    );
    (request.into_bytes(), response.into_bytes())
}
