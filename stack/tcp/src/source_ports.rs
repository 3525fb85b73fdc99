//! The local ports of connections that we open, shared by all cores.
//!
//! The NIC's hash (or, on a veth, the peer's sender) decides at which receive queue a peer's answer arrives, and no core
//! can predict it. So every core sends SYNs from ports of its own, and the core at which the SYN|ACK arrives *takes* the
//! connection: it has the 4-tuple from the segment, and finds here the one number that it lacks, the ISN. The core that
//! sent the SYN notices this, and drops its half. A NIC keeps a flow on its queue, so from then on one core has the
//! connection, and nothing here is touched until its port is given back.
//!
//! ```text
//!                 answered at the calling core
//!            ┌───────────────────────────────────▶ Held ─┐
//!   Free ─▶ Opening(ISN)                             ▲    ├─ over ─▶ Free
//!     ▲      ├── SYN|ACK at another core ─▶ Taken ───┘    │
//!     │      │                                │  noticed   │
//!     │      └── RST at another core ─▶ Refused            │
//!     └───────── noticed ── Gone ◀── over before that ─────┘
//! ```
//!
//! Only the core that owns a port takes it out of `Free`, and only after it has noticed the end of the
//! last connection from there: so no flow ever exists twice.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::packet::FlowKey;

/// All source addresses and ports of a run, and which of them are in use.
#[derive(Debug)]
pub struct SourcePorts {
    addresses: usize,
    first_port: u16,
    shards: usize,
    slots: Box<[Slot]>,
}

/// One address and port.
#[derive(Debug, Default)]
struct Slot {
    /// A [`State`], above the ISN where it has one.
    state: AtomicU64,
    /// What the service calls the connection.
    token: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
enum State {
    Free = 0,
    /// Excluded from use.
    Reserved = 1 << 32,
    /// In use, and known to be by the core it belongs to.
    Held = 2 << 32,
    /// A SYN was sent from it.
    Opening = 3 << 32,
    /// Another core goes on with it.
    Taken = 4 << 32,
    /// Another core was told that it is refused.
    Refused = 5 << 32,
    /// Another core went on with it and is done.
    Gone = 6 << 32,
}

/// Where a shard looks for its next port.
#[derive(Debug)]
pub(crate) struct Cursor {
    shard: usize,
    /// Of the shard's own ports.
    at: usize,
}

/// The state of a connection that is being opened, for the core that sent its SYN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notice {
    /// Nothing yet.
    Waiting,
    /// Another core goes on with it.
    Taken,
    /// It was refused.
    Refused,
}

impl SourcePorts {
    /// All of `ports` on each of so many addresses, dealt out to so many shards.
    ///
    /// # Panics
    ///
    /// If there is no address, no port or no shard.
    pub fn new(addresses: usize, ports: RangeInclusive<u16>, shards: usize) -> SourcePorts {
        assert!(
            addresses > 0 && shards > 0 && !ports.is_empty(),
            "nothing to call from"
        );
        let (first, last) = (*ports.start(), *ports.end());
        let count = usize::from(last - first) + 1;
        SourcePorts {
            addresses,
            first_port: first,
            shards,
            slots: std::iter::repeat_with(Slot::default)
                .take(count * addresses)
                .collect(),
        }
    }

    /// Leaves `port` alone, whatever the address. Call it before the first shard starts.
    pub fn reserve(&self, port: u16) {
        for address in 0..self.addresses {
            if let Some(slot) = self.slot(address, port) {
                slot.state.store(State::Reserved as u64, Ordering::Relaxed);
            }
        }
    }

    /// How many connections there can be at once.
    pub fn capacity(&self) -> usize {
        let is_ours = |slot: &&Slot| slot.load() != State::Reserved as u64;
        self.slots.iter().filter(is_ours).count()
    }

    /// Whether more than one shard calls from them.
    pub(crate) fn are_shared(&self) -> bool {
        self.shards > 1
    }

    /// Where shard number `shard` begins to look; `random` makes that hard to guess.
    pub(crate) fn cursor(&self, shard: usize, random: u64) -> Cursor {
        assert!(shard < self.shards, "no such shard");
        Cursor {
            shard,
            at: (random % self.slots.len() as u64) as usize,
        }
    }

    /// The next free port of a shard, which is then held, and the index of its address.
    ///
    /// Goes round, so that a port rests for as long as possible before it is used again.
    pub(crate) fn hold(&self, cursor: &mut Cursor) -> Option<(u8, u16)> {
        let own = self
            .slots
            .len()
            .saturating_sub(cursor.shard)
            .div_ceil(self.shards);
        for _ in 0..own {
            cursor.at = (cursor.at + 1) % own;
            let index = cursor.at * self.shards + cursor.shard;
            if self.slots[index].change(State::Free as u64, State::Held) {
                let port = self.first_port + (index / self.addresses) as u16;
                return Some(((index % self.addresses) as u8, port));
            }
        }
        None
    }

    /// A SYN with `isn` is sent from a held port: the shard that receives its answer may take it, and gets
    /// `token`.
    pub(crate) fn offer(&self, flow: &FlowKey, isn: u32, token: u64) {
        let slot = self.slot_of(flow);
        slot.token.store(token, Ordering::Relaxed);
        slot.state
            .store(State::Opening as u64 | u64::from(isn), Ordering::Release);
    }

    /// The ISN of the SYN that `flow` awaits the answer to, if it does.
    pub(crate) fn awaited(&self, flow: &FlowKey) -> Option<u32> {
        let state = self
            .slot(flow.local_index().into(), flow.local_port())?
            .load();
        (state & STATE == State::Opening as u64).then_some(state as u32)
    }

    /// Takes over the connection that another shard began to open; its token, or `None` if another shard
    /// was faster.
    pub(crate) fn take(&self, flow: &FlowKey, isn: u32) -> Option<u64> {
        let slot = self.slot_of(flow);
        let token = slot.token.load(Ordering::Relaxed);
        slot.change(State::Opening as u64 | u64::from(isn), State::Taken)
            .then_some(token)
    }

    /// Tells the shard that began to open `flow` that it was refused.
    pub(crate) fn refuse(&self, flow: &FlowKey, isn: u32) {
        self.slot_of(flow)
            .change(State::Opening as u64 | u64::from(isn), State::Refused);
    }

    /// Ends the offer for the shard that made it: the answer has come, or is not waited for any more.
    /// Returns false if another shard has got it, as [`SourcePorts::notice`] will tell.
    pub(crate) fn withdraw(&self, flow: &FlowKey) -> bool {
        let slot = self.slot_of(flow);
        let state = slot.load();
        state & STATE == State::Opening as u64 && slot.change(state, State::Held)
    }

    /// What became of the connection that this shard began to open. It must forget one that was taken
    /// without [`SourcePorts::release`].
    pub(crate) fn notice(&self, flow: &FlowKey) -> Notice {
        let slot = self.slot_of(flow);
        if slot.change(State::Taken as u64, State::Held)
            || slot.change(State::Gone as u64, State::Free)
        {
            Notice::Taken
        } else if slot.load() == State::Refused as u64 {
            Notice::Refused
        } else {
            Notice::Waiting
        }
    }

    /// The connection is over, whichever shard it was at.
    pub(crate) fn release(&self, flow: &FlowKey) {
        let slot = self.slot_of(flow);
        if !slot.change(State::Taken as u64, State::Gone) {
            slot.state.store(State::Free as u64, Ordering::Release);
        }
    }

    fn slot(&self, address: usize, port: u16) -> Option<&Slot> {
        let port = usize::from(port.checked_sub(self.first_port)?);
        self.slots.get(port * self.addresses + address)
    }

    fn slot_of(&self, flow: &FlowKey) -> &Slot {
        let slot = self.slot(flow.local_index().into(), flow.local_port());
        slot.expect("a flow of ours has one of our ports")
    }
}

const STATE: u64 = !0 << 32;

impl Slot {
    fn load(&self) -> u64 {
        self.state.load(Ordering::Acquire)
    }

    fn change(&self, from: u64, to: State) -> bool {
        self.state
            .compare_exchange(from, to as u64, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow((address, port): (u8, u16)) -> FlowKey {
        FlowKey::new([192, 0, 2, 1].into(), 80, address, port)
    }

    #[test]
    fn shards_call_from_ports_of_their_own_until_none_is_left() {
        let ports = SourcePorts::new(2, 1_000..=1_006, 3);
        ports.reserve(1_003);
        assert_eq!(ports.capacity(), 12);
        let mut all = Vec::new();
        for shard in 0..3 {
            let mut cursor = ports.cursor(shard, 0x1234_5678);
            all.extend(std::iter::from_fn(|| ports.hold(&mut cursor)));
        }
        all.sort_unstable();
        let expected = (0..2).flat_map(|address| {
            let ports = (1_000..=1_006).filter(|&port| port != 1_003);
            ports.map(move |port| (address, port))
        });
        assert_eq!(all, expected.collect::<Vec<_>>());
    }

    #[test]
    fn a_port_rests_for_as_long_as_possible() {
        let ports = SourcePorts::new(1, 10..=13, 1);
        let mut cursor = ports.cursor(0, 0);
        let held: Vec<_> = (0..8)
            .map(|_| {
                let held = ports.hold(&mut cursor).unwrap();
                ports.release(&flow(held));
                held.1
            })
            .collect();
        assert_eq!(held, [11, 12, 13, 10, 11, 12, 13, 10]);
    }

    #[test]
    fn an_answer_is_taken_once_and_only_with_the_right_number() {
        let ports = SourcePorts::new(1, 10..=10, 2);
        let held = ports.hold(&mut ports.cursor(0, 0)).unwrap();
        let flow = flow(held);
        assert_eq!((ports.awaited(&flow), ports.take(&flow, 0)), (None, None));
        ports.offer(&flow, 77, 5);
        assert_eq!(ports.awaited(&flow), Some(77));
        assert_eq!(ports.notice(&flow), Notice::Waiting);
        assert_eq!(ports.take(&flow, 76), None);
        assert_eq!(ports.take(&flow, 77), Some(5));
        assert_eq!(ports.take(&flow, 77), None);
        assert!(!ports.withdraw(&flow));
        assert_eq!(ports.notice(&flow), Notice::Taken);
        // The other shard still has it.
        assert_eq!(ports.hold(&mut ports.cursor(0, 0)), None);
        ports.release(&flow);
        assert_eq!(ports.hold(&mut ports.cursor(0, 0)), Some(held));
    }

    #[test]
    fn a_port_is_not_used_again_before_its_shard_has_noticed() {
        let ports = SourcePorts::new(1, 10..=10, 2);
        let held = ports.hold(&mut ports.cursor(0, 0)).unwrap();
        let flow = flow(held);
        ports.offer(&flow, 77, 5);
        assert_eq!(ports.take(&flow, 77), Some(5));
        ports.release(&flow);
        assert_eq!(ports.hold(&mut ports.cursor(0, 0)), None);
        assert_eq!(ports.notice(&flow), Notice::Taken);
        assert_eq!(ports.hold(&mut ports.cursor(0, 0)), Some(held));
    }

    #[test]
    fn a_refusal_reaches_the_shard_that_called() {
        let ports = SourcePorts::new(1, 10..=10, 2);
        let held = ports.hold(&mut ports.cursor(0, 0)).unwrap();
        let flow = flow(held);
        ports.offer(&flow, 77, 5);
        ports.refuse(&flow, 77);
        assert_eq!((ports.awaited(&flow), ports.take(&flow, 77)), (None, None));
        assert_eq!(ports.notice(&flow), Notice::Refused);
        ports.release(&flow);
        assert_eq!(ports.hold(&mut ports.cursor(0, 0)), Some(held));
    }
}
