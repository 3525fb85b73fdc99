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
use std::sync::Arc;

use crate::handover::{HandOver, Inheritance, Place};
use crate::interface::{Framing, Interface};
use crate::redirect::{Holder, Mode, Redirect, RedirectError, Targets};
use crate::worker::WorkerConfig;
use barewire_service::lifecycle::Lifecycle;
use barewire_service::service::Service;
use barewire_tcp::config::{StackConfig, UnknownFlow};
use barewire_tcp::guard::Secrets;
use barewire_tcp::packet::{ChecksumPolicy, Local};
use barewire_tcp::shared::Shared;

use barewire_service::cores::choose_cpus;
use barewire_service::stack::{CounterGroup, Notice, Running, Stack};

use crate::added::SpareQueues;
use crate::config::XdpConfig;
use crate::cores::{self, Common};
use crate::error::XdpError;
use crate::plan::Plan;
use crate::watch::Watched;

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
            // For a client, a missing route is the error to report first.
            Some(calls) if self.addresses.is_empty() => vec![calls.source(&interface)?],
            _ => {
                refuse_framing(&interface)?;
                self.addresses_of(&interface)?
            }
        };
        refuse_framing(&interface)?;
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
            checksums: self.checksums.policy(&interface),
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
            sources: self.sources.clone(),
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

    /// Takes the interface, but no frame yet: attaches the program and reserves the ports. Dropping what is returned
    /// gives all of it back. `barewire check` does just that, to see whether a server would start.
    ///
    /// # Errors
    ///
    /// What keeps a server from starting.
    pub fn take(&self, prepared: &Prepared) -> Result<Taken, XdpError> {
        let Prepared {
            interface,
            addresses,
            targets,
            ..
        } = prepared;
        let mut redirect = Redirect::load(targets, prepared.plan.queues_max(interface))?;
        let (mode, not_native) = redirect.attach(interface, self.mode)?;
        refuse_added_queues(interface)?;
        let stolen = redirect.reserve(interface, addresses, &self.ports, self.steals_ports)?;
        Ok(Taken {
            redirect,
            mode,
            not_native,
            stolen,
        })
    }

    /// Prepares to take the interface from another process, which serves until [`HandOver::begin`].
    fn inherit(prepared: &Prepared, inheritance: Inheritance) -> Result<Taken, XdpError> {
        let Prepared {
            interface,
            targets,
            plan,
            ..
        } = prepared;
        let Inheritance {
            link,
            reserved,
            mode,
            ..
        } = inheritance;
        let mut redirect = Redirect::load(targets, plan.queues_max(interface))?;
        redirect.inherit((link, reserved), interface, mode);
        Ok(Taken {
            redirect,
            mode,
            not_native: None,
            stolen: Vec::new(),
        })
    }
}

/// An interface with the program attached and the ports reserved. No queue has a socket yet, so every frame still
/// goes to the kernel.
pub struct Taken {
    /// The program. Dropping it detaches it.
    pub redirect: Redirect,
    /// Where it runs.
    pub mode: Mode,
    /// Why it does not run in the driver, if it should have.
    pub not_native: Option<RedirectError>,
    /// The addresses and ports that were taken from other processes.
    pub stolen: Vec<(SocketAddr, Holder)>,
}

impl Taken {
    fn notices(&self, interface: &Interface) -> impl Iterator<Item = Notice> {
        let slower = self.not_native.iter().map(|reason| {
            format!("generic mode, which is slower, as native mode is refused: {reason}")
        });
        let stolen = self.stolen.iter().map(|(address, holder)| {
            format!(
                "{address} is taken from {holder}, as asked: what arrives at {} for it does not get there any more",
                interface.name
            )
        });
        slower.chain(stolen).map(Notice::Warning)
    }
}

/// Why uploads are slow from senders on this machine in generic mode. In native mode, drivers keep them from it.
pub const MERGED_BY_SENDERS: &str = "what a sender on this machine hands to its device as one piece for several segments does not fit \
     into a frame and is lost in generic mode, until it is sent again in pieces: at each of them, \
     `ethtool -K IFACE tso off gso off`";

/// Answers go out with the link-layer header of what they answer.
fn refuse_framing(interface: &Interface) -> Result<(), XdpError> {
    match interface.framing {
        Framing::Ethernet => Ok(()),
        Framing::Loopback => Err(XdpError::Loopback(interface.name.clone())),
        Framing::Other(_) => Err(XdpError::NotEthernet {
            interface: interface.name.clone(),
            driver: interface.driver.clone(),
            address: match interface.addresses.first() {
                Some(IpAddr::V6(v6)) => format!("[{v6}]"),
                Some(v4) => v4.to_string(),
                None => "0.0.0.0".to_owned(),
            },
        }),
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
        let prepared = self.prepare::<S>()?;
        let inherited = self.hand_over.as_ref().and_then(HandOver::take_inherited);
        let takes_over = inherited.is_some();
        let (taken, secrets) = match inherited {
            None => (self.take(&prepared)?, Secrets::random()),
            Some(inheritance) => {
                let secrets = inheritance.secrets.clone();
                (Self::inherit(&prepared, inheritance)?, Ok(secrets))
            }
        };
        let Prepared {
            interface,
            addresses,
            plan,
            stack,
            local,
            ..
        } = prepared;
        let taken_notices: Vec<_> = taken.notices(&interface).collect();
        let Taken { redirect, mode, .. } = taken;
        let mut secrets = secrets.map_err(XdpError::Random)?;
        let outbound = match &self.calls {
            None => None,
            Some(calls) => {
                secrets = secrets.for_calling();
                Some(calls.outbound(&addresses, &interface, plan.cores.len())?)
            }
        };
        let shared = Shared::new(&stack, &secrets, plan.cores.len())?;
        let new_addresses = shared.addresses.clone();
        let packet_bytes = stack.mtu;
        let takes_partial = stack.checksums == ChecksumPolicy::VerifyOrPartial;
        let common = Common {
            interface: interface.clone(),
            mode,
            xsk: self.xsk.clone(),
            stack,
            local,
            outbound,
            secrets: secrets.clone(),
            shared,
            hand_over: self.hand_over.clone(),
            bridged: takes_over.then(|| self.ports.clone()),
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

        let taken_over = if takes_over { ", taken over" } else { "" };
        let attached = format!("{interface}: XDP program attached in {mode} mode{taken_over}");
        let mut notices = vec![Notice::Fact(attached)];
        notices.extend(taken_notices);
        let mut counters = vec![CounterGroup {
            core: None,
            queue: None,
            part: "redirect",
            counters: redirect.verdicts().clone(),
        }];
        let (mut taps, mut waiting) = (Vec::new(), Vec::new());
        let mut queues = (0, 0);
        for ready in ready {
            queues.0 += (ready.sockets.len() + ready.transfers.len()) as u32;
            queues.1 += ready.zero_copy;
            for (queue, socket) in ready.sockets {
                redirect.set_socket(queue, &socket)?;
            }
            if let Some(hand_over) = &self.hand_over {
                hand_over.will_take(ready.transfers);
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
        if mode == Mode::Generic && interface.is_virtual() {
            notices.push(Notice::Warning(MERGED_BY_SENDERS.to_owned()));
        }
        if takes_partial {
            notices.push(Notice::Fact(format!(
                "{name} is virtual: checksums that senders on this machine leave to their devices are taken \
                 (--checksums verify refuses them)",
                name = interface.name
            )));
        }
        let redirect = Arc::new(redirect);
        if let Some(hand_over) = &self.hand_over {
            let place = Place {
                interface: interface.name.clone(),
                queues: plan.cores.iter().map(|core| core.queues.clone()).collect(),
                mode,
            };
            hand_over.started(&redirect, &secrets, place);
        }
        let is_discards = |group: &&CounterGroup| group.part == "discards";
        let discards = counters.iter().filter(is_discards);
        let (watch, noticed, added) = crate::watch::watch(Watched {
            interface: &interface,
            redirect: &redirect,
            spare: SpareQueues::new(interface.clone(), self.xsk.clone(), waiting),
            mode,
            queues,
            addresses: addresses.clone(),
            ports: self.ports.clone(),
            new_addresses: (self.addresses.is_empty() && self.calls.is_none())
                .then_some(new_addresses),
            discards: discards.map(|group| group.counters.clone()).collect(),
        })?;
        counters.push(noticed);
        let served = addresses.iter().flat_map(|&address| {
            self.ports
                .iter()
                .map(move |&port| SocketAddr::new(address, port))
        });
        Ok(Running {
            addresses: served.collect(),
            added,
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
