//! Which frames to keep: the part of tcpdump's language that a TCP server needs.
//!
//! ```text
//!   expression = term { "or" term }            primitive = [ "src" | "dst" ] "host" ADDRESS
//!   term       = factor { "and" factor }                 | [ "src" | "dst" ] "port" NUMBER
//!   factor     = "not" factor                            | "syn" | "fin" | "rst" | "push"
//!              | "(" expression ")"                      | "ip" | "ip6" | "tcp"
//!              | primitive                               | "received" | "sent"
//! ```

use std::net::IpAddr;
use std::str::FromStr;

use barewire_service::tap::Direction;
use etherparse::{LaxNetSlice, LaxSlicedPacket, TcpSlice, TransportSlice};
use thiserror::Error;

use super::Frame;

/// An expression that a frame matches or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter(Expression);

/// Why a text is no filter.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FilterError {
    /// Something else was expected.
    #[error(
        "{found:?} is not {expected}; a filter is made of host ADDRESS, port NUMBER (each with src or dst before \
         it), syn, fin, rst, push, ip, ip6, tcp, received, sent, and, or, not and parentheses"
    )]
    Unexpected {
        /// What is there.
        found: String,
        /// What could be.
        expected: &'static str,
    },
    /// It could not be read without a limit.
    #[error("more than {DEPTH_MAX} parentheses or negations, one in another")]
    TooDeep,
}

/// How deep expressions may be nested.
const DEPTH_MAX: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Expression {
    Any(Vec<Expression>),
    All(Vec<Expression>),
    Not(Box<Expression>),
    Host(Side, IpAddr),
    Port(Side, u16),
    Flag(Flag),
    Family(Family),
    Tcp,
    Direction(Direction),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Source,
    Destination,
    Either,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flag {
    Syn,
    Fin,
    Rst,
    Push,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Filter {
    /// Whether to keep `frame`. What was cut off is not there to match.
    pub fn matches(&self, frame: &Frame<'_>) -> bool {
        self.0.matches(&Parsed::of(frame))
    }
}

/// What expressions are about.
struct Parsed<'a> {
    direction: Direction,
    addresses: Option<[IpAddr; 2]>,
    tcp: Option<TcpSlice<'a>>,
}

impl<'a> Parsed<'a> {
    fn of(frame: &Frame<'a>) -> Self {
        let packet = LaxSlicedPacket::from_ethernet(frame.bytes).ok();
        let (net, transport) = packet.map_or((None, None), |packet| (packet.net, packet.transport));
        Parsed {
            direction: frame.direction,
            addresses: match &net {
                Some(LaxNetSlice::Ipv4(ip)) => {
                    let header = ip.header();
                    Some([
                        header.source_addr().into(),
                        header.destination_addr().into(),
                    ])
                }
                Some(LaxNetSlice::Ipv6(ip)) => {
                    let header = ip.header();
                    Some([
                        header.source_addr().into(),
                        header.destination_addr().into(),
                    ])
                }
                _ => None,
            },
            tcp: match transport {
                Some(TransportSlice::Tcp(tcp)) => Some(tcp),
                _ => None,
            },
        }
    }
}

impl Expression {
    fn matches(&self, packet: &Parsed<'_>) -> bool {
        let tcp = packet.tcp.as_ref();
        match self {
            Expression::Any(terms) => terms.iter().any(|term| term.matches(packet)),
            Expression::All(factors) => factors.iter().all(|factor| factor.matches(packet)),
            Expression::Not(factor) => !factor.matches(packet),
            Expression::Host(side, address) => packet
                .addresses
                .is_some_and(|pair| side.is_met(pair, *address)),
            Expression::Port(side, port) => tcp
                .is_some_and(|tcp| side.is_met([tcp.source_port(), tcp.destination_port()], *port)),
            Expression::Flag(flag) => tcp.is_some_and(|tcp| match flag {
                Flag::Syn => tcp.syn(),
                Flag::Fin => tcp.fin(),
                Flag::Rst => tcp.rst(),
                Flag::Push => tcp.psh(),
            }),
            Expression::Family(family) => packet
                .addresses
                .is_some_and(|[source, _]| source.is_ipv4() == (*family == Family::V4)),
            Expression::Tcp => tcp.is_some(),
            Expression::Direction(direction) => packet.direction == *direction,
        }
    }
}

impl Side {
    fn is_met<T: PartialEq>(self, [source, destination]: [T; 2], wanted: T) -> bool {
        match self {
            Side::Source => source == wanted,
            Side::Destination => destination == wanted,
            Side::Either => source == wanted || destination == wanted,
        }
    }
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let spaced = text.replace('(', " ( ").replace(')', " ) ");
        let mut words = Words(spaced.split_whitespace().collect());
        let expression = words.expression(0)?;
        match words.next() {
            None => Ok(Filter(expression)),
            Some(found) => Err(unexpected(Some(found), "and, or, or the end")),
        }
    }
}

/// What is left to read.
struct Words<'a>(std::collections::VecDeque<&'a str>);

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a str> {
        self.0.pop_front()
    }

    fn takes(&mut self, word: &str) -> bool {
        let is_next = self.0.front() == Some(&word);
        if is_next {
            self.0.pop_front();
        }
        is_next
    }

    fn expression(&mut self, depth: usize) -> Result<Expression, FilterError> {
        let mut terms = vec![self.term(depth)?];
        while self.takes("or") {
            terms.push(self.term(depth)?);
        }
        Ok(Expression::Any(terms))
    }

    fn term(&mut self, depth: usize) -> Result<Expression, FilterError> {
        let mut factors = vec![self.factor(depth)?];
        while self.takes("and") {
            factors.push(self.factor(depth)?);
        }
        Ok(Expression::All(factors))
    }

    fn factor(&mut self, depth: usize) -> Result<Expression, FilterError> {
        if depth > DEPTH_MAX {
            return Err(FilterError::TooDeep);
        }
        if self.takes("not") {
            return Ok(Expression::Not(Box::new(self.factor(depth + 1)?)));
        }
        if self.takes("(") {
            let inner = self.expression(depth + 1)?;
            return match self.next() {
                Some(")") => Ok(inner),
                found => Err(unexpected(found, "a closing parenthesis")),
            };
        }
        self.primitive()
    }

    fn primitive(&mut self) -> Result<Expression, FilterError> {
        let side = match () {
            () if self.takes("src") => Side::Source,
            () if self.takes("dst") => Side::Destination,
            () => Side::Either,
        };
        let word = self.next();
        Ok(match (word, side) {
            (Some("host"), _) => Expression::Host(side, self.value("an IP address")?),
            (Some("port"), _) => Expression::Port(side, self.value("a port")?),
            (Some("syn"), Side::Either) => Expression::Flag(Flag::Syn),
            (Some("fin"), Side::Either) => Expression::Flag(Flag::Fin),
            (Some("rst"), Side::Either) => Expression::Flag(Flag::Rst),
            (Some("push"), Side::Either) => Expression::Flag(Flag::Push),
            (Some("ip"), Side::Either) => Expression::Family(Family::V4),
            (Some("ip6"), Side::Either) => Expression::Family(Family::V6),
            (Some("tcp"), Side::Either) => Expression::Tcp,
            (Some("received"), Side::Either) => Expression::Direction(Direction::Received),
            (Some("sent"), Side::Either) => Expression::Direction(Direction::Sent),
            (found, Side::Either) => return Err(unexpected(found, "a condition")),
            (found, _) => return Err(unexpected(found, "host or port")),
        })
    }

    fn value<T: FromStr>(&mut self, expected: &'static str) -> Result<T, FilterError> {
        let word = self.next();
        word.and_then(|word| word.parse().ok())
            .ok_or_else(|| unexpected(word, expected))
    }
}

fn unexpected(found: Option<&str>, expected: &'static str) -> FilterError {
    FilterError::Unexpected {
        found: found.unwrap_or("").to_owned(),
        expected,
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    use super::*;

    /// A segment from 10.77.0.1:4000 to 10.77.0.2:80, or from fd77::1 to fd77::2, received.
    fn matches(filter: &str, is_v6: bool, is_syn: bool) -> bool {
        let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let ip = match is_v6 {
            false => ethernet.ipv4([10, 77, 0, 1], [10, 77, 0, 2], 64),
            true => {
                let address =
                    |last| std::net::Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, last).octets();
                ethernet.ipv6(address(1), address(2), 64)
            }
        };
        let mut tcp = ip.tcp(4000, 80, 1, 1000);
        if is_syn {
            tcp = tcp.syn();
        }
        let mut bytes = Vec::new();
        tcp.write(&mut bytes, b"GET / HTTP/1.1\r\n").unwrap();
        // Only the headers were kept.
        bytes.truncate(bytes.len() - 10);
        let frame = Frame {
            unix_time_ns: 0,
            queue: 0,
            direction: Direction::Received,
            frame_bytes: bytes.len() as u32 + 10,
            bytes: &bytes,
        };
        filter.parse::<Filter>().unwrap().matches(&frame)
    }

    #[test]
    fn conditions_mean_what_they_say() {
        for (filter, expected) in [
            ("tcp", true),
            ("ip", true),
            ("ip6", false),
            ("host 10.77.0.1", true),
            ("src host 10.77.0.1", true),
            ("dst host 10.77.0.1", false),
            ("host fd77::1", false),
            ("port 80", true),
            ("dst port 80", true),
            ("src port 80", false),
            ("syn", true),
            ("fin", false),
            ("rst or push", false),
            ("received", true),
            ("sent", false),
            ("not sent and port 80", true),
            ("syn and port 81 or port 80", true),
            ("syn and (port 81 or port 82)", false),
            ("not not(port 80)", true),
        ] {
            assert_eq!(matches(filter, false, true), expected, "{filter}");
        }
        assert!(matches("ip6 and src host fd77::1 and not syn", true, false));
    }

    #[test]
    fn what_is_not_ip_matches_only_its_direction() {
        let frame = Frame {
            unix_time_ns: 0,
            queue: 0,
            direction: Direction::Sent,
            frame_bytes: 60,
            bytes: &[0xff; 9],
        };
        for (filter, expected) in [
            ("sent", true),
            ("tcp", false),
            ("not ip", true),
            ("port 80", false),
        ] {
            assert_eq!(
                filter.parse::<Filter>().unwrap().matches(&frame),
                expected,
                "{filter}"
            );
        }
    }

    #[test]
    fn what_is_no_filter_is_told_what_was_expected() {
        for (text, part) in [
            ("", "a condition"),
            ("port", "a port"),
            ("port 65536", "a port"),
            ("host example.org", "an IP address"),
            ("src tcp", "host or port"),
            ("tcp port 80", "and, or"),
            ("(tcp", "closing parenthesis"),
            ("tcp)", "the end"),
            ("tcp and", "a condition"),
            (&"not ".repeat(100), "more than 64"),
        ] {
            let error = text.parse::<Filter>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(words in prop::collection::vec("host|port|[()]|and|or|not|src|tcp|[0-9.:a-f]{0,9}", 0..20), bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(filter) = words.join(" ").parse::<Filter>() {
                let frame = Frame { unix_time_ns: 0, queue: 0, direction: Direction::Sent, frame_bytes: 100, bytes: &bytes };
                let inverse = Filter(Expression::Not(Box::new(filter.0.clone())));
                prop_assert_ne!(filter.matches(&frame), inverse.matches(&frame));
            }
        }
    }
}
