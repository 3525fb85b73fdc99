//! Which origin of a pool gets a request, and which gets none for a while.

use std::hash::Hasher as _;
use std::net::SocketAddr;
use std::sync::Arc;

use siphasher::sip::SipHasher13;

use crate::config::{Balance, PoolConfig};
use crate::counters::OriginCounters;

const MS: u64 = 1_000_000;

/// An origin as one core sees it.
#[derive(Debug)]
pub struct Origin {
    pub pool: usize,
    pub address: SocketAddr,
    /// The hash of its address as text: the same on every core and in every proxy.
    hash: u64,
    pub counters: Arc<OriginCounters>,
    /// Connections that wait for a request; the one that was used last is at the end.
    pub idle: Vec<usize>,
    /// Connections that carry many requests at once.
    pub shared: Vec<usize>,
    /// Connections that are open or being opened.
    pub connections: u32,
    pub outstanding: u32,
    failures: u32,
    ejected_until_ns: u64,
    /// When it last began to get requests again; 0 if it was never ejected.
    back_since_ns: u64,
    /// Its last check failed.
    is_down: bool,
    /// When it is checked next.
    pub check_at_ns: u64,
    pub check: Option<usize>,
    /// TLS with it failed last, which was logged.
    pub is_known_to_refuse_tls: bool,
}

impl Origin {
    pub fn new(pool: usize, address: SocketAddr, counters: Arc<OriginCounters>) -> Self {
        counters.usable.set(1);
        Origin {
            pool,
            address,
            hash: hash(address.to_string().as_bytes()),
            counters,
            idle: Vec::new(),
            shared: Vec::new(),
            connections: 0,
            outstanding: 0,
            failures: 0,
            ejected_until_ns: 0,
            back_since_ns: 0,
            is_down: false,
            check_at_ns: 0,
            check: None,
            is_known_to_refuse_tls: false,
        }
    }

    /// Its pool is `pool` from here on.
    pub fn goes_on(&mut self, pool: usize, config: &PoolConfig) {
        self.pool = pool;
        // Nobody would find out otherwise that it is up.
        self.is_down &= config.check.is_some();
        self.check_at_ns = 0;
    }

    /// It gets no requests and no checks any more.
    pub fn retire(&mut self) {
        self.check_at_ns = u64::MAX;
        self.counters.usable.set(0);
    }

    /// Whether it gets requests.
    pub fn is_usable(&self, now_ns: u64) -> bool {
        !self.is_down && self.ejected_until_ns <= now_ns
    }

    /// It answered.
    pub fn succeeded(&mut self) {
        self.failures = 0;
        self.is_known_to_refuse_tls = false;
    }

    /// It did not answer, or its answer was not a valid response.
    pub fn failed(&mut self, config: &PoolConfig, now_ns: u64) {
        self.failures += 1;
        if self.failures >= config.eject_failures && self.is_usable(now_ns) {
            self.failures = 0;
            self.ejected_until_ns = now_ns + u64::from(config.eject_ms) * MS;
            self.back_since_ns = self.ejected_until_ns;
            self.counters.ejected.increment();
            self.counters.usable.set(0);
        }
    }

    /// A check was answered, or not.
    pub fn checked(&mut self, is_up: bool, now_ns: u64) {
        if !is_up {
            self.counters.failed_check.increment();
            if !self.is_down {
                self.counters.ejected.increment();
            }
        } else if self.is_down {
            self.back_since_ns = now_ns;
            self.ejected_until_ns = 0;
        }
        self.is_down = !is_up;
        self.counters.usable.set(u64::from(self.is_usable(now_ns)));
    }

    /// The load that one more request would mean for it: greater with each request in progress, and while it starts slowly.
    fn burden(&self, config: &PoolConfig, now_ns: u64) -> u64 {
        const WHOLE: u64 = 1_000;
        let slow_start_ns = u64::from(config.slow_start_ms) * MS;
        let back_ns = now_ns.saturating_sub(self.back_since_ns);
        let share = match self.back_since_ns == 0 || back_ns >= slow_start_ns {
            true => WHOLE,
            false => (back_ns * WHOLE / slow_start_ns).max(WHOLE / 20),
        };
        (u64::from(self.outstanding) + 1) * WHOLE * WHOLE / share
    }
}

/// Retries that a pool still has, in hundredths.
#[derive(Debug)]
pub struct Budget {
    left: u32,
}

impl Budget {
    /// Ten retries, whatever the number of requests.
    const RESERVE: u32 = 10 * 100;

    pub fn new() -> Self {
        Budget {
            left: Self::RESERVE,
        }
    }

    /// Each request adds a part of a retry.
    pub fn earn(&mut self, percent: u32) {
        let most = Self::RESERVE.saturating_add(percent.saturating_mul(100));
        self.left = self.left.saturating_add(percent).min(most);
    }

    /// Takes one retry, if there is one left.
    pub fn spend(&mut self) -> bool {
        let left = self.left.checked_sub(100);
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }
}

/// Chooses among the `origins` of a pool. `key` is the hash of the request, `other_than` the origin
/// that has just failed.
pub fn choose(
    origins: &[Origin],
    config: &PoolConfig,
    key: u64,
    random: u64,
    other_than: Option<usize>,
    now_ns: u64,
) -> Option<usize> {
    let usable = |at: usize| origins[at].is_usable(now_ns);
    let another = |at: usize| Some(at) != other_than;
    if config.balance != Balance::LeastOutstanding {
        let weight = |at: usize| SipHasher13::new_with_keys(key, origins[at].hash).finish();
        let among = |is_fit: &dyn Fn(usize) -> bool| {
            (0..origins.len())
                .filter(|&at| is_fit(at))
                .max_by_key(|&at| weight(at))
        };
        return among(&|at| usable(at) && another(at)).or_else(|| among(&usable));
    }
    let fit = |at: usize| usable(at) && another(at);
    let count = (0..origins.len()).filter(|&at| fit(at)).count();
    let nth = |n: usize| (0..origins.len()).filter(|&at| fit(at)).nth(n);
    match count {
        // Only the one that has failed is left.
        0 => other_than.filter(|&at| usable(at)),
        1 => nth(0),
        _ => {
            let one = random as usize % count;
            let step = (random >> 32) as usize % (count - 1) + 1;
            let (one, two) = (nth(one)?, nth((one + step) % count)?);
            let burden = |at: usize| origins[at].burden(config, now_ns);
            Some(if burden(two) < burden(one) { two } else { one })
        }
    }
}

/// The hash of what the pool balances requests by.
pub fn key(balance: Balance, peer: Option<SocketAddr>, path: &[u8]) -> u64 {
    match balance {
        Balance::LeastOutstanding => 0,
        Balance::HashPath => hash(path),
        Balance::HashClient => match peer.map(|peer| peer.ip().to_canonical()) {
            Some(std::net::IpAddr::V4(ip)) => hash(&ip.octets()),
            Some(std::net::IpAddr::V6(ip)) => hash(&ip.octets()),
            None => hash(b""),
        },
    }
}

fn hash(bytes: &[u8]) -> u64 {
    SipHasher13::new_with_keys(0x6261_7265, 0x7769_7265).hash(bytes)
}

/// Pseudo-random numbers that need not be unpredictable: xorshift64*.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(balance: &str) -> PoolConfig {
        let text = format!(r#"{{"origins": ["127.0.0.1:1"], "balance": "{balance}"}}"#);
        serde_json::from_str(&text).unwrap()
    }

    fn origins(count: u16) -> Vec<Origin> {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let each = |port| Origin::new(0, address(port), Arc::default());
        (1..=count).map(each).collect()
    }

    #[test]
    fn of_two_the_one_with_fewer_requests_is_chosen() {
        let (config, mut origins) = (pool("least-outstanding"), origins(2));
        origins[0].outstanding = 3;
        let mut random = Random::new(7);
        for _ in 0..100 {
            assert_eq!(
                choose(&origins, &config, 0, random.next(), None, 0),
                Some(1)
            );
        }
    }

    #[test]
    fn who_fails_in_a_row_is_ejected_for_a_while_and_comes_back_slowly() {
        let (config, mut origins) = (pool("least-outstanding"), origins(2));
        for _ in 0..config.eject_failures {
            origins[0].failed(&config, MS);
        }
        let back_ns = MS + u64::from(config.eject_ms) * MS;
        let mut random = Random::new(7);
        for _ in 0..100 {
            let chosen = choose(&origins, &config, 0, random.next(), None, back_ns - 1);
            assert_eq!(chosen, Some(1));
        }
        origins[1].outstanding = 4;
        let chosen = choose(&origins, &config, 0, random.next(), None, back_ns);
        assert_eq!(chosen, Some(1), "one request would burden it as twenty");
        let later_ns = back_ns + u64::from(config.slow_start_ms) * MS;
        let chosen = choose(&origins, &config, 0, random.next(), None, later_ns);
        assert_eq!(chosen, Some(0));
    }

    #[test]
    fn a_key_leads_to_the_same_origin_and_only_those_of_one_that_is_gone_move() {
        let (config, mut origins) = (pool("hash-path"), origins(5));
        let of = |origins: &[Origin]| -> Vec<_> {
            let keys = (0..1000u64).map(|at| key(Balance::HashPath, None, &at.to_le_bytes()));
            keys.map(|key| choose(origins, &config, key, 0, None, 0).unwrap())
                .collect()
        };
        let before = of(&origins);
        origins[2].checked(false, 0);
        for (before, after) in before.into_iter().zip(of(&origins)) {
            assert!(before == after || before == 2);
            assert_ne!(after, 2);
        }
    }

    #[test]
    fn a_retry_goes_elsewhere_if_there_is_another() {
        let (config, origins) = (pool("least-outstanding"), origins(3));
        let mut random = Random::new(7);
        for _ in 0..100 {
            assert_ne!(
                choose(&origins, &config, 0, random.next(), Some(1), 0),
                Some(1)
            );
        }
        assert_eq!(choose(&origins[..1], &config, 0, 0, Some(0), 0), Some(0));
    }

    #[test]
    fn retries_are_a_part_of_the_requests() {
        let mut budget = Budget::new();
        assert_eq!((0..100).filter(|_| budget.spend()).count(), 10);
        (0..50).for_each(|_| budget.earn(20));
        assert_eq!((0..100).filter(|_| budget.spend()).count(), 10);
    }
}
