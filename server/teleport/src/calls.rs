//! The calls of a connection, as far as the protocol goes.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use slab::Slab;

use crate::batch::Place;
use crate::fault::Reason;

/// Which call of a connection. Another one never has the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallId {
    /// A small number, which another call has after it.
    pub slot: u32,
    /// The number on the wire, which rises from call to call.
    pub number: u32,
}

/// What is known of a call.
#[derive(Debug)]
pub struct Call {
    pub number: u32,
    /// Where its last frame went.
    pub place: Place,
    /// Bytes that may still be sent.
    pub sendable: u32,
    /// Bytes that the other end may still send.
    pub receivable: u32,
    /// Bytes that were taken and not granted again.
    pub owed: u32,
    pub has_sent_end: bool,
    pub has_received_end: bool,
    /// It is given up, and that is still to be said: until then it counts as one.
    pub reset: Option<Reason>,
}

/// Calls by slot and by number.
pub struct Calls {
    calls: Slab<Call>,
    slots: HashMap<u32, u32, BuildHasherDefault<Spread>>,
    /// A bit for each slot that may have something to say beside DATA.
    news: Vec<u64>,
}

impl Calls {
    /// For at most so many at once.
    pub fn new(calls_max: usize) -> Self {
        Calls {
            calls: Slab::with_capacity(calls_max),
            slots: HashMap::with_capacity_and_hasher(2 * calls_max, BuildHasherDefault::default()),
            news: vec![0; calls_max.div_ceil(64)],
        }
    }

    pub fn len(&self) -> usize {
        self.calls.len()
    }

    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    pub fn insert(&mut self, number: u32, sendable: u32, receivable: u32) -> CallId {
        let slot = self.calls.insert(Call {
            number,
            place: Place::default(),
            sendable,
            receivable,
            owed: 0,
            has_sent_end: false,
            has_received_end: false,
            reset: None,
        }) as u32;
        self.slots.insert(number, slot);
        CallId { slot, number }
    }

    /// The call, unless it is over or given up.
    pub fn get(&mut self, id: CallId) -> Option<&mut Call> {
        let call = self.calls.get_mut(id.slot as usize)?;
        (call.number == id.number && call.reset.is_none()).then_some(call)
    }

    /// The call with this number, unless it is over.
    pub fn find(&mut self, number: u32) -> Option<(CallId, &mut Call)> {
        let slot = *self.slots.get(&number)?;
        let call = self.calls.get_mut(slot as usize)?;
        Some((CallId { slot, number }, call))
    }

    pub fn remove(&mut self, id: CallId) {
        if self
            .calls
            .get(id.slot as usize)
            .is_some_and(|call| call.number == id.number)
        {
            self.calls.remove(id.slot as usize);
            self.slots.remove(&id.number);
        }
    }

    /// The call in this slot has something to say.
    pub fn mark(&mut self, slot: u32) {
        self.news[slot as usize / 64] |= 1 << (slot % 64);
    }

    pub fn has_news(&self) -> bool {
        self.news.iter().any(|bits| *bits != 0)
    }

    /// The next call that may have something to say; `None` in place of one that is over.
    pub fn next_news(&mut self) -> Option<Option<CallId>> {
        let at = self.news.iter().position(|bits| *bits != 0)?;
        let slot = at as u32 * 64 + self.news[at].trailing_zeros();
        self.news[at] &= self.news[at] - 1;
        let call = self.calls.get(slot as usize);
        Some(call.map(|call| CallId {
            slot,
            number: call.number,
        }))
    }

    /// The call in a slot, given up or not.
    pub fn at(&mut self, slot: u32) -> Option<&mut Call> {
        self.calls.get_mut(slot as usize)
    }
}

/// Numbers that rise one by one need no better hash than a multiplication.
#[derive(Debug, Default)]
pub struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0 ^ u64::from(number))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(26);
    }
}
