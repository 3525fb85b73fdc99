//! What an HTTP/2 server must answer, frame by frame.
//!
//! [`cases`] is a table of frames that a client sends behind its preface, and of those that must come back behind
//! the server's; each case names the section of RFC 9113 that demands it. Frames that come back are compared as
//! texts, one for each:
//!
//! | frame | text |
//! |---|---|
//! | HEADERS, with END_STREAM | `HEADERS 1 200`, `HEADERS 1 200 END` |
//! | DATA, with END_STREAM | `DATA 1 text`, `DATA 1 END text` |
//! | RST_STREAM | `RST_STREAM 1 PROTOCOL_ERROR` |
//! | GOAWAY: last stream, reason | `GOAWAY 1 NO_ERROR` |
//! | others | `SETTINGS ACK`, `PING ACK 12345678`, `WINDOW_UPDATE 0 100` |
//!
//! What stands in a field block beside the status is judged elsewhere, by another implementation.

use std::fmt::Write;

use crate::driver::Driver;

/// What a client sends first (RFC 9113, section 3.4), without its SETTINGS.
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Flags of frames.
pub mod flag {
    /// Of HEADERS and DATA.
    pub const END_STREAM: u8 = 1;
    /// Of SETTINGS and PING.
    pub const ACK: u8 = 1;
    /// Of HEADERS and CONTINUATION.
    pub const END_HEADERS: u8 = 4;
    /// Of HEADERS and DATA.
    pub const PADDED: u8 = 8;
    /// Of HEADERS.
    pub const PRIORITY: u8 = 32;
}

use flag::{ACK, END_HEADERS, END_STREAM, PADDED, PRIORITY};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// A frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A field block without anything that has to be remembered.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            let len = text.len();
            match len {
                0..127 => block.push(len as u8),
                // RFC 7541, section 5.1.
                _ => {
                    block.push(127);
                    let mut rest = len - 127;
                    while rest >= 128 {
                        block.push(0x80 | (rest & 127) as u8);
                        rest >>= 7;
                    }
                    block.push(rest as u8);
                }
            }
            block.extend(text.bytes());
        }
    }
    block
}

/// The fields of a request that is nothing special.
pub fn request<'a>(method: &'a str, path: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        (":method", method),
        (":scheme", "http"),
        (":path", path),
        (":authority", "a"),
    ]
}

/// A request without a body.
pub fn get(stream: u32, path: &str) -> Vec<u8> {
    headers(stream, END_STREAM, &request("GET", path))
}

/// HEADERS with these fields, and END_HEADERS.
pub fn headers(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, flags | END_HEADERS, stream, &block(fields))
}

/// DATA.
pub fn data(stream: u32, flags: u8, data: &[u8]) -> Vec<u8> {
    frame(DATA, flags, stream, data)
}

/// SETTINGS with these parameters.
pub fn settings(parameters: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (id, value) in parameters {
        payload.extend(id.to_be_bytes());
        payload.extend(value.to_be_bytes());
    }
    frame(SETTINGS, 0, 0, &payload)
}

/// WINDOW_UPDATE.
pub fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

/// RST_STREAM with CANCEL.
pub fn cancel(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())
}

/// Frames on one connection, and all that must come back.
#[derive(Debug, Clone)]
pub struct Case {
    /// What it is about.
    pub name: &'static str,
    /// The section that demands it; RFC 9113 unless another is named.
    pub section: &'static str,
    /// What the client sends behind its preface and its SETTINGS.
    pub frames: Vec<u8>,
    /// What the server sends behind its own and its acknowledgement.
    pub expected: Vec<String>,
}

impl Case {
    /// Sends the frames through `driver`, whole and in `pieces` of so many bytes each.
    ///
    /// # Errors
    ///
    /// If the answer differs, or the server cannot be reached.
    pub fn check(&self, driver: &mut impl Driver, pieces: &[usize]) -> Result<(), String> {
        let sent = [&PREFACE[..], &settings(&[]), &self.frames].concat();
        for piece in pieces {
            let segments: Vec<_> = sent.chunks(*piece).collect();
            let answer = driver
                .exchange(&segments)
                .map_err(|error| format!("{self}: {error}"))?;
            let texts = texts(&answer);
            if texts != self.expected {
                return Err(format!(
                    "{self}, in pieces of {piece} bytes\nexpected: {:#?}\nanswered: {texts:#?}",
                    self.expected
                ));
            }
        }
        Ok(())
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RFC 9113, {}: {}", self.section, self.name)
    }
}

/// The frames that a server sent, as texts, without its greeting and what it says to that of the client.
pub fn texts(mut bytes: &[u8]) -> Vec<String> {
    let mut texts = Vec::new();
    while let Some((header, rest)) = bytes.split_first_chunk::<9>() {
        let len = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
        let Some((payload, rest)) = rest.split_at_checked(len) else {
            break;
        };
        bytes = rest;
        texts.push(text(header[3], header[4], stream, payload));
    }
    if !bytes.is_empty() {
        texts.push(format!("cut: {}", bytes.escape_ascii()));
    }
    let greeting = ["SETTINGS", "WINDOW_UPDATE 0 983041", "SETTINGS ACK"];
    if texts.starts_with(&greeting.map(String::from)) {
        texts.drain(..greeting.len());
    }
    texts
}

fn text(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> String {
    let number = |at: usize| {
        let bytes = payload
            .get(at..at + 4)
            .and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(u32::MAX, u32::from_be_bytes)
    };
    let mut text = match kind {
        DATA => format!("DATA {stream}"),
        HEADERS => format!("HEADERS {stream} {}", status(payload)),
        RST_STREAM => format!("RST_STREAM {stream} {}", error(number(0))),
        SETTINGS if flags & ACK != 0 => "SETTINGS ACK".into(),
        SETTINGS => "SETTINGS".into(),
        PING => format!("PING ACK {}", payload.escape_ascii()),
        GOAWAY => format!("GOAWAY {} {}", number(0), error(number(4))),
        WINDOW_UPDATE => format!("WINDOW_UPDATE {stream} {}", number(0)),
        kind => format!("frame of type {kind}"),
    };
    if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
        text += " END";
    }
    if kind == DATA {
        match payload.len() {
            0..=100 => drop(write!(text, " {}", payload.escape_ascii())),
            len => drop(write!(text, " ({len} bytes)")),
        }
    }
    text
}

/// The status that a field block begins with, behind a change of the table's size.
fn status(block: &[u8]) -> String {
    const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];

    match block.strip_prefix(&[0x20]).unwrap_or(block) {
        [index @ 0x88..=0x8e, ..] => INDEXED[usize::from(index - 0x88)].to_string(),
        [8, 3, digits @ ..] if digits.len() >= 3 => digits[..3].escape_ascii().to_string(),
        _ => "without a status".into(),
    }
}

fn error(code: u32) -> &'static str {
    const NAMES: [&str; 14] = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
    NAMES.get(code as usize).unwrap_or(&"an unknown error")
}

#[rustfmt::skip]
mod table;

pub use table::cases;
