//! How long a connection may wait, and for what.
//!
//! Every stack gives the same guarantees: it closes the connection of a peer that sends nothing, that sends
//! a request one byte at a time, or that never reads its reply. A [`Watch`]
//! is the few bytes of state that this takes per connection. It knows no timer and no socket; its
//! owner tells it what happened and asks when to look again:
//!
//! ```text
//!   Service::on_input ──▶ Progress ──▶ Watch::on_progress ──┐
//!   bytes taken by the peer ─────────▶ Watch::on_sent ──────┼──▶ Watch::next_at ──▶ a timer
//!   the last byte is out ────────────▶ Watch::on_close ─────┘    Watch::due     ◀── expires
//! ```
//!
//! A deadline runs from the moment its [`Wait`] began and nothing that arrives prolongs it, except a
//! whole message: sending byte by byte (slowloris) prolongs nothing. The same holds for reading: a
//! peer has to take `send_bytes_min` in each `send_ms`. A stack that sends segments itself does not
//! hold a loss against the peer, but gives up after twice that time, see [`Watch::forgive_ms`].

use crate::service::{Expect, Next, Progress};
use crate::time::{Duration, Instant};

/// How long a connection may wait for what, in milliseconds, and how much a peer has to take meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// From the SYN to the end of the handshake.
    pub half_open_ms: u32,
    /// From there to the end of a handshake above TCP's, as TLS has one.
    pub handshake_ms: u32,
    /// For the first byte of the next message, on a connection that is kept alive.
    pub idle_ms: u32,
    /// From the first byte of a message to the end of its head.
    pub head_ms: u32,
    /// From the end of a message's head to the end of its body.
    pub body_ms: u32,
    /// For the peer to take at least `send_bytes_min` of what waits to be sent, or all of it.
    pub send_ms: u32,
    /// Bytes that a peer has to take for the send deadline to begin anew: with `send_ms`, the slowest rate
    /// at which it may read.
    pub send_bytes_min: u32,
    /// From the last byte sent to the end of the connection: FIN-WAIT-1, FIN-WAIT-2, LAST-ACK.
    pub close_ms: u32,
    /// For the peer to acknowledge anything at all of what is in flight: the user timeout of
    /// RFC 9293, section 3.9.1, after which retransmission gives up.
    pub user_timeout_ms: u32,
}

/// Bytes that a peer has to take for the send deadline to begin anew, unless configured otherwise.
pub const SENT_BYTES_MIN: usize = 1_024;

impl Default for Deadlines {
    /// Lenient enough for a slow mobile network, strict enough that holding a connection costs an
    /// attacker a connection.
    fn default() -> Self {
        Deadlines {
            half_open_ms: 10_000,
            handshake_ms: 10_000,
            idle_ms: 75_000,
            head_ms: 10_000,
            body_ms: 30_000,
            send_ms: 30_000,
            send_bytes_min: SENT_BYTES_MIN as u32,
            close_ms: 10_000,
            user_timeout_ms: 30_000,
        }
    }
}

/// What a connection is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wait {
    /// The end of TCP's handshake.
    Handshake,
    /// The end of a handshake above it.
    UpperHandshake,
    /// The first byte of the next message.
    Message,
    /// The rest of a message's head.
    Head,
    /// The rest of a message's body.
    Body,
    /// The peer, to take what waits to be sent.
    Send,
    /// The peer, to end the connection as well.
    Close,
    /// Nothing that the peer could be late with: the service keeps a deadline of its own.
    Service,
}

impl Wait {
    /// Whether the service may still say something to the peer when this wait was too long
    /// ([`Service::on_timeout`](crate::service::Service::on_timeout)). Otherwise the peer would not read it,
    /// and the connection is reset.
    pub fn is_for_input(self) -> bool {
        matches!(
            self,
            Wait::UpperHandshake | Wait::Message | Wait::Head | Wait::Body
        )
    }
}

/// What one connection waits for, and until when. 24 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watch {
    /// When the wait is over.
    at: Instant,
    /// When the send deadline is over, which runs beside it.
    send_at: Instant,
    /// Bytes taken since the send deadline began.
    taken: u32,
    /// How far the send deadline was moved since it began, in units of 2^[`FORGIVEN_SHIFT`] ms.
    forgiven: u16,
    wait: Wait,
}

/// 16 bits of 256 ms are four hours.
const FORGIVEN_SHIFT: u32 = 8;

const NEVER: Instant = Instant::from_micros(i64::MAX);

impl Watch {
    /// A connection of which a SYN has arrived.
    pub fn half_open(now: Instant, deadlines: &Deadlines) -> Watch {
        Watch::new(Wait::Handshake, after(now, deadlines.half_open_ms))
    }

    /// A connection whose handshake is complete, and of which `expect` is expected.
    pub fn established(now: Instant, expect: Expect, deadlines: &Deadlines) -> Watch {
        if expect == Expect::Anything {
            return Watch::new(Wait::Service, NEVER);
        }
        let (wait, ms) = wait_for(expect, deadlines);
        Watch::new(wait, after(now, ms))
    }

    /// What the connection is waiting for, apart from sending.
    #[inline]
    pub fn wait(&self) -> Wait {
        self.wait
    }

    /// When to look at [`Watch::due`]; `None` if nothing is being waited for.
    #[inline]
    pub fn next_at(&self) -> Option<Instant> {
        Some(self.at.min(self.send_at)).filter(|&at| at != NEVER)
    }

    /// The wait that has been too long, if one has.
    #[inline]
    pub fn due(&self, now: Instant) -> Option<Wait> {
        if now >= self.send_at {
            Some(Wait::Send)
        } else if now >= self.at {
            Some(self.wait)
        } else {
            None
        }
    }

    /// As if nothing was waiting to be sent.
    #[inline]
    pub fn without_send(self) -> Watch {
        Watch {
            send_at: NEVER,
            ..self
        }
    }

    /// The service was called and returned `progress`.
    ///
    /// The deadline begins anew when a message was completed or something else is expected than
    /// before. For [`Next::Close`] and [`Next::Abort`] nothing is expected; call
    /// [`Watch::on_close`] when the last byte is out.
    #[inline]
    pub fn on_progress(&mut self, now: Instant, progress: &Progress, deadlines: &Deadlines) {
        let (wait, ms) = match progress.next {
            Next::Receive(Expect::Anything) | Next::Wait => {
                self.wait = Wait::Service;
                self.at = NEVER;
                return;
            }
            Next::Receive(expect) => wait_for(expect, deadlines),
            Next::Send | Next::Close | Next::Abort => {
                self.wait = Wait::Send;
                self.at = NEVER;
                return;
            }
        };
        let is_anew = progress.next == Next::Receive(Expect::MoreBody);
        if wait != self.wait || progress.messages > 0 || is_anew {
            self.wait = wait;
            self.at = after(now, ms);
        }
    }

    /// The peer, or the kernel on its behalf, took `taken` more bytes of what was to be sent, and
    /// `left` remain. Call it with `taken: 0` when bytes were added.
    #[inline]
    pub fn on_sent(&mut self, now: Instant, taken: usize, left: usize, deadlines: &Deadlines) {
        if left == 0 {
            self.send_at = NEVER;
            return;
        }
        self.taken = self
            .taken
            .saturating_add(u32::try_from(taken).unwrap_or(u32::MAX));
        if self.send_at == NEVER || self.taken >= deadlines.send_bytes_min {
            self.send_at = after(now, deadlines.send_ms);
            self.taken = 0;
            self.forgiven = 0;
        }
    }

    /// Nothing could be taken for so long, perhaps through no fault of the peer's: the send deadline moves, by
    /// no more than `send_ms` in all until it begins anew. A peer that is silent on purpose cannot be told from
    /// one that gets nothing; so one that acknowledges a byte now and then has twice the time, and not for ever.
    #[inline]
    pub fn forgive_ms(&mut self, pause_ms: u32, deadlines: &Deadlines) {
        if self.send_at == NEVER || pause_ms == 0 {
            return;
        }
        let forgiven_ms = u32::from(self.forgiven) << FORGIVEN_SHIFT;
        let pause_ms = pause_ms.min(deadlines.send_ms.saturating_sub(forgiven_ms));
        self.send_at = after(self.send_at, pause_ms);
        let forgiven = (forgiven_ms.saturating_add(pause_ms)).div_ceil(1 << FORGIVEN_SHIFT);
        self.forgiven = u16::try_from(forgiven).unwrap_or(u16::MAX);
    }

    /// When the wait began, or when the peer last took enough of what is sent to it; `None` if it has nothing to do.
    pub fn began_at(&self, deadlines: &Deadlines) -> Option<Instant> {
        let ms = |ms| Duration::from_millis(u64::from(ms));
        let wait_ms = match self.wait {
            Wait::Handshake => deadlines.half_open_ms,
            Wait::UpperHandshake => deadlines.handshake_ms,
            Wait::Message => deadlines.idle_ms,
            Wait::Head => deadlines.head_ms,
            Wait::Body => deadlines.body_ms,
            Wait::Close => deadlines.close_ms,
            Wait::Service => return None,
            Wait::Send if self.send_at == NEVER => return None,
            Wait::Send => {
                let forgiven_ms = u32::from(self.forgiven) << FORGIVEN_SHIFT;
                return Some(self.send_at - ms(deadlines.send_ms) - ms(forgiven_ms));
            }
        };
        Some(self.at - ms(wait_ms))
    }

    /// Everything was sent, the end of the stream included: from here the peer has `close_ms`.
    pub fn on_close(&mut self, now: Instant, deadlines: &Deadlines) {
        if self.wait != Wait::Close {
            *self = Watch::new(Wait::Close, after(now, deadlines.close_ms));
        }
    }

    fn new(wait: Wait, at: Instant) -> Watch {
        Watch {
            at,
            send_at: NEVER,
            taken: 0,
            forgiven: 0,
            wait,
        }
    }
}

#[inline]
fn wait_for(expect: Expect, deadlines: &Deadlines) -> (Wait, u32) {
    match expect {
        Expect::Message => (Wait::Message, deadlines.idle_ms),
        Expect::Head => (Wait::Head, deadlines.head_ms),
        Expect::Body | Expect::MoreBody => (Wait::Body, deadlines.body_ms),
        Expect::Handshake => (Wait::UpperHandshake, deadlines.handshake_ms),
        // Asked for by nobody: such a wait has no deadline.
        Expect::Anything => (Wait::Service, u32::MAX),
    }
}

#[inline]
fn after(now: Instant, ms: u32) -> Instant {
    now + Duration::from_millis(u64::from(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINES: Deadlines = Deadlines {
        half_open_ms: 1_000,
        handshake_ms: 2_000,
        idle_ms: 60_000,
        head_ms: 5_000,
        body_ms: 20_000,
        send_ms: 8_000,
        send_bytes_min: 1_024,
        close_ms: 3_000,
        user_timeout_ms: 30_000,
    };

    fn ms(ms: i64) -> Instant {
        Instant::from_millis(ms)
    }

    fn progress(messages: u32, next: Next) -> Progress {
        Progress {
            consumed: 0,
            messages,
            next,
        }
    }

    #[test]
    fn a_watch_is_small() {
        assert_eq!(size_of::<Watch>(), 24);
    }

    #[test]
    fn a_handshake_that_never_ends_is_given_up() {
        let watch = Watch::half_open(ms(10), &DEADLINES);
        assert_eq!(watch.due(ms(1_009)), None);
        assert_eq!(watch.due(ms(1_010)), Some(Wait::Handshake));
        assert!(!Wait::Handshake.is_for_input());
    }

    #[test]
    fn dripping_a_handshake_does_not_extend_its_deadline_and_its_end_begins_another() {
        let mut watch = Watch::established(ms(0), Expect::Handshake, &DEADLINES);
        let dripped = progress(0, Next::Receive(Expect::Handshake));
        watch.on_progress(ms(1_500), &dripped, &DEADLINES);
        assert_eq!(watch.due(ms(2_000)), Some(Wait::UpperHandshake));
        let shaken = progress(0, Next::Receive(Expect::Message));
        watch.on_progress(ms(1_900), &shaken, &DEADLINES);
        assert_eq!(watch.next_at(), Some(ms(61_900)));
    }

    #[test]
    fn dripping_a_head_does_not_extend_its_deadline() {
        let mut watch = Watch::established(ms(0), Expect::Message, &DEADLINES);
        for at in (1_000..6_000).step_by(100) {
            let dripped = progress(0, Next::Receive(Expect::Head));
            watch.on_progress(ms(at), &dripped, &DEADLINES);
        }
        assert_eq!(watch.next_at(), Some(ms(6_000)));
        assert_eq!(watch.due(ms(6_000)), Some(Wait::Head));
    }

    #[test]
    fn the_body_has_its_own_deadline_from_the_end_of_the_head() {
        let mut watch = Watch::established(ms(0), Expect::Message, &DEADLINES);
        watch.on_progress(ms(0), &progress(0, Next::Receive(Expect::Head)), &DEADLINES);
        watch.on_progress(
            ms(4_000),
            &progress(0, Next::Receive(Expect::Body)),
            &DEADLINES,
        );
        assert_eq!(watch.next_at(), Some(ms(24_000)));
    }

    #[test]
    fn a_body_that_moves_begins_its_deadline_anew() {
        let mut watch = Watch::established(ms(0), Expect::Message, &DEADLINES);
        for (at, expect) in [
            (0, Expect::Body),
            (1_000, Expect::MoreBody),
            (2_000, Expect::Body),
        ] {
            watch.on_progress(ms(at), &progress(0, Next::Receive(expect)), &DEADLINES);
        }
        assert_eq!(watch.next_at(), Some(ms(21_000)));
    }

    #[test]
    fn a_service_that_keeps_the_deadline_itself_is_not_hurried() {
        let mut watch = Watch::established(ms(0), Expect::Message, &DEADLINES);
        for next in [Next::Wait, Next::Receive(Expect::Anything)] {
            watch.on_progress(ms(1), &progress(0, next), &DEADLINES);
            assert_eq!(watch.next_at(), None);
            assert_eq!(watch.began_at(&DEADLINES), None);
        }
        // A peer that does not read is found out all the same.
        watch.on_sent(ms(1), 0, 50_000, &DEADLINES);
        assert_eq!(watch.due(ms(8_001)), Some(Wait::Send));
    }

    #[test]
    fn a_whole_message_begins_the_same_wait_anew() {
        let mut watch = Watch::established(ms(0), Expect::Message, &DEADLINES);
        for at in [10_000, 20_000] {
            let served = progress(1, Next::Receive(Expect::Message));
            watch.on_progress(ms(at), &served, &DEADLINES);
        }
        assert_eq!(watch.next_at(), Some(ms(80_000)));
    }

    #[test]
    fn a_peer_that_stops_reading_is_found_out_while_it_waits_for_nothing_else() {
        let mut watch = Watch::established(ms(0), Expect::Message, &DEADLINES);
        watch.on_progress(ms(0), &progress(1, Next::Send), &DEADLINES);
        watch.on_sent(ms(0), 0, 50_000, &DEADLINES);
        // One byte at a time is as good as nothing.
        for at in (1_000..8_000).step_by(1_000) {
            watch.on_sent(ms(at), 1, 49_000, &DEADLINES);
        }
        assert_eq!(watch.due(ms(8_000)), Some(Wait::Send));
    }

    #[test]
    fn a_slow_reader_may_take_its_time_and_an_empty_queue_waits_for_nobody() {
        let mut watch = Watch::established(ms(0), Expect::Message, &DEADLINES);
        watch.on_progress(ms(0), &progress(1, Next::Send), &DEADLINES);
        watch.on_sent(ms(0), 0, 50_000, &DEADLINES);
        watch.on_sent(ms(7_000), 1_024, 48_000, &DEADLINES);
        assert_eq!(watch.next_at(), Some(ms(15_000)));
        watch.on_sent(ms(9_000), 48_000, 0, &DEADLINES);
        assert_eq!(watch.next_at(), None);
    }

    #[test]
    fn a_pause_that_is_forgiven_moves_the_send_deadline_and_no_other() {
        let mut watch = Watch::established(ms(0), Expect::Message, &DEADLINES);
        watch.forgive_ms(500, &DEADLINES);
        assert_eq!(watch.next_at(), Some(ms(60_000)));
        watch.on_sent(ms(0), 0, 50_000, &DEADLINES);
        watch.forgive_ms(500, &DEADLINES);
        assert_eq!(watch.next_at(), Some(ms(8_500)));
        assert_eq!(watch.without_send().next_at(), Some(ms(60_000)));
    }

    #[test]
    fn no_more_is_forgiven_than_the_deadline_is_long() {
        let mut watch = Watch::established(ms(0), Expect::Message, &DEADLINES);
        watch.on_sent(ms(0), 0, 50_000, &DEADLINES);
        for at in [7_000, 14_000, 21_000] {
            watch.forgive_ms(6_000, &DEADLINES);
            watch.on_sent(ms(at), 1, 49_000, &DEADLINES);
        }
        assert_eq!(watch.due(ms(16_000)), Some(Wait::Send));
        watch.on_sent(ms(21_000), 1_024, 48_000, &DEADLINES);
        watch.forgive_ms(6_000, &DEADLINES);
        assert_eq!(watch.due(ms(34_999)), None, "it begins anew");
    }

    #[test]
    fn a_wait_knows_when_it_began() {
        let mut watch = Watch::established(ms(5), Expect::Message, &DEADLINES);
        assert_eq!(watch.began_at(&DEADLINES), Some(ms(5)));
        watch.on_progress(ms(9), &progress(0, Next::Receive(Expect::Head)), &DEADLINES);
        assert_eq!(watch.began_at(&DEADLINES), Some(ms(9)));
        watch.on_progress(ms(9), &progress(1, Next::Send), &DEADLINES);
        assert_eq!(watch.began_at(&DEADLINES), None);
        watch.on_sent(ms(20), 0, 50_000, &DEADLINES);
        watch.on_sent(ms(30), 1, 49_999, &DEADLINES);
        assert_eq!(watch.began_at(&DEADLINES), Some(ms(20)));
    }

    #[test]
    fn closing_is_waited_for_once_from_the_last_byte() {
        let mut watch = Watch::established(ms(0), Expect::Message, &DEADLINES);
        watch.on_progress(ms(0), &progress(1, Next::Close), &DEADLINES);
        watch.on_sent(ms(0), 0, 100, &DEADLINES);
        assert_eq!(watch.next_at(), Some(ms(8_000)));
        watch.on_close(ms(1_000), &DEADLINES);
        watch.on_close(ms(2_000), &DEADLINES);
        assert_eq!(watch.due(ms(4_000)), Some(Wait::Close));
    }
}
