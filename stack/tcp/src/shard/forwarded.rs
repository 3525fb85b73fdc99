//! Segments that arrive at the wrong shard; see [`crate::forward`].

use crate::link::{Link, Transmit};
use crate::packet;
use barewire_service::service::Service;

use super::{Arrival, Core, FORWARDED_PER_TURN, Found, NO_CONNECTION, Port};

impl<S: Service> Core<'_, S> {
    /// Gives a segment to the shard that seems to have its connection. Returns false if none does.
    pub(super) fn forward(&self, arrival: &Arrival, frame: &[u8]) -> bool {
        let Some(owners) = self.flows.elsewhere(arrival.hash) else {
            return false;
        };
        self.counters.unknown_flow_elsewhere.increment();
        let forwarding = self.forwarding.as_ref();
        if !forwarding.is_some_and(|forwarding| forwarding.give(self.shard, owners, frame)) {
            self.counters.forward_drops.increment();
        }
        true
    }

    /// Takes segments of this shard's connections that arrived at other shards. What is left is the next turn's.
    #[inline]
    pub(super) fn take_forwarded<L: Link>(&mut self, links: &mut [L]) {
        for _ in 0..FORWARDED_PER_TURN {
            let forwarding = self.forwarding.as_ref();
            let Some(frame) = forwarding.and_then(|forwarding| forwarding.next(self.shard)) else {
                return;
            };
            self.forwarded_arrives(frame.bytes(), links);
            if let Some(forwarding) = &self.forwarding {
                forwarding.give_back(self.shard, frame);
            }
        }
    }

    #[cold]
    fn forwarded_arrives<L: Link>(&mut self, frame: &[u8], links: &mut [L]) {
        let Ok(segment) = packet::parse(frame, &self.local, self.config.checksums) else {
            return;
        };
        let hash = self.flows.hash(&segment.flow);
        let found = self.find(&segment.flow, hash);
        // It is answered where the connection's segments leave, not where this one arrived.
        let link = match found {
            Found::Connection(index) => self.hot[index].link,
            Found::TimeWait(_) | Found::Nothing => 0,
        };
        let mut port = Port::of(links, link);
        if port.transmit.free_slots() == 0 && segment.sequence_len() > 0 {
            self.counters.rx_dropped_no_slot.increment();
            return;
        }
        let arrival = Arrival {
            segment,
            frame: 0,
            hash,
            connection: NO_CONNECTION,
        };
        match found {
            Found::Connection(index) => {
                self.counters.forwarded.increment();
                self.connection_receives(index, &segment, frame, &mut port);
                self.acknowledge_batch(&mut port);
            }
            Found::TimeWait(record) => {
                self.counters.forwarded.increment();
                self.time_wait_receives(record, &arrival, frame, &mut port);
            }
            // It only seemed to be here.
            Found::Nothing => self.counters.unknown_flow_ignored.increment(),
        }
    }
}
