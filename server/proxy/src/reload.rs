//! Another table while calls are in progress.
//!
//! What goes on is renumbered: calls, connections and origins keep their state, a pool is the same if it has the same name,
//! protocol and files of TLS, an origin if its pool and address are the same. What the new table does not have any more, but a call or
//! a connection still needs, stands behind it: it gets no new requests and no checks, and its connections end with the
//! responses that they carry. It is forgotten by the next table.

use std::sync::Arc;

use barewire_teleport::Secrets;

use crate::balance::{Budget, Origin};
use crate::cache::Cache;
use crate::counters::{OriginCounters, RouteCounters};
use crate::forward::Forwarder;
use crate::secure;
use crate::table::{Pool, Table};

/// A table, and what each core counts by it.
#[derive(Debug)]
pub struct Reload {
    /// What it says.
    pub table: Arc<Table>,
    /// For each core, those of [`Table::origins`]: an origin that stays keeps its own.
    pub of_origins: Vec<Vec<Arc<OriginCounters>>>,
    /// For each core, those of [`Table::routes`].
    pub of_routes: Vec<Vec<Arc<RouteCounters>>>,
}

/// The place of what is no more.
const NOWHERE: usize = usize::MAX;

impl Forwarder {
    /// Goes on by another table, as this core.
    pub fn reload(&mut self, reload: &Reload, core: usize) {
        let (old, new) = (Arc::clone(&self.table), &*reload.table);
        let mut of_origins = reload.of_origins.get(core).into_iter().flatten();

        let mut is_used = vec![false; self.origins.len()];
        let mut is_pool_used = vec![false; old.pools.len()];
        for (_, call) in &self.calls {
            is_pool_used[call.pool] = true;
            is_used[call.origin] = true;
        }
        for (at, origin) in self.origins.iter().enumerate() {
            is_used[at] |= origin.connections > 0;
            is_pool_used[origin.pool] |= is_used[at];
        }

        let mut pools = new.pools.clone();
        let pool_to: Vec<_> = old
            .pools
            .iter()
            .zip(is_pool_used)
            .map(|(pool, is_used)| {
                let is_same = |new: &Pool| new.name == pool.name && new.speaks_as(pool);
                match new.pools.iter().position(is_same) {
                    Some(at) => at,
                    None if is_used => {
                        pools.push(pool.clone());
                        pools.len() - 1
                    }
                    None => NOWHERE,
                }
            })
            .collect();

        let mut before: Vec<_> = std::mem::take(&mut self.origins)
            .into_iter()
            .map(Some)
            .collect();
        let mut origin_to = vec![NOWHERE; before.len()];
        let mut ranges = Vec::with_capacity(pools.len());
        for (at, pool) in new.pools.iter().enumerate() {
            let first = self.origins.len();
            for &address in &pool.config.origins {
                let counters = of_origins.next().cloned().unwrap_or_default();
                let is_same = |origin: &Option<Origin>| {
                    let origin = origin.as_ref();
                    origin.is_some_and(|it| it.address == address && pool_to[it.pool] == at)
                };
                let origin = match before.iter().position(is_same) {
                    Some(found) => {
                        origin_to[found] = self.origins.len();
                        before[found].take()
                    }
                    None => None,
                };
                let origin = match origin {
                    Some(mut origin) => {
                        origin.goes_on(at, &pool.config);
                        origin
                    }
                    None => Origin::new(at, address, counters),
                };
                self.origins.push(origin);
            }
            ranges.push(first..self.origins.len());
        }
        ranges.resize(pools.len(), 0..0);
        let kept = self.origins.len();
        for (at, origin) in before.into_iter().enumerate() {
            if let Some(mut origin) = origin {
                origin.retire();
                if is_used[at] {
                    origin_to[at] = self.origins.len();
                    origin.pool = pool_to[origin.pool];
                    self.origins.push(origin);
                }
            }
        }

        for (_, call) in &mut self.calls {
            call.pool = pool_to[call.pool];
            call.origin = origin_to[call.origin];
            call.route = old.routes.get(call.route).map_or(NOWHERE, |old| {
                let mut routes = new.routes.iter();
                let same = routes.position(|new| new.is_for_the_same(old));
                same.unwrap_or(NOWHERE)
            });
        }
        let mut idle = Vec::new();
        for (at, connection) in &mut self.connections {
            connection.origin = origin_to[connection.origin];
            if connection.origin >= kept {
                connection.closes = true;
                idle.push(at);
            }
        }

        let mut budgets: Vec<_> = pools.iter().map(|_| Budget::new()).collect();
        for (budget, &at) in self.budgets.drain(..).zip(&pool_to) {
            if let Some(place) = budgets.get_mut(at) {
                *place = budget;
            }
        }
        self.budgets = budgets;
        let secrets = pools.iter().map(|pool| pool.config.secret_fields.iter());
        self.secrets = secrets.map(|names| Secrets::with(names.cloned())).collect();
        self.pools = ranges;
        self.of_routes = reload.of_routes.get(core).cloned().unwrap_or_default();
        match (&mut self.cache, new.cache) {
            (Some(cache), Some(config)) => cache.reconfigure(config),
            (None, Some(config)) => {
                let mut cache = Cache::new(config, self.random.next());
                cache.count_in(Arc::clone(&self.cache_counters));
                self.cache = Some(cache);
            }
            (_, None) => {}
        }
        self.table = Arc::new(Table {
            limits: old.limits,
            // Calls that fill it may still be in progress.
            cache: new.cache.or(old.cache),
            routes: new.routes.clone(),
            pools,
        });
        if new.has_tls() && self.tls.is_none() {
            self.tls = Some(secure::client(old.connections_max()));
        }
        let has_checks = new.pools.iter().any(|pool| pool.config.check.is_some());
        self.next_check_ns = if has_checks { self.now_ns } else { u64::MAX };
        for connection in idle {
            self.wake_connection(connection);
        }
    }
}
