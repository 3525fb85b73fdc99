//! One core: its thread, its queues, its memory, its shard.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use crate::handover::{HandOver, Order};
use crate::interface::Interface;
use crate::redirect::{Mode, Redirect};
use crate::worker::{self, AddedLinks, Passage, WorkerConfig, WorkerCounters};
use crate::xsk::{Share, SpareLink, Transfer, XskConfig, XskLink, ZeroCopy};
use barewire_memory::{Arena, Pages};
use barewire_service::clock::Clock;
use barewire_service::counters::Samples;
use barewire_service::lifecycle::{Lifecycle, Member};
use barewire_service::service::Service;
use barewire_tcp::config::StackConfig;
use barewire_tcp::guard::Secrets;
use barewire_tcp::link::Link;
#[cfg(feature = "faults")]
use barewire_tcp::link::faulty::{Faults, FaultyLink};
use barewire_tcp::outbound::Outbound;
use barewire_tcp::packet::Local;
use barewire_tcp::shard::Shard;
use barewire_tcp::shared::Shared;

use crate::XdpError;
use crate::added::Waiting;
use crate::plan::{CorePlan, list};
use barewire_service::cores::{self, CoreError};
use barewire_service::stack::{CounterGroup, IsThere, OnceThere, QueueTap};

/// What all cores are told.
#[derive(Clone)]
pub(super) struct Common {
    pub interface: Interface,
    pub mode: Mode,
    pub xsk: XskConfig,
    pub stack: StackConfig,
    pub local: Local,
    /// What is called, if nothing is served.
    pub outbound: Option<Outbound>,
    pub secrets: Secrets,
    /// What the cores tell each other.
    pub shared: Shared,
    pub worker: WorkerConfig,
    pub hand_over: Option<HandOver>,
    /// The ports that are served by queues which are another process's yet; `None` if they are free.
    pub bridged: Option<Vec<u16>>,
    #[cfg(feature = "faults")]
    pub faults: Option<(Faults, u64)>,
}

/// What a core has once it can serve.
pub(super) struct Ready {
    /// The socket of each queue.
    pub sockets: Vec<(u32, Arc<OwnedFd>)>,
    /// What binds the queues that have none yet.
    pub transfers: Vec<Transfer>,
    pub report: Vec<String>,
    pub counters: Vec<CounterGroup>,
    pub taps: Vec<QueueTap>,
    /// For queues that may appear.
    pub waiting: Vec<Waiting>,
    /// How many of its queues are zero-copy.
    pub zero_copy: u32,
}

/// A core's thread. It keeps the program attached until it ends.
pub(super) type Starting = cores::Starting<Ready, Arc<Redirect>, XdpError>;
type Gate = cores::Gate<Ready, Arc<Redirect>, XdpError>;

/// Starts a thread for each of `plans`; each makes its service itself.
pub(super) fn spawn_all<S, F>(
    plans: &[CorePlan],
    common: &Common,
    make_service: &F,
    lifecycle: &Lifecycle,
) -> Result<Vec<Starting>, XdpError>
where
    S: Service + 'static,
    F: Fn(usize) -> S + Clone + Send + 'static,
{
    let spawn = |(index, plan): (usize, &CorePlan)| {
        let member = lifecycle.enrol().map_err(failure(index))?;
        let (plan, common, make_service) = (plan.clone(), common.clone(), make_service.clone());
        let hand_over = common.hand_over.as_ref();
        let orders = hand_over.map(|hand_over| hand_over.enrol(member.waker()));
        let told = (member, orders);
        Starting::spawn(format!("xdp/{}", plan.cpu), Some(plan.cpu), move |gate| {
            serve(index, &plan, &common, told, || make_service(index), gate)
        })
        .map_err(failure(index))
    };
    plans.iter().enumerate().map(spawn).collect()
}

/// Waits until all of them are ready, or one of them cannot be.
pub(super) fn wait_for_all(starting: &[Starting]) -> Result<Vec<Ready>, XdpError> {
    let ready = |(index, starting): (usize, &Starting)| starting.wait().map_err(failure(index))?;
    starting.iter().enumerate().map(ready).collect()
}

/// The life of a core. Its error is what kept it from starting; what ended it later is inside.
fn serve<S: Service>(
    index: usize,
    plan: &CorePlan,
    common: &Common,
    (member, orders): (Member, Option<Receiver<Order>>),
    make_service: impl FnOnce() -> S,
    gate: &Gate,
) -> Result<Result<(), CoreError>, XdpError> {
    let Common {
        interface,
        mode,
        xsk,
        ..
    } = common;
    let open = |&queue: &u32| match &common.bridged {
        None => XskLink::open(interface, queue, *mode, xsk),
        Some(ports) => {
            let share = Share {
                queue,
                takes_unmarked: index == 0 && plan.queues.first() == Some(&queue),
                ports: ports.clone(),
            };
            XskLink::bridge(interface, *mode, xsk, &share)
        }
    };
    let links = plan
        .queues
        .iter()
        .map(open)
        .collect::<Result<Vec<_>, _>>()?;
    let arena = Arena::new(common.stack.arena_bytes())?;
    let worker_counters = Arc::new(WorkerCounters::default());

    let socket = |(&queue, link): (&u32, &XskLink)| Some((queue, Arc::clone(link.socket()?)));
    let sockets = plan.queues.iter().zip(&links).filter_map(socket).collect();
    let transfers: Vec<_> = links.iter().filter_map(XskLink::transfer).collect();
    for transfer in &transfers {
        transfer.wakes(member.waker());
    }
    let zero_copy = links.iter().filter(|link| link.outcome().zero_copy).count() as u32;
    let report = report::<S>(index, plan, common, &links, arena.pages());
    let tap = |(&queue, link): (&u32, &XskLink)| QueueTap {
        queue,
        tap: Arc::clone(link.tap()),
        is_there: IsThere::from_the_start(),
    };
    let mut taps: Vec<_> = plan.queues.iter().zip(&links).map(tap).collect();
    let mut counters = vec![group(index, None, "worker", worker_counters.clone())];
    for (&queue, link) in plan.queues.iter().zip(&links) {
        counters.push(group(index, Some(queue), "link", link.shared_counters()));
        let kernel_statistics = Arc::new(link.kernel_statistics());
        counters.push(group(index, Some(queue), "xsk", kernel_statistics));
    }
    let mut spares = Vec::new();
    for &queue in &plan.spare_queues {
        let spare = links[0].spare(&common.interface, queue, &common.xsk)?;
        let is_there = IsThere::default();
        let link = OnceThere {
            is_there: is_there.clone(),
            samples: spare.shared_counters(),
        };
        counters.push(group(index, Some(queue), "link", Arc::new(link)));
        let kernel_statistics = Arc::new(spare.kernel_statistics());
        counters.push(group(index, Some(queue), "xsk", kernel_statistics));
        taps.push(QueueTap {
            queue,
            tap: Arc::clone(spare.tap()),
            is_there: is_there.clone(),
        });
        spares.push((queue, spare, is_there));
    }
    let core = Prepared {
        index,
        common,
        member,
        orders,
        arena,
        worker_counters,
        ready: Ready {
            sockets,
            transfers,
            report,
            counters,
            taps,
            waiting: Vec::new(),
            zero_copy,
        },
        spares,
    };
    #[cfg(feature = "faults")]
    if let Some((faults, seed)) = common.faults {
        let spoil = move |queue: u32, link| FaultyLink::new(link, faults, seed ^ u64::from(queue));
        let links = links.into_iter().zip(&plan.queues);
        let links: Vec<_> = links.map(|(link, &queue)| spoil(queue, link)).collect();
        let mut core = core;
        for (&queue, link) in plan.queues.iter().zip(&links) {
            let counters = link.fault_counters().clone();
            let groups = &mut core.ready.counters;
            groups.push(group(index, Some(queue), "faults", counters));
        }
        return core.serve(links, spoil, make_service, gate);
    }
    core.serve(links, |_, link| link, make_service, gate)
}

/// A core that has everything but its shard.
struct Prepared<'c> {
    index: usize,
    common: &'c Common,
    member: Member,
    orders: Option<Receiver<Order>>,
    arena: Arena,
    worker_counters: Arc<WorkerCounters>,
    ready: Ready,
    spares: Vec<(u32, SpareLink, IsThere)>,
}

impl Prepared<'_> {
    /// Makes the shard, says that the core is ready, and serves when it is told to.
    fn serve<L: Link + Send + 'static, S: Service>(
        mut self,
        links: Vec<L>,
        make_link: impl Fn(u32, XskLink) -> L + Clone + Send + 'static,
        make_service: impl FnOnce() -> S,
        gate: &Gate,
    ) -> Result<Result<(), CoreError>, XdpError> {
        let Common {
            stack,
            local,
            outbound,
            secrets,
            shared,
            worker,
            ..
        } = self.common.clone();
        let now = Clock::new().now();
        let arena = &mut self.arena;
        let service = make_service();
        let shard = Shard::new(stack, local, &secrets, links, service, arena, now)?;
        let mut shard = shard.sharing(shared, self.index);
        if let Some(outbound) = outbound {
            let outbound = Outbound {
                shard: self.index,
                ..outbound
            };
            shard = shard.calling(outbound, &secrets);
        }
        if self.common.bridged.is_some() {
            shard.rehearse();
        }
        let (tcp, discards) = (shard.counters().clone(), shard.discards().clone());
        let sender = shard.sender_counters().clone();
        let counters = &mut self.ready.counters;
        counters.push(group(self.index, None, "tcp", tcp));
        counters.push(group(self.index, None, "sender", sender));
        counters.push(group(self.index, None, "discards", discards));

        let added = Arc::new(AddedLinks::default());
        for (queue, link, is_there) in self.spares {
            let (added, waker) = (Arc::clone(&added), self.member.waker());
            let make_link = make_link.clone();
            let adopt = move |link| {
                added.push(make_link(queue, link));
                waker.wake();
            };
            self.ready.waiting.push(Waiting {
                queue,
                core: self.index,
                link,
                adopt: Box::new(adopt),
                is_there,
            });
        }

        let Some(_attached) = gate.ready(self.ready) else {
            return Ok(Ok(()));
        };
        let hand_over = self.common.hand_over.clone();
        let passage = hand_over
            .zip(self.orders)
            .map(|(hand_over, orders)| Passage {
                core: self.index,
                hand_over,
                orders,
                is_dormant: self.common.bridged.is_some(),
                leaving: None,
            });
        Ok(worker::run(
            shard,
            worker,
            self.member,
            self.worker_counters,
            added,
            passage,
        ))
    }
}

/// An error of the kernel's on core `core`.
fn failure(core: usize) -> impl FnOnce(io::Error) -> XdpError {
    move |source| XdpError::Core { core, source }
}

fn group(
    core: usize,
    queue: Option<u32>,
    part: &'static str,
    counters: Arc<dyn Samples>,
) -> CounterGroup {
    CounterGroup {
        core: Some(core),
        queue,
        part,
        counters,
    }
}

/// What the core got, a line for each queue, and what it took and why.
fn report<S: Service>(
    index: usize,
    plan: &CorePlan,
    common: &Common,
    links: &[XskLink],
    arena: Pages,
) -> Vec<String> {
    let core = format!("core {index} (CPU {})", plan.cpu);
    let mut lines = Vec::new();
    let mut frame_memory = 0;
    for (queue, link) in plan.queues.iter().zip(links) {
        let got = link.outcome();
        let copying = match (got.zero_copy, common.mode, common.xsk.zero_copy) {
            _ if common.bridged.is_some() => "taken over".to_owned(),
            (true, ..) => "zero-copy".to_owned(),
            (false, _, ZeroCopy::Off) => "copy (as asked)".to_owned(),
            (false, Mode::Generic, _) => "copy (generic mode)".to_owned(),
            (false, Mode::Native, _) => match XskLink::zero_copy_mtu_max(&common.interface) {
                Some(max) => format!("copy (zero-copy needs an MTU of at most {max})"),
                None => format!(
                    "copy (driver {} has no zero-copy here)",
                    common.interface.driver
                ),
            },
        };
        let pages = if got.huge_pages { "huge" } else { "normal" };
        let packets = match got.packet_frames {
            1 => String::new(),
            frames => format!(", up to {frames} for a packet"),
        };
        lines.push(format!(
            "{core}: queue {queue}: {mode} mode, {copying}, {frames} frames of {bytes} bytes on {pages} pages{packets}",
            mode = common.mode,
            frames = got.frames,
            bytes = got.frame_bytes,
        ));
        frame_memory += got.frames as usize * got.frame_bytes as usize;
    }
    if !plan.spare_queues.is_empty() {
        // They are like the first one.
        let first = links[0].outcome();
        let spare = plan.spare_queues.len();
        frame_memory += spare * first.frames as usize * first.frame_bytes as usize;
        let queues = list(&plan.spare_queues);
        lines.push(format!(
            "{core}: prepared for queue {queues}, should it appear"
        ));
    }
    let stack = &common.stack;
    let pages = match arena {
        Pages::Huge(_) => "huge",
        Pages::Normal => "normal",
    };
    let start = stack.start_bytes();
    lines.push(format!(
        "{core}: {total} of memory: {sockets} on {pages} pages for {count} sockets with buffers of {receive} + {send} \
         bytes, {frames} for frames; as they come, {each} bytes for an idle connection, {most} in all for \
         {connections} with as much unacknowledged as can be",
        total = mib(start + frame_memory),
        sockets = mib(start),
        count = stack.sockets(),
        receive = stack.receive_buffer_bytes,
        send = stack.send_buffer_bytes,
        frames = mib(frame_memory),
        each = stack.connection_bytes::<S>(),
        most = mib(stack.memory_bytes::<S>() - start),
        connections = stack.connections,
    ));
    lines
}

fn mib(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
