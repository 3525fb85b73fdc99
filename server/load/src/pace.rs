//! What may be asked, and when.
//!
//! Requests are numbered. Threads draw numbers from one [`Tickets`] in blocks, so that together
//! they ask exactly as many as were ordered, and none twice. A [`Pace`] says when the next one is
//! due: at once (closed loop: a connection that has its answer asks again) or by the clock (open loop). With
//! [`Churn`] it is connections that are due by the clock, each of them for one request. A [`Ramp`] keeps the
//! connections of a closed loop from asking all at once in the beginning.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The numbers of all requests of a run, shared by its threads.
#[derive(Debug)]
pub struct Tickets {
    next: AtomicU64,
    end: u64,
    block: u64,
}

impl Tickets {
    /// The numbers `0..count`, drawn in blocks that leave every one of `threads` its share.
    pub fn new(count: u64, threads: usize) -> Self {
        Self::in_blocks(count, (count / (threads as u64 * 64)).clamp(1, 1024))
    }

    /// The numbers `0..count`, drawn one by one, so that they are drawn in their order.
    pub fn in_order(count: u64) -> Self {
        Self::in_blocks(count, 1)
    }

    fn in_blocks(count: u64, block: u64) -> Self {
        Tickets {
            next: AtomicU64::new(0),
            end: count,
            block,
        }
    }

    fn is_empty(&self) -> bool {
        self.next.load(Relaxed) >= self.end
    }

    fn draw_block(&self) -> std::ops::Range<u64> {
        // An exhausted counter is left alone, so that drawing for ever cannot wrap it.
        if self.is_empty() {
            return 0..0;
        }
        let start = self.next.fetch_add(self.block, Relaxed);
        start..start.saturating_add(self.block).min(self.end)
    }
}

/// One thread's share of the [`Tickets`].
#[derive(Debug)]
pub struct Drawer {
    tickets: Arc<Tickets>,
    block: std::ops::Range<u64>,
    stopped: bool,
}

impl Drawer {
    /// A thread that has not drawn yet.
    pub fn new(tickets: &Arc<Tickets>) -> Self {
        Drawer {
            tickets: Arc::clone(tickets),
            block: 0..0,
            stopped: false,
        }
    }

    /// The next number, or `None` when there are no more.
    #[inline]
    pub fn draw(&mut self) -> Option<u64> {
        if self.block.is_empty() && !self.stopped {
            self.block = self.tickets.draw_block();
        }
        self.block.next()
    }

    /// Draws no more, whatever is left.
    pub fn stop(&mut self) {
        self.block = 0..0;
        self.stopped = true;
    }

    /// Whether there is nothing more to ask.
    #[inline]
    pub fn is_exhausted(&self) -> bool {
        self.block.is_empty() && (self.stopped || self.tickets.is_empty())
    }
}

/// When a thread's next request is due. All times are nanoseconds of the client's clock.
#[derive(Debug, Clone)]
pub enum Pace {
    /// Whenever a connection is free to ask.
    ClosedLoop,
    /// At fixed points in time, whether or not earlier answers have come.
    OpenLoop(Schedule),
}

/// One thread's part of a fixed rate: request `k` of the thread is due `first + k * interval`.
#[derive(Debug, Clone)]
pub struct Schedule {
    first_ns: f64,
    interval_ns: f64,
    asked: u64,
}

impl Pace {
    /// Thread `index` of `threads` in an open loop of `rate_per_s` over all of them.
    ///
    /// The threads take turns: their requests do not fall on the same instants.
    pub fn open_loop(rate_per_s: f64, index: usize, threads: usize) -> Self {
        let interval_ns = 1e9 / rate_per_s;
        Pace::OpenLoop(Schedule {
            first_ns: interval_ns * index as f64,
            interval_ns: interval_ns * threads as f64,
            asked: 0,
        })
    }

    /// Lets the schedule begin at `now_ns`.
    pub fn start(&mut self, now_ns: u64) {
        if let Pace::OpenLoop(schedule) = self {
            schedule.first_ns += now_ns as f64;
        }
    }

    /// When the next request is due; `None` when it may be asked at any time.
    #[inline]
    pub fn due_ns(&self) -> Option<u64> {
        match self {
            Pace::ClosedLoop => None,
            Pace::OpenLoop(schedule) => {
                let offset = schedule.interval_ns * schedule.asked as f64;
                Some((schedule.first_ns + offset) as u64)
            }
        }
    }

    /// Moves on to the request after the next.
    #[inline]
    pub fn advance(&mut self) {
        if let Pace::OpenLoop(schedule) = self {
            schedule.asked += 1;
        }
    }
}

/// When connections are opened that each ask one request: number `n` at `first + n * interval`,
/// whichever thread opens it.
#[derive(Debug, Clone)]
pub struct Churn {
    first_ns: f64,
    interval_ns: f64,
    /// Drawn, and not opened yet.
    next: Option<u64>,
}

impl Churn {
    /// So many connections per second, over all threads.
    pub fn new(rate_per_s: f64) -> Self {
        Churn {
            first_ns: 0.0,
            interval_ns: 1e9 / rate_per_s,
            next: None,
        }
    }

    /// Lets the schedule begin at `now_ns`.
    pub fn start(&mut self, now_ns: u64) {
        self.first_ns = now_ns as f64;
    }

    /// When connection number `ticket` is due.
    #[inline]
    pub fn due_ns(&self, ticket: u64) -> u64 {
        (self.first_ns + self.interval_ns * ticket as f64) as u64
    }

    /// The number of the next connection, which stays the next until it is taken.
    #[inline]
    pub fn next(&mut self, drawer: &mut Drawer) -> Option<u64> {
        self.next = self.next.or_else(|| drawer.draw());
        self.next
    }

    /// Takes the next connection, if it is due.
    #[inline]
    pub fn take_due(&mut self, drawer: &mut Drawer, now_ns: u64) -> Option<u64> {
        let ticket = self.next(drawer)?;
        if self.due_ns(ticket) > now_ns {
            return None;
        }
        self.next.take()
    }

    /// A connection that was taken could not even be begun.
    #[cfg(feature = "xdp")]
    pub fn put_back(&mut self, ticket: u64) {
        self.next = Some(ticket);
    }

    /// Opens no more.
    pub fn stop(&mut self) {
        self.next = None;
    }

    /// Whether a connection was drawn that is still to be opened.
    #[inline]
    pub fn holds_one(&self) -> bool {
        self.next.is_some()
    }
}

/// How many connections of a closed loop may have asked for the first time and have no answer yet.
///
/// A closed loop of many connections begins with as many frames at once, which is more than the 256 slots of a
/// veth, or many a NIC's default ring. A frame that is lost there comes again only after a second. So the first
/// requests follow one another as they are answered; a connection that has been answered once asks at any time.
#[derive(Debug, Clone)]
pub struct Ramp {
    /// Connections whose first request has not been answered.
    left: usize,
    /// First requests that await their answer.
    awaited: usize,
    awaited_max: usize,
}

impl Ramp {
    /// At most `awaited_max` first requests at once until `connections` have been answered. What is opened
    /// later in place of others (a server may close after each answer) begins at once.
    pub fn new(connections: usize, awaited_max: usize) -> Self {
        Ramp {
            left: connections,
            awaited: 0,
            awaited_max: awaited_max.max(1),
        }
    }

    /// All at once.
    pub fn none() -> Self {
        Self::new(0, usize::MAX)
    }

    /// Whether a connection may ask for the first time.
    #[inline]
    pub fn may_begin(&self) -> bool {
        self.left == 0 || self.awaited < self.awaited_max
    }

    /// A connection has asked for the first time.
    #[inline]
    pub fn begin(&mut self) {
        self.awaited += 1;
    }

    /// A first request was answered.
    #[inline]
    pub fn answer(&mut self) {
        self.left = self.left.saturating_sub(1);
        self.awaited = self.awaited.saturating_sub(1);
    }

    /// A first request will not be answered.
    pub fn give_up(&mut self) {
        self.awaited = self.awaited.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_together_draw_every_number_once() {
        for count in [0, 1, 63, 64, 1000, 100_000] {
            let tickets = Arc::new(Tickets::new(count, 3));
            let mut drawers = [(); 3].map(|()| Drawer::new(&tickets));
            let mut drawn = Vec::new();
            while drawers.iter().any(|drawer| !drawer.is_exhausted()) {
                drawn.extend(drawers.iter_mut().filter_map(Drawer::draw));
            }
            drawn.sort_unstable();
            assert_eq!(drawn, (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_stopped_drawer_draws_no_more() {
        let tickets = Arc::new(Tickets::new(u64::MAX, 1));
        let mut drawer = Drawer::new(&tickets);
        assert_eq!(drawer.draw(), Some(0));
        drawer.stop();
        assert!(drawer.is_exhausted());
        assert_eq!(drawer.draw(), None);
    }

    #[test]
    fn connections_are_due_in_their_order_whichever_thread_opens_them() {
        let tickets = Arc::new(Tickets::in_order(3));
        let mut threads = [(); 2].map(|()| (Churn::new(1000.0), Drawer::new(&tickets)));
        for (churn, _) in &mut threads {
            churn.start(5_000_000);
        }
        let mut take = |index: usize, now_ns| {
            let (churn, drawer) = &mut threads[index];
            churn.take_due(drawer, now_ns)
        };
        assert_eq!([take(0, 5_000_000), take(0, 5_000_000)], [Some(0), None]);
        assert_eq!([take(1, 6_000_000), take(1, 7_000_000)], [None, Some(2)]);
        assert_eq!([take(0, 6_000_000), take(0, 9_000_000)], [Some(1), None]);
    }

    #[test]
    fn an_open_loop_keeps_its_rate_and_shares_it() {
        let due = |index, asked| {
            let mut pace = Pace::open_loop(1000.0, index, 2);
            pace.start(5_000_000);
            (0..asked).for_each(|_| pace.advance());
            pace.due_ns().unwrap()
        };
        assert_eq!(
            [due(0, 0), due(1, 0), due(0, 1), due(1, 1)],
            [5_000_000, 6_000_000, 7_000_000, 8_000_000]
        );
        assert_eq!(due(0, 500_000), 5_000_000 + 1_000_000_000_000);
    }
}
