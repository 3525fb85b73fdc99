//! Makes a request from the fields of a block (RFC 9113, section 8.3).
//!
//! Fields are written as lines of HTTP/1, so that handlers see no difference; `:authority` becomes a `host` field.

use crate::fields::{Expectation, content_length, expectation, is_content_coded};
use crate::limits::Limits;
use crate::method::Method;
use crate::refusal::Refusal;
use crate::request::Request;
use crate::scan::{path_end, target_end};
use crate::target::{Target, is_authority};

use super::hpack::{self, Class, DecodeError, Field, Table};
use super::priority::Priority;

/// Memory for the head of one request: its target, then its field lines; and for one of its fields.
#[derive(Debug)]
pub(super) struct Space {
    bytes: Box<[u8]>,
    pub(super) literal: Box<[u8]>,
    target_bytes_max: usize,
    headers_max: usize,
}

impl Space {
    pub(super) fn new(limits: &Limits) -> Self {
        Space {
            bytes: vec![0; limits.target_bytes_max + limits.head_bytes_max].into(),
            // n bytes of Huffman code decode to at most 8/5 n bytes.
            literal: vec![0; 2 * limits.head_bytes_max + 64].into(),
            target_bytes_max: limits.target_bytes_max,
            headers_max: limits.headers_max,
        }
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The fields of a block that have been decoded so far.
#[derive(Debug)]
struct Seen<'s> {
    target: &'s mut [u8],
    lines: &'s mut [u8],
    lines_len: usize,
    target_len: Option<usize>,
    fields_left: usize,
    method: Option<Result<Method, IsConnect>>,
    scheme: Option<Result<(), Refusal>>,
    /// Bytes of the line of the authority, which is the first one.
    authority_len: usize,
    host: bool,
    is_regular: bool,
    content_length: Option<u64>,
    content_coded: bool,
    expectation: Expectation,
    priority: Priority,
    /// Where the value of the cookies ends; 0 without cookies.
    cookies_end: usize,
    is_malformed: bool,
    refusal: Option<Refusal>,
}

/// `:method` of CONNECT, which no route has.
#[derive(Debug, Clone, Copy)]
struct IsConnect(bool);

/// A request whose head has arrived.
#[derive(Debug)]
pub(super) struct Head<'a> {
    pub(super) request: Request<'a>,
    pub(super) content_length: Option<u64>,
    pub(super) content_coded: bool,
    pub(super) expects_continue: bool,
    pub(super) priority: Priority,
}

/// Why a head is not a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unfit {
    /// The stream is reset: PROTOCOL_ERROR (RFC 9113, section 8.1.1).
    Malformed,
    /// The request is answered with an error.
    Refused { refusal: Refusal, head_only: bool },
}

/// Why a block is not the head of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoHead {
    /// It cannot be decoded, so that later ones cannot be either.
    Undecoded(DecodeError),
    /// It has other fields than a request.
    Unfit(Unfit),
}

/// Makes a head of a block.
#[inline(never)]
pub(super) fn read<'s>(
    block: &[u8],
    table: &mut Table,
    space: &'s mut Space,
) -> Result<Head<'s>, NoHead> {
    let (target, lines) = space.bytes.split_at_mut(space.target_bytes_max);
    let mut seen = Seen::nothing(target, lines, space.headers_max);
    hpack::decode(block, table, &mut space.literal, |field| seen.field(field))
        .map_err(NoHead::Undecoded)?;
    seen.finish()
}

impl<'s> Seen<'s> {
    #[inline]
    fn nothing(target: &'s mut [u8], lines: &'s mut [u8], headers_max: usize) -> Self {
        Seen {
            target,
            lines,
            lines_len: 0,
            target_len: None,
            fields_left: headers_max,
            method: None,
            scheme: None,
            authority_len: 0,
            host: false,
            is_regular: false,
            content_length: None,
            content_coded: false,
            expectation: Expectation::None,
            priority: Priority::default(),
            cookies_end: 0,
            is_malformed: false,
            refusal: None,
        }
    }

    /// Adds the next field.
    #[inline(always)]
    fn field(&mut self, field: Field<'_>) {
        match field.class {
            Class::Ordinary => self.line(field.line),
            Class::Method
            | Class::Path
            | Class::Scheme
            | Class::OtherScheme
            | Class::Authority
            | Class::OtherAuthority => self.pseudo(field),
            _ => self.special(field),
        }
    }

    /// Appends a line for handlers.
    #[inline(always)]
    fn line(&mut self, line: &[u8]) {
        self.is_regular = true;
        if self.fields_left == 0 {
            return self.refuse(Refusal::TooManyFields);
        }
        self.fields_left -= 1;
        match self
            .lines
            .get_mut(self.lines_len..self.lines_len + line.len())
        {
            Some(space) => {
                space.copy_from_slice(line);
                self.lines_len += line.len();
            }
            None => self.refuse(Refusal::HeadTooLarge),
        }
    }

    #[cold]
    fn refuse(&mut self, refusal: Refusal) {
        self.refusal = self.refusal.or(Some(refusal));
    }

    #[inline]
    fn pseudo(&mut self, field: Field<'_>) {
        // RFC 9113, section 8.3: before all others, and once.
        if self.is_regular {
            self.is_malformed = true;
            return;
        }
        let value = field.value();
        let is_repeated = match field.class {
            Class::Method => {
                let method = Method::from_token(value).ok_or(IsConnect(value == b"CONNECT"));
                self.method.replace(method).is_some()
            }
            Class::Path => {
                match self.target.get_mut(..value.len()) {
                    Some(space) => space.copy_from_slice(value),
                    None => self.refuse(Refusal::TargetTooLong),
                }
                self.target_len.replace(value.len()).is_some()
            }
            Class::Scheme => self.scheme.replace(Ok(())).is_some(),
            Class::OtherScheme => self.scheme.replace(Err(Refusal::Scheme)).is_some(),
            _ => {
                let is_repeated = self.authority_len > 0;
                self.authority(value);
                if field.class == Class::OtherAuthority {
                    self.refuse(Refusal::Host);
                }
                is_repeated
            }
        };
        self.is_malformed |= is_repeated;
    }

    /// `:authority` is what Host is in HTTP/1.
    #[inline]
    fn authority(&mut self, value: &[u8]) {
        const NAME: &[u8] = b"host: ";

        let len = NAME.len() + value.len() + 2;
        let Some(space) = self.lines.get_mut(..len) else {
            return self.refuse(Refusal::HeadTooLarge);
        };
        space[..NAME.len()].copy_from_slice(NAME);
        space[NAME.len()..len - 2].copy_from_slice(value);
        space[len - 2..].copy_from_slice(b"\r\n");
        self.lines_len = len;
        self.authority_len = len;
    }

    /// Interprets a field of the responder.
    fn special(&mut self, field: Field<'_>) {
        let value = field.value();
        match field.class {
            Class::Host => return self.host(field),
            Class::Cookie => return self.cookie(field),
            Class::ContentLength => match content_length(value) {
                Ok(length) if self.content_length.is_none_or(|before| before == length) => {
                    self.content_length = Some(length);
                }
                // RFC 9113, section 8.1.1: the length of the body must be unambiguous.
                _ => self.is_malformed = true,
            },
            Class::ContentEncoding => self.content_coded |= is_content_coded(value),
            Class::Expect => self.expectation = expectation(self.expectation, value),
            Class::Priority => self.priority = Priority::parse(value),
            _ => self.is_malformed = true,
        }
        self.line(field.line);
    }

    /// A client may send Host instead of `:authority`, or the same as that.
    fn host(&mut self, field: Field<'_>) {
        let value = field.value();
        self.is_regular = true;
        if self.authority_len > 0 {
            self.is_malformed |= self.lines[b"host: ".len()..self.authority_len - 2] != *value;
            return;
        }
        if self.host || value.is_empty() || !is_authority(value, 0..value.len()) {
            self.refuse(Refusal::Host);
        }
        self.host = true;
        self.line(field.line);
    }

    /// Joins the cookie fields into one (RFC 9113, section 8.2.3).
    fn cookie(&mut self, field: Field<'_>) {
        self.is_regular = true;
        if self.cookies_end == 0 {
            self.line(field.line);
            self.cookies_end = self.lines_len.saturating_sub(2);
            return;
        }
        let value = field.value();
        let added = 2 + value.len();
        if self.lines_len + added > self.lines.len() {
            return self.refuse(Refusal::HeadTooLarge);
        }
        let end = self.cookies_end;
        self.lines.copy_within(end..self.lines_len, end + added);
        self.lines[end..end + 2].copy_from_slice(b"; ");
        self.lines[end + 2..end + added].copy_from_slice(value);
        self.lines_len += added;
        self.cookies_end += added;
    }

    /// The request of a complete block.
    #[inline]
    fn finish(self) -> Result<Head<'s>, NoHead> {
        const MALFORMED: NoHead = NoHead::Unfit(Unfit::Malformed);

        let (target, lines): (&'s [u8], &'s [u8]) = (self.target, self.lines);
        let is_connect = matches!(self.method, Some(Err(IsConnect(true))));
        let (Some(method), Some(scheme), Some(target_len)) = (
            self.method,
            self.scheme.or(is_connect.then_some(Ok(()))),
            self.target_len.or(is_connect.then_some(0)),
        ) else {
            return Err(MALFORMED);
        };
        if self.is_malformed || (target_len == 0 && !is_connect) {
            return Err(MALFORMED);
        }
        let refused = |refusal| {
            NoHead::Unfit(Unfit::Refused {
                refusal,
                head_only: matches!(method, Ok(Method::Head)),
            })
        };
        if let Some(refusal) = self.refusal {
            return Err(refused(refusal));
        }
        let method = method.map_err(|_| refused(Refusal::Method))?;
        scheme.map_err(refused)?;
        if self.authority_len == 0 && !self.host {
            return Err(refused(Refusal::HostMissing));
        }
        if self.expectation == Expectation::Unknown {
            return Err(refused(Refusal::Expectation));
        }
        let Some(target) = parse_target(&target[..target_len], method) else {
            return Err(refused(Refusal::Target));
        };
        Ok(Head {
            request: Request {
                method,
                target,
                fields: &lines[..self.lines_len],
                route: "",
            },
            content_length: self.content_length,
            content_coded: self.content_coded,
            expects_continue: self.expectation == Expectation::Continue,
            priority: self.priority,
        })
    }
}

/// `/path?query`, or `*` for OPTIONS (RFC 9113, section 8.3.1).
#[inline(always)]
pub(super) fn parse_target(target: &[u8], method: Method) -> Option<Target<'_>> {
    if target.first() != Some(&b'/') {
        return (target == b"*" && method == Method::Options).then_some(Target {
            path: target,
            query: None,
        });
    }
    let path_end = path_end(target, 0);
    if path_end == target.len() {
        return Some(Target {
            path: target,
            query: None,
        });
    }
    (target[path_end] == b'?' && target_end(target, path_end) == target.len()).then(|| Target {
        path: &target[..path_end],
        query: Some(&target[path_end + 1..]),
    })
}
