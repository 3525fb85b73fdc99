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

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;

use crate::interface::Interface;
use crate::redirect::{Mode, Redirect, Targets};
use crate::worker::WorkerConfig;
use barewire_service::lifecycle::Lifecycle;
use barewire_service::service::Service;
use barewire_tcp::config::{StackConfig, UnknownFlow};
use barewire_tcp::guard::Secrets;
use barewire_tcp::packet::Local;
use barewire_tcp::shared::Shared;

use barewire_service::cores::choose_cpus;
use barewire_service::stack::{CounterGroup, Notice, Running, Stack};

use crate::added::SpareQueues;
use crate::config::XdpConfig;
use crate::cores::{self, Common};
use crate::error::XdpError;
use crate::plan::Plan;

/// What follows from a configuration and the interface it is for, before anything is taken.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The interface as it is now.
    pub interface: Interface,
    /// The addresses that are served, or called from.
    pub addresses: Vec<IpAddr>,
    /// Which core serves which queues.
    pub plan: Plan,
    /// The limits of each core.
    pub stack: StackConfig,
    /// What each core takes for its own.
    pub local: Local,
    /// What the XDP program redirects.
    pub targets: Targets,
}

impl XdpConfig {
    /// Decides everything that can be decided without changing anything.
    pub fn prepare<S: Service>(&self) -> Result<Prepared, XdpError> {
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
            &choose_cpus(&self.cores)?,
        )?;
        let plan = match self.queues.is_empty() && self.calls.is_none() {
            true => plan.with_spare_queues(self.spare_queues, &interface),
            false => plan,
        };
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
        let mut redirect = Redirect::load(&targets, plan.queues_max(&interface))?;
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
        let starting = cores::spawn_all(&plan.cores, &common, &make_service, lifecycle)?;
        let ready = cores::wait_for_all(&starting)?;

        let attached = format!("{interface}: XDP program attached in {mode} mode");
        let mut notices = vec![Notice::Fact(attached)];
        let mut counters = vec![CounterGroup {
            core: None,
            queue: None,
            part: "redirect",
            counters: redirect.verdicts().clone(),
        }];
        let (mut taps, mut waiting) = (Vec::new(), Vec::new());
        for ready in ready {
            for (queue, socket) in ready.sockets {
                redirect.set_socket(queue, socket.as_fd())?;
            }
            notices.extend(ready.report.into_iter().map(Notice::Fact));
            counters.extend(ready.counters);
            taps.extend(ready.taps);
            waiting.extend(ready.waiting);
        }
        let advice = plan.advice(&interface, &self.ports);
        notices.extend(advice.into_iter().map(Notice::Warning));
        if packet_bytes < interface.mtu && self.mtu.is_none_or(|asked| asked > packet_bytes) {
            notices.push(Notice::Fact(format!(
                "packets of at most {packet_bytes} bytes are sent and asked for, as a frame holds no more; the MTU of \
                 {interface} is {mtu}",
                interface = interface.name,
                mtu = interface.mtu,
            )));
        }
        if mode == Mode::Generic {
            let merging: Vec<_> = interface.receivers();
            notices.push(Notice::Warning(format!(
                "what GRO merges does not fit into a frame and is lost in generic mode: {}",
                merging
                    .iter()
                    .map(|name| format!("`ethtool -K {name} gro off`"))
                    .collect::<Vec<_>>()
                    .join(", ")
            )));
        }
        let redirect = Arc::new(redirect);
        let (watch, noticed) = crate::watch::watch(
            &interface,
            &redirect,
            SpareQueues::new(interface.clone(), self.xsk.clone(), waiting),
        )?;
        counters.push(noticed);
        let served = addresses.iter().flat_map(|&address| {
            self.ports
                .iter()
                .map(move |&port| SocketAddr::new(address, port))
        });
        Ok(Running {
            addresses: served.collect(),
            cpus: plan.cores.iter().map(|core| core.cpu).collect(),
            notices,
            counters,
            taps,
            watch: Some(watch),
            cores: starting
                .into_iter()
                .filter_map(|starting| starting.go(Arc::clone(&redirect)))
                .collect(),
        })
    }
}
