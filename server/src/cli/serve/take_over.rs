//! `--take-over` in the start of a server: which steps are another's, and which come later.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Sender;

use barewire_kernel::KernelConfig;
use barewire_kernel::handover::HandOver;
use barewire_service::cores::choose_cpus;

use super::args::ServeArgs;
use super::state::StateFile;
use crate::events::Events;
use crate::events::ledger::Totals;
use crate::events::membership::Membership;
use crate::events::state::State;
use crate::fleet::FleetHandle;
use crate::takeover::{Endowment, Successor};

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
        let successor = match args.operation.take_over {
            false => None,
            true => Some(meet(args, stack, config)?),
        };
        let mut passage = Passage {
            hand_over: None,
            successor,
            connections: config.connections,
        };
        let hand_over = match &mut passage.successor {
            None => HandOver::default(),
            Some(successor) => successor.hand_over(),
        };
        config.hand_over = Some(hand_over.clone());
        passage.hand_over = Some(hand_over);
        Ok(passage)
    }
}

fn meet(args: &ServeArgs, stack: &'static str, config: &KernelConfig) -> anyhow::Result<Successor> {
    let endowment = Endowment {
        stack,
        addresses: [config.listen]
            .into_iter()
            .chain(config.listen_also.clone())
            .collect(),
        cpus: choose_cpus(&config.cores)?,
        connections: config.connections,
        keeps_state: args.event.state.is_some(),
        has_fleet: args.fleet.counts_through.is_some(),
    };
    let path = match args.operation.control.as_str() {
        "auto" => None,
        path => Some(Path::new(path)),
    };
    Ok(Successor::meet(path, &endowment)?)
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
    for (core, connections) in begun.connections {
        hand_over.admit(core, connections);
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
