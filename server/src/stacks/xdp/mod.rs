//! The stack that bypasses the kernel: one shard per core, over AF_XDP.
//!
//! ```text
//!   interface ─▶ plan: queues ─▶ cores
//!       │
//!       ├─▶ XDP program attached (passes everything: no queue has a socket)
//!       ├─▶ on each core's own thread: pin ─▶ open its queues ─▶ memory ─▶ shard ─▶ ready
//!       └─▶ all ready: queues' sockets into the program ─▶ go
//! ```
//!
//! Not a frame is taken from the kernel before every core can serve. If any step fails, the threads
//! are told not to go, everything they opened is closed, and the program is detached.

mod config;
mod cores;
mod plan;
mod watch;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;

use barewire_stack::arena::OutOfMemory;
use barewire_stack::config::{ConfigError, StackConfig, UnknownFlow};
use barewire_stack::guard::Secrets;
use barewire_stack::interface::{Interface, InterfaceError};
use barewire_stack::lifecycle::Lifecycle;
use barewire_stack::link::xsk::XskError;
use barewire_stack::packet::{Local, LocalError};
use barewire_stack::redirect::{Mode, Redirect, RedirectError, Targets};
use barewire_stack::route::RouteError;
use barewire_stack::service::Service;
use barewire_stack::shared::Shared;
use barewire_stack::worker::{self, PinError, WorkerConfig};
use thiserror::Error;

use super::{CounterGroup, Running, Stack, Watch};

pub use config::{Calls, XdpConfig};
pub use plan::PlanError;

pub(crate) use plan::Plan;

use cores::{Common, Starting};

/// Why the stack cannot start.
#[derive(Debug, Error)]
pub enum XdpError {
    /// The interface cannot be used.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// The interface has no address, and none was named.
    #[error(
        "{0} has no address to serve: give it one (`ip address add ADDRESS/PREFIX dev {0}`), or name those to serve"
    )]
    NoAddress(String),
    /// Packets are to be longer than the interface can send.
    #[error(
        "packets of {asked} bytes are longer than the MTU of {interface}, which is {mtu}: ask for at most that, \
         or `ip link set dev {interface} mtu {asked}`"
    )]
    MtuTooLarge {
        /// The size that was asked for, in bytes.
        asked: usize,
        /// The interface.
        interface: String,
        /// Its MTU.
        mtu: usize,
    },
    /// The addresses and ports cannot be served.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// The queues and cores do not go together.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// What is to be called cannot be reached.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// Both ends of a connection are of the same family.
    #[error(
        "{address} cannot call {destination}: name an address of the same family, IPv4 or IPv6"
    )]
    Family {
        /// The address to call from.
        address: IpAddr,
        /// Where to.
        destination: IpAddr,
    },
    /// The traffic cannot be taken.
    #[error(transparent)]
    Redirect(#[from] RedirectError),
    /// A queue cannot be opened.
    #[error(transparent)]
    Xsk(#[from] XskError),
    /// A core cannot be used.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// Attaching the program changed the queues.
    #[error(
        "driver {driver} of {interface} has {before} receive queues, and {after} once an XDP program is attached; the \
         added ones cannot serve. Use all that it has, then it adds none: `ethtool -L {interface} combined {max}`"
    )]
    AddedQueues {
        /// The interface.
        interface: String,
        /// Its driver.
        driver: String,
        /// Receive queues without the program.
        before: u32,
        /// Receive queues with it.
        after: u32,
        /// Receive queues that it can have.
        max: u32,
    },
    /// The NIC takes off the tags by which VLANs are told apart.
    #[error(
        "{interface} has VLANs on it ({vlans}), but takes their tags off received frames, so what arrives in a VLAN would be \
         answered outside of it: `ethtool -K {interface} rxvlan off`"
    )]
    VlanTags {
        /// The interface.
        interface: String,
        /// The VLAN interfaces on top of it, separated by commas.
        vlans: String,
    },
    /// The interface is gone.
    #[error(
        "{0} is gone: its driver was unbound, or it was deleted or moved to another network namespace; start again when \
         it is back, or serve with --wait-for-interface"
    )]
    Gone(String),
    /// A limit is out of bounds.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is not enough memory.
    #[error(transparent)]
    Memory(#[from] OutOfMemory),
    /// There is no source of secrets.
    #[error("the system has no random source to make keys from: {0}")]
    Random(getrandom::Error),
    /// The kernel refused something that every kernel has.
    #[error("cannot start core {core}: {source}")]
    Core {
        /// The core's index.
        core: usize,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// What follows from a configuration and the interface it is for, before anything is taken.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    pub interface: Interface,
    pub addresses: Vec<IpAddr>,
    pub plan: Plan,
    /// The limits of each core.
    pub stack: StackConfig,
    pub local: Local,
    pub targets: Targets,
}

impl XdpConfig {
    /// Decides everything that can be decided without changing anything.
    pub(crate) fn prepare<S: Service>(&self) -> Result<Prepared, XdpError> {
        let interface = Interface::named(&self.interface)?;
        let addresses = match &self.calls {
            Some(calls) if self.addresses.is_empty() => vec![calls.source(&interface)?],
            _ => self.addresses_of(&interface)?,
        };
        refuse_taken_tags(&interface)?;
        let plan = Plan::new(
            &self.queues,
            &self.cores,
            &interface,
            &worker::allowed_cores(),
        )?;
        let stack = StackConfig {
            mtu: self.mtu_of(&interface)?,
            unknown_flow: match self.calls {
                // Cores share what they have.
                None => UnknownFlow::Reset,
                // Only some of the ports are ours, and which is known when a connection is opened.
                Some(_) => UnknownFlow::for_shards(plan.cores.len()),
            },
            ..self.stack.clone()
        };
        stack.validate(S::REPLY_BYTES_MIN)?;
        let (local, ports) = match &self.calls {
            None => (
                Local::new(&addresses, &self.ports)?,
                self.ports.iter().map(|&port| port..=port).collect(),
            ),
            Some(calls) => (
                Local::calling(&addresses, calls.source_ports.clone())?,
                calls.ports().collect(),
            ),
        };
        let targets = Targets {
            addresses: addresses.clone(),
            ports,
        };
        let local = local.at_mac(interface.mac);
        Ok(Prepared {
            interface,
            addresses,
            plan,
            stack,
            local,
            targets,
        })
    }
}

/// A tag that the NIC took off is in a descriptor that an AF_XDP socket does not get.
fn refuse_taken_tags(interface: &Interface) -> Result<(), XdpError> {
    let vlans = interface.vlans();
    if vlans.is_empty() || interface.settings()?.takes_vlan_tags != Some(true) {
        return Ok(());
    }
    Err(XdpError::VlanTags {
        interface: interface.name.clone(),
        vlans: vlans.join(", "),
    })
}

/// Where it has so many to spare, virtio_net adds a queue pair for each CPU when a program is attached, for frames that
/// programs send. The host spreads what arrives over these too, but AF_XDP sockets cannot send from them.
fn refuse_added_queues(before: &Interface) -> Result<(), XdpError> {
    let queues = Interface::named(&before.name)?.rx_queues;
    if queues == before.rx_queues {
        return Ok(());
    }
    Err(XdpError::AddedQueues {
        interface: before.name.clone(),
        driver: before.driver.clone(),
        before: before.rx_queues,
        after: queues,
        max: before.rx_queues_max,
    })
}

impl Stack for XdpConfig {
    type Error = XdpError;

    fn start<S, F>(self, make_service: F, lifecycle: &Lifecycle) -> Result<Running, XdpError>
    where
        S: Service + 'static,
        F: Fn(usize) -> S + Clone + Send + 'static,
    {
        let Prepared {
            interface,
            addresses,
            plan,
            stack,
            local,
            targets,
        } = self.prepare::<S>()?;
        let mut redirect = Redirect::load(&targets, interface.rx_queues)?;
        let mode = redirect.attach(&interface, self.mode)?;
        refuse_added_queues(&interface)?;
        let mut secrets = Secrets::random().map_err(XdpError::Random)?;
        let outbound = match &self.calls {
            None => None,
            Some(calls) => {
                secrets = secrets.for_calling();
                Some(calls.outbound(&addresses, &interface, plan.cores.len())?)
            }
        };
        let shared = Shared::new(&stack, &secrets, plan.cores.len())?;
        let packet_bytes = stack.mtu;
        let common = Common {
            interface: interface.clone(),
            mode,
            xsk: self.xsk.clone(),
            stack,
            local,
            outbound,
            secrets,
            shared,
            worker: WorkerConfig {
                wait: self.wait,
                drain_ms: self.drain_ms,
            },
            #[cfg(feature = "faults")]
            faults: self.faults,
        };
        // Declared after the program, so dropped before it: the threads have ended when it is detached.
        let starting = Starting::spawn_all(&plan.cores, &common, &make_service, lifecycle)?;
        let ready = Starting::wait_for_all(&starting)?;

        let mut report = vec![format!("{interface}: XDP program attached in {mode} mode")];
        let mut counters = vec![CounterGroup {
            core: None,
            queue: None,
            part: "redirect",
            counters: redirect.verdicts().clone(),
        }];
        let mut taps = Vec::new();
        for ready in ready {
            for (queue, socket) in ready.sockets {
                redirect.set_socket(queue, socket.as_fd())?;
            }
            report.extend(ready.report);
            counters.extend(ready.counters);
            taps.extend(ready.taps);
        }
        report.extend(plan.advice(&interface, &self.ports));
        if packet_bytes < interface.mtu && self.mtu.is_none_or(|asked| asked > packet_bytes) {
            report.push(format!(
                "packets of at most {packet_bytes} bytes are sent and asked for, as a frame holds no more; the MTU of \
                 {interface} is {mtu}",
                interface = interface.name,
                mtu = interface.mtu,
            ));
        }
        if mode == Mode::Generic {
            let merging: Vec<_> = interface.receivers();
            report.push(format!(
                "warning: what GRO merges does not fit into a frame and is lost in generic mode: {}",
                merging
                    .iter()
                    .map(|name| format!("`ethtool -K {name} gro off`"))
                    .collect::<Vec<_>>()
                    .join(", ")
            ));
        }
        let redirect = Arc::new(redirect);
        let (watch, noticed) = watch::watch(&interface, &redirect)?;
        counters.push(noticed);
        let served = addresses.iter().flat_map(|&address| {
            self.ports
                .iter()
                .map(move |&port| SocketAddr::new(address, port))
        });
        Ok(Running {
            addresses: served.collect(),
            cpus: plan.cores.iter().map(|core| core.cpu).collect(),
            report,
            counters,
            taps,
            watch: Some(watch),
            cores: starting
                .into_iter()
                .filter_map(|starting| starting.go(&redirect))
                .collect(),
        })
    }
}
