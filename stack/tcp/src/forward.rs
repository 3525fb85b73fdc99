//! Segments that arrive at another shard than the one that has their connection.
//!
//! The NIC spreads flows over its queues by a hash and a table. When the table changes (`ethtool -X`, `-L`), or a
//! router between sends the flow to another NIC, the segments of a connection arrive at a shard that does not have it. Its
//! state cannot move: the service's part of it belongs to its thread. So the segments are moved:
//!
//! ```text
//!   queue 1 ─▶ shard 1: unknown flow ── LiveFlows: whose may it be? ─▶ Inbox of shard 0 ─▶ its connection
//!                                                                       │ asleep: woken        │
//!                                                                       ▼                      ▼ answers by its own
//!                                                                     Waker                  queue 0
//! ```
//!
//! That costs a copy of each frame for as long as the connection lives; new connections begin where they arrive.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;

use crossbeam_queue::ArrayQueue;

/// The inboxes of all shards. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Forwarding {
    inboxes: Arc<[Inbox]>,
}

/// What waits for one shard.
#[derive(Debug)]
struct Inbox {
    arrived: ArrayQueue<Frame>,
    empty: ArrayQueue<Frame>,
    /// The shard looks into its inbox before it sleeps.
    is_awake: AtomicBool,
    waker: OnceLock<Waker>,
}

/// A received frame, copied.
#[derive(Debug)]
pub(crate) struct Frame {
    buffer: Box<[u8]>,
    len: usize,
}

impl Frame {
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

/// How many frames wait for a shard at most.
const INBOX_FRAMES: usize = 256;

impl Forwarding {
    /// Between so many shards, for frames of at most `frame_bytes`. One shard alone needs none.
    pub fn new(shards: usize, frame_bytes: usize) -> Forwarding {
        let frames = if shards > 1 { INBOX_FRAMES } else { 0 };
        let inbox = || {
            let empty = ArrayQueue::new(frames.max(1));
            for _ in 0..frames {
                let buffer = vec![0; frame_bytes].into_boxed_slice();
                // It has room for all of them.
                let _ = empty.push(Frame { buffer, len: 0 });
            }
            Inbox {
                arrived: ArrayQueue::new(frames.max(1)),
                empty,
                is_awake: AtomicBool::new(true),
                waker: OnceLock::new(),
            }
        };
        Forwarding {
            inboxes: std::iter::repeat_with(inbox).take(shards).collect(),
        }
    }

    /// Gives a frame to those of the shards that `owners` names, but not to `from`. Returns false if none of them
    /// got it.
    pub fn give(&self, from: usize, owners: [u8; 2], frame: &[u8]) -> bool {
        let others = self.inboxes.iter().enumerate();
        let named = others.filter(|&(shard, _)| shard != from && owners.contains(&(shard as u8)));
        named.fold(false, |given, (_, inbox)| inbox.give(frame) || given)
    }

    /// The next frame for shard number `shard`, to be given back.
    #[inline]
    pub fn next(&self, shard: usize) -> Option<Frame> {
        let arrived = &self.inboxes[shard].arrived;
        if arrived.is_empty() {
            None
        } else {
            arrived.pop()
        }
    }

    pub fn give_back(&self, shard: usize, frame: Frame) {
        // There are not more frames than it has room for.
        let _ = self.inboxes[shard].empty.push(frame);
    }

    /// How shard number `shard` is woken. The first one counts.
    pub fn set_waker(&self, shard: usize, waker: Waker) {
        let _ = self.inboxes[shard].waker.set(waker);
    }

    /// Shard number `shard` begins to look at its inbox.
    #[inline]
    pub fn set_awake(&self, shard: usize) {
        let is_awake = &self.inboxes[shard].is_awake;
        if !is_awake.load(Ordering::Relaxed) {
            is_awake.store(true, Ordering::SeqCst);
        }
    }

    /// Whether shard number `shard` may sleep: from here on it is woken by a frame.
    pub fn may_sleep(&self, shard: usize) -> bool {
        let inbox = &self.inboxes[shard];
        inbox.is_awake.store(false, Ordering::SeqCst);
        inbox.arrived.is_empty()
    }
}

impl Inbox {
    fn give(&self, bytes: &[u8]) -> bool {
        let Some(mut frame) = self.empty.pop() else {
            return false;
        };
        let fits = frame.buffer.len() >= bytes.len();
        if fits {
            frame.buffer[..bytes.len()].copy_from_slice(bytes);
            frame.len = bytes.len();
        }
        let to = if fits { &self.arrived } else { &self.empty };
        let is_given = to.push(frame).is_ok() && fits;
        // Orders the push before the load, as `may_sleep` orders its store before looking.
        std::sync::atomic::fence(Ordering::SeqCst);
        if is_given
            && !self.is_awake.load(Ordering::SeqCst)
            && !self.is_awake.swap(true, Ordering::SeqCst)
            && let Some(waker) = self.waker.get()
        {
            waker.wake_by_ref();
        }
        is_given
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    #[derive(Default)]
    struct Calls(AtomicUsize);

    impl Wake for Calls {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn received(forwarding: &Forwarding, shard: usize) -> Option<Vec<u8>> {
        let frame = forwarding.next(shard)?;
        let bytes = frame.bytes().to_vec();
        forwarding.give_back(shard, frame);
        Some(bytes)
    }

    #[test]
    fn a_frame_goes_to_those_who_may_have_its_flow() {
        let forwarding = Forwarding::new(4, 100);
        assert!(forwarding.give(1, [0, 3], b"frame"));
        assert_eq!(
            [0, 1, 2, 3].map(|shard| received(&forwarding, shard).is_some()),
            [true, false, false, true]
        );
        assert!(!forwarding.give(1, [1, 1], b"frame"), "it is its own");
    }

    #[test]
    fn what_is_full_or_too_long_is_not_given() {
        let forwarding = Forwarding::new(2, 100);
        assert!(!forwarding.give(0, [1, 1], &[0; 101]));
        let given = (0..1_000).take_while(|_| forwarding.give(0, [1, 1], b"frame"));
        assert_eq!(given.count(), INBOX_FRAMES);
        assert_eq!(received(&forwarding, 1).as_deref(), Some(&b"frame"[..]));
        assert!(forwarding.give(0, [1, 1], b"frame"));
    }

    #[test]
    fn who_sleeps_is_woken_once() {
        let forwarding = Forwarding::new(2, 100);
        let calls = Arc::new(Calls::default());
        forwarding.set_waker(1, Arc::clone(&calls).into());
        forwarding.give(0, [1, 1], b"awake");
        assert!(!forwarding.may_sleep(1), "there is something to do");
        while received(&forwarding, 1).is_some() {}
        assert!(forwarding.may_sleep(1));
        for _ in 0..3 {
            forwarding.give(0, [1, 1], b"asleep");
        }
        assert_eq!(calls.0.load(Ordering::Relaxed), 1);
        forwarding.set_awake(1);
        forwarding.give(0, [1, 1], b"awake");
        assert_eq!(calls.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn one_shard_alone_takes_no_memory_for_it() {
        assert!(!Forwarding::new(1, 100).give(0, [0, 0], b"frame"));
    }
}
