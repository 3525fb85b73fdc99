//! The end of the server that takes over.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use thiserror::Error;
use zeroize::Zeroizing;

use super::stack::HandOver;
use super::wire::{Kind, Line, Message};
use super::{Estate, PROTOCOL};
use crate::events::state::State;
use crate::events::users::UserHash;
use crate::events::{EventShard, Events, EventsError};
use crate::fleet::FleetHandle;
use crate::operate::control::AskError;
use crate::operate::locate::{self, LocateError};
use crate::site;

/// How long the predecessor may take to stop its cores, once it was asked to.
const COUNTS_MAX: Duration = Duration::from_secs(30);
/// How long it may take for a message otherwise.
const MESSAGE_MAX: Duration = Duration::from_secs(10);

/// Why a server cannot be taken over from. It serves on.
#[derive(Debug, Error)]
pub enum TakeOverError {
    /// There is none.
    #[error("nothing to take over from: {0}")]
    Nobody(#[from] LocateError),
    /// It is of a release that does not hand over, or does not want to.
    #[error("{path} does not hand over: {reason}", path = path.display())]
    Refused {
        /// Its control socket.
        path: PathBuf,
        /// Its words.
        reason: String,
    },
    /// It serves something else.
    #[error("the server at {path} has {what} {its}, and this one would have {ours}: take over with the same, or stop it first", path = path.display())]
    Differs {
        /// Its control socket.
        path: PathBuf,
        /// What is different.
        what: &'static str,
        /// There.
        its: String,
        /// Here.
        ours: String,
    },
    /// The conversation broke.
    #[error("the server at {path} did not hand over: {source}; its log says why", path = path.display())]
    Broken {
        /// Its control socket.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// Its counts cannot be gone on with.
    #[error(transparent)]
    Counts(#[from] EventsError),
}

/// The part of an interface that a successor would have.
#[derive(Debug)]
pub struct Bypass {
    /// Its name.
    pub interface: String,
    /// The queues of each core.
    pub queues: Vec<Vec<u32>>,
    /// Whether the program has to run in the driver, or must not; `None` leaves it where it is.
    pub is_native: Option<bool>,
}

/// What a successor would serve.
#[derive(Debug)]
pub struct Endowment {
    /// Its stack.
    pub stack: &'static str,
    /// Where it would serve; port 0 stands for any.
    pub addresses: Vec<SocketAddr>,
    /// The CPUs of its cores.
    pub cpus: Vec<usize>,
    /// Connections of each core.
    pub connections: usize,
    /// Its part of an interface, if it has one.
    pub bypass: Option<Bypass>,
    /// Whether it keeps its counts in a file.
    pub keeps_state: bool,
    /// Whether it counts with others.
    pub has_fleet: bool,
}

/// A server that is about to take over.
#[derive(Debug)]
pub struct Successor {
    line: Line,
    path: PathBuf,
    /// What the predecessor has.
    pub estate: Estate,
    /// Its listeners, or its interface.
    hand_over: Option<HandOver>,
    /// Its control socket.
    pub control: Option<UnixListener>,
    /// Its admin listener.
    pub admin: Option<OwnedFd>,
    /// The file of its counts, locked.
    pub state: Option<File>,
    /// The users that it has counted up to now.
    users: Option<State>,
    /// Its keys of TLS tickets.
    pub ticket_keys: Zeroizing<Vec<u8>>,
}

/// What a successor begins with.
pub struct Begun {
    /// The counts.
    pub state: State,
    /// Connections of the cores, for their stack.
    pub connections: Vec<Message>,
}

impl Successor {
    /// Asks the server at `path`, or the only one there is, and takes what it gives in advance.
    ///
    /// # Errors
    ///
    /// If there is none, or it cannot be taken over from with `endowment`.
    pub fn meet(path: Option<&Path>, endowment: &Endowment) -> Result<Self, TakeOverError> {
        let port = endowment.addresses.first().map(SocketAddr::port);
        let (path, connection) = locate::connect(path, port.filter(|&port| port != 0))?;
        let (estate, stream) = match connection.take_over(PROTOCOL) {
            Ok(answer) => answer,
            Err(AskError::Refused { path, reason }) => {
                // What serde says of a request that an older release does not know.
                let reason = match reason.contains("unknown variant") {
                    true => {
                        "its release cannot; stop it, and start this one without --take-over".into()
                    }
                    false => reason,
                };
                return Err(TakeOverError::Refused { path, reason });
            }
            Err(error) => return Err(LocateError::Ask(error).into()),
        };
        compare(&path, &estate, endowment)?;
        let mut successor = Successor {
            line: Line::new(stream),
            path,
            hand_over: None,
            control: None,
            admin: None,
            state: None,
            users: None,
            ticket_keys: Zeroizing::default(),
            estate,
        };
        match successor.take_in_advance() {
            Ok(()) => Ok(successor),
            Err(source) => Err(successor.broken(source)),
        }
    }

    fn take_in_advance(&mut self) -> io::Result<()> {
        self.line.set_timeout(Some(MESSAGE_MAX))?;
        self.line.send(Kind::Begin, &[], &[])?;
        self.hand_over = Some(match &self.estate.bypass {
            None => HandOver::inherit_listeners(&mut self.line, self.estate.addresses.len())?,
            #[cfg(feature = "xdp")]
            Some(bypass) => HandOver::inherit_interface(&mut self.line, bypass.is_native)?,
            #[cfg(not(feature = "xdp"))]
            Some(_) => return Err(ErrorKind::Unsupported.into()),
        });
        let endpoints = self.line.expect(Kind::Endpoints)?.descriptors;
        let mut endpoints = endpoints.into_iter();
        self.control = endpoints.next().map(UnixListener::from);
        self.admin = self.estate.admin.and_then(|_| endpoints.next());
        self.state = endpoints.next().map(File::from);
        let users = self.line.expect(Kind::Users)?;
        let users = State::read(&users.bytes);
        self.ticket_keys = self.line.expect(Kind::TicketKeys)?.bytes.into();
        self.users = Some(users.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?);
        Ok(())
    }

    /// Where it was found.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its listeners or its interface, for a stack to start with; once.
    pub fn hand_over(&mut self) -> Option<HandOver> {
        self.hand_over.take()
    }

    /// The users so far, to begin with.
    pub fn users(&mut self) -> Option<State> {
        self.users.take()
    }

    /// Everything here has started: lets the predecessor stop, and goes on with its counts in `events`. It serves on if
    /// this fails.
    ///
    /// # Errors
    ///
    /// If it does not hand over, or its counts cannot be gone on with.
    pub fn take(&mut self, events: &Events) -> Result<Begun, TakeOverError> {
        let (connections, state) = match self.receive() {
            Ok(received) => received,
            Err(source) => return Err(self.broken(source)),
        };
        events.replace(&state)?;
        let is_ours = self
            .line
            .set_timeout(Some(MESSAGE_MAX))
            .and_then(|()| self.line.send(Kind::Taken, &[], &[]))
            .and_then(|()| self.line.expect(Kind::Yours));
        match is_ours {
            Ok(_) => Ok(Begun { state, connections }),
            Err(source) => Err(self.broken(source)),
        }
    }

    fn receive(&mut self) -> io::Result<(Vec<Message>, State)> {
        let drains = Duration::from_millis(self.estate.drain_ms);
        self.line.set_timeout(Some(COUNTS_MAX + drains))?;
        self.line.send(Kind::Prepared, &[], &[])?;
        let mut connections = Vec::new();
        loop {
            let message = self.line.receive()?;
            match message.kind {
                Kind::Connections => connections.push(message),
                Kind::Counts => {
                    let state = State::read(&message.bytes);
                    let state =
                        state.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
                    return Ok((connections, state));
                }
                _ => return Err(ErrorKind::InvalidData.into()),
            }
        }
    }

    /// Serves the predecessor until it has ended: its connections that are idle by now go to `hand_over`, events of the
    /// others to `shard`. Returns what says whether it has ended.
    ///
    /// # Errors
    ///
    /// If the process is out of threads.
    pub fn follow(
        mut self,
        hand_over: HandOver,
        mut shard: EventShard,
        fleet: Option<FleetHandle>,
    ) -> io::Result<Arc<AtomicBool>> {
        self.line.set_timeout(None)?;
        let has_ended = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&has_ended);
        let run = move || {
            let pid = self.estate.pid;
            while let Ok(message) = self.line.receive() {
                if self
                    .answer(message, &hand_over, &mut shard, fleet.as_ref())
                    .is_err()
                {
                    break;
                }
            }
            tracing::info!("the predecessor, process {pid}, has ended");
            ended.store(true, Ordering::Release);
        };
        thread::Builder::new()
            .name("predecessor".into())
            .spawn(run)?;
        Ok(has_ended)
    }

    fn answer(
        &mut self,
        message: Message,
        hand_over: &HandOver,
        shard: &mut EventShard,
        fleet: Option<&FleetHandle>,
    ) -> io::Result<()> {
        let answer = match message.kind {
            Kind::Connections => {
                return hand_over.admit(message);
            }
            Kind::Event => {
                let (user, value) = event_of(&message.bytes)?;
                vec![u8::from(shard.count(user, value).is_err())]
            }
            Kind::Stats => serde_json::to_vec(&shard.stats())?,
            Kind::Reset => vec![site::begin_anew(shard, fleet) as u8],
            _ => return Err(ErrorKind::InvalidData.into()),
        };
        self.line.send(Kind::Answer, &answer, &[])
    }

    fn broken(&self, source: io::Error) -> TakeOverError {
        let source = match source.kind() {
            ErrorKind::UnexpectedEof => io::Error::other("it broke off"),
            ErrorKind::WouldBlock => io::Error::other("it does not answer"),
            _ => source,
        };
        let path = self.path.clone();
        TakeOverError::Broken { path, source }
    }
}

fn event_of(bytes: &[u8]) -> io::Result<(UserHash, f64)> {
    let malformed = || io::Error::from(ErrorKind::InvalidData);
    let (user, value) = bytes.split_first_chunk().ok_or_else(malformed)?;
    let value = value.try_into().map_err(|_| malformed())?;
    Ok((UserHash::from_bytes(*user), f64::from_le_bytes(value)))
}

/// Refuses what would lose connections or counts.
fn compare(path: &Path, its: &Estate, ours: &Endowment) -> Result<(), TakeOverError> {
    let differs = |what, its: &dyn std::fmt::Debug, ours: &dyn std::fmt::Debug| {
        Err(TakeOverError::Differs {
            path: path.to_owned(),
            what,
            its: format!("{its:?}"),
            ours: format!("{ours:?}"),
        })
    };
    let is_same = |(its, ours): (&SocketAddr, &SocketAddr)| {
        its.ip() == ours.ip() && (ours.port() == 0 || its.port() == ours.port())
    };
    let same_addresses = match &its.bypass {
        // Connections are told with their addresses, so there may be more, in any order.
        Some(_) => its.addresses.iter().all(|its| ours.addresses.contains(its)),
        None => {
            its.addresses.len() == ours.addresses.len()
                && its.addresses.iter().zip(&ours.addresses).all(is_same)
        }
    };
    if its.stack != ours.stack {
        return differs("--stack", &its.stack, &ours.stack);
    }
    if let (Some(its), Some(ours)) = (&its.bypass, &ours.bypass)
        && its.interface != ours.interface
    {
        return differs("--interface", &its.interface, &ours.interface);
    }
    if !same_addresses {
        return differs("the addresses", &its.addresses, &ours.addresses);
    }
    if its.cpus != ours.cpus {
        return differs("--cores", &its.cpus, &ours.cpus);
    }
    if let (Some(its), Some(ours)) = (&its.bypass, &ours.bypass) {
        if its.queues != ours.queues {
            return differs("the queues of its cores", &its.queues, &ours.queues);
        }
        if ours.is_native.is_some_and(|ours| ours != its.is_native) {
            let mode = |is_native| if is_native { "native" } else { "generic" };
            let (its, ours) = (mode(its.is_native), mode(!its.is_native));
            return differs("--mode", &its, &ours);
        }
    }
    if its.connections > ours.connections {
        return differs("--connections", &its.connections, &ours.connections);
    }
    let with = |is: bool| if is { "a file" } else { "none" };
    if its.keeps_state && !ours.keeps_state {
        return differs("as --state", &with(true), &with(false));
    }
    match (&its.node, ours.has_fleet) {
        (Some(node), false) => differs("the name in a fleet (--counts-through)", node, &"none"),
        _ => Ok(()),
    }
}
