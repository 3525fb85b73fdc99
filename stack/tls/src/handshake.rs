//! The handshake, by rustls, up to the moment when both sides have their keys.
//!
//! rustls is given one record at a time, so that when it is done nothing of what follows has gone through it: the
//! secrets that it then hands over begin with the next byte. Its unbuffered interface and the extraction of secrets
//! are used nowhere else; other versions of rustls may lack them.

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

/// Records of a message that is not whole yet. rustls takes no message longer than 64 KiB, but each record of it has a
/// header.
const WAITING_BYTES_MAX: usize = 128 * 1024;
/// Longest record without its header before keys are known (RFC 5246, section 6.2.3); rustls refuses a longer one by
/// its header.
const BODY_BYTES_MAX: usize = CONTENT_BYTES_MAX + 2048;

/// A side of a connection, as the data that rustls has for it: what it does differently from the other one.
pub trait Side: Sized {
    /// The connection while it shakes hands.
    type Rustls: DerefMut<Target = UnbufferedConnectionCommon<Self>>;
    /// It speaks first.
    const CALLS: bool;

    /// Works on what has arrived.
    fn process<'c, 'i>(
        rustls: &'c mut Self::Rustls,
        records: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self>;

    /// Hands over the keys.
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

/// One connection that shakes hands.
pub struct Handshake<D: Side> {
    rustls: D::Rustls,
    /// Whole records that rustls still needs, and behind `whole` the beginning of the next one.
    waiting: Vec<u8>,
    whole: usize,
    /// What was written and not sent, from `sent` on.
    written: Vec<u8>,
    sent: usize,
    /// Why it cannot be completed.
    failure: Option<Error>,
    _place: Option<Place>,
}

/// What has to happen next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// More bytes from the peer are needed.
    Receive,
    /// There is more to send than fitted.
    Send,
    /// It is complete, and all of it was written.
    Complete,
    /// It has failed, and the alert that says so was written.
    Failed(Error),
}

/// What a complete handshake leaves.
pub struct Keys<D> {
    /// The secrets of both directions.
    pub secrets: ExtractedSecrets,
    /// Where the next secrets come from.
    pub connection: KernelConnection<D>,
    /// What was agreed on for the protocol above.
    pub alpn: Option<Vec<u8>>,
    /// Whether a ticket was used.
    pub is_resumed: bool,
}

impl<D: Side> Handshake<D> {
    /// A connection of which nothing has arrived, at its place among those that shake hands if these are counted.
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

    /// Goes on with `input`, writing to `reply`. Returns how much of the input was consumed.
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

    /// The secrets, once it is complete.
    ///
    /// # Errors
    ///
    /// If rustls has none to give.
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

    /// Moves what was written to `reply`; false if not all of it fits.
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

    /// Takes what there is of one record. Returns how many bytes that were, and whether the record is whole.
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

    /// Lets rustls work on the whole records until it needs another one.
    fn process(&mut self) -> Result<(), Error> {
        if self.waiting.len() > WAITING_BYTES_MAX {
            return Err(Error::PeerSentOversizedRecord);
        }
        while !self.process_once()? {}
        Ok(())
    }

    /// Lets rustls work until it has written something, or is blocked: then it is true.
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
            // No early data is asked for, and nothing else can come before the end of the handshake.
            Ok(_) => Err(Error::HandshakeNotComplete),
            Err(error) => Err(error),
        };
        // Also after an error: rustls counts on it.
        self.waiting.drain(..discard);
        self.whole = self.waiting.len();
        is_blocked
    }

    /// Remembers the error, and writes the alert that rustls has for it.
    fn fail(&mut self, error: Error) {
        self.failure = Some(error);
        // What it has to say comes first; after that it would look at the same records again.
        while self.rustls.wants_write() && self.process_once().is_ok() {}
    }
}

/// How many bytes a record lacks that has begun with `record`: of its header first, then of its body. What cannot be a
/// record lacks nothing, and is refused by rustls.
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

/// How many connections of a core shake hands, and how many may.
#[derive(Debug, Clone)]
pub struct Places {
    taken: Rc<Cell<u32>>,
    max: u32,
}

/// A place among them, given back when it is dropped.
#[derive(Debug)]
pub struct Place(Rc<Cell<u32>>);

impl Places {
    /// So many at once.
    pub fn new(max: u32) -> Self {
        Places {
            taken: Rc::default(),
            max,
        }
    }

    /// Takes a place if one is left.
    pub fn take(&self) -> Option<Place> {
        if self.taken.get() >= self.max {
            return None;
        }
        self.taken.set(self.taken.get() + 1);
        Some(Place(Rc::clone(&self.taken)))
    }

    /// How many are taken.
    pub fn taken(&self) -> u32 {
        self.taken.get()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
