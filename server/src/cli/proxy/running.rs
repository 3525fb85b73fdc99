//! A proxy that runs: what it can be told, and what it counts by the table of the moment.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use barewire_proxy::{
    Order, Orders, OriginCounters, PoolCounters, Purge, Reload, RouteCounters, Table,
};
use barewire_service::Lifecycle;
use barewire_service::counters::Samples;
use barewire_service::stack::CounterGroup;

use super::{OfCore, Proxying, read};
use crate::cli::serve::Reloads;
use crate::operate::LiveGroups;

/// How long all cores may take to do what they are told.
const ORDER_TIMEOUT: Duration = Duration::from_millis(1500);

/// A table, and what each core counts by it.
#[derive(Debug, Clone)]
pub struct OfTable {
    pub table: Arc<Table>,
    pub of_origins: Vec<Vec<Arc<OriginCounters>>>,
    pub of_routes: Vec<Vec<Arc<RouteCounters>>>,
}

/// What a running proxy can be told. Every clone is the same.
#[derive(Debug, Clone)]
pub struct Handle(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    orders: Orders,
    lifecycle: Lifecycle,
    cores: usize,
    of_cores: Arc<[OfCore]>,
    now: Mutex<OfTable>,
    live: LiveGroups,
    names: Names,
}

impl OfTable {
    /// Those of `table`, of which what stays the same keeps the counters that it has had `before`.
    pub fn new(table: Arc<Table>, cores: usize, before: Option<&OfTable>) -> Self {
        let of_core = |core: usize| {
            let before = before.map(|before| {
                let origins = before.table.origins().zip(&before.of_origins[core]);
                let routes = before.table.routes().zip(&before.of_routes[core]);
                (origins.collect::<Vec<_>>(), routes.collect::<Vec<_>>())
            });
            let (origins, routes) = before.unwrap_or_default();
            (
                same(table.origins(), &origins),
                same(table.routes(), &routes),
            )
        };
        let (of_origins, of_routes) = (0..cores).map(of_core).unzip();
        OfTable {
            table,
            of_origins,
            of_routes,
        }
    }
}

/// For each of `new` what it has in `before`, or nothing counted.
fn same<K: PartialEq, C: Default>(
    new: impl Iterator<Item = K>,
    before: &[(K, &Arc<C>)],
) -> Vec<Arc<C>> {
    new.map(|key| {
        let same = before.iter().find(|(before, _)| *before == key);
        same.map_or_else(Arc::default, |(_, counters)| Arc::clone(counters))
    })
    .collect()
}

impl Handle {
    pub fn new(proxying: &Proxying, lifecycle: &Lifecycle, cores: usize) -> Self {
        let handle = Handle(Arc::new(Inner {
            path: proxying.path.clone(),
            orders: proxying.orders.clone(),
            lifecycle: lifecycle.clone(),
            cores,
            of_cores: Arc::clone(&proxying.cores),
            now: Mutex::new(proxying.begun.clone()),
            live: LiveGroups::default(),
            names: Names::default(),
        }));
        handle.publish(&proxying.begun);
        handle
    }

    /// What its cores count.
    pub fn counters(&self) -> LiveGroups {
        self.0.live.clone()
    }

    /// Reads the routes again whenever the file changes, and when it is asked to. `enter` has returned, on the thread that
    /// does it, when this does.
    ///
    /// # Errors
    ///
    /// If the process is out of threads.
    pub fn follow_file(&self, enter: impl FnOnce() + Send + 'static) -> io::Result<Reloads> {
        let handle = self.clone();
        let mut stamp = handle.stamp();
        Reloads::follow("proxy/reload", enter, move |is_asked| {
            if handle.stamp() == stamp && !is_asked {
                return;
            }
            let reloaded = handle.reload();
            // Of the files that are named now.
            stamp = handle.stamp();
            match reloaded {
                Ok(()) => tracing::info!("routes were read again, for requests from here on"),
                Err(error) => {
                    tracing::error!("{error:#}; the routes from before go on to be used");
                }
            }
        })
    }

    /// What is different once the file was written, or one that it names; nothing of one that cannot be looked at.
    fn stamp(&self) -> Vec<Option<(SystemTime, u64)>> {
        let stamp = |path: &Path| {
            let found = fs::metadata(path).ok()?;
            Some((found.modified().ok()?, found.len()))
        };
        let now = self.0.now.lock().unwrap_or_else(PoisonError::into_inner);
        let files = [&*self.0.path].into_iter().chain(now.table.files());
        files.map(stamp).collect()
    }

    fn reload(&self) -> anyhow::Result<()> {
        let table = read(&self.0.path)?;
        let mut now = self.0.now.lock().unwrap_or_else(PoisonError::into_inner);
        let name = self.0.path.display();
        table
            .can_follow(&now.table)
            .with_context(|| name.to_string())?;
        let next = OfTable::new(table, self.0.of_cores.len(), Some(&now));
        let order = Order::Reload(Arc::new(Reload {
            table: Arc::clone(&next.table),
            of_origins: next.of_origins.clone(),
            of_routes: next.of_routes.clone(),
        }));
        let answers = self.give(&order).map_err(anyhow::Error::msg)?;
        self.publish(&next);
        *now = next;
        if self.wait(&answers).is_none() {
            tracing::warn!("a core will go on with the new routes in its next turn only");
        }
        Ok(())
    }

    /// Removes responses from the caches of all cores. Returns how many.
    ///
    /// # Errors
    ///
    /// Why not, or not everywhere.
    pub fn purge(&self, what: &str) -> Result<usize, String> {
        let has_cache = {
            let now = self.0.now.lock().unwrap_or_else(PoisonError::into_inner);
            now.table.has_cache()
        };
        if !has_cache {
            return Err("no route has a cache".into());
        }
        let purge = Purge::parse(what).ok_or_else(|| {
            format!("{what:?} has no path: name host and path, as in example.org/, or *")
        })?;
        let answers = self.give(&Order::Purge(purge))?;
        let removed = self.wait(&answers);
        removed
            .ok_or_else(|| "not every core has done it yet: it is done in their next turns".into())
    }

    /// Tells all cores to do something.
    fn give(&self, order: &Order) -> Result<Receiver<usize>, String> {
        let answers = self.0.orders.give(order, self.0.cores);
        let answers = answers.ok_or("its cores are busy with other orders: try again")?;
        // That of the present phase wakes those that sleep, and changes nothing.
        self.0.lifecycle.advance(self.0.lifecycle.phase());
        Ok(answers)
    }

    /// Waits until all cores have answered, and adds their answers up. `None` if one takes too long.
    fn wait(&self, answers: &Receiver<usize>) -> Option<usize> {
        let next = |_| answers.recv_timeout(ORDER_TIMEOUT).ok();
        (0..self.0.cores).map(next).sum()
    }

    fn publish(&self, now: &OfTable) {
        let Inner {
            cores,
            of_cores,
            live,
            names,
            ..
        } = &*self.0;
        let mut groups = Vec::new();
        for (core, of_core) in of_cores.iter().take(*cores).enumerate() {
            let mut add = |part, counters: Arc<dyn Samples>| {
                groups.push(CounterGroup {
                    core: Some(core),
                    queue: None,
                    part,
                    counters,
                });
            };
            add("proxy", of_core.counters.clone());
            if now.table.has_cache() {
                add("cache", of_core.cache.clone());
            }
            if now.table.has_teleport() {
                add("teleport_out", of_core.teleport.clone());
            }
            for ((host, prefix), counters) in now.table.routes().zip(&now.of_routes[core]) {
                let name = format!("route_{}{prefix}", host.unwrap_or(""));
                add(names.part(name), counters.clone());
            }
            let mut pools = BTreeMap::<&str, Vec<_>>::new();
            let origins = || now.table.origins().zip(&now.of_origins[core]);
            for ((pool, _), counters) in origins() {
                pools.entry(pool).or_default().push(Arc::clone(counters));
            }
            for (pool, of_pool) in pools {
                let name = names.part(format!("pool_{pool}"));
                add(name, Arc::new(PoolCounters(of_pool)));
            }
            for ((pool, address), counters) in origins() {
                add(
                    names.part(format!("origin_{pool}_{address}")),
                    counters.clone(),
                );
            }
        }
        live.set(groups);
    }
}

/// The names under which routes, pools and origins are counted: each is made once, however often tables change.
#[derive(Debug, Default)]
struct Names(Mutex<BTreeMap<String, &'static str>>);

impl Names {
    /// Letters and digits of `name`; with a number behind them if another one has these.
    fn part(&self, name: String) -> &'static str {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = names.get(&name) {
            return known;
        }
        let is_word = |letter: char| letter.is_ascii_alphanumeric();
        let word = name.replace(|letter| !is_word(letter), "_");
        let mut part = word.clone();
        let mut number = 1;
        while names.values().any(|other| *other == part) {
            number += 1;
            part = format!("{word}_{number}");
        }
        let part: &'static str = part.leak();
        names.insert(name, part);
        part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_and_two_are_never_the_same() {
        let names = Names::default();
        let first = names.part("pool_a-b".into());
        assert_eq!(first, "pool_a_b");
        assert_eq!(names.part("pool_a.b".into()), "pool_a_b_2");
        assert!(std::ptr::eq(names.part("pool_a-b".into()), first));
    }
}
