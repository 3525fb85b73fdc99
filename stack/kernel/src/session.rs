//! A connection's conversation with the service, without its socket.
//!
//! [`Session`] keeps what the contract of [`Service`] asks of a stack and what does not depend on
//! how bytes are moved: the protocol's state, what is waited for, and until when.

use barewire_service::deadline::{Deadlines, Wait, Watch};
use barewire_service::service::{self, Arrival, Expect, Id, Input, Next, Progress, Reply, Service};
use barewire_service::time::{Duration, Instant};

use super::handover::Idle;

/// The protocol's side of one connection.
#[derive(Debug)]
pub struct Session<C> {
    protocol: C,
    id: Id,
    /// The service had it opened.
    is_outbound: bool,
    /// By which it came in.
    listener: u16,
    next: Next,
    ended: bool,
    /// The service wants to be called, whether or not anything arrives.
    woken: bool,
    watch: Watch,
}

/// What a call to the service used up and produced.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    /// Bytes of the input that were consumed.
    pub consumed: usize,
    /// Bytes of the reply that were written; none before a reset.
    pub written: usize,
    /// Messages that were completed.
    pub messages: u32,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Both sides ended their streams.
    Orderly,
    /// The peer or the network broke it.
    Broken,
    /// With a reset: the service wanted it.
    Aborted,
    /// With a reset: the peer had its time.
    TimedOut,
    /// Another process goes on with it.
    HandedOver,
    /// It could not be opened.
    Failed(service::End),
}

impl<C: Default> Session<C> {
    /// A connection that was just accepted.
    pub fn accepted<S: Service<Connection = C>>(
        service: &mut S,
        arrival: Arrival<'_>,
        now: Instant,
        deadlines: &Deadlines,
    ) -> Self {
        let (protocol, expect) = service.on_accept(arrival);
        let watch = Watch::established(now, expect, deadlines);
        Session {
            next: Next::Receive(expect),
            listener: arrival.listener as u16,
            ..Session::new(protocol, arrival.id, watch)
        }
    }

    /// A connection that another process accepted.
    pub fn taken_over<S: Service<Connection = C>>(
        service: &mut S,
        arrival: Arrival<'_>,
        idle: &Idle,
        now: Instant,
        deadlines: &Deadlines,
    ) -> Self {
        let since = now - Duration::from_micros(idle.idle_us);
        let mut session = Session::accepted(service, arrival, since, deadlines);
        S::resume(&mut session.protocol, idle.rest);
        session
    }

    /// A connection that is being opened.
    pub fn opened<S: Service<Connection = C>>(
        service: &mut S,
        token: u64,
        id: Id,
        now: Instant,
        deadlines: &Deadlines,
    ) -> Self {
        let protocol = service.on_open(token, id);
        Session {
            is_outbound: true,
            ..Session::new(protocol, id, Watch::half_open(now, deadlines))
        }
    }

    fn new(protocol: C, id: Id, watch: Watch) -> Self {
        Session {
            protocol,
            id,
            is_outbound: false,
            listener: 0,
            next: Next::Receive(Expect::Message),
            ended: false,
            woken: false,
            watch,
        }
    }

    /// The peer has agreed to the connection: the service speaks first.
    pub fn on_established(&mut self, now: Instant, deadlines: &Deadlines) {
        self.woken = true;
        self.watch = Watch::established(now, Expect::Message, deadlines);
    }

    /// Whether the peer has not yet agreed to it.
    pub fn is_opening(&self) -> bool {
        self.watch.wait() == Wait::Handshake
    }

    /// By what the service names the connection.
    #[inline]
    pub fn id(&self) -> Id {
        self.id
    }

    /// Whether the service had it opened.
    pub fn is_outbound(&self) -> bool {
        self.is_outbound
    }

    /// What there is to know of a connection that another process could go on with: between two messages, with nothing
    /// left to be sent.
    pub fn departs<S: Service<Connection = C>>(
        &self,
        now: Instant,
        deadlines: &Deadlines,
    ) -> Option<Idle> {
        let is_idle = self.next == Next::Receive(Expect::Message)
            && !(self.is_outbound || self.ended || self.woken);
        let rest = is_idle.then(|| S::departs(&self.protocol)).flatten()?;
        let since = self.watch.began_at(deadlines).unwrap_or(now);
        Some(Idle {
            listener: self.listener,
            rest,
            idle_us: if now > since {
                (now - since).total_micros()
            } else {
                0
            },
        })
    }

    /// The service is to be called once all that it wrote is sent.
    pub fn wake(&mut self) {
        self.woken = true;
    }

    /// Whether it is to be called although nothing has arrived.
    #[inline]
    pub fn is_woken(&self) -> bool {
        self.woken
    }

    /// The connection is over.
    pub fn over<S: Service<Connection = C>>(&mut self, service: &mut S, end: service::End) {
        service.on_end(&mut self.protocol, end);
    }

    /// Shows the service all unconsumed `bytes`; none are added once there are `capacity` of them.
    ///
    /// `space` is where the reply goes; all of it is free, and it holds at least
    /// [`Service::REPLY_BYTES_MIN`].
    #[inline]
    pub fn on_input<S: Service<Connection = C>>(
        &mut self,
        service: &mut S,
        bytes: &[u8],
        capacity: usize,
        space: &mut [u8],
    ) -> Turn {
        let input = Input {
            bytes,
            full: bytes.len() >= capacity,
            ended: self.ended,
        };
        self.woken = false;
        let mut reply = Reply::new(space);
        let progress = service.on_input(&mut self.protocol, input, &mut reply);
        assert!(
            progress.consumed <= bytes.len(),
            "service consumed bytes it was not shown"
        );
        let stuck = match progress.next {
            // No byte can be added, no room can be gained: the service would wait for ever.
            Next::Receive(_) => input.full && progress.consumed == 0,
            Next::Send => reply.is_empty() && progress.consumed == 0,
            Next::Wait | Next::Close | Next::Abort => false,
        };
        self.next = match progress.next {
            _ if stuck => Next::Abort,
            Next::Receive(_) if self.ended => Next::Close,
            next => next,
        };
        Turn {
            consumed: progress.consumed,
            written: match self.next {
                Next::Abort => 0,
                _ => reply.len(),
            },
            messages: progress.messages,
        }
    }

    /// The wait for input was too long, or the server drains: `say` writes the last reply of the service to `space`, and the
    /// connection ends after that. Returns the number of bytes written.
    pub fn final_reply<S: Service<Connection = C>>(
        &mut self,
        service: &mut S,
        say: impl FnOnce(&mut S, &mut C, &mut Reply<'_>),
        space: &mut [u8],
    ) -> usize {
        let mut reply = Reply::new(space);
        say(service, &mut self.protocol, &mut reply);
        self.next = Next::Close;
        reply.len()
    }

    /// The peer will send no more.
    pub fn on_end(&mut self) {
        self.ended = true;
    }

    /// Everything that was written has been sent, after a turn that completed `messages`: the
    /// deadline of what is expected next begins.
    #[inline]
    pub fn on_all_sent(&mut self, messages: u32, now: Instant, deadlines: &Deadlines) {
        self.watch.on_sent(now, 0, 0, deadlines);
        self.expect(messages, self.next, now, deadlines);
    }

    /// The peer has taken `taken` bytes and at least `left` wait for it to take more: nothing else
    /// is expected of it.
    pub fn on_blocked(&mut self, taken: usize, left: usize, now: Instant, deadlines: &Deadlines) {
        self.expect(0, Next::Send, now, deadlines);
        self.watch.on_sent(now, taken, left, deadlines);
    }

    /// Our side of the stream has ended: the deadline for the peer to end its own begins.
    pub fn on_close(&mut self, now: Instant, deadlines: &Deadlines) {
        self.watch.on_close(now, deadlines);
    }

    /// What has to happen next.
    #[inline]
    pub fn next(&self) -> Next {
        self.next
    }

    /// Whether the peer has ended its side of the stream.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// When to look at [`Session::due`] again.
    #[inline]
    pub fn next_at(&self) -> Option<Instant> {
        self.watch.next_at()
    }

    /// What has been waited for too long.
    pub fn due(&self, now: Instant) -> Option<Wait> {
        self.watch.due(now)
    }

    #[inline]
    fn expect(&mut self, messages: u32, next: Next, now: Instant, deadlines: &Deadlines) {
        let progress = Progress {
            consumed: 0,
            messages,
            next,
        };
        self.watch.on_progress(now, &progress, deadlines);
    }
}
