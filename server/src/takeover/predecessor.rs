//! The end of the server that is taken over from.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::stack::HandOver;
use super::wire::{Kind, Line};
use super::{Estate, PROTOCOL};
use crate::events::users::UserHash;
use crate::events::{Events, Heir, Refusal, Reset, Stats};
use crate::fleet::FleetHandle;

/// How long a successor may take to start.
const START_MAX: Duration = Duration::from_secs(120);
/// How long the publisher of a fleet may take to pause: an engine that does not answer keeps it that long.
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// How long all cores may take to stop.
const FREEZE_MAX: Duration = Duration::from_secs(2);
/// How long the successor may take for a message, while nobody serves.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long it may take for an event, while a client waits.
const EVENT_MAX: Duration = Duration::from_secs(2);

/// What a server lets go of, beside its connections and counts.
pub trait Leaving: Send + Sync {
    /// Whether it serves and nothing keeps it from ending, or what does.
    ///
    /// # Errors
    ///
    /// The reason, for the successor's operator.
    fn may_leave(&self) -> Result<(), String>;

    /// The control socket, the admin listener and the locked file of the counts, as far as there are such.
    fn endpoints(&self) -> io::Result<Vec<OwnedFd>>;

    /// The keys of TLS tickets, if there are some.
    fn ticket_keys(&self) -> Zeroizing<Vec<u8>>;

    /// Another process has all of it: nothing of it is used from here on.
    fn leave(&self);
}

/// A server that can be taken over from.
pub struct Predecessor {
    hand_over: HandOver,
    events: Arc<Events>,
    fleet: Option<FleetHandle>,
    estate: Estate,
    household: Box<dyn Leaving>,
    is_busy: AtomicBool,
}

/// The conversation with a successor.
pub type Inheritance = Box<dyn FnOnce(UnixStream) + Send>;

impl Predecessor {
    /// One whose stack has this end of a hand-over, and that has all this.
    pub fn new(
        hand_over: HandOver,
        events: Arc<Events>,
        fleet: Option<FleetHandle>,
        estate: Estate,
        household: Box<dyn Leaving>,
    ) -> Self {
        Predecessor {
            hand_over,
            events,
            fleet,
            estate,
            household,
            is_busy: AtomicBool::new(false),
        }
    }

    /// What there is to take over for a successor that speaks `protocol`, and what goes on behind the answer.
    ///
    /// # Errors
    ///
    /// Why it cannot take over.
    pub fn offer(self: &Arc<Self>, protocol: u32) -> Result<(Estate, Inheritance), String> {
        if protocol != PROTOCOL {
            return Err(format!(
                "it speaks version {PROTOCOL} of the hand-over, and not {protocol}: stop it, and start the other release \
                 without --take-over"
            ));
        }
        self.household.may_leave()?;
        if self.is_busy.swap(true, Ordering::AcqRel) {
            return Err("another successor is taking over already".into());
        }
        let this = Arc::clone(self);
        let inheritance: Inheritance = Box::new(move |stream| match this.converse(stream) {
            Ok(()) => {}
            Err(error) => {
                this.hand_over.stay();
                this.is_busy.store(false, Ordering::Release);
                tracing::warn!("a successor did not take over, so this server serves on: {error}");
            }
        });
        Ok((self.estate.clone(), inheritance))
    }

    fn converse(&self, stream: UnixStream) -> io::Result<()> {
        let mut line = Line::new(stream);
        line.set_timeout(Some(START_MAX))?;
        line.expect(Kind::Begin).map_err(gone)?;
        self.hand_over.send_in_advance(&mut line)?;
        let endpoints = self.household.endpoints()?;
        let endpoints: Vec<_> = endpoints.iter().map(OwnedFd::as_fd).collect();
        line.send(Kind::Endpoints, &[], &endpoints)?;
        let mut bytes = Vec::new();
        self.events.users_so_far().write_to(&mut bytes)?;
        line.send(Kind::Users, &bytes, &[])?;
        line.send(Kind::TicketKeys, &self.household.ticket_keys(), &[])?;
        line.expect(Kind::Prepared).map_err(gone)?;
        self.hand_over
            .leave(Duration::from_millis(self.estate.drain_ms));

        let pause = |fleet: &FleetHandle| {
            fleet
                .pause(PAUSE_MAX)
                .ok_or_else(|| io::Error::other("the engine keeps the publisher of the counts"))
        };
        let paused = self.fleet.as_ref().map(pause).transpose()?;
        line.set_timeout(Some(ANSWER_MAX))?;
        let carriage = Arc::new(Carriage(Mutex::new(line)));
        let began = Instant::now();
        let frozen = self.hand_over.freeze(&carriage, FREEZE_MAX)?;
        let state = self.events.save();
        let mut state = state.ok_or_else(|| io::Error::other("a core goes on counting"))?;
        state.membership = paused.as_ref().map(|paused| paused.membership.clone());
        bytes.clear();
        state.write_to(&mut bytes)?;
        {
            let mut line = carriage.lock();
            line.send(Kind::Counts, &bytes, &[])?;
            line.expect(Kind::Taken).map_err(gone)?;
            line.send(Kind::Yours, &[], &[])?;
            // Fails for no open socket.
            let _ = line.set_timeout(Some(EVENT_MAX));
        }
        // From here on the successor serves, come what may.
        self.events.hand_over(Box::new(Arc::clone(&carriage)));
        let connections = frozen.connections();
        let took_ms = began.elapsed().as_secs_f64() * 1e3;
        // Both before the cores may end, and with them the process.
        tracing::info!("handed over, with {connections} connections, within {took_ms:.1} ms");
        self.household.leave();
        frozen.hand_over();
        if let Some(paused) = paused {
            paused.end();
        }
        Ok(())
    }
}

/// A successor that ends says why itself.
fn gone(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::UnexpectedEof => io::Error::other("it has given up"),
        ErrorKind::WouldBlock => io::Error::other("it does not answer"),
        _ => error,
    }
}

/// The line to the successor, for all cores.
#[derive(Debug)]
pub(super) struct Carriage(Mutex<Line>);

impl Carriage {
    pub(super) fn lock(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, kind: Kind, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut line = self.lock();
        line.send(kind, bytes, &[]).ok()?;
        let answer = line.expect(Kind::Answer).ok()?;
        Some(answer.bytes)
    }
}

impl Heir for Arc<Carriage> {
    fn count(&self, user: UserHash, value: f64) -> Result<(), Refusal> {
        let mut bytes = [0; 24];
        bytes[..16].copy_from_slice(&user.to_bytes());
        bytes[16..].copy_from_slice(&value.to_le_bytes());
        match self.ask(Kind::Event, &bytes).as_deref() {
            Some([0]) => Ok(()),
            Some([1]) => Err(Refusal::UsersFull),
            _ => Err(Refusal::HandedOver),
        }
    }

    fn stats(&self) -> Option<Stats> {
        let answer = self.ask(Kind::Stats, &[])?;
        serde_json::from_slice(&answer).ok()
    }

    fn reset(&self) -> Option<Reset> {
        let resets = [Reset::Done, Reset::OfFleet, Reset::NotAllowed];
        let answer = self.ask(Kind::Reset, &[])?;
        resets.into_iter().find(|&reset| answer == [reset as u8])
    }
}
