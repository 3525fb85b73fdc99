//! TIME-WAIT without a socket (RFC 9293, section 3.6.1).
//!
//! The side that closes first has to remember the connection for two segment lifetimes, so that old
//! segments do not disturb a new connection of the same flow and a lost last ACK can be sent again.
//! That takes the flow and two sequence numbers: a record of 56 bytes in a bounded table. All wait
//! equally long, so the table is a queue, oldest first; when it is full the oldest is dropped.
//!
//! A connection that ends otherwise leaves nothing behind: a late segment of it is answered with an RST. Not so
//! while SYN cookies are in use. A cookie has no memory, and a copy of the segment that has brought it back would
//! open the connection once more, and let its request be served again. Such a connection leaves a record that
//! [has ended](Ending::Closed) for as long as a copy can be on its way, the same two segment lifetimes.

use crate::guard::is_before;
use crate::packet::{Flags, FlowKey, Segment};
use barewire_memory::{OutOfMemory, table};
use barewire_service::time::{Duration, Instant};

/// All connections in TIME-WAIT.
#[derive(Debug)]
pub(crate) struct TimeWaits {
    /// As many as were ever in use at once.
    records: Vec<Record>,
    capacity: usize,
    /// The first of the unused records, linked by `newer`.
    unused: u32,
    oldest: u32,
    newest: u32,
    len: usize,
    duration: Duration,
}

/// One connection in TIME-WAIT.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record {
    pub left: Left,
    expires_at_ms: u32,
    older: u32,
    newer: u32,
}

/// What a connection leaves behind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Left {
    pub flow: FlowKey,
    /// SND.NXT, behind our FIN.
    pub snd_nxt: u32,
    /// RCV.NXT, behind the peer's FIN.
    pub rcv_nxt: u32,
    /// TS.Recent.
    pub ts_recent: u32,
    /// The window that was last advertised.
    pub window: u16,
    pub ending: Ending,
    pub has_timestamps: bool,
}

impl Left {
    /// TS.Recent, if the connection had timestamps.
    pub fn ts_recent(&self) -> Option<u32> {
        self.has_timestamps.then_some(self.ts_recent)
    }
}

/// The state in which a connection has left its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    TimeWait,
    /// The peer has not ended its stream yet: see [`TimeWaits::receive`].
    FinWait,
    /// CLOSED, with a SYN cookie that is still valid.
    Closed,
}

/// What to do with a segment that arrives in TIME-WAIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A new connection may begin; its sequence numbers must lie behind the old one's.
    Recycle,
    /// Send the last ACK again, and wait as long as from the beginning.
    Acknowledge,
    /// An RST: it must not end the wait (RFC 1337).
    IgnoreReset,
    /// There is no connection: answer with an RST.
    Refuse,
    /// The peer has no connection either: forget the record.
    Forget,
    /// It contains nothing new.
    Ignore,
}

const NONE: u32 = u32::MAX;

impl TimeWaits {
    /// At most `capacity` records that wait for `duration`.
    ///
    /// # Errors
    ///
    /// If there is not that much address space; memory is taken as it is used.
    pub fn new(capacity: usize, duration: Duration) -> Result<TimeWaits, OutOfMemory> {
        Ok(TimeWaits {
            records: table(capacity)?,
            capacity,
            unused: NONE,
            oldest: NONE,
            newest: NONE,
            len: 0,
            duration,
        })
    }

    /// Number of records in use.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the next [`TimeWaits::insert`] needs [`TimeWaits::pop_oldest`] first.
    pub fn is_full(&self) -> bool {
        self.unused == NONE && self.records.len() == self.capacity
    }

    /// Whether there are no records at all, and connections end without TIME-WAIT.
    pub fn is_disabled(&self) -> bool {
        self.capacity == 0
    }

    /// What the connection of the record with this index has left.
    pub fn get(&self, index: u32) -> &Left {
        &self.records[index as usize].left
    }

    /// All records, in the order in which they end.
    pub fn oldest_first(&self) -> impl Iterator<Item = &Left> {
        let mut at = self.oldest;
        std::iter::from_fn(move || {
            let record = self.records.get(at as usize)?;
            at = record.newer;
            Some(&record.left)
        })
    }

    /// Begins a wait, and returns the record's index.
    ///
    /// # Panics
    ///
    /// If all records are in use.
    pub fn insert(&mut self, left: Left, now: Instant) -> u32 {
        assert!(!self.is_full(), "no free TIME-WAIT record");
        let record = Record {
            left,
            expires_at_ms: self.expiry(now),
            older: NONE,
            newer: NONE,
        };
        let index = match self.unused {
            NONE => {
                self.records.push(record);
                self.records.len() as u32 - 1
            }
            unused => {
                self.unused = self.records[unused as usize].newer;
                self.records[unused as usize] = record;
                unused
            }
        };
        self.append(index);
        self.len += 1;
        index
    }

    /// Ends the wait of one record.
    pub fn remove(&mut self, index: u32) {
        self.unlink(index);
        self.records[index as usize].newer = self.unused;
        self.unused = index;
        self.len -= 1;
    }

    /// Takes what is next of a connection that another process had closed: its peer may not have ended its stream yet. It is
    /// acknowledged and discarded.
    pub fn receive(&mut self, index: u32, segment: &Segment) {
        let record = &mut self.records[index as usize].left;
        if record.ending == Ending::FinWait && segment.seq == record.rcv_nxt {
            record.rcv_nxt = record.rcv_nxt.wrapping_add(segment.sequence_len());
            if segment.flags.contains(Flags::FIN) {
                record.ending = Ending::TimeWait;
            }
        }
    }

    /// Lets one record wait as long as from the beginning.
    pub fn restart(&mut self, index: u32, now: Instant) {
        self.unlink(index);
        self.records[index as usize].expires_at_ms = self.expiry(now);
        self.append(index);
    }

    /// Ends the longest wait; returns the record's index and flow.
    pub fn pop_oldest(&mut self) -> Option<(u32, FlowKey)> {
        let index = self.oldest;
        let flow = self.records.get(index as usize)?.left.flow;
        self.remove(index);
        Some((index, flow))
    }

    /// Ends one wait that is over; returns the record's index and flow.
    pub fn pop_expired(&mut self, now: Instant) -> Option<(u32, FlowKey)> {
        let oldest = self.records.get(self.oldest as usize)?;
        if is_before(millis(now), oldest.expires_at_ms) {
            return None;
        }
        self.pop_oldest()
    }

    /// When the first wait is over.
    pub fn next_at(&self, now: Instant) -> Option<Instant> {
        let oldest = self.records.get(self.oldest as usize)?;
        let left_ms = oldest.expires_at_ms.wrapping_sub(millis(now)) as i32;
        Some(now + Duration::from_millis(left_ms.max(0) as u64))
    }

    /// What to do with `segment`, which belongs to the flow of this record, and came with this TSval.
    pub fn judge(&self, index: u32, segment: &Segment, ts_value: Option<u32>) -> Verdict {
        let record = self.get(index);
        let flags = segment.flags;
        let is_syn = flags.contains(Flags::SYN) && !flags.contains(Flags::ACK);
        let is_closed = record.ending == Ending::Closed;
        let times = record.ts_recent().zip(ts_value);
        let has_newer_time = times.is_some_and(|(recent, value)| is_before(recent, value));
        if flags.contains(Flags::RST) {
            // RFC 9293, section 3.5.1: the answer to the ACK of an older SYN.
            match is_closed && segment.seq == record.rcv_nxt {
                true => Verdict::Forget,
                false => Verdict::IgnoreReset,
            }
        } else if is_syn && (is_before(record.rcv_nxt, segment.seq) || has_newer_time) {
            // RFC 1122, section 4.2.2.13; RFC 6191, section 2.
            Verdict::Recycle
        } else if is_closed && !is_syn {
            Verdict::Refuse
        } else if segment.sequence_len() > 0 || segment.seq != record.rcv_nxt {
            Verdict::Acknowledge
        } else {
            // Two ends in TIME-WAIT that acknowledged each other's ACKs would never stop.
            Verdict::Ignore
        }
    }

    /// Bytes of memory that `capacity` records take.
    pub fn memory_bytes(capacity: usize) -> usize {
        capacity * size_of::<Record>()
    }

    fn expiry(&self, now: Instant) -> u32 {
        millis(now).wrapping_add(self.duration.total_millis() as u32)
    }

    fn append(&mut self, index: u32) {
        let newest = std::mem::replace(&mut self.newest, index);
        self.records[index as usize].older = newest;
        self.records[index as usize].newer = NONE;
        match self.records.get_mut(newest as usize) {
            Some(newest) => newest.newer = index,
            None => self.oldest = index,
        }
    }

    fn unlink(&mut self, index: u32) {
        let Record { older, newer, .. } = self.records[index as usize];
        match self.records.get_mut(older as usize) {
            Some(older) => older.newer = newer,
            None => self.oldest = newer,
        }
        match self.records.get_mut(newer as usize) {
            Some(newer) => newer.older = older,
            None => self.newest = older,
        }
    }
}

fn millis(now: Instant) -> u32 {
    now.total_millis() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    const DURATION: Duration = Duration::from_secs(60);

    fn flow(port: u16) -> FlowKey {
        FlowKey::new([192, 0, 2, 1].into(), port, 0, 80)
    }

    fn left(port: u16) -> Left {
        Left {
            flow: flow(port),
            snd_nxt: 1,
            rcv_nxt: 2,
            ts_recent: 0,
            window: 3,
            ending: Ending::TimeWait,
            has_timestamps: false,
        }
    }

    #[test]
    fn a_record_is_small() {
        assert!(size_of::<Record>() <= 56);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u16),
        Remove(usize),
        Restart(usize),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            any::<u16>().prop_map(Step::Insert),
            any::<usize>().prop_map(Step::Remove),
            any::<usize>().prop_map(Step::Restart),
            (0u64..40_000).prop_map(Step::Wait),
        ]
    }

    proptest! {
        /// The table against a queue of (index, flow, expiry).
        #[test]
        fn records_expire_in_order_and_none_is_lost(steps in proptest::collection::vec(step(), 0..200)) {
            let mut waits = TimeWaits::new(8, DURATION).unwrap();
            let mut model: VecDeque<(u32, FlowKey, Instant)> = VecDeque::new();
            let mut now = Instant::from_secs(1);
            for step in steps {
                match step {
                    Step::Insert(port) => {
                        prop_assert_eq!(waits.is_full(), model.len() == 8);
                        if waits.is_full() {
                            let (index, key, _) = model.pop_front().unwrap();
                            prop_assert_eq!(waits.pop_oldest(), Some((index, key)));
                        }
                        let index = waits.insert(left(port), now);
                        prop_assert!(model.iter().all(|&(used, ..)| used != index));
                        model.push_back((index, flow(port), now + DURATION));
                    }
                    Step::Remove(at) if !model.is_empty() => {
                        let (index, ..) = model.remove(at % model.len()).unwrap();
                        waits.remove(index);
                    }
                    Step::Restart(at) if !model.is_empty() => {
                        let (index, key, _) = model.remove(at % model.len()).unwrap();
                        waits.restart(index, now);
                        model.push_back((index, key, now + DURATION));
                    }
                    Step::Wait(millis) => now += Duration::from_millis(millis),
                    _ => {}
                }
                while model.front().is_some_and(|&(.., expiry)| expiry <= now) {
                    let (index, key, _) = model.pop_front().unwrap();
                    prop_assert_eq!(waits.pop_expired(now), Some((index, key)));
                }
                prop_assert_eq!(waits.pop_expired(now), None);
                prop_assert_eq!(waits.len(), model.len());
                prop_assert_eq!(waits.next_at(now), model.front().map(|&(.., expiry)| expiry));
            }
        }
    }
}
