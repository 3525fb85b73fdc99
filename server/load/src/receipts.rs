//! What the server's `/stats` must contain.
//!
//! Every event ends in one of three ways: *acknowledged* (a 2xx came back: it must be counted),
//! *refused* (another status came back: it must not be counted) or *unknown* (the connection broke
//! first: it may be counted or not). The receipts keep count, sum and users of the first and the
//! last exactly, so that the verification knows what to expect even when something went wrong.

use super::request::{USERS, Values};

/// The receipts of one thread or of one run.
#[derive(Debug, Clone)]
pub struct Receipts {
    values: Values,
    /// Events whose reply was a success.
    pub acknowledged: Account,
    /// Events whose reply never came.
    pub unknown: Account,
}

/// A multiset of events, as far as `/stats` tells them apart.
#[derive(Debug, Clone)]
pub struct Account {
    /// Number of events.
    pub count: u64,
    /// Twice the sum of their values.
    pub sum_halves: u64,
    users: Box<[u64]>,
}

impl Receipts {
    /// No receipts yet, for events with such values.
    pub fn new(values: Values) -> Self {
        Receipts {
            values,
            acknowledged: Account::new(),
            unknown: Account::new(),
        }
    }

    /// Event `index` was answered with a success.
    #[inline]
    pub fn acknowledge(&mut self, index: u64) {
        self.acknowledged.add(index, self.values);
    }

    /// Event `index` was sent, or perhaps only in part, and never answered.
    pub fn lose(&mut self, index: u64) {
        self.unknown.add(index, self.values);
    }

    /// Adds another thread's receipts.
    pub fn merge(&mut self, other: &Receipts) {
        self.acknowledged.merge(&other.acknowledged);
        self.unknown.merge(&other.unknown);
    }

    /// Distinct users of the events that were acknowledged or are unknown.
    pub fn users_max(&self) -> u64 {
        let mut either = self.acknowledged.clone();
        either.merge(&self.unknown);
        either.users()
    }
}

impl Account {
    fn new() -> Self {
        Account {
            count: 0,
            sum_halves: 0,
            users: vec![0; USERS.div_ceil(64) as usize].into(),
        }
    }

    #[inline]
    fn add(&mut self, index: u64, values: Values) {
        self.count += 1;
        self.sum_halves += values.halves(index);
        let user = index % USERS;
        self.users[(user / 64) as usize] |= 1 << (user % 64);
    }

    fn merge(&mut self, other: &Account) {
        self.count += other.count;
        self.sum_halves += other.sum_halves;
        for (mine, others) in self.users.iter_mut().zip(&other.users) {
            *mine |= others;
        }
    }

    /// Number of distinct users.
    pub fn users(&self) -> u64 {
        self.users
            .iter()
            .map(|word| u64::from(word.count_ones()))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn books_of_several_threads_add_up() {
        let (mut even, mut odd) = (
            Receipts::new(Values::Official),
            Receipts::new(Values::Official),
        );
        for index in 0..100_000 {
            if index % 2 == 0 {
                even.acknowledge(index)
            } else {
                odd.acknowledge(index)
            }
        }
        assert_eq!(even.acknowledged.users(), USERS.div_ceil(2));
        odd.lose(1);
        even.merge(&odd);
        assert_eq!(even.acknowledged.count, 100_000);
        assert_eq!(even.acknowledged.sum_halves, 100 * (999 * 1000 + 1000));
        assert_eq!(
            (even.acknowledged.users(), even.users_max()),
            (USERS, USERS)
        );
        assert_eq!(
            (
                even.unknown.count,
                even.unknown.sum_halves,
                even.unknown.users()
            ),
            (1, 3, 1)
        );
    }
}
