//! Events as they are on the wire.

use std::io::Write;

/// How a body is delimited.
#[derive(Debug, Clone, Copy)]
pub enum Framing {
    Length,
    Chunked { chunk_bytes: usize },
}

impl Framing {
    pub fn frame(self, body: &str) -> Vec<u8> {
        let mut request = b"POST /event HTTP/1.1\r\nHost: test\r\n".to_vec();
        match self {
            Framing::Length => {
                write!(request, "Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
            }
            Framing::Chunked { chunk_bytes } => {
                write!(request, "Transfer-Encoding: chunked\r\n\r\n").unwrap();
                for chunk in body.as_bytes().chunks(chunk_bytes) {
                    write!(request, "{:x}\r\n", chunk.len()).unwrap();
                    request.extend_from_slice(chunk);
                    request.extend_from_slice(b"\r\n");
                }
                request.extend_from_slice(b"0\r\n\r\n");
            }
        }
        request
    }
}

/// The body of an event.
pub fn event(user: &str, value: f64) -> String {
    format!(r#"{{"userId":"{user}","value":{value:?}}}"#)
}
