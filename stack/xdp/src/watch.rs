//! What becomes of the interface while it is served, seen by a thread of its own that looks once a second:
//!
//! ```text
//!   gone                                    the server ends: its sockets receive nothing any more, and do not say so
//!   frames arrive, none meets the program   the driver has lost the program when it set itself up anew (vmxnet3 does,
//!                                           after link down or `ethtool -G`): attach it again
//!   more queues than at the start           served, as far as they were prepared for; an alarm beyond that
//!   fewer                                   an alarm: sockets stay with the queues they have
//!   down, or without carrier, or up again   a line: connections wait meanwhile, as their timers allow
//!   a new address                           served, if all addresses are to be served
//!   an address is lost                      a line: clients do not reach the server there until it is back
//!   checksums refused that are left to a    a line with the cure, once
//!   device
//! ```

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::interface::{AddressChange, Interface, InterfaceError, Link, Presence, is_routable};
use crate::redirect::{Mode, Redirect, RedirectError, Verdicts};
use barewire_service::counters::Samples;
use barewire_tcp::addresses::NewAddresses;

use crate::XdpError;
use crate::added::{NotServed, SpareQueues};
use barewire_service::stack::{AddedAddresses, CounterGroup, Watch};

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
        /// Served queues whose frames the NIC reads and writes itself.
        zero_copy_queues: Gauge,
        /// 1 if the XDP program runs in the driver, 0 in generic mode.
        native_mode: Gauge,
        /// 1 if the interface is up and has a carrier, else 0.
        link_up: Gauge,
        /// Times the interface went down or lost its carrier.
        link_downs: Counter,
        /// Addresses that are served since they were added to the interface.
        addresses_added: Counter,
    }
}

/// What is watched.
pub(super) struct Watched<'w> {
    /// As it was at the start.
    pub interface: &'w Interface,
    /// It is not kept attached.
    pub redirect: &'w Arc<Redirect>,
    pub mode: Mode,
    /// How many queues have sockets, and how many of these are zero-copy.
    pub queues: (u32, u32),
    /// Those that may appear.
    pub spare: SpareQueues,
    /// What is served.
    pub addresses: Vec<IpAddr>,
    pub ports: Vec<u16>,
    /// Whom to tell of new addresses, if they are to be served.
    pub new_addresses: Option<NewAddresses>,
    /// What the cores count.
    pub discards: Vec<Arc<dyn Samples>>,
}

/// Makes the thread's work; its counters; and the addresses that it will begin to serve.
pub(super) fn watch(
    watched: Watched<'_>,
) -> Result<(Watch, CounterGroup, AddedAddresses), InterfaceError> {
    let interface = watched.interface;
    let counters = Arc::new(InterfaceCounters::default());
    counters.zero_copy_queues.set(watched.queues.1.into());
    let is_native = watched.mode == Mode::Native;
    counters.native_mode.set(is_native.into());
    let added = AddedAddresses::default();
    let mut watcher = Watcher {
        presence: interface.presence()?,
        name: interface.name.clone(),
        redirect: Arc::downgrade(watched.redirect),
        verdicts: Arc::clone(watched.redirect.verdicts()),
        served: interface.rx_queues,
        spare: watched.spare,
        rx_queues_seen: 0,
        rx_queues_served: watched.queues.0,
        link: Link::Up,
        addresses: Addresses {
            served: watched
                .addresses
                .into_iter()
                .map(|address| (address, true))
                .collect(),
            ports: watched.ports,
            tell: watched.new_addresses,
            added: added.clone(),
        },
        discards: Some(watched.discards),
        reach: Reach::default(),
        counters: Arc::clone(&counters),
    };
    // Until the kernel has said more.
    watcher.note_queues(interface.rx_queues);
    counters.link_up.set(interface.is_up.into());
    let group = CounterGroup {
        core: None,
        queue: None,
        part: "interface",
        counters,
    };
    Ok((
        Watch(Box::new(move || watcher.watch().into())),
        group,
        added,
    ))
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
    /// How many have sockets: without those that are left out.
    rx_queues_served: u32,
    link: Link,
    addresses: Addresses,
    /// Until it was said that some were refused.
    discards: Option<Vec<Arc<dyn Samples>>>,
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
                    if let Some(name) = sighting.renamed {
                        tracing::warn!("{} is called {name} now", self.name);
                        self.name = name;
                    }
                    self.compare_queues(sighting.rx_queues);
                    self.compare_link(sighting.link);
                    let was_whole = sighting.addresses.is_empty();
                    for (change, address) in sighting.addresses {
                        self.follow_address(change, address);
                    }
                    self.mention_refused_checksums();
                    // News of an address cuts an interval short.
                    let received = sighting.received.filter(|_| was_whole);
                    if let Err(error) = self.keep_attached(received) {
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

    fn note_queues(&mut self, now: u32) {
        self.rx_queues_seen = now;
        self.counters.rx_queues.set(now.into());
        let unserved = now.saturating_sub(self.rx_queues_served);
        self.counters.rx_queues_unserved.set(unserved.into());
    }

    fn compare_link(&mut self, now: Option<Link>) {
        let Some(now) = now.filter(|now| *now != self.link) else {
            return;
        };
        let name = &self.name;
        let was_up = std::mem::replace(&mut self.link, now) == Link::Up;
        self.counters.link_up.set((now == Link::Up).into());
        match now {
            Link::Up => return tracing::warn!("{name} is up again"),
            Link::NoCarrier => tracing::warn!(
                "{name} has no carrier: nothing arrives until what is at its other end is back"
            ),
            Link::Down => tracing::warn!(
                "{name} is down: nothing arrives until it is up, `ip link set dev {name} up`"
            ),
        }
        if was_up {
            self.counters.link_downs.increment();
        }
    }

    fn follow_address(&mut self, change: AddressChange, address: IpAddr) {
        let name = &self.name;
        match (self.addresses.note(change, address), change) {
            (Known::Same, _) => {}
            (Known::Changed, AddressChange::Added) => {
                tracing::warn!("{name} has {address} again");
            }
            (Known::Changed, AddressChange::Removed) => tracing::warn!(
                "{name} has lost {address}: nobody finds the server there until it is back, \
                 `ip address add {address}/PREFIX dev {name}`"
            ),
            (Known::New, _) => {
                let Some(redirect) = self.redirect.upgrade() else {
                    // The cores have ended.
                    return;
                };
                match self.addresses.serve(address, &redirect) {
                    Ok(()) => {
                        self.counters.addresses_added.increment();
                        tracing::warn!("{name} has {address} now, which is served from here on");
                    }
                    Err(error) => tracing::error!(
                        "{name} has {address} now, which is not served: {error}; restart the server"
                    ),
                }
            }
        }
    }

    /// A peer whose checksums are refused gets no answer, and cannot know why.
    fn mention_refused_checksums(&mut self) {
        let refused = |discards: &Vec<Arc<dyn Samples>>| {
            let mut samples = discards.iter().flat_map(|group| group.samples());
            samples.any(|sample| sample.name == REFUSED_CHECKSUMS && sample.value > 0)
        };
        if self
            .discards
            .take_if(|discards| refused(discards))
            .is_some()
        {
            tracing::warn!(
                "peers on this machine leave checksums to their devices, and are refused for it: at each of them, \
                 `ethtool -K IFACE tx off`, or serve with --checksums trust"
            );
        }
    }

    fn compare_queues(&mut self, now: u32) {
        if now == self.rx_queues_seen {
            return;
        }
        let refused = self.serve_added(now).err();
        self.note_queues(now);
        let (name, served) = (&self.name, self.served);
        if let Some(reason) = refused {
            tracing::error!(
                "{name} has {now} receive queues, of which {served} are served, so what arrives on the others is \
                 lost: {reason}. Restart the server to serve all of them, or `ethtool -L {name} combined {served}`"
            );
        } else if now == served {
            tracing::info!("{name} has {now} receive queues, and all of them are served");
        } else {
            tracing::error!(
                "{name} has {now} receive queues, and {served} were served: the sockets of the others receive \
                 nothing. If clients get no answer, restart the server, or `ethtool -L {name} combined {served}`"
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
            self.rx_queues_served += 1;
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
        // Before Linux 5.19 reading them takes capabilities.
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

/// The counter of a shard that says so.
const REFUSED_CHECKSUMS: &str = "discard_tcp_checksum_partial";

/// The addresses that are served, and whether the interface has them.
struct Addresses {
    served: Vec<(IpAddr, bool)>,
    ports: Vec<u16>,
    tell: Option<NewAddresses>,
    added: AddedAddresses,
}

/// What was known of an address.
#[derive(Debug, PartialEq, Eq)]
enum Known {
    /// That it is so, or that it is none to serve.
    Same,
    /// That it is otherwise.
    Changed,
    /// Nothing, and it is to be served.
    New,
}

impl Addresses {
    fn note(&mut self, change: AddressChange, address: IpAddr) -> Known {
        let is_there = change == AddressChange::Added;
        let mut served = self.served.iter_mut();
        match served.find(|(served, _)| *served == address) {
            Some((_, known)) if *known == is_there => Known::Same,
            Some((_, known)) => {
                *known = is_there;
                Known::Changed
            }
            None if is_there && self.tell.is_some() && is_routable(&address) => Known::New,
            None => Known::Same,
        }
    }

    /// First every core knows the address, then frames to it are taken.
    fn serve(&mut self, address: IpAddr, redirect: &Redirect) -> Result<(), RedirectError> {
        self.served.push((address, true));
        if let Some(tell) = &self.tell {
            tell.add(address);
        }
        redirect.serve_also(address)?;
        for &port in &self.ports {
            self.added.add(SocketAddr::new(address, port));
        }
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
    fn addresses_are_new_once_and_change_only_when_they_do() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let (old, new) = (address("10.0.0.1"), address("10.0.0.2"));
        let mut addresses = Addresses {
            served: vec![(old, true)],
            ports: vec![80],
            tell: Some(NewAddresses::default()),
            added: AddedAddresses::default(),
        };
        let (added, removed) = (AddressChange::Added, AddressChange::Removed);
        // A router's advertisement has the kernel add what is there.
        assert_eq!(addresses.note(added, old), Known::Same);
        assert_eq!(addresses.note(removed, old), Known::Changed);
        assert_eq!(addresses.note(removed, old), Known::Same);
        assert_eq!(addresses.note(added, old), Known::Changed);
        assert_eq!(addresses.note(added, new), Known::New);
        assert_eq!(addresses.note(removed, address("10.0.0.3")), Known::Same);
        assert_eq!(addresses.note(added, address("fe80::1")), Known::Same);
        // Where addresses were named, others are ignored.
        addresses.tell = None;
        assert_eq!(addresses.note(added, new), Known::Same);
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
