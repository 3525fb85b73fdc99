//! Connections that another process goes on with (see [`crate::travel`]).
//!
//! | travels | how it goes on |
//! |---|---|
//! | open | as it is, with what is not acknowledged, and what the service has not taken; what lay behind a gap comes again (RFC 2018, section 8) |
//! | half-open for less than a second | as it is; the SYN\|ACK is repeated later |
//! | we have closed | as TIME-WAIT: the peer's FIN is acknowledged, ours is not repeated |
//! | TIME-WAIT | from its beginning |
//!
//! Anything else [stays](Shard::stays): what its service knows more of than a byte, a response that it has begun say; and
//! what its peer has ended. Of a message that has begun to arrive it knows nothing, as long as it has taken none of it.

use std::net::{IpAddr, Ipv4Addr};

use crate::control::{L2Header, SynOptions};
use crate::guard::segment::{State, Tcb};
use crate::guard::time_wait::{Ending, Left};
use crate::link::Link;
use crate::packet::FlowKey;
use crate::sender::lent::Busy;
use crate::travel::{Behind, Ends, Kind, Malformed, Record};
use barewire_service::deadline::{Wait, Watch};
use barewire_service::service::{self, Service};
use barewire_service::time::Duration;
use zerocopy::IntoBytes as _;

use super::direct::Slot;
use super::{Core, Found, RTO_MIN_MS, Shard};
use barewire_service::time::Instant;

// How a connection ended that is left, as one byte: see [`Ending`].
const TIME_WAIT: u8 = 0;
const FIN_WAIT: u8 = 1;
const CLOSED: u8 = 2;

/// What a shard has written: [`Shard::depart`].
#[derive(Debug, Default)]
pub struct Departure {
    /// The connections. Another shard goes on with them: [`Shard::arrive`].
    pub bytes: Vec<u8>,
    /// How many there are, those in TIME-WAIT not counted.
    pub connections: usize,
}

impl<L: Link, S: Service> Shard<'_, L, S> {
    /// How many connections could not travel now.
    pub fn stays(&mut self) -> usize {
        let core = &mut self.core;
        let all = 0..core.hot.len();
        let is_served = |state| matches!(state, State::Open | State::Closing);
        all.filter(|&index| is_served(core.hot[index].tcb.state) && core.kind(index).is_none())
            .count()
    }

    /// Ends what cannot travel, as [`Shard::drain`] does; what can is left alone until it has another message. Nothing is
    /// accepted meanwhile: a peer repeats its SYN, and is answered by the successor.
    pub fn leave(&mut self, now: Instant) {
        self.core.is_leaving = true;
        self.drain(now);
    }

    /// There is no successor after all: goes on as before [`Shard::leave`].
    pub fn stay(&mut self) {
        let core = &mut self.core;
        (core.is_leaving, core.is_draining, core.drained) = (false, false, 0);
        core.service.on_stay();
    }

    /// Writes what can travel, and changes nothing. A shard that is not polled any more can be left then; one that goes
    /// on must not have another one go on as well.
    pub fn depart(&mut self) -> Departure {
        let core = &mut self.core;
        let mut departure = Departure {
            bytes: vec![core.uses_cookies().into()],
            connections: 0,
        };
        for index in 0..core.hot.len() {
            if let Some(kind) = core.kind(index) {
                core.write(index, kind, &mut departure.bytes);
                departure.connections += usize::from(kind != Kind::TimeWait);
            }
        }
        core.write_time_waits(&mut departure.bytes);
        departure
    }

    /// Has the memory provided that the first connections take, before they [arrive](Shard::arrive): the first use of each
    /// table costs the zeroing of a huge page, and all of them together milliseconds, in which nobody would be answered.
    pub fn rehearse(&mut self) {
        let core = &mut self.core;
        let flow = FlowKey::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0, 0, 0);
        let hash = core.flows.hash(&flow);
        let l2 = L2Header::new([0; 6], [0; 6], false);
        if let Some(index) = core.take_connection(flow, hash, Tcb::default(), &l2, 0) {
            let behind = Behind {
                sent: &[0],
                queued: &[],
                received: &[],
            };
            core.keep(index, &behind);
            core.release(index);
        }
    }

    /// Goes on with the connections that another shard has written, as far as there is room for them. Returns how many.
    ///
    /// # Errors
    ///
    /// If `bytes` are not of a shard of this version; some may have been taken then.
    pub fn arrive(&mut self, bytes: &[u8], now: Instant) -> Result<usize, Malformed> {
        let core = &mut self.core;
        core.set_now(now);
        let (&uses_cookies, mut rest) = bytes.split_first().ok_or(Malformed)?;
        if uses_cookies != 0 {
            core.cookie_use.note(now);
        }
        let mut connections = 0;
        while !rest.is_empty() {
            let (record, behind) = Record::take(&mut rest)?;
            connections += usize::from(core.take_in(&record, &behind)?);
        }
        core.publish_levels();
        Ok(connections)
    }
}

impl<S: Service> Core<'_, S> {
    /// Whether a connection that waits for nothing but another message is ended.
    pub(super) fn is_dismissed(&mut self, index: usize) -> bool {
        self.is_draining
            && self.is_idle(index)
            && !(self.is_leaving && self.kind(index) == Some(Kind::Open))
    }

    /// How a connection travels, if it can.
    fn kind(&mut self, index: usize) -> Option<Kind> {
        let (tcb, cold) = (&self.hot[index].tcb, &self.cold[index]);
        match tcb.state {
            State::Free | State::SynSent => None,
            // A peer that has repeated its SYN may have done so to another shard, and be connected there.
            State::SynReceived => {
                let is_young = self.silent_ms(index) < RTO_MIN_MS;
                (cold.is_direct && is_young).then_some(Kind::HalfOpen)
            }
            State::Closing => Some(Kind::TimeWait),
            State::Open => {
                let waits = matches!(cold.watch.wait(), Wait::Message | Wait::Head | Wait::Body)
                    && !tcb.fin_received
                    && !cold.wants_room
                    && !cold.end_seen
                    && !cold.close_pending;
                // What a socket keeps is not told.
                let is_told =
                    waits && (cold.is_direct || self.is_quiet(index, self.hot[index].tcb.snd_una));
                (is_told && self.departs(index).is_some()).then_some(Kind::Open)
            }
        }
    }

    /// What the service says of a connection that another process goes on with.
    fn departs(&mut self, index: usize) -> Option<u8> {
        let state = self.states.get::<S>(self.cold[index].state);
        S::departs(state)
    }

    fn write(&mut self, index: usize, kind: Kind, to: &mut Vec<u8>) {
        let rest = match kind {
            Kind::Open => self.departs(index).unwrap_or_default(),
            Kind::HalfOpen => 0,
            Kind::TimeWait => return self.write_left(&self.left_by(index, Ending::TimeWait), to),
        };
        let (hot, cold) = (&self.hot[index], &self.cold[index]);
        let tcb = hot.tcb;
        let busy = self.direct.senders.get(cold.sender);
        let remembered = busy.map_or(cold.remembered, |busy| busy.sender.remember());
        let since = cold.watch.began_at(&self.config.deadlines);
        let idle = self.now - since.unwrap_or(self.now);
        let l2 = self.neighbours.get(cold.neighbour);
        let mut record = Record::new(kind, self.ends_of(&hot.flow), l2, &tcb)
            .with_options(&cold.options)
            .with_remembered(&remembered);
        record.rest = rest;
        record.told = cold.told;
        record.ts_recent = cold.ts_recent;
        record.idle_ms = u32::try_from(idle.total_millis()).unwrap_or(u32::MAX);
        let at = to.len();
        to.extend(record.as_bytes());
        if kind != Kind::Open {
            return;
        }
        if let Some(Busy { sender, inbox, .. }) = busy {
            let bytes_at = to.len();
            for kept in sender.kept_segments(&self.direct.chunks) {
                to.extend(kept.bytes());
            }
            record.sent_len = tcb.snd_nxt.wrapping_sub(tcb.snd_una);
            record.queued_len = (to.len() - bytes_at) as u32 - record.sent_len;
            record.received_len = inbox.ready() as u32;
            let received_at = to.len();
            to.resize(received_at + inbox.ready(), 0);
            inbox.copy_ready(&self.direct.chunks, &mut to[received_at..]);
            to[at..bytes_at].copy_from_slice(record.as_bytes());
        }
    }

    fn write_time_waits(&self, to: &mut Vec<u8>) {
        for left in self.time_waits.oldest_first() {
            self.write_left(left, to);
        }
    }

    fn write_left(&self, left: &Left, to: &mut Vec<u8>) {
        let tcb = Tcb {
            snd_una: left.snd_nxt,
            snd_nxt: left.snd_nxt,
            rcv_nxt: left.rcv_nxt,
            rcv_wnd: u32::from(left.window),
            ..Tcb::default()
        };
        let options = SynOptions {
            timestamps: left.has_timestamps,
            ..SynOptions::default()
        };
        // What arrives is answered by its own header.
        let l2 = L2Header::new([0; 6], [0; 6], left.flow.is_ipv6());
        let record = Record::new(Kind::TimeWait, self.ends_of(&left.flow), &l2, &tcb);
        let mut record = record.with_options(&options);
        record.ts_recent = left.ts_recent;
        record.rest = match left.ending {
            Ending::TimeWait => TIME_WAIT,
            Ending::FinWait => FIN_WAIT,
            Ending::Closed => CLOSED,
        };
        to.extend(record.as_bytes());
    }

    fn ends_of(&self, flow: &FlowKey) -> Ends {
        Ends {
            remote: (flow.remote_address(), flow.remote_port()),
            local: (self.local.address(flow.local_index()), flow.local_port()),
        }
    }

    /// Goes on with a connection. False if that is none, it is not for this server, or there is no room for it.
    fn take_in(&mut self, record: &Record, behind: &Behind<'_>) -> Result<bool, Malformed> {
        let (kind, tcb, l2) = (record.kind()?, record.tcb()?, record.l2()?);
        let Ends { remote, local } = record.ends();
        let Some(local_index) = self.local.index_of(local.0) else {
            return Ok(false);
        };
        let flow = FlowKey::new(remote.0, remote.1, local_index, local.1);
        let hash = self.flows.hash(&flow);
        let is_known = !matches!(self.find(&flow, hash), Found::Nothing);
        if is_known || !self.local.has_port(local.1) {
            return Ok(false);
        }
        let tcb = match kind {
            Kind::TimeWait => {
                if !self.time_waits.is_disabled() {
                    let left = Left {
                        flow,
                        snd_nxt: tcb.snd_una,
                        rcv_nxt: tcb.rcv_nxt,
                        ts_recent: record.ts_recent,
                        window: tcb.rcv_wnd_field(),
                        ending: match record.rest {
                            TIME_WAIT => Ending::TimeWait,
                            FIN_WAIT => Ending::FinWait,
                            _ => Ending::Closed,
                        },
                        has_timestamps: record.options().timestamps,
                    };
                    self.list_record(left, hash);
                }
                return Ok(false);
            }
            Kind::HalfOpen => Tcb {
                snd_nxt: tcb.snd_una.wrapping_add(1),
                state: State::SynReceived,
                ..tcb
            },
            Kind::Open => Tcb {
                state: State::Open,
                ..tcb
            },
        };
        let Some(index) = self.take_connection(flow, hash, tcb, &l2, 0) else {
            self.counters.listen_overflows.increment();
            return Ok(false);
        };
        let cold = &mut self.cold[index];
        cold.is_direct = true;
        cold.options = record.options();
        cold.highest = tcb.rcv_nxt;
        cold.told = record.told;
        cold.ts_recent = record.ts_recent;
        cold.remembered = record.remembered();
        self.counters.taken_over.increment();
        match kind {
            Kind::HalfOpen => {
                let at = self.now + Duration::from_millis(RTO_MIN_MS.into());
                self.call_at(index, at);
            }
            Kind::Open | Kind::TimeWait => self.go_on(index, record, behind),
        }
        Ok(true)
    }

    /// Goes on with an open connection, which has its place.
    fn go_on(&mut self, index: usize, record: &Record, behind: &Behind<'_>) {
        let arrival = service::Arrival {
            listener: self.listener_of(record.local_port),
            ..service::Arrival::default()
        };
        let (mut state, expect) = self.service.on_accept(arrival);
        S::resume(&mut state, record.rest);
        let cold = &mut self.cold[index];
        self.states.set::<S>(&mut cold.state, state);
        let since = self.now - Duration::from_millis(record.idle_ms.into());
        cold.watch = Watch::established(since, expect, &self.config.deadlines);
        if !self.keep(index, behind) {
            // Its peer learns of it by the RST that its next segment gets.
            return self.release(index);
        }
        self.note_direct_progress(index, 0);
        if !self.is_for_direct_path(index) && self.can_be_handed_over(index) {
            self.hand_over(index, &[]);
        }
    }

    /// Keeps what is behind a record; false if there is no room for it.
    fn keep(&mut self, index: usize, behind: &Behind<'_>) -> bool {
        let Behind {
            sent,
            queued,
            received,
        } = *behind;
        if [sent, queued, received].iter().all(|part| part.is_empty()) {
            return true;
        }
        self.lend_sender(index);
        let (hot, cold) = (&mut self.hot[index], &mut self.cold[index]);
        let Some(Slot {
            sender,
            inbox,
            chunks,
            config,
            ..
        }) = self.direct.slot(cold.sender)
        else {
            return false;
        };
        if (sender.go_on(chunks, config, sent, queued, self.now)).is_err() {
            return false;
        }
        hot.tcb.snd_nxt = sender.nxt();
        if !received.is_empty() {
            let from = hot.tcb.rcv_nxt.wrapping_sub(received.len() as u32);
            let (_, is_kept) = inbox.insert(chunks, from, from, received, true);
            // The service is shown it as soon as the shard is polled.
            cold.wants_room = true;
            if !is_kept {
                return false;
            }
        }
        if !(queued.is_empty() && received.is_empty()) {
            self.wait_to_send(index);
        }
        true
    }
}
