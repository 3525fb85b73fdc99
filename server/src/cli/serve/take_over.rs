//! `--take-over` in the start of a server: which steps are another's, and which come later.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Sender;

use barewire_kernel::KernelConfig;
use barewire_kernel::handover as kernel;
use barewire_service::cores::choose_cpus;
#[cfg(feature = "xdp")]
use barewire_xdp::{XdpConfig, handover as xdp, redirect::ModeChoice};

use super::args::ServeArgs;
use super::state::StateFile;
use crate::events::Events;
use crate::events::ledger::Totals;
use crate::events::membership::Membership;
use crate::events::state::State;
use crate::fleet::FleetHandle;
use crate::takeover::{Endowment, HandOver, Successor};

/// How a server comes to its listeners, and another one from it to them.
#[derive(Default)]
pub struct Passage {
    /// Of the stack, if it can hand over.
    pub hand_over: Option<HandOver>,
    /// The server to take over from.
    pub successor: Option<Successor>,
    /// Connections of each core.
    pub connections: usize,
}

impl Passage {
    /// Prepares `config` for a successor, and for taking over from a predecessor if `args` ask for it.
    ///
    /// # Errors
    ///
    /// If there is none to take over from.
    pub fn open(
        args: &ServeArgs,
        stack: &'static str,
        config: &mut KernelConfig,
    ) -> anyhow::Result<Self> {
        let endowment = || {
            let listen = [config.listen].into_iter();
            Ok(Endowment {
                stack,
                addresses: listen.chain(config.listen_also.clone()).collect(),
                cpus: choose_cpus(&config.cores)?,
                connections: config.connections,
                bypass: None,
                keeps_state: args.event.state.is_some(),
                has_fleet: args.fleet.counts_through.is_some(),
            })
        };
        let passage = Passage::with(args, config.connections, endowment, || {
            HandOver::Kernel(kernel::HandOver::default())
        })?;
        if let Some(HandOver::Kernel(hand_over)) = &passage.hand_over {
            config.hand_over = Some(hand_over.clone());
        }
        Ok(passage)
    }

    /// The same for the bypass. A server that outlives its interface is another process's child, and stays it.
    ///
    /// # Errors
    ///
    /// As [`Passage::open`], or if the interface cannot be used.
    #[cfg(feature = "xdp")]
    pub fn bypass(args: &ServeArgs, config: &mut XdpConfig) -> anyhow::Result<Self> {
        if args.link.wait_for_interface {
            return Ok(Passage::default());
        }
        let connections = config.stack.connections as usize;
        let passage = Passage::with(
            args,
            connections,
            || endowment(args, config),
            || HandOver::Xdp(xdp::HandOver::default()),
        )?;
        if let Some(HandOver::Xdp(hand_over)) = &passage.hand_over {
            config.hand_over = Some(hand_over.clone());
        }
        Ok(passage)
    }

    fn with(
        args: &ServeArgs,
        connections: usize,
        endowment: impl FnOnce() -> anyhow::Result<Endowment>,
        new: impl FnOnce() -> HandOver,
    ) -> anyhow::Result<Self> {
        let mut successor = match args.operation.take_over {
            false => None,
            true => Some(meet(args, &endowment()?)?),
        };
        let inherited = successor.as_mut().and_then(Successor::hand_over);
        Ok(Passage {
            hand_over: Some(inherited.unwrap_or_else(new)),
            successor,
            connections,
        })
    }
}

#[cfg(feature = "xdp")]
fn endowment(args: &ServeArgs, config: &XdpConfig) -> anyhow::Result<Endowment> {
    use crate::site::Site;
    use crate::takeover::Bypass;
    use barewire_http::Responder;
    use std::net::SocketAddr;

    let prepared = config.prepare::<Responder<Site>>()?;
    let cores = &prepared.plan.cores;
    let of_address = |&address| {
        let ports = config.ports.iter();
        ports.map(move |&port| SocketAddr::new(address, port))
    };
    Ok(Endowment {
        stack: "xdp",
        addresses: prepared.addresses.iter().flat_map(of_address).collect(),
        cpus: cores.iter().map(|core| core.cpu).collect(),
        connections: config.stack.connections as usize,
        bypass: Some(Bypass {
            interface: prepared.interface.name.clone(),
            queues: cores.iter().map(|core| core.queues.clone()).collect(),
            is_native: match config.mode {
                ModeChoice::Auto => None,
                ModeChoice::Native => Some(true),
                ModeChoice::Generic => Some(false),
            },
        }),
        keeps_state: args.event.state.is_some(),
        has_fleet: args.fleet.counts_through.is_some(),
    })
}

fn meet(args: &ServeArgs, endowment: &Endowment) -> anyhow::Result<Successor> {
    let path = match args.operation.control.as_str() {
        "auto" => None,
        path => Some(Path::new(path)),
    };
    Ok(Successor::meet(path, endowment)?)
}

/// Where the publisher goes on, once the predecessor has stopped.
pub type Place = Sender<(Membership, Totals)>;

/// Takes over, when everything has started: from here on this process serves. Returns what says whether the predecessor
/// has ended, and the counts.
///
/// # Errors
///
/// If the predecessor does not hand over; it serves on.
pub fn take_over(
    mut successor: Successor,
    hand_over: &HandOver,
    events: &Arc<Events>,
    (fleet, place): (Option<FleetHandle>, Option<Place>),
    cores_max: usize,
) -> anyhow::Result<(Arc<AtomicBool>, State)> {
    let begun = successor.take(events)?;
    for connections in begun.connections {
        // It serves already: what is malformed is lost.
        if let Err(error) = hand_over.admit(connections) {
            tracing::error!("connections of the predecessor are lost: {error}");
        }
    }
    hand_over.begin();
    let mut state = begun.state;
    if let Some(place) = place {
        // Without a random number it goes on as the predecessor would have.
        let incarnation = u128::from(getrandom::u64().unwrap_or(0)) << 64;
        let incarnation = incarnation | u128::from(getrandom::u64().unwrap_or(0));
        let totals = state.totals().clone();
        let member = state.membership.take();
        if let Some(member) = member.map(|member| member.go_on(&totals, incarnation)) {
            state.membership = Some(member.clone());
            let _ = place.send((member, totals));
        }
    }
    let shard = events.shard(cores_max);
    let has_ended = successor.follow(hand_over.clone(), shard, fleet)?;
    Ok((has_ended, state))
}

/// Keeps `state` in the file at once, as at every start. This server serves already: it goes on without.
pub fn keep(file: Option<&mut StateFile>, state: &State) {
    if let Some(Err(error)) = file.map(|file| file.save(state)) {
        tracing::error!("{error}; the counts are written at the end");
    }
}
