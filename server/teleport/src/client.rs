//! A blocking client over any stream, for programs that call an origin themselves.

use std::io::{self, Read, Write};
use std::sync::Arc;

use crate::calls::CallId;
use crate::endpoint::{Endpoint, Event, Side};
use crate::fault::{Fault, Reason};
use crate::limits::Limits;
use crate::secrets::{Secrets, head_end};

/// Why a client cannot go on. The connection is of no further use.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The stream failed, or ended before all responses had arrived.
    #[error("the connection to the origin failed")]
    Io(#[from] io::Error),
    /// The other end broke the protocol.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// A request without the empty line that ends its head.
    #[error("a request has no end of its head")]
    Request,
}

/// A response, or why there is none.
pub type Outcome = Result<Vec<u8>, Reason>;

/// The calling end of a connection. It blocks.
#[derive(Debug)]
pub struct Client<T> {
    stream: T,
    endpoint: Endpoint,
    secrets: Secrets,
    space: Box<[u8]>,
}

/// A request on its way, and what has arrived of its response.
struct Asked {
    request: Vec<u8>,
    sent: usize,
    /// Where its secret lines begin, and its head ends.
    secret_from: usize,
    head_end: usize,
    id: Option<CallId>,
    response: Vec<u8>,
    outcome: Option<Result<(), Reason>>,
}

impl<T: Read + Write> Client<T> {
    /// A client on `stream`, which is connected. Nothing is sent before the first requests.
    pub fn new(stream: T, limits: Limits) -> Self {
        Client {
            stream,
            endpoint: Endpoint::new(Side::Client, limits, Arc::default()),
            secrets: Secrets::default(),
            space: vec![0; 64 * 1024].into(),
        }
    }

    /// Sends `requests`, each a message of HTTP/1.1, together, and waits for all of the responses. They are returned in
    /// the order of the requests, each a message of HTTP/1.1 as well.
    ///
    /// # Errors
    ///
    /// If the connection fails, or the other end breaks the protocol. What became of the requests is not known then.
    pub fn ask(&mut self, requests: &[&[u8]]) -> Result<Vec<Outcome>, ClientError> {
        let asked = requests.iter().map(|request| self.prepare(request));
        let mut asked = asked.collect::<Result<Vec<_>, _>>()?;
        loop {
            self.send(&mut asked)?;
            if asked.iter().all(|each| each.outcome.is_some()) {
                break;
            }
            self.receive(&mut asked)?;
        }
        let outcome = |each: Asked| match each.outcome {
            Some(Err(reason)) => Err(reason),
            Some(Ok(())) | None => Ok(each.response),
        };
        Ok(asked.into_iter().map(outcome).collect())
    }

    fn prepare(&mut self, request: &[u8]) -> Result<Asked, ClientError> {
        let mut request = request.to_vec();
        let head_end = head_end(&request).ok_or(ClientError::Request)?;
        let secret_from = self.secrets.move_back(&mut request[..head_end]);
        Ok(Asked {
            request,
            sent: 0,
            secret_from,
            head_end,
            id: None,
            response: Vec::new(),
            outcome: None,
        })
    }

    /// Sends as much as the other end takes.
    fn send(&mut self, asked: &mut [Asked]) -> Result<(), ClientError> {
        loop {
            for each in &mut *asked {
                each.send(&mut self.endpoint);
            }
            let len = self.endpoint.write(&mut self.space)?;
            if len == 0 {
                return Ok(());
            }
            self.stream.write_all(&self.space[..len])?;
        }
    }

    fn receive(&mut self, asked: &mut [Asked]) -> Result<(), ClientError> {
        let count = self.stream.read(&mut self.space)?;
        if count == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let mut bytes = &self.space[..count];
        while !bytes.is_empty() {
            let taken = self.endpoint.receive(bytes)?;
            bytes = &bytes[taken..];
            while let Some(event) = self.endpoint.next_event()? {
                let (id, outcome) = match event {
                    Event::Data {
                        call,
                        bytes,
                        is_last,
                    } => {
                        let count = bytes.len();
                        if let Some(each) = asked.iter_mut().find(|each| each.id == Some(call)) {
                            each.response.extend_from_slice(bytes);
                        }
                        self.endpoint.grant(call, count);
                        (call, is_last.then_some(Ok(())))
                    }
                    Event::Reset(call, reason) => (call, Some(Err(reason))),
                    Event::GoAway(last_call) => {
                        for each in &mut *asked {
                            if each.id.is_none_or(|id| id.number > last_call) {
                                each.outcome = Some(Err(Reason::Refused));
                            }
                        }
                        continue;
                    }
                    Event::Ready | Event::Credit(_) | Event::Pong => continue,
                };
                if let Some(each) = asked.iter_mut().find(|each| each.id == Some(id)) {
                    // A response that is complete stays so.
                    each.outcome = each.outcome.or(outcome);
                }
            }
        }
        Ok(())
    }
}

impl Asked {
    fn send(&mut self, endpoint: &mut Endpoint) {
        while self.outcome.is_none() && self.sent < self.request.len() {
            let (is_secret, end) = match self.sent {
                at if at < self.secret_from => (false, self.secret_from),
                at if at < self.head_end => (true, self.head_end),
                _ => (false, self.request.len()),
            };
            let bytes = &self.request[self.sent..end];
            let ends = end == self.request.len();
            let count = match self.id {
                Some(id) => endpoint.send(id, bytes, is_secret, ends),
                None => endpoint.open_call(bytes, ends).map(|(id, count)| {
                    self.id = Some(id);
                    count
                }),
            };
            match count {
                Some(count) => self.sent += count,
                None => return,
            }
        }
    }
}
