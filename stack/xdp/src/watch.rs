//! What becomes of the interface while it is served, seen by a thread of its own that looks once a second:
//!
//! ```text
//!   gone                                    the server ends: its sockets receive nothing any more, and do not say so
//!   frames arrive, none meets the program   the driver has lost the program when it set itself up anew (vmxnet3 does,
//!                                           after link down or `ethtool -G`): attach it again
//!   more queues than at the start           served, as far as they were prepared for; an alarm beyond that
//!   fewer                                   an alarm: sockets stay with the queues they have
//! ```

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::interface::{Interface, InterfaceError, Presence};
use crate::redirect::{Redirect, Verdicts};
use barewire_service::counters::Samples as _;

use crate::XdpError;
use crate::added::{NotServed, SpareQueues};
use barewire_service::stack::{CounterGroup, Watch};

const INTERVAL: Duration = Duration::from_secs(1);

/// In so many intervals frames must arrive, and none meet the program, before it is attached again. Drivers add up what
/// they received every two seconds or so: one such interval says nothing.
const MISSED_INTERVALS: u32 = 3;
/// Attaching may not help. The next try then comes later, and later.
const MISSED_INTERVALS_MAX: u32 = 600;

barewire_service::counters! {
    /// What was noticed of the interface.
    pub struct InterfaceCounters {
        /// Times the XDP program was attached again because frames no longer met it.
        attached_again: Counter,
        /// Receive queues of the interface.
        rx_queues: Gauge,
        /// Receive queues that are not served although they are in use.
        rx_queues_unserved: Gauge,
    }
}

/// Watches `interface`, whose queues `0..interface.rx_queues` were there at the start. The program is not kept attached.
pub(super) fn watch(
    interface: &Interface,
    redirect: &Arc<Redirect>,
    spare: SpareQueues,
) -> Result<(Watch, CounterGroup), InterfaceError> {
    let counters = Arc::new(InterfaceCounters::default());
    counters.rx_queues.set(interface.rx_queues.into());
    let watcher = Watcher {
        presence: interface.presence()?,
        name: interface.name.clone(),
        redirect: Arc::downgrade(redirect),
        verdicts: Arc::clone(redirect.verdicts()),
        served: interface.rx_queues,
        spare,
        rx_queues_seen: interface.rx_queues,
        reach: Reach::default(),
        counters: Arc::clone(&counters),
    };
    let group = CounterGroup {
        core: None,
        queue: None,
        part: "interface",
        counters,
    };
    Ok((Watch(Box::new(move || watcher.watch().into())), group))
}

struct Watcher {
    presence: Presence,
    name: String,
    redirect: Weak<Redirect>,
    verdicts: Arc<Verdicts>,
    /// How many have been prepared for and served, from queue 0 on.
    served: u32,
    spare: SpareQueues,
    rx_queues_seen: u32,
    reach: Reach,
    counters: Arc<InterfaceCounters>,
}

impl Watcher {
    /// Returns what ends the server.
    fn watch(mut self) -> XdpError {
        loop {
            match self.presence.look(INTERVAL) {
                Ok(None) => return XdpError::Gone(self.name),
                Ok(Some(sighting)) => {
                    self.compare_queues(sighting.rx_queues);
                    if let Err(error) = self.keep_attached(sighting.received) {
                        return error;
                    }
                }
                Err(source) => {
                    return XdpError::Unwatchable {
                        interface: self.name,
                        source,
                    };
                }
            }
        }
    }

    fn compare_queues(&mut self, now: u32) {
        if now == std::mem::replace(&mut self.rx_queues_seen, now) {
            return;
        }
        let refused = self.serve_added(now).err();
        let (name, served) = (&self.name, self.served);
        self.counters.rx_queues.set(now.into());
        let unserved = now.saturating_sub(served);
        self.counters.rx_queues_unserved.set(unserved.into());
        if let Some(reason) = refused {
            tracing::error!(
                "{name} has {now} receive queues, of which {served} are served, so what arrives on the others is \
                 refused: {reason}. Restart the server to serve all of them, or `ethtool -L {name} combined {served}`"
            );
        } else if now == served {
            tracing::info!("{name} has {now} receive queues, and all of them are served");
        } else {
            tracing::error!(
                "{name} has {now} receive queues, and {served} were served: the sockets of the others receive \
                 nothing. If clients are refused, restart the server, or `ethtool -L {name} combined {served}`"
            );
        }
    }

    /// Serves the queues beyond those that are served, so that there are `now`.
    fn serve_added(&mut self, now: u32) -> Result<(), NotServed> {
        let Some(redirect) = self.redirect.upgrade() else {
            // The cores have ended.
            return Ok(());
        };
        let before = self.served;
        while self.served < now {
            let queue = self.served;
            let core = self.spare.serve(queue, now, &redirect)?;
            self.served += 1;
            tracing::info!(
                "{name} has got queue {queue}; core {core} serves it",
                name = self.name
            );
        }
        if self.served > before && self.spare.need_the_program_again() {
            redirect.attach_again()?;
        }
        Ok(())
    }

    fn keep_attached(&mut self, received: Option<u64>) -> Result<(), XdpError> {
        let verdicts = self.verdicts.samples();
        // Before Linux 5.19 nobody may read them without capabilities.
        let (Some(received), false) = (received, verdicts.is_empty()) else {
            return Ok(());
        };
        let met = verdicts.iter().map(|verdict| verdict.value).sum();
        if !self.reach.is_lost(received, met) {
            return Ok(());
        }
        let Some(redirect) = self.redirect.upgrade() else {
            // The cores have ended.
            return Ok(());
        };
        tracing::warn!(
            "frames arrive at {name}, but do not meet the XDP program any more; attaching it again",
            name = self.name
        );
        redirect
            .attach_again()
            .map_err(|source| XdpError::ProgramLost {
                interface: self.name.clone(),
                source,
            })?;
        self.counters.attached_again.increment();
        Ok(())
    }
}

/// Whether what arrives still meets the program.
struct Reach {
    received: u64,
    met: u64,
    /// Intervals with frames of which none met it, since one did.
    missed: u32,
    /// How many are too many.
    missed_max: u32,
}

impl Default for Reach {
    fn default() -> Self {
        Reach {
            received: 0,
            met: 0,
            missed: 0,
            missed_max: MISSED_INTERVALS,
        }
    }
}

impl Reach {
    /// Takes what was received, and what met the program, up to now. True if it was lost; then it counts anew.
    fn is_lost(&mut self, received: u64, met: u64) -> bool {
        // A driver that was set up anew may count from zero again.
        let arrived = received > std::mem::replace(&mut self.received, received);
        if met != std::mem::replace(&mut self.met, met) {
            self.missed = 0;
            self.missed_max = MISSED_INTERVALS;
            return false;
        }
        self.missed += u32::from(arrived);
        let is_lost = self.missed >= self.missed_max;
        if is_lost {
            self.missed = 0;
            self.missed_max = (self.missed_max * 2).min(MISSED_INTERVALS_MAX);
        }
        is_lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of the looks find the program lost.
    fn lost(looks: &[(u64, u64)]) -> Vec<usize> {
        let mut reach = Reach::default();
        let looks = looks.iter().enumerate();
        looks
            .filter(|(_, (received, met))| reach.is_lost(*received, *met))
            .map(|(at, _)| at)
            .collect()
    }

    #[test]
    fn a_program_that_frames_meet_is_not_lost() {
        assert!(lost(&[(5, 5), (9, 9), (9, 9), (9, 9), (9, 9)]).is_empty());
        // The driver counts late.
        assert!(lost(&[(0, 9), (5, 9), (9, 9), (9, 9), (9, 9)]).is_empty());
        // Some of the frames are not shown to any program.
        assert!(lost(&[(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 2), (7, 3)]).is_empty());
    }

    #[test]
    fn frames_in_three_looks_that_it_does_not_meet_mean_that_it_is_lost() {
        let looks = [(9, 9), (10, 9), (10, 9), (11, 9), (12, 9)];
        assert_eq!(lost(&looks), [4]);
        // The driver counts from zero after what made it lose the program.
        assert_eq!(lost(&[(9, 9), (1, 9), (2, 9), (3, 9), (4, 9)]), [4]);
    }

    #[test]
    fn a_try_that_does_not_help_is_repeated_later_and_later() {
        let looks: Vec<_> = (0..30).map(|look| (10 + look, 1)).collect();
        assert_eq!(lost(&looks), [3, 9, 21]);
    }
}
