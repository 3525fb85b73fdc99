//! The thread around a shard: where it runs, when it sleeps, how it ends.
//!
//! ```text
//!            ┌──────────────── frames, or something to send ────────────────┐
//!            ▼                                                              │
//!   clock ─▶ poll the shard ── nothing ──▶ spin ── long enough ──▶ sleep ───┘
//!            ▲                               │     (adaptive)   until frames, a phase,
//!            └───────────────────────────────┘                  or the next deadline
//!
//!   Serve ──▶ Drain: no new connections, until none is left or the deadline ──▶ Stop
//! ```
//!
//! A shard knows neither time nor threads; this knows nothing else.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use barewire_service::clock::Clock;
use barewire_service::cores::CoreError;
use barewire_service::lifecycle::{Member, Phase};
use barewire_service::service::Service;
use barewire_service::time::{Duration, Instant};
use barewire_tcp::link::Link;
use barewire_tcp::shard::Shard;

use crate::handover::{Freeze, HandOver, Order, Task};

/// What a core does when there is nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Looks again, for ever: the lowest latency, and a core that is always at 100 %. After a while it
    /// lets others look in between (`sched_yield`), but never sleeps.
    Spin,
    /// Looks again for a while, then sleeps until frames arrive or a deadline passes.
    Adaptive {
        /// How long it looks, in microseconds. What a sleep costs twice over pays off.
        spin_us: u32,
    },
}

impl Default for Wait {
    /// Spins for 50 µs: a little more than sleeping and waking up take.
    fn default() -> Self {
        Wait::Adaptive { spin_us: SPIN_US }
    }
}

const SPIN_US: u32 = 50;

/// How long a sleeping core leaves frames that cannot be sent.
const SEND_RETRY: Duration = Duration::from_millis(1);

/// How a core runs.
#[derive(Debug, Clone, Copy)]
pub struct WorkerConfig {
    /// What it does when there is nothing to do.
    pub wait: Wait,
    /// How long connections may go on after [`Phase::Drain`], in milliseconds.
    pub drain_ms: u32,
}

impl Default for WorkerConfig {
    /// Adaptive waiting, and ten seconds to drain.
    fn default() -> Self {
        WorkerConfig {
            wait: Wait::default(),
            drain_ms: 10_000,
        }
    }
}

barewire_service::counters! {
    /// What one core did with its time.
    pub struct WorkerCounters {
        /// Times the shard was polled and had received frames.
        busy_polls: Counter,
        /// Times the shard was polled and had received nothing.
        empty_polls: Counter,
        /// Times the core went to sleep.
        sleeps: Counter,
        /// Nanoseconds in polls that had received frames, or had something to send.
        busy_ns: Counter,
        /// Nanoseconds in polls that found nothing to do.
        idle_ns: Counter,
        /// Nanoseconds asleep.
        asleep_ns: Counter,
        /// Connections that were cut because they had not drained in time.
        drain_aborted: Loss,
    }
}

/// Runs `shard` on the current thread until its lifecycle ends it.
///
/// # Errors
///
/// If the core cannot sleep, which no healthy system refuses.
pub fn run<L: Link, S: Service>(
    shard: Shard<'_, L, S>,
    config: WorkerConfig,
    member: Member,
    counters: Arc<WorkerCounters>,
    added: Arc<AddedLinks<L>>,
    passage: Option<Passage>,
) -> Result<(), CoreError> {
    let ended = Worker::new(shard, config, member, counters, added, passage).run();
    ended.map_err(|errno| CoreError {
        call: "poll",
        source: errno.into(),
    })
}

/// How a core takes over from another process's, and lets another one take over.
pub struct Passage {
    pub(crate) core: usize,
    pub(crate) hand_over: HandOver,
    pub(crate) orders: Receiver<Order>,
    /// Another process serves: nothing is done before it has stopped.
    pub(crate) is_dormant: bool,
    pub(crate) leaving: Option<Leaving>,
}

/// How far a core is with ending what cannot travel.
pub(crate) struct Leaving {
    /// Told once nothing is left that cannot; `None` if it was.
    ready: Option<Sender<()>>,
    /// When it begins to drain: most of what cannot travel is a moment away from where it can.
    drains_at: Instant,
    is_draining: bool,
    looks_at: Instant,
}

/// How long that moment is.
const LEAVE_PATIENCE: Duration = Duration::from_millis(20);
/// How often is looked: it is a look at each connection.
const LEAVE_LOOK: Duration = Duration::from_millis(5);

/// How long a core looks for frames once none arrive any more.
const HAND_OVER_MAX: Duration = Duration::from_secs(1);
/// How long the queues are kept once another core serves in the place of one: for it to answer what has waited.
const YIELD: std::time::Duration = std::time::Duration::from_millis(5);
/// How long the memory of a core is kept once another one serves in its place: to give back much takes long.
const LINGER: std::time::Duration = std::time::Duration::from_millis(100);
/// How often a core that waits for its predecessor looks at the phase.
const DORMANT_LOOK: std::time::Duration = std::time::Duration::from_millis(100);

/// Links that a core gets while it runs: those of queues that have appeared.
pub struct AddedLinks<L> {
    /// Whether there are some: one load for each turn of the core.
    are_there: AtomicBool,
    links: Mutex<Vec<L>>,
}

impl<L> Default for AddedLinks<L> {
    fn default() -> Self {
        AddedLinks {
            are_there: AtomicBool::new(false),
            links: Mutex::new(Vec::new()),
        }
    }
}

impl<L> AddedLinks<L> {
    /// Leaves a link for the core, which has to be woken then.
    pub fn push(&self, link: L) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.push(link);
        self.are_there.store(true, Ordering::Release);
    }

    fn take(&self) -> Vec<L> {
        self.are_there.store(false, Ordering::Relaxed);
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *links)
    }
}

struct Worker<'a, L, S: Service> {
    shard: Shard<'a, L, S>,
    member: Member,
    added: Arc<AddedLinks<L>>,
    passage: Option<Passage>,
    counters: Arc<WorkerCounters>,
    clock: Clock,
    may_sleep: bool,
    /// What ends a sleep may be something else at the next one.
    is_provisional: bool,
    /// What ends a sleep: the member first, then the links. Empty if the core cannot sleep now.
    fds: Vec<PollFd<'static>>,
    spin_ns: u64,
    drain: Duration,
    /// When the connections that are left are cut.
    drain_until: Option<Instant>,
}

impl<'a, L: Link, S: Service> Worker<'a, L, S> {
    fn new(
        shard: Shard<'a, L, S>,
        config: WorkerConfig,
        member: Member,
        counters: Arc<WorkerCounters>,
        added: Arc<AddedLinks<L>>,
        passage: Option<Passage>,
    ) -> Self {
        let (may_sleep, spin_us) = match config.wait {
            Wait::Spin => (false, SPIN_US),
            Wait::Adaptive { spin_us } => (true, spin_us),
        };
        let mut shard = shard;
        shard.woken_by(member.waker());
        Worker {
            shard,
            member,
            added,
            passage,
            counters,
            clock: Clock::new(),
            may_sleep,
            is_provisional: true,
            fds: Vec::new(),
            spin_ns: u64::from(spin_us) * 1_000,
            drain: Duration::from_millis(config.drain_ms.into()),
            drain_until: None,
        }
    }

    fn run(mut self) -> Result<(), Errno> {
        self.tick();
        self.wait_for_predecessor();
        let mut busy_until_ns = self.clock.now_ns();
        let mut is_sending = false;
        while !self.has_ended(is_sending) {
            if self.added.are_there.load(Ordering::Relaxed) {
                self.take_added();
            }
            if self.is_taken_over() {
                // The successor serves without the queues, and has this CPU first: to give back the memory of frames
                // takes milliseconds.
                std::thread::sleep(YIELD);
                drop(self.shard.take_links());
                std::thread::sleep(LINGER);
                return Ok(());
            }
            let started_ns = self.clock.now_ns();
            let activity = self.shard.poll(self.clock.now());
            self.tick();
            let spent_ns = self.clock.now_ns() - started_ns;
            is_sending = activity.is_sending;
            match activity.frames {
                0 => self.counters.empty_polls.increment(),
                _ => self.counters.busy_polls.increment(),
            }
            match activity.frames > 0 || is_sending {
                true => self.counters.busy_ns.add(spent_ns),
                false => self.counters.idle_ns.add(spent_ns),
            }
            if activity.frames > 0 {
                busy_until_ns = self.clock.now_ns();
                continue;
            }
            for link in self.shard.links_mut() {
                link.kick();
            }
            if self.clock.now_ns() - busy_until_ns < self.spin_ns {
                std::hint::spin_loop();
            } else if !self.can_sleep() {
                // What brings the frames may be a thread of the kernel that waits for this very core.
                rustix::thread::sched_yield();
            } else {
                self.sleep(is_sending)?;
            }
        }
        Ok(())
    }

    /// Serves the queues that have appeared as well.
    #[cold]
    fn take_added(&mut self) {
        for link in self.added.take() {
            self.shard.add_link(link);
            self.fds.clear();
        }
    }

    /// Whether something can end a sleep. A link that frames take two ways to cannot, nor one in memory.
    fn can_sleep(&mut self) -> bool {
        if self.is_provisional {
            self.is_provisional = self.shard.links().iter().any(Link::is_provisional);
            self.fds.clear();
        }
        if self.may_sleep
            && self.fds.is_empty()
            && let Some(links) = self.shard.wake_fds()
        {
            let all = std::iter::once(self.member.as_fd().as_raw_fd()).chain(links);
            // SAFETY: the descriptors belong to `member` and to the links of `shard`, which are in the same struct as
            // this list. A link keeps its descriptor unless that is provisional, and then the list is made anew before it
            // is used: as long as it lives they are open.
            self.fds = all.map(|fd| unsafe { readable(fd) }).collect();
        }
        !self.fds.is_empty()
    }

    /// Goes on with what the predecessor's core had, once that has stopped.
    fn wait_for_predecessor(&mut self) {
        let Some(passage) = self.passage.as_mut().filter(|passage| passage.is_dormant) else {
            return;
        };
        while self.member.phase() == Phase::Serve {
            match passage.orders.recv_timeout(DORMANT_LOOK) {
                Ok(Order::Begin) => {
                    passage.hand_over.wait_for_arrivals();
                    passage.is_dormant = false;
                    break;
                }
                Ok(Order::Admit(Task::Leave(_) | Task::Stay)) => {}
                Ok(Order::Admit(Task::GoOn(connections, arriving))) => {
                    self.clock.tick();
                    if let Err(error) = self.shard.arrive(&connections, self.clock.now()) {
                        tracing::error!("core {}: {error}", passage.core);
                    }
                    arriving.fetch_sub(1, Ordering::AcqRel);
                }
                Ok(Order::Freeze(freeze)) => freeze.refuse(),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.tick();
    }

    /// Whether another process has asked to go on in this core's place, and does.
    fn is_taken_over(&mut self) -> bool {
        let Some(passage) = &mut self.passage else {
            return false;
        };
        let order = passage.orders.try_recv();
        if order.is_err() && passage.leaving.is_none() {
            return false;
        }
        match order {
            Ok(Order::Freeze(freeze)) => return self.hand_over(freeze),
            Ok(Order::Admit(Task::Leave(ready))) => {
                passage.leaving = Some(Leaving {
                    ready: Some(ready),
                    drains_at: self.clock.now() + LEAVE_PATIENCE,
                    is_draining: false,
                    looks_at: self.clock.now(),
                });
            }
            Ok(Order::Admit(Task::Stay)) => {
                passage.leaving = None;
                self.shard.stay();
            }
            Ok(Order::Admit(Task::GoOn(..)) | Order::Begin) | Err(_) => {}
        }
        self.leave();
        false
    }

    /// Ends what cannot travel, if the core is to.
    #[cold]
    fn leave(&mut self) {
        let now = self.clock.now();
        let leaving = self.passage.as_mut().and_then(|it| it.leaving.as_mut());
        let Some(leaving) = leaving.filter(|leaving| now >= leaving.looks_at) else {
            return;
        };
        leaving.looks_at = now + LEAVE_LOOK;
        let stays = self.shard.stays();
        if stays == 0 {
            if let Some(ready) = leaving.ready.take() {
                let _ = ready.send(());
            }
        } else if now >= leaving.drains_at && !leaving.is_draining {
            tracing::info!("draining what cannot travel to the successor: {stays} connections");
            leaving.is_draining = true;
            self.shard.leave(now);
        }
    }

    #[cold]
    fn hand_over(&mut self, freeze: Freeze) -> bool {
        if self.member.phase() != Phase::Serve {
            freeze.refuse();
            return false;
        }
        let Some(Passage {
            core, hand_over, ..
        }) = &self.passage
        else {
            freeze.refuse();
            return false;
        };
        let (core, hand_over) = (*core, hand_over.clone());
        // Nothing arrives any more, and what has arrived is served, here or at the core that has its connection: its
        // senders would repeat it late.
        let until = self.clock.now() + HAND_OVER_MAX;
        let mut has_served = false;
        while self.clock.now() < until {
            self.tick();
            let had_all = has_served && hand_over.note_served(false);
            let activity = self.shard.poll(self.clock.now());
            let is_done = activity.frames == 0 && !activity.is_sending;
            if is_done && had_all {
                break;
            }
            if is_done && !has_served {
                has_served = true;
                hand_over.note_served(true);
            }
        }
        let departure = self.shard.depart();
        let carried = freeze.courier.carry(core, &departure.bytes);
        let carried = carried.map(|()| departure.connections);
        let is_taken_over = freeze.wait(carried.as_ref().copied()).is_some();
        if is_taken_over {
            let counters = self.shard.counters();
            counters.handed_over.add(departure.connections as u64);
        }
        is_taken_over
    }

    fn tick(&mut self) {
        if let Some(unix_time_s) = self.clock.tick() {
            self.shard.set_unix_time(unix_time_s);
        }
        self.shard.service_mut().on_time(self.clock.now_ns());
    }

    /// Follows the phase; true once there is nothing more to do.
    fn has_ended(&mut self, is_sending: bool) -> bool {
        match (self.member.phase(), self.drain_until) {
            (Phase::Serve, _) => return false,
            (Phase::Stop, _) => return true,
            (Phase::Drain, None) => {
                let now = self.clock.now();
                self.drain_until = Some(now + self.drain);
                self.shard.drain(now);
            }
            (Phase::Drain, Some(_)) => {}
        }
        let left = self.shard.connections();
        let is_late = self
            .drain_until
            .is_some_and(|until| self.clock.now() >= until);
        if is_late {
            self.counters.drain_aborted.add(left as u64);
        }
        is_late || (left == 0 && !is_sending)
    }

    /// Sleeps until frames arrive, the phase changes, or something is due. What the links could not
    /// send in all the time spent spinning (the interface is down, say) is tried again now and then.
    fn sleep(&mut self, is_sending: bool) -> Result<(), Errno> {
        let now = self.clock.now();
        let retry = is_sending.then_some(now + SEND_RETRY);
        let leaving = self.passage.as_ref().and_then(|it| it.leaving.as_ref());
        let look = leaving.map(|leaving| leaving.looks_at);
        let due = [self.shard.next_deadline(now), self.drain_until, retry, look];
        let due = due.into_iter().flatten().min();
        if due.is_some_and(|due| due <= now) {
            return Ok(());
        }
        let timeout = due.map(|due| timespec(due - now));
        let started_ns = self.clock.now_ns();
        self.counters.sleeps.increment();
        match poll(&mut self.fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        if self.fds[0].revents().contains(PollFlags::IN) {
            self.member.acknowledge();
        }
        self.tick();
        self.counters
            .asleep_ns
            .add(self.clock.now_ns() - started_ns);
        Ok(())
    }
}

/// An entry that waits for `fd` to become readable.
///
/// # Safety
///
/// It stays open as long as the entry lives.
unsafe fn readable(fd: RawFd) -> PollFd<'static> {
    // SAFETY: as the caller promises.
    PollFd::from_borrowed_fd(unsafe { BorrowedFd::borrow_raw(fd) }, PollFlags::IN)
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: duration.secs() as i64,
        tv_nsec: duration.subsec_micros() as i64 * 1_000,
    }
}
