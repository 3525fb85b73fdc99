//! A TCP client that is simple enough to be right, and that checks what its server does.
//!
//! It knows one way to do each thing: it sends again from the last acknowledged byte when its timer
//! expires, takes only what arrives in order, and acknowledges everything. What the server sends must
//! be what was expected, stay within the window that was offered, acknowledge only what was sent, and
//! keep to the maximum segment size; anything else is an [`Offence`].

use std::net::SocketAddr;

use super::frame::{TcpFrame, TcpView};
use barewire_service::time::{Duration, Instant};
use barewire_tcp::packet::Flags;

/// One connection of a client.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    state: State,
    /// Sequence number of our SYN.
    iss: u32,
    /// Sequence number of the server's SYN.
    irs: u32,
    /// Offset of the first unacknowledged byte in what we send; the FIN counts as one.
    una: usize,
    /// Offset of the next byte to send.
    nxt: usize,
    /// Behind the highest offset that was ever sent.
    max: usize,
    /// Bytes received in order and found right.
    received: usize,
    /// What the server was last told about our window: the highest offset it may reach.
    right_edge: usize,
    server_has_ended: bool,
    server_window: usize,
    retransmit_at: Option<Instant>,
    retransmissions: u32,
    owes_ack: bool,
}

/// What a [`Client`] does.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Its address and port.
    pub source: SocketAddr,
    /// The server's.
    pub destination: SocketAddr,
    /// The content of the 802.1Q tag of what it sends, if there is one.
    pub vlan: Option<u16>,
    /// Sequence number of its SYN.
    pub iss: u32,
    /// The longest payload it sends and accepts.
    pub mss: u16,
    /// The window it offers.
    pub window: u16,
    /// Unacknowledged bytes it keeps under way.
    pub in_flight: usize,
    /// What it sends, before it ends its stream.
    pub send: Vec<u8>,
    /// What it expects to receive, before the server ends its stream.
    pub expect: Vec<u8>,
    /// Whether it expects an RST instead of a FIN, possibly before all that it expects has arrived.
    pub expect_reset: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    SynSent,
    Open,
    Done,
}

/// What a server must not do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{client} at byte {at} from the server: {what}")]
pub struct Offence {
    /// The client that noticed.
    pub client: SocketAddr,
    /// How many bytes it had received.
    pub at: usize,
    /// What happened.
    pub what: String,
}

const RETRANSMIT_MIN: Duration = Duration::from_millis(300);
const KEEP_ALIVE: Duration = Duration::from_secs(20);
const RETRANSMIT_DOUBLINGS_MAX: u32 = 4;

impl Client {
    /// A client that is about to send its SYN.
    pub fn new(config: ClientConfig, now: Instant) -> Client {
        Client {
            state: State::SynSent,
            iss: config.iss,
            irs: 0,
            una: 0,
            nxt: 0,
            max: 0,
            received: 0,
            right_edge: usize::from(config.window),
            server_has_ended: false,
            server_window: 0,
            retransmit_at: Some(now),
            retransmissions: 0,
            owes_ack: false,
            config,
        }
    }

    /// Whether everything was sent, acknowledged and received, and both streams have ended.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// When [`Client::send`] has something to do, if nothing arrives.
    pub fn next_at(&self) -> Option<Instant> {
        self.retransmit_at
    }

    /// Takes a segment that is addressed to this client.
    ///
    /// # Errors
    ///
    /// If the server did what it must not do.
    pub fn receive(&mut self, now: Instant, segment: &TcpView<'_>) -> Result<(), Offence> {
        match self.state {
            State::SynSent => self.receive_syn_ack(segment),
            State::Open => self.receive_open(now, segment),
            State::Done => {
                // TIME-WAIT: the server may not know yet.
                self.owes_ack |= segment.sequence_len() > 0 && !segment.flags.contains(Flags::RST);
                Ok(())
            }
        }
    }

    /// Hands everything that is to be sent to `transmit`, frame by frame.
    pub fn send(&mut self, now: Instant, mut transmit: impl FnMut(&TcpFrame<'_>)) {
        if self.retransmit_at.is_some_and(|at| at <= now) {
            self.retransmit_at = None;
            self.nxt = self.una;
            self.retransmissions += 1;
            let has_sent_all = self.state == State::Open && self.una > self.config.send.len();
            if has_sent_all {
                // Nothing is in flight; ask whether the server is still there.
                let seq = self.sequence(self.nxt).wrapping_sub(1);
                self.retransmit_at = Some(now + KEEP_ALIVE);
                return transmit(&TcpFrame {
                    seq,
                    ..self.frame()
                });
            }
            if self.state == State::SynSent {
                self.restart_timer(now);
                let [high, low] = self.config.mss.to_be_bytes();
                let options = [2, 4, high, low];
                return transmit(&TcpFrame {
                    flags: Flags::SYN,
                    seq: self.iss,
                    ack: 0,
                    options: &options,
                    ..self.frame()
                });
            }
        }
        if self.state == State::Open {
            self.send_data(now, &mut transmit);
        }
        if self.owes_ack {
            self.owes_ack = false;
            transmit(&self.frame());
        }
    }

    fn receive_syn_ack(&mut self, segment: &TcpView<'_>) -> Result<(), Offence> {
        let acknowledges_syn = segment.ack == self.iss.wrapping_add(1);
        if segment.flags.contains(Flags::RST | Flags::ACK) && acknowledges_syn {
            return Err(self.offence("refused the connection".into()));
        }
        // An ACK of an earlier connection of the same port may still be around.
        if !segment.flags.contains(Flags::SYN) || !acknowledges_syn {
            return Ok(());
        }
        self.irs = segment.seq;
        self.server_window = usize::from(segment.window);
        self.state = State::Open;
        self.retransmissions = 0;
        self.retransmit_at = None;
        self.owes_ack = true;
        Ok(())
    }

    fn receive_open(&mut self, now: Instant, segment: &TcpView<'_>) -> Result<(), Offence> {
        if segment.flags.contains(Flags::RST) {
            return self.receive_reset(segment);
        }
        if segment.flags.contains(Flags::SYN) {
            self.owes_ack = true;
            return Ok(());
        }
        if segment.payload.len() > usize::from(self.config.mss) {
            let len = segment.payload.len();
            return Err(self.offence(format!("sent a segment of {len} bytes")));
        }
        self.receive_ack(now, segment)?;
        self.receive_data(segment)?;
        let all_acknowledged = self.una > self.config.send.len();
        if all_acknowledged && self.server_has_ended && !self.config.expect_reset {
            self.state = State::Done;
            self.retransmit_at = None;
        }
        Ok(())
    }

    fn receive_reset(&mut self, segment: &TcpView<'_>) -> Result<(), Offence> {
        // RFC 5961, section 3.2: anything else is a guess, or behind something that was lost.
        let offset = segment.seq.wrapping_sub(self.rcv_nxt());
        if offset != 0 {
            self.owes_ack |= offset < u32::from(self.config.window);
            return Ok(());
        }
        if !self.config.expect_reset {
            return Err(self.offence("reset the connection".into()));
        }
        self.state = State::Done;
        self.retransmit_at = None;
        Ok(())
    }

    fn receive_ack(&mut self, now: Instant, segment: &TcpView<'_>) -> Result<(), Offence> {
        let ack = segment.ack.wrapping_sub(self.iss.wrapping_add(1)) as i32;
        let Ok(ack) = usize::try_from(ack) else {
            return Ok(());
        };
        if ack > self.max {
            let max = self.max;
            return Err(self.offence(format!("acknowledged {ack} bytes of {max}")));
        }
        if ack < self.una {
            return Ok(());
        }
        self.server_window = usize::from(segment.window);
        if ack > self.una {
            self.una = ack;
            self.nxt = self.nxt.max(ack);
            self.retransmissions = 0;
            self.retransmit_at = None;
            if self.una < self.max {
                self.restart_timer(now);
            }
        }
        Ok(())
    }

    fn receive_data(&mut self, segment: &TcpView<'_>) -> Result<(), Offence> {
        let start = segment.seq.wrapping_sub(self.irs.wrapping_add(1)) as i32;
        let len = segment.payload.len() as i32;
        if segment.sequence_len() > 0 {
            self.owes_ack = true;
        }
        let received = self.received as i32;
        let right_edge = self.right_edge as i32;
        if start + len > right_edge {
            let end = start + len;
            return Err(self.offence(format!("sent up to {end} with a window up to {right_edge}")));
        }
        if start > received || start + len + 1 < received {
            return Ok(());
        }
        let expected = &self.config.expect;
        let fresh = segment
            .payload
            .get((received - start) as usize..)
            .unwrap_or_default();
        if expected.get(self.received..self.received + fresh.len()) != Some(fresh) {
            let len = fresh.len();
            return Err(self.offence(format!("sent {len} bytes that are not the expected ones")));
        }
        if self.server_has_ended && !fresh.is_empty() {
            return Err(self.offence("sent data behind its FIN".into()));
        }
        self.received += fresh.len();
        self.right_edge = self
            .right_edge
            .max(self.received + usize::from(self.config.window));
        if segment.flags.contains(Flags::FIN) && (start + len) as usize == self.received {
            if self.received < self.config.expect.len() {
                return Err(self.offence("ended its stream early".into()));
            }
            self.server_has_ended = true;
        }
        Ok(())
    }

    fn send_data(&mut self, now: Instant, transmit: &mut impl FnMut(&TcpFrame<'_>)) {
        let end = self.config.send.len();
        // A closed window is probed with one byte.
        let probe = usize::from(self.server_window == 0 && self.retransmissions > 0);
        let window = self.server_window.min(self.config.in_flight).max(probe);
        let right_edge = self.una + window;
        while self.nxt <= end {
            let mss = usize::from(self.config.mss);
            let payload_end = right_edge.min(end).min(self.nxt + mss).max(self.nxt);
            let is_last = payload_end == end;
            if payload_end == self.nxt && !is_last {
                break;
            }
            let mut flags = Flags::ACK;
            if is_last {
                flags = flags | Flags::PSH | Flags::FIN;
            }
            transmit(&TcpFrame {
                seq: self.sequence(self.nxt),
                flags,
                payload: &self.config.send[self.nxt..payload_end],
                ..self.frame()
            });
            self.owes_ack = false;
            self.nxt = payload_end + usize::from(is_last);
            self.max = self.max.max(self.nxt);
        }
        if self.retransmit_at.is_none() {
            match self.una <= end {
                true => self.restart_timer(now),
                false => self.retransmit_at = Some(now + KEEP_ALIVE),
            }
        }
    }

    /// An ACK of everything received so far.
    fn frame(&self) -> TcpFrame<'_> {
        TcpFrame {
            vlan: self.config.vlan,
            seq: self.sequence(self.nxt),
            ack: self.rcv_nxt(),
            window: self.config.window,
            ..TcpFrame::new(self.config.source, self.config.destination)
        }
    }

    fn rcv_nxt(&self) -> u32 {
        self.irs
            .wrapping_add(1)
            .wrapping_add(self.received as u32)
            .wrapping_add(u32::from(self.server_has_ended))
    }

    fn sequence(&self, offset: usize) -> u32 {
        self.iss.wrapping_add(1).wrapping_add(offset as u32)
    }

    fn restart_timer(&mut self, now: Instant) {
        let doublings = self.retransmissions.min(RETRANSMIT_DOUBLINGS_MAX);
        self.retransmit_at = Some(now + RETRANSMIT_MIN * (1 << doublings));
    }

    fn offence(&self, what: String) -> Offence {
        Offence {
            client: self.config.source,
            at: self.received,
            what,
        }
    }
}
