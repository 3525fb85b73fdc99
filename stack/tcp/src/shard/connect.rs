//! How the connections that we open begin: our SYN, the answer, and a service that sends first.
//!
//! A shard with a [`Caller`] accepts no connections. In each turn, after input and timers, it asks its
//! service what it [wants](barewire_service::service::Want):
//!
//! ```text
//!   Open ─▶ port ─▶ ISN (RFC 6528) ─▶ SYN ──┬─ SYN|ACK here ─────────▶ established ─▶ service
//!                    └─▶ SourcePorts        ├─ SYN|ACK at another core ─▶ it goes on, we forget
//!   Call ─▶ the connection idle the longest ├─ RST, here or there ────▶ refused
//!                                           └─ nothing, SYN again 1, 3, 7 … s later ─▶ unanswered
//! ```

use std::collections::VecDeque;
use std::net::IpAddr;

use siphasher::sip::SipHasher13;
use smoltcp::wire::IpEndpoint;

use crate::config::UnknownFlow;
use crate::control::{L2Header, SynOptions};
use crate::guard::segment::{State, Tcb, Verdict};
use crate::guard::{Secrets, isn};
use crate::link::{Link, Transmit};
use crate::outbound::Outbound;
use crate::packet::{Flags, FlowKey, Segment};
use crate::source_ports::{Cursor, Notice};
use barewire_service::deadline::{Wait, Watch};
use barewire_service::service::{End, Expect, Id, Service, Want};
use barewire_service::time::{Duration, Instant};

use super::wire::Nowhere;
use super::{Arrival, Core, Port, new_interface};

/// The state of a shard that opens connections.
pub(super) struct Caller {
    outbound: Outbound,
    l2: L2Header,
    cursor: Cursor,
    /// The link for the next SYN: the links are used in turn.
    next_link: usize,
    /// Connections that were in SYN-SENT when last seen, if another shard may get their answers.
    opening: Vec<u32>,
    /// Connections that wait for [`Expect::Message`](barewire_service::service::Expect), oldest first; some may
    /// no longer do so.
    idle: VecDeque<u32>,
    /// When the service shall be asked again what it wants.
    pub until: Option<Instant>,
}

/// Time to the next attempt when something was used up, and to the next look at what another shard may have done.
const RETRY: Duration = Duration::from_millis(1);

impl Caller {
    pub fn new(outbound: Outbound, secrets: &Secrets, connections: usize) -> Caller {
        let random = SipHasher13::new_with_key(&secrets.flow).hash(&outbound.shard.to_le_bytes());
        Caller {
            l2: outbound.l2(),
            cursor: outbound.ports.cursor(outbound.shard, random),
            next_link: 0,
            opening: Vec::with_capacity(connections),
            idle: VecDeque::with_capacity(connections),
            until: Some(Instant::ZERO),
            outbound,
        }
    }
}

impl<S: Service> Core<'_, S> {
    /// Does what the service wants of its own accord.
    #[inline]
    pub(super) fn follow_service<L: Link>(&mut self, links: &mut [L]) {
        if self.caller.is_some() {
            self.notice_handovers();
            let until = match self.is_draining {
                true => None,
                false => self.follow_wants(links),
            };
            let soon = self.now + RETRY;
            if let Some(caller) = &mut self.caller {
                // Another shard that gets an answer does not tell this one.
                let unnoticed = (!caller.opening.is_empty()).then_some(soon);
                caller.until = until.into_iter().chain(unnoticed).min();
            }
        }
    }

    fn follow_wants<L: Link>(&mut self, links: &mut [L]) -> Option<Instant> {
        loop {
            let can_be_had = match self.service.wants(self.now) {
                Want::Nothing { until } => return until,
                Want::Open(token) => self.call(token, links),
                Want::Call => self.call_idle(links),
                Want::Connect { token, .. } => {
                    let mut connection = self.service.on_open(token, Id::default());
                    self.service.on_end(&mut connection, End::NoRoute);
                    true
                }
                // There is no such connection: no service got an identity from this shard.
                Want::Wake(_) | Want::Abort(_) => true,
            };
            if !can_be_had {
                return Some(self.now + RETRY);
            }
        }
    }

    /// Begins to open a connection. Returns false if there is no room for one.
    fn call<L: Link>(&mut self, token: u64, links: &mut [L]) -> bool {
        let (flow, link) = match self.choose_flow(links.len()) {
            Ok(chosen) => chosen,
            Err(end) => {
                let mut connection = self.service.on_open(token, Id::default());
                self.service.on_end(&mut connection, end);
                return false;
            }
        };
        let isn = self.isns.choose(&flow, self.now);
        let Some(index) = self.begin_call(flow, isn, token, link) else {
            return false;
        };
        self.counters.active_opens.increment();
        if let Some(caller) = &mut self.caller {
            caller.outbound.ports.offer(&flow, isn, token);
            if caller.outbound.ports.are_shared() {
                caller.opening.push(index as u32);
            }
        }
        self.finish_turn(index, 0, &mut Port::of(links, link));
        true
    }

    /// An unused flow, and the link for its SYN; or what is used up.
    fn choose_flow(&mut self, links: usize) -> Result<(FlowKey, u8), End> {
        if self.has_all_connections() {
            return Err(End::NoConnection);
        }
        let caller = self.caller.as_mut().ok_or(End::NoConnection)?;
        let held = caller.outbound.ports.hold(&mut caller.cursor);
        let (address, port) = held.ok_or(End::NoPort)?;
        let destination = caller.outbound.destination;
        let flow = FlowKey::new(destination.ip(), destination.port(), address, port);
        caller.next_link = (caller.next_link + 1) % links;
        Ok((flow, caller.next_link as u8))
    }

    /// A connection in SYN-SENT whose SYN is still to be sent.
    fn begin_call(&mut self, flow: FlowKey, isn: u32, token: u64, link: u8) -> Option<usize> {
        let l2 = self.caller.as_ref()?.l2;
        let tcb = Tcb {
            snd_nxt: isn,
            ..Tcb::syn_sent(isn)
        };
        let index = self.take_connection(flow, self.flows.hash(&flow), tcb, &l2, link)?;
        self.take_socket(index);
        let ours = self.local.address(flow.local_index());
        let endpoint = |address: IpAddr, port| IpEndpoint::new(address.into(), port);
        self.interface = new_interface(isn::interface_seed(isn), self.config.mtu, self.now);
        let cold = &mut self.cold[index];
        let state = self.service.on_open(token, Id::default());
        self.states.set::<S>(&mut cold.state, state);
        let calling = self.sockets.slot(cold.socket).socket().connect(
            self.interface.context(),
            endpoint(flow.remote_address(), flow.remote_port()),
            endpoint(ours, flow.local_port()),
        );
        debug_assert!(calling.is_ok(), "a new socket can connect");
        Some(index)
    }

    /// The answer to the SYN of a connection of ours.
    pub(super) fn syn_ack_arrives<T: Transmit>(
        &mut self,
        index: usize,
        segment: &Segment,
        frame: &[u8],
        port: &mut Port<'_, T>,
    ) {
        let Some(caller) = &self.caller else { return };
        let Ok(options) = SynOptions::of_segment(segment, frame) else {
            self.counters.syn_sent_drops.increment();
            return;
        };
        // Otherwise another shard got a copy of it first.
        if caller.outbound.ports.withdraw(&segment.flow) {
            self.establish_call(index, segment, &options, frame, port);
        }
    }

    fn establish_call<T: Transmit>(
        &mut self,
        index: usize,
        segment: &Segment,
        options: &SynOptions,
        frame: &[u8],
        port: &mut Port<'_, T>,
    ) {
        let hot = &mut self.hot[index];
        hot.tcb.connect(segment, options.window_scale);
        hot.link = port.link;
        self.follow_neighbour(index, segment, frame);
        self.change_state(index, State::Open);
        self.ingress(index, segment.ip_packet(frame), port.transmit);
        let options = SynOptions {
            // They were not offered.
            timestamps: false,
            ..self.bounded(&segment.flow, *options)
        };
        let cold = &mut self.cold[index];
        cold.options = options;
        cold.highest = self.hot[index].tcb.rcv_nxt;
        cold.watch = Watch::established(self.now, Expect::Message, &self.config.deadlines);
        cold.wants_room = true;
        self.serve_turn(index, &[], port);
        self.finish_turn(index, 1, port);
    }

    /// A segment of a flow that this shard, which accepts nothing, does not know.
    pub(super) fn stray_arrives<T: Transmit>(
        &mut self,
        arrival: &Arrival,
        frame: &[u8],
        port: &mut Port<'_, T>,
    ) {
        let segment = &arrival.segment;
        let Some(isn) = self.awaited(&segment.flow) else {
            let opens = segment.flags.contains(Flags::SYN) && !segment.flags.contains(Flags::ACK);
            // A peer that repeats a segment may choose another path for it, and with that another queue of ours.
            if !opens && self.forward(arrival, frame) {
                return;
            }
            let is_answered = opens || self.config.unknown_flow == UnknownFlow::Reset;
            return match is_answered && !segment.flags.contains(Flags::RST) {
                true => self.reset_sender(segment, frame, port),
                false => self.counters.unknown_flow_ignored.increment(),
            };
        };
        match Tcb::syn_sent(isn).judge(segment, self.config.mtu) {
            Verdict::Connect => self.take_over(arrival, isn, frame, port),
            Verdict::Reset => {
                if let Some(caller) = &self.caller {
                    caller.outbound.ports.refuse(&segment.flow, isn);
                }
            }
            Verdict::Refuse => self.reset_sender(segment, frame, port),
            _ => self.counters.syn_sent_drops.increment(),
        }
    }

    /// The ISN of the SYN that another shard has sent for `flow`.
    fn awaited(&self, flow: &FlowKey) -> Option<u32> {
        let outbound = &self.caller.as_ref()?.outbound;
        let destination = outbound.destination;
        let is_of_destination =
            (flow.remote_address(), flow.remote_port()) == (destination.ip(), destination.port());
        match is_of_destination {
            true => outbound.ports.awaited(flow),
            false => None,
        }
    }

    /// Goes on with a connection that another shard has begun to open.
    fn take_over<T: Transmit>(
        &mut self,
        arrival: &Arrival,
        isn: u32,
        frame: &[u8],
        port: &mut Port<'_, T>,
    ) {
        let flow = arrival.segment.flow;
        if self.has_all_connections() || self.is_draining {
            self.counters.handover_overflows.increment();
            return;
        }
        let Ok(options) = SynOptions::of_segment(&arrival.segment, frame) else {
            self.counters.syn_sent_drops.increment();
            return;
        };
        let ports = self.caller.as_ref().map(|caller| &caller.outbound.ports);
        let Some(token) = ports.and_then(|ports| ports.take(&flow, isn)) else {
            return;
        };
        let Some(index) = self.begin_call(flow, isn, token, port.link) else {
            return;
        };
        self.counters.handovers.increment();
        // The socket must believe that it has sent the SYN.
        let mut unseen = std::mem::take(&mut self.scratch.unseen);
        self.egress(index, &mut Nowhere(&mut unseen), 0);
        self.scratch.unseen = unseen;
        self.establish_call(index, &arrival.segment, &options, frame, port);
    }

    /// Forgets the connections whose answer has arrived at another shard.
    fn notice_handovers(&mut self) {
        let Some(caller) = &mut self.caller else {
            return;
        };
        let mut opening = std::mem::take(&mut caller.opening);
        opening.retain(|&index| {
            let index = index as usize;
            self.hot[index].tcb.state == State::SynSent && self.is_still_opening(index)
        });
        if let Some(caller) = &mut self.caller {
            caller.opening = opening;
        }
    }

    fn is_still_opening(&mut self, index: usize) -> bool {
        let flow = self.hot[index].flow;
        let Some(caller) = &self.caller else {
            return false;
        };
        match caller.outbound.ports.notice(&flow) {
            Notice::Waiting => return true,
            Notice::Refused => {
                self.counters.attempt_fails.increment();
                self.end(index, End::Refused);
            }
            Notice::Taken => {
                self.end_call(index, End::HandedOver);
                self.release(index);
            }
        }
        false
    }

    /// Our SYN was answered with an RST.
    pub(super) fn refused(&mut self, index: usize) {
        self.counters.attempt_fails.increment();
        self.give_up_call(index, End::Refused);
    }

    /// Our SYN was not answered.
    pub(super) fn unanswered(&mut self, index: usize) {
        self.counters.attempt_fails.increment();
        self.give_up_call(index, End::Unanswered);
    }

    /// The answer to our SYN is not wanted any more.
    pub(super) fn hang_up(&mut self, index: usize) {
        self.give_up_call(index, End::Closed);
    }

    fn give_up_call(&mut self, index: usize, end: End) {
        let flow = self.hot[index].flow;
        let is_ours =
            (self.caller.as_ref()).is_none_or(|caller| caller.outbound.ports.withdraw(&flow));
        match is_ours {
            true => self.end(index, end),
            false => drop(self.is_still_opening(index)),
        }
    }

    /// Tells the service that a connection of its own is over.
    pub(super) fn end_call(&mut self, index: usize, end: End) {
        if self.caller.is_some() {
            let state = self.states.get::<S>(self.cold[index].state);
            self.service.on_end(state, end);
        }
    }

    /// Makes a port available again.
    pub(super) fn release_port(&self, flow: &FlowKey) {
        if let Some(caller) = &self.caller {
            caller.outbound.ports.release(flow);
        }
    }

    /// Notes a connection whose service may want to be called on it.
    #[inline]
    pub(super) fn note_idle(&mut self, index: usize) {
        let Some(caller) = &mut self.caller else {
            return;
        };
        let flags = &mut self.hot[index].flags;
        if !flags.is_listed_idle && self.cold[index].watch.wait() == Wait::Message {
            flags.is_listed_idle = true;
            caller.idle.push_back(index as u32);
        }
    }

    /// Calls the service on the connection that has been idle the longest; false if none is.
    fn call_idle<L: Link>(&mut self, links: &mut [L]) -> bool {
        while let Some(index) = (self.caller.as_mut()).and_then(|caller| caller.idle.pop_front()) {
            let index = index as usize;
            self.hot[index].flags.is_listed_idle = false;
            if !self.is_idle(index) {
                continue;
            }
            let mut port = Port::of(links, self.hot[index].link);
            self.cold[index].wants_room = true;
            if !self.cold[index].is_direct {
                self.serve_turn(index, &[], &mut port);
            }
            self.finish_turn(index, 0, &mut port);
            return true;
        }
        false
    }
}
