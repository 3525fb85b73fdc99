//! What a core works on its connections with.

use std::net::SocketAddr;
use std::sync::Arc;

use barewire_service::clock::Clock;
use barewire_service::lifecycle::Phase;
use barewire_service::service::{self, Id, Reply, Service, Want};
use barewire_service::time::{Duration, Instant};

use super::config::KernelConfig;
use super::counters::KernelCounters;
use super::error::StartError;
use super::handover::Courier;
use super::pool::{Buffer, Pool};
use crate::{End, Input, Session, Turn};

/// Times that a service is asked in one turn, so that one which always wants more does not keep the connections waiting.
const WANTS_MAX: usize = 8192;

/// What a loop does to its sockets because the service wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Opens a connection.
    Connect {
        /// To this address.
        to: SocketAddr,
        /// By what the service recognizes it.
        token: u64,
    },
    /// Calls the service for this connection.
    Wake(Id),
    /// Resets this connection.
    Abort(Id),
}

/// The name of a connection that never was.
const NO_CONNECTION: Id = Id {
    index: u32::MAX,
    generation: u32::MAX,
};

/// Everything of a core that is not a connection and not the way to wait for events.
pub struct Workbench<S> {
    /// The protocol.
    pub service: S,
    /// The time of the batch of events being worked on.
    pub clock: Clock,
    /// Buffers for input that was not consumed yet.
    pub receive: Pool,
    /// Buffers for replies that were not sent yet.
    pub send: Pool,
    /// The limits.
    pub config: KernelConfig,
    /// What was counted.
    pub counters: Arc<KernelCounters>,
    /// Whether connections shall end after the message they are in.
    pub draining: bool,
    /// Nothing more is to be received, for a moment.
    pub quiet: bool,
    /// Who takes connections to the process that goes on in our place, once they are idle.
    pub leaving: Option<Arc<dyn Courier>>,
    /// The generation of the next connection.
    generation: u32,
    /// How often the service may still be asked in this turn.
    wants_left: usize,
    /// When to ask the service again what it wants.
    wants_at: Option<Instant>,
}

impl<S: Service> Workbench<S> {
    /// Takes the buffers of all connections.
    ///
    /// `overshoot_bytes` is what a connection may receive beyond the configured limit before the
    /// kernel stops.
    ///
    /// # Errors
    ///
    /// If there is not that much memory.
    pub fn new(
        service: S,
        config: KernelConfig,
        counters: Arc<KernelCounters>,
        overshoot_bytes: usize,
    ) -> Result<Self, StartError> {
        let pool = |buffer_bytes| {
            Pool::new(config.connections_max(), buffer_bytes).map_err(|source| StartError::Memory {
                connections: config.connections_max(),
                buffer_bytes,
                source,
            })
        };
        for max in [
            &counters.open_max,
            &counters.receive_buffers_max,
            &counters.send_buffers_max,
        ] {
            max.set(config.connections_max() as u64);
        }
        counters.outbound_max.set(config.outbound as u64);
        let clock = Clock::new();
        Ok(Workbench {
            service,
            // It may want something before anything arrives.
            wants_at: Some(clock.now()),
            clock,
            receive: pool(config.receive_buffer_bytes + overshoot_bytes)?,
            send: pool(config.send_buffer_bytes)?,
            config,
            counters,
            draining: false,
            quiet: false,
            leaving: None,
            generation: 0,
            wants_left: WANTS_MAX,
        })
    }

    /// Counts a wait for events, and returns how long it may take: until the first of `deadlines`, or until the service
    /// is to be asked.
    #[inline]
    pub fn begin_wait(&self, deadlines: [Option<Instant>; 2]) -> Option<Duration> {
        self.counters.waits.increment();
        let deadlines = deadlines.into_iter().chain([self.wants_at]).flatten();
        let (until, now) = (deadlines.min(), self.clock.now());
        until.map(|at| if at > now { at - now } else { Duration::ZERO })
    }

    /// A batch of events has arrived, or was worked on: reads the time.
    #[inline]
    pub fn tick(&mut self) {
        if let Some(unix_time_s) = self.clock.tick() {
            self.service.on_clock(unix_time_s);
        }
        self.service.on_time(self.clock.now_ns());
    }

    /// What the service wants to have done next. `None` once it wants no more, or was asked [`WANTS_MAX`] times.
    #[inline]
    pub fn next_action(&mut self) -> Option<Action> {
        let now = self.clock.now();
        self.wants_at = loop {
            if self.wants_left == 0 {
                break Some(now);
            }
            self.wants_left -= 1;
            match self.service.wants(now) {
                Want::Connect { to, token } => return Some(Action::Connect { to, token }),
                Want::Wake(id) => return Some(Action::Wake(id)),
                Want::Abort(id) => return Some(Action::Abort(id)),
                Want::Open(token) => self.not_opened(token, service::End::NoRoute),
                Want::Nothing { until } => break until,
                // For a shard that was told whom to call, which no kernel stack is.
                Want::Call => break None,
            }
        };
        self.wants_left = WANTS_MAX;
        None
    }

    /// What the service shall call the next connection, which is at `index`.
    pub fn name(&mut self, index: u32) -> Id {
        let generation = self.generation;
        self.generation = generation.wrapping_add(1);
        Id { index, generation }
    }

    /// A connection that the service wanted could not even begin to be opened: it is over at once.
    pub fn not_opened(&mut self, token: u64, end: service::End) {
        self.counters.connect_failed.increment();
        let mut connection = self.service.on_open(token, NO_CONNECTION);
        self.service.on_end(&mut connection, end);
    }

    /// Counts how a connection ended, and tells the service.
    pub fn end(&mut self, session: &mut Session<S::Connection>, how: End) {
        let counters = &self.counters;
        let end = match how {
            End::Orderly => {
                counters.closed.increment();
                service::End::Closed
            }
            End::Broken => {
                counters.broken.increment();
                service::End::Reset
            }
            End::Aborted => {
                counters.aborted.increment();
                service::End::Closed
            }
            End::HandedOver => {
                counters.handed_over.increment();
                service::End::Closed
            }
            End::TimedOut if session.is_opening() => {
                counters.connect_failed.increment();
                service::End::Unanswered
            }
            // Counted when its time was over.
            End::TimedOut => service::End::Silent,
            End::Failed(why) => {
                counters.connect_failed.increment();
                why
            }
        };
        session.over(&mut self.service, end);
    }

    /// Tells the service once that the server drains. Called before each batch of events is worked on: what
    /// a client sends after it saw the end of a connection on another core meets a core that drains, too.
    #[inline]
    pub fn follow(&mut self, phase: Phase) {
        if phase != Phase::Serve && !self.draining {
            self.draining = true;
            self.service.on_drain();
        }
    }

    /// Another process goes on in our place: what is busy ends here, or follows when it is idle.
    pub fn leave(&mut self, courier: Arc<dyn Courier>) {
        self.leaving = Some(courier);
        self.follow(Phase::Drain);
    }

    /// Shows the service the input of a connection. Returns the buffer with its reply as well.
    pub fn serve(
        &mut self,
        session: &mut Session<S::Connection>,
        input: &mut Input,
    ) -> (Buffer, Turn) {
        let reply = self.send.take();
        let turn = session.on_input(
            &mut self.service,
            input.bytes(&self.receive),
            self.config.receive_buffer_bytes,
            self.send.bytes_mut(&reply),
        );
        input.consume(turn.consumed, &mut self.receive);
        self.counters.messages.add(u64::from(turn.messages));
        (reply, turn)
    }

    /// Lets the service say something before a connection ends. Returns the buffer, and how many bytes are in it.
    pub fn final_reply(
        &mut self,
        session: &mut Session<S::Connection>,
        say: impl FnOnce(&mut S, &mut S::Connection, &mut Reply<'_>),
    ) -> (Buffer, usize) {
        let reply = self.send.take();
        let space = self.send.bytes_mut(&reply);
        let written = session.final_reply(&mut self.service, say, space);
        (reply, written)
    }

    /// Tells how many connections are open, and how many of them the service had opened.
    pub fn publish_open(&self, open: usize, outbound: usize) {
        self.counters.open.set(open as u64);
        self.counters.outbound.set(outbound as u64);
    }

    /// A batch of events was worked on: tells how much memory is in use.
    #[inline]
    pub fn publish_levels(&self) {
        self.counters
            .receive_buffers
            .set(self.receive.lent() as u64);
        self.counters.send_buffers.set(self.send.lent() as u64);
    }

    /// What it got and what it took, for the operator.
    pub fn report(&self) -> String {
        const MIB: usize = 1 << 20;
        format!(
            "{} connections; buffers {} MiB to receive and {} MiB to send, taken page by page when needed",
            self.config.connections_max(),
            self.receive.memory().len().div_ceil(MIB),
            self.send.memory().len().div_ceil(MIB),
        )
    }
}
