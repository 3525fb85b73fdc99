//! The path MTU to each peer (RFC 1191, RFC 8201, RFC 4821).
//!
//! Every packet forbids its fragmentation, and the first guess is the interface's MTU. Two things say
//! that the way to a peer is narrower:
//!
//! ```text
//!   a router: ICMP "too big" ──▶ any core ──┬─ its own flow ───────▶ sequence number in [UNA, NXT)? ─▶ narrower
//!                                           └─ another core's flow ─▶ that core's Inbox ──▶ …
//!   silence: two timeouts of a segment longer than the next size down ────────────────────▶ narrower
//!                                                                                              │
//!   new connections to the same address ◀── PathTable: address ─▶ size, for ten minutes ◀──────┘
//! ```
//!
//! The table is shared by all cores, has a fixed size and no locks: an entry is one word, and a newer one
//! takes the place of the oldest of its bucket. It is a cache: an entry that is missing costs its connection
//! another message from the router, or two more timeouts.

use std::hash::Hasher;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;
use siphasher::sip::SipHasher13;

use crate::guard::Secrets;
use crate::packet::icmp::TooBig;
use barewire_service::time::{Duration, Instant};

/// The smallest size that is accepted for an IPv4 path, as Linux's `net.ipv4.route.min_pmtu`. RFC 791 allows
/// 68 bytes, with which a forged message could almost stop a connection.
pub const IPV4_MIN: usize = 552;

/// The smallest size of an IPv6 path (RFC 8200, section 5; RFC 8201, section 4).
pub const IPV6_MIN: usize = 1_280;

/// For how long a size is believed; then a larger one is tried again (RFC 1191, section 6.3; RFC 8201, section 4).
const BELIEVED: Duration = Duration::from_secs(600);

/// What all cores know about paths. Cheap to clone; one for all shards of a server.
#[derive(Debug, Clone)]
pub struct Paths {
    table: Arc<PathTable>,
    /// Messages of routers about a shard's connections that arrived at another shard; by shard.
    inboxes: Arc<[ArrayQueue<TooBig>]>,
}

/// How many messages wait for a shard at most.
const INBOX_MESSAGES: usize = 64;

impl Paths {
    /// For so many shards; `secrets` are those of the server.
    pub fn new(secrets: &Secrets, shards: usize) -> Paths {
        let inboxes = std::iter::repeat_with(|| ArrayQueue::new(INBOX_MESSAGES));
        Paths {
            table: Arc::new(PathTable::new(&secrets.flow)),
            inboxes: inboxes.take(shards).collect(),
        }
    }

    pub(crate) fn table(&self) -> &PathTable {
        &self.table
    }

    /// Passes a router's message to all shards but `from`. Returns false if one of them had no space for it.
    pub(crate) fn tell_others(&self, from: usize, message: TooBig) -> bool {
        let others = self.inboxes.iter().enumerate();
        let others = others.filter(|&(shard, _)| shard != from);
        // Not `all`, which would stop at the first that is full.
        others.fold(true, |told, (_, inbox)| inbox.push(message).is_ok() && told)
    }

    /// The next message for shard number `shard`.
    #[inline]
    pub(crate) fn next_message(&self, shard: usize) -> Option<TooBig> {
        let inbox = &self.inboxes[shard];
        if inbox.is_empty() { None } else { inbox.pop() }
    }

    pub(crate) fn has_shard(&self, shard: usize) -> bool {
        shard < self.inboxes.len()
    }

    /// Whether there are other shards.
    pub(crate) fn are_shared(&self) -> bool {
        self.inboxes.len() > 1
    }
}

/// From an address to the size of the packets that reach it, where that is known to be small.
#[derive(Debug)]
pub(crate) struct PathTable {
    hasher: SipHasher13,
    buckets: Box<[Bucket]>,
    /// Something was ever entered: until then new connections need not look.
    is_used: AtomicBool,
}

/// One cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Bucket([AtomicU64; 8]);

/// 64 KiB: 8,192 addresses behind narrow paths.
const BUCKETS: usize = 1_024;

/// An entry as a word: a tag of the address in the upper half, below it the size, in the lowest 18 bits the
/// time. Zero is no entry.
///
/// Two addresses with the same tag share the smaller size, which does no harm; without the key an attacker cannot
/// choose them. The time wraps around after 24 days, and an old entry may then be valid once more.
#[derive(Debug, Clone, Copy)]
struct Entry(u64);

impl Entry {
    const TICK_S: i64 = 8;
    const TICKS: u64 = 1 << 18;

    fn new(tag: u32, size: usize, now: Instant) -> Entry {
        Entry(u64::from(tag) << 32 | (size as u64 & 0x3fff) << 18 | Self::tick(now))
    }

    fn tick(now: Instant) -> u64 {
        (now.secs() / Self::TICK_S) as u64 % Self::TICKS
    }

    fn tag(self) -> u32 {
        (self.0 >> 32) as u32
    }

    fn size(self) -> usize {
        (self.0 >> 18 & 0x3fff) as usize
    }

    fn age_s(self, now: Instant) -> u64 {
        let ticks = Self::tick(now).wrapping_sub(self.0) % Self::TICKS;
        ticks * Self::TICK_S as u64
    }

    fn is_believed(self, now: Instant) -> bool {
        self.0 != 0 && self.age_s(now) < BELIEVED.secs()
    }
}

impl PathTable {
    fn new(key: &[u8; 16]) -> PathTable {
        let buckets = std::iter::repeat_with(Bucket::default);
        PathTable {
            hasher: SipHasher13::new_with_key(key),
            buckets: buckets.take(BUCKETS).collect(),
            is_used: AtomicBool::new(false),
        }
    }

    /// The largest packet that is believed to reach `address`, in bytes; `None` if nothing is known.
    pub fn get(&self, address: IpAddr, now: Instant) -> Option<usize> {
        if !self.is_used.load(Ordering::Relaxed) {
            return None;
        }
        let (bucket, tag) = self.place(address);
        let entries = bucket
            .0
            .iter()
            .map(|word| Entry(word.load(Ordering::Relaxed)));
        let ours = entries.filter(|entry| entry.tag() == tag && entry.is_believed(now));
        ours.map(Entry::size).min()
    }

    /// From now on packets of at most `size` bytes are believed to reach `address`.
    pub fn set(&self, address: IpAddr, size: usize, now: Instant) {
        self.is_used.store(true, Ordering::Relaxed);
        let (bucket, tag) = self.place(address);
        let value = |word: &AtomicU64| Entry(word.load(Ordering::Relaxed));
        let own = bucket.0.iter().find(|word| value(word).tag() == tag);
        let oldest = || {
            let age = |word: &&AtomicU64| match value(word) {
                Entry(0) => u64::MAX,
                entry => entry.age_s(now),
            };
            bucket.0.iter().max_by_key(age)
        };
        // Two cores that do this at once may lose one of the entries, which will be learnt again.
        if let Some(word) = own.or_else(oldest) {
            word.store(Entry::new(tag, size, now).0, Ordering::Relaxed);
        }
    }

    fn place(&self, address: IpAddr) -> (&Bucket, u32) {
        let mut hasher = self.hasher;
        match address {
            IpAddr::V4(address) => hasher.write(&address.octets()),
            IpAddr::V6(address) => hasher.write(&address.octets()),
        }
        let hash = hasher.finish();
        (&self.buckets[hash as usize % BUCKETS], (hash >> 32) as u32)
    }
}

/// What a connection knows about its path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Path {
    /// The longest IP packet it sends, in bytes.
    size: u16,
    /// The longest that it has sent since anything was acknowledged, or it made them smaller.
    longest: u16,
    /// Timeouts in a row, without an acknowledgment of anything new.
    timeouts: u8,
    /// It was made smaller because of them, and nothing has been acknowledged since.
    is_guess: bool,
    /// When a larger size may be tried, in ticks.
    until: u16,
}

/// What [`Path::until`] counts. A connection that is idle for longer than half of the three days after which the ticks
/// wrap around may believe in a small size once more.
const TICK_S: i64 = 4;

fn tick(at: Instant) -> u16 {
    (at.secs() / TICK_S) as u16
}

/// After so many timeouts in a row of a long segment, its length is taken as the cause.
const TIMEOUTS: u8 = 2;

/// The sizes that are tried below the interface's MTU when long packets vanish. 1,500: behind jumbo frames. 1,280: every
/// IPv6 link carries it, and tunnels leave it of 1,500. 576: every IPv4 host takes it (RFC 1122, section 3.3.2).
const GUESSES: [u16; 3] = [1_500, 1_280, 576];

impl Path {
    /// A path that takes packets of `size` bytes, as far as is known.
    pub fn new(size: usize, now: Instant) -> Path {
        Path {
            size: u16::try_from(size).unwrap_or(u16::MAX),
            longest: 0,
            timeouts: 0,
            is_guess: false,
            until: tick(now + BELIEVED),
        }
    }

    /// The longest IP packet to send, in bytes. `mtu` is the interface's: what is tried when all that was
    /// learnt is old.
    #[inline]
    pub fn size(&mut self, mtu: usize, now: Instant) -> usize {
        if usize::from(self.size) < mtu && tick(now).wrapping_sub(self.until) as i16 >= 0 {
            *self = Path::new(mtu, now);
        }
        usize::from(self.size)
    }

    /// A packet of `len` bytes was sent.
    #[inline]
    pub fn note_sent(&mut self, len: usize) {
        self.longest = self.longest.max(len as u16);
    }

    /// A router says that packets of at most `size` bytes get through. Returns false if that is nothing new.
    pub fn narrow(&mut self, size: usize, now: Instant) -> bool {
        let is_news = size < usize::from(self.size);
        if is_news {
            *self = Path::new(size, now);
        }
        is_news
    }

    /// The retransmission timer has expired, and all that is in flight will be sent again. Returns true if it
    /// shall be sent in smaller packets, because longer ones seem to vanish (RFC 4821, section 7.7; RFC 8899,
    /// section 4.3): a black hole.
    pub fn on_timeout(&mut self, is_ipv6: bool, now: Instant) -> bool {
        self.timeouts = self.timeouts.saturating_add(1);
        let min = if is_ipv6 { IPV6_MIN } else { IPV4_MIN };
        let next = GUESSES.into_iter().find(|&size| size < self.size);
        match next.filter(|&next| next < self.longest) {
            Some(next) if self.timeouts >= TIMEOUTS && usize::from(next) >= min => {
                *self = Path {
                    timeouts: self.timeouts,
                    is_guess: true,
                    ..Path::new(usize::from(next), now)
                };
                true
            }
            _ => false,
        }
    }

    /// Something new was acknowledged. Returns the size if that confirms that it was a good guess.
    #[inline]
    pub fn on_progress(&mut self) -> Option<usize> {
        (self.timeouts, self.longest) = (0, 0);
        let was_guess = std::mem::take(&mut self.is_guess);
        was_guess.then_some(usize::from(self.size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seconds: u64) -> Instant {
        Instant::from_secs(1_000_000) + Duration::from_secs(seconds)
    }

    fn address(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[test]
    fn what_one_shard_learns_the_others_know_for_ten_minutes() {
        let paths = Paths::new(&Secrets::from_seed(1), 2);
        let other = paths.clone();
        paths.table().set(address(1), 1_400, after(0));
        assert_eq!(other.table().get(address(1), after(590)), Some(1_400));
        assert_eq!(other.table().get(address(2), after(0)), None);
        assert_eq!(other.table().get(address(1), after(610)), None);
        other.table().set(address(1), 1_300, after(620));
        assert_eq!(paths.table().get(address(1), after(620)), Some(1_300));
    }

    #[test]
    fn a_full_table_forgets_the_oldest() {
        let table = PathTable::new(&[7; 16]);
        let count = 10 * 8 * BUCKETS as u32;
        for number in 0..count {
            table.set(address(number), 1_400, after(u64::from(number / 1_000)));
        }
        let now = after(u64::from(count / 1_000));
        assert_eq!(table.get(address(count - 1), now), Some(1_400));
        let known = |numbers: std::ops::Range<u32>| {
            let known = numbers.filter(|&number| table.get(address(number), now).is_some());
            known.count()
        };
        assert!(known(count - 1_000..count) > 900);
        assert_eq!(known(0..1_000), 0);
    }

    #[test]
    fn a_message_for_another_shard_reaches_all_but_the_one_that_has_it() {
        let paths = Paths::new(&Secrets::from_seed(1), 3);
        let message = TooBig {
            flow: Default::default(),
            seq: 7,
            mtu: 1_400,
        };
        assert!(paths.tell_others(1, message));
        assert_eq!(paths.next_message(1), None);
        for shard in [0, 2] {
            assert_eq!(paths.next_message(shard), Some(message));
            assert_eq!(paths.next_message(shard), None);
        }
        for _ in 0..INBOX_MESSAGES {
            paths.tell_others(0, message);
        }
        assert!(!paths.tell_others(0, message), "its inbox is full");
        assert_eq!(paths.next_message(1), Some(message));
    }

    #[test]
    fn long_segments_that_vanish_twice_are_made_shorter() {
        let mut path = Path::new(1_500, after(0));
        path.note_sent(1_500);
        assert!(!path.on_timeout(false, after(1)));
        assert!(path.on_timeout(false, after(3)));
        assert_eq!(path.size(1_500, after(3)), 1_280);
        path.note_sent(1_280);
        assert!(path.on_timeout(false, after(7)));
        assert_eq!(path.size(1_500, after(7)), 576);
        path.note_sent(576);
        assert!(
            !path.on_timeout(false, after(11)),
            "not below what every host takes"
        );
        assert_eq!(path.on_progress(), Some(576));
        assert_eq!(path.on_progress(), None);
        assert_eq!(path.size(1_500, after(603)), 576);
        assert_eq!(path.size(1_500, after(607)), 1_500, "tried again");
    }

    #[test]
    fn an_ipv6_path_takes_1280_bytes() {
        let mut path = Path::new(1_500, after(0));
        path.note_sent(1_500);
        path.on_timeout(true, after(1));
        assert!(path.on_timeout(true, after(3)));
        path.note_sent(1_280);
        assert!(!path.on_timeout(true, after(7)));
        assert_eq!(path.size(1_500, after(7)), 1_280);
    }

    #[test]
    fn short_segments_that_vanish_say_nothing_about_the_path() {
        let mut path = Path::new(1_500, after(0));
        path.note_sent(200);
        for seconds in 1..10 {
            assert!(!path.on_timeout(false, after(seconds)));
        }
        assert_eq!(path.size(1_500, after(10)), 1_500);
    }

    #[test]
    fn a_lost_segment_now_and_then_is_no_black_hole() {
        let mut path = Path::new(1_500, after(0));
        for seconds in 1..100 {
            path.note_sent(1_500);
            assert!(!path.on_timeout(false, after(seconds)));
            assert_eq!(path.on_progress(), None);
        }
    }
}
