//! The handshake, by rustls, up to the moment when both sides have their keys.
//!
//! rustls gets one record at a time. When it is done it has seen nothing of what follows, so the secrets that it hands
//! over apply from the next byte on. No other module uses its unbuffered interface and its extraction of secrets, which
//! other versions of rustls may lack.

use std::cell::Cell;
use std::ops::DerefMut;
use std::rc::Rc;

use barewire_service::service::Reply;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::kernel::KernelConnection;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, UnbufferedConnectionCommon, UnbufferedStatus,
};
use rustls::{AlertDescription, Error, ExtractedSecrets, HandshakeKind};

use crate::record::{CONTENT_BYTES_MAX, HEADER_BYTES};

/// Most bytes of records that wait for the rest of a message. rustls refuses messages longer than 64 KiB; the headers
/// of their records come on top.
const WAITING_BYTES_MAX: usize = 128 * 1024;
/// Longest record before keys are known, in bytes without its header (RFC 5246, section 6.2.3); rustls refuses a longer
/// one when it sees the header.
const BODY_BYTES_MAX: usize = CONTENT_BYTES_MAX + 2048;

/// A side of a connection, named by the type that rustls keeps its data in: what differs between client and server.
pub trait Side: Sized {
    /// The connection while it shakes hands.
    type Rustls: DerefMut<Target = UnbufferedConnectionCommon<Self>>;
    /// Whether this side is the client, which sends first.
    const CALLS: bool;

    /// Processes received records.
    fn process<'c, 'i>(
        rustls: &'c mut Self::Rustls,
        records: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self>;

    /// Gives up the keys.
    ///
    /// # Errors
    ///
    /// If the handshake is not complete, or secrets may not be extracted.
    fn into_kernel(
        rustls: Self::Rustls,
    ) -> Result<(ExtractedSecrets, KernelConnection<Self>), Error>;
}

impl Side for ServerConnectionData {
    type Rustls = UnbufferedServerConnection;
    const CALLS: bool = false;

    fn process<'c, 'i>(
        rustls: &'c mut Self::Rustls,
        records: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self> {
        rustls.process_tls_records(records)
    }

    fn into_kernel(
        rustls: Self::Rustls,
    ) -> Result<(ExtractedSecrets, KernelConnection<Self>), Error> {
        rustls.dangerous_into_kernel_connection()
    }
}

impl Side for ClientConnectionData {
    type Rustls = UnbufferedClientConnection;
    const CALLS: bool = true;

    fn process<'c, 'i>(
        rustls: &'c mut Self::Rustls,
        records: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self> {
        rustls.process_tls_records(records)
    }

    fn into_kernel(
        rustls: Self::Rustls,
    ) -> Result<(ExtractedSecrets, KernelConnection<Self>), Error> {
        rustls.dangerous_into_kernel_connection()
    }
}

/// A handshake in progress.
pub struct Handshake<D: Side> {
    rustls: D::Rustls,
    /// Whole records that rustls still needs, and from `whole` on the beginning of the next one.
    waiting: Vec<u8>,
    whole: usize,
    /// What rustls has written; what is from `sent` on has not been sent.
    written: Vec<u8>,
    sent: usize,
    /// Why the handshake has failed.
    failure: Option<Error>,
    _place: Option<Place>,
}

/// What a handshake needs next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// More bytes from the peer.
    Receive,
    /// More room to write.
    Send,
    /// Nothing: it is complete, and everything has been written.
    Complete,
    /// Nothing: it has failed, and the alert has been written.
    Failed(Error),
}

/// The results of a complete handshake.
pub struct Keys<D> {
    /// The secrets of both directions.
    pub secrets: ExtractedSecrets,
    /// Derives the secrets that replace these (KeyUpdate).
    pub connection: KernelConnection<D>,
    /// The protocol that ALPN has chosen.
    pub alpn: Option<Vec<u8>>,
    /// Whether it resumed an earlier session.
    pub is_resumed: bool,
}

impl<D: Side> Handshake<D> {
    /// A handshake of which nothing has arrived. It holds `place` until it is dropped.
    pub fn new(rustls: D::Rustls, place: Option<Place>) -> Self {
        let mut handshake = Handshake {
            rustls,
            waiting: Vec::new(),
            whole: 0,
            written: Vec::new(),
            sent: 0,
            failure: None,
            _place: place,
        };
        if D::CALLS
            && let Err(error) = handshake.process()
        {
            handshake.fail(error);
        }
        handshake
    }

    /// Processes `input` and writes to `reply`. Returns how many bytes of the input it consumed.
    pub fn advance(&mut self, input: &[u8], reply: &mut Reply<'_>) -> (usize, Step) {
        let mut consumed = 0;
        loop {
            if !self.send(reply) {
                return (consumed, Step::Send);
            }
            if let Some(error) = &self.failure {
                return (consumed, Step::Failed(error.clone()));
            }
            if !self.rustls.is_handshaking() {
                return (consumed, Step::Complete);
            }
            let (taken, is_whole) = self.take_record(&input[consumed..]);
            consumed += taken;
            if !is_whole {
                return (consumed, Step::Receive);
            }
            if let Err(error) = self.process() {
                self.fail(error);
            }
        }
    }

    /// The results of a handshake that is complete.
    ///
    /// # Errors
    ///
    /// See [`Side::into_kernel`].
    pub fn into_keys(self) -> Result<Keys<D>, Error> {
        let alpn = self.rustls.alpn_protocol().map(<[u8]>::to_vec);
        let is_resumed = self.rustls.handshake_kind() == Some(HandshakeKind::Resumed);
        let (secrets, connection) = D::into_kernel(self.rustls)?;
        Ok(Keys {
            secrets,
            connection,
            alpn,
            is_resumed,
        })
    }

    /// Copies what rustls has written to `reply`; false if not all of it fits.
    fn send(&mut self, reply: &mut Reply<'_>) -> bool {
        let left = &self.written[self.sent..];
        let (fits, rest) = left.split_at(left.len().min(reply.remaining()));
        let put = reply.put(fits);
        debug_assert!(put, "it was cut to fit");
        self.sent += fits.len();
        if !rest.is_empty() {
            return false;
        }
        self.written.clear();
        self.sent = 0;
        true
    }

    /// Copies input up to the end of a record. Returns how many bytes it took, and whether the record is whole.
    fn take_record(&mut self, input: &[u8]) -> (usize, bool) {
        let mut taken = 0;
        loop {
            let missing = missing_bytes(&self.waiting[self.whole..]);
            if missing == 0 {
                return (taken, true);
            }
            let rest = &input[taken..];
            if rest.is_empty() {
                return (taken, false);
            }
            let part = &rest[..missing.min(rest.len())];
            self.waiting.extend_from_slice(part);
            taken += part.len();
        }
    }

    /// Lets rustls process the whole records until it needs another one.
    fn process(&mut self) -> Result<(), Error> {
        if self.waiting.len() > WAITING_BYTES_MAX {
            return Err(Error::PeerSentOversizedRecord);
        }
        while !self.process_once()? {}
        Ok(())
    }

    /// Lets rustls take one step; true if it needs more input.
    fn process_once(&mut self) -> Result<bool, Error> {
        let UnbufferedStatus { discard, state, .. } =
            D::process(&mut self.rustls, &mut self.waiting);
        let is_blocked = match state {
            Ok(ConnectionState::EncodeTlsData(mut encode)) => {
                let at = self.written.len();
                let missing = match encode.encode(&mut []) {
                    Err(EncodeError::InsufficientSize(missing)) => missing.required_size,
                    _ => 0,
                };
                self.written.resize(at + missing, 0);
                let _ = encode.encode(&mut self.written[at..]);
                Ok(false)
            }
            Ok(ConnectionState::TransmitTlsData(transmit)) => {
                transmit.done();
                Ok(false)
            }
            Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => Ok(true),
            Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                Err(Error::AlertReceived(AlertDescription::CloseNotify))
            }
            // Early data is off, and no other state comes before the end of the handshake.
            Ok(_) => Err(Error::HandshakeNotComplete),
            Err(error) => Err(error),
        };
        // Also after an error (documentation of `UnbufferedStatus`).
        self.waiting.drain(..discard);
        self.whole = self.waiting.len();
        is_blocked
    }

    /// Keeps the error, and writes the alert that rustls has for it.
    fn fail(&mut self, error: Error) {
        self.failure = Some(error);
        // Output comes before input: a further step would process the same records again.
        while self.rustls.wants_write() && self.process_once().is_ok() {}
    }
}

/// How many bytes are missing from a record that begins with `record`: first of its header, then of its body. Zero for
/// what cannot be a record; rustls refuses that.
fn missing_bytes(record: &[u8]) -> usize {
    let whole = match *record {
        [20..=23, _, _, high, low, ..] => {
            let body = usize::from(u16::from_be_bytes([high, low]));
            if body > BODY_BYTES_MAX {
                return 0;
            }
            HEADER_BYTES + body
        }
        _ => HEADER_BYTES,
    };
    whole.saturating_sub(record.len())
}

/// Counts the handshakes of a core that are in progress, and limits them.
#[derive(Debug, Clone)]
pub struct Places {
    taken: Rc<Cell<u32>>,
    max: u32,
}

/// One of them; dropping it gives the place back.
#[derive(Debug)]
pub struct Place(Rc<Cell<u32>>);

impl Places {
    /// At most `max` at once.
    pub fn new(max: u32) -> Self {
        Places {
            taken: Rc::default(),
            max,
        }
    }

    /// Takes a place; `None` if all are taken.
    pub fn take(&self) -> Option<Place> {
        if self.taken.get() >= self.max {
            return None;
        }
        self.taken.set(self.taken.get() + 1);
        Some(Place(Rc::clone(&self.taken)))
    }

    /// How many places are taken.
    pub fn taken(&self) -> u32 {
        self.taken.get()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
