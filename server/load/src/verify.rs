//! Whether the server counted what it acknowledged: `/stats` before and after, against the receipts.
//!
//! The server may have counted other events before, so differences are compared:
//!
//! * `totalRequests` must have grown by exactly what was acknowledged.
//! * `uniqueUsers` of an empty server must be exactly the users of the run. Another server may have
//!   known some of them and cannot be asked which: it must then know at least the run's users, and
//!   have learnt no more than those. If the caller knows what the server had seen before (only the same events,
//!   say, so that a further run adds no user), it can pass the number of users, which is then verified
//!   exactly.
//! * `sum` is a rounded number, but the challenge's values are multiples of a half: below 2^52 such
//!   sums are `f64`s themselves, nothing is rounded, and the difference must be equal. If
//!   the server had counted other fractions before, both sums may be off by half a unit in the last
//!   place each, and the difference may be off by no more.
//! * `avg` must be the quotient of the two, as a correctly rounded division gives it (two units in
//!   the last place are allowed where the sum itself is rounded).
//!
//! Events whose reply never came may or may not have been counted. They are failures anyway; the
//! totals are then verified to lie between without and with them.

use serde::{Deserialize, Serialize};

use super::receipts::Receipts;

/// The challenge's `GET /stats`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// Events counted.
    pub total_requests: u64,
    /// Distinct users among them.
    pub unique_users: u64,
    /// Sum of their values.
    pub sum: f64,
    /// Mean of their values; some servers have none as long as there are no events.
    pub avg: Option<f64>,
}

/// The outcome of a verification, one line for each number.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verification {
    /// What was compared.
    pub checks: [Check; 4],
}

/// One number of `/stats` against what it had to be.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// Whether it is as it had to be.
    pub ok: bool,
    /// Only one value would have been right. Otherwise it had to lie between two.
    pub exact: bool,
    /// What was found and what had to be.
    pub finding: String,
}

impl Verification {
    /// Compares what `/stats` said before and after a run with what the server acknowledged.
    ///
    /// `users`: how many users there must be afterwards, if that is known.
    pub fn of(before: &Stats, after: &Stats, receipts: &Receipts, users: Option<u64>) -> Self {
        Verification {
            checks: [
                check_total(before, after, receipts),
                check_users(before, after, receipts, users),
                check_sum(before, after, receipts),
                check_avg(after),
            ],
        }
    }

    /// Whether every number is right.
    pub fn is_ok(&self) -> bool {
        self.wrong().next().is_none()
    }

    /// The numbers that are not right.
    pub fn wrong(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| !check.ok)
    }
}

fn check_total(before: &Stats, after: &Stats, receipts: &Receipts) -> Check {
    let counted = i128::from(after.total_requests) - i128::from(before.total_requests);
    let least = i128::from(receipts.acknowledged.count);
    let most = least + i128::from(receipts.unknown.count);
    let verdict = match counted {
        _ if counted < least => format!(": {} lost", least - counted),
        _ if counted > most => format!(
            ": {} too many (another client, or counted twice)",
            counted - most
        ),
        _ => String::new(),
    };
    Check {
        name: "totalRequests",
        ok: (least..=most).contains(&counted),
        exact: least == most,
        finding: format!(
            "{counted:+}, must be {}{verdict}",
            range(&format!("+{least}"), &format!("+{most}"))
        ),
    }
}

fn check_users(before: &Stats, after: &Stats, receipts: &Receipts, users: Option<u64>) -> Check {
    let (had, has) = (before.unique_users, after.unique_users);
    let least = users.unwrap_or(receipts.acknowledged.users().max(had));
    let most = users.unwrap_or(had.saturating_add(receipts.users_max()));
    Check {
        name: "uniqueUsers",
        ok: (least..=most).contains(&has),
        exact: least == most,
        finding: format!(
            "{has}, was {had}, must be {}",
            range(&least.to_string(), &most.to_string())
        ),
    }
}

fn check_sum(before: &Stats, after: &Stats, receipts: &Receipts) -> Check {
    let least = receipts.acknowledged.sum_halves;
    let most = least.saturating_add(receipts.unknown.sum_halves);
    let owed = range(&halves(least), &halves(most));
    let (ok, exact, grown) = match (as_halves(before.sum), as_halves(after.sum)) {
        (Some(had), Some(has)) => {
            let grown = i128::from(has) - i128::from(had);
            let ok = (i128::from(least)..=i128::from(most)).contains(&grown);
            (ok, least == most, (has - had) as f64 / 2.0)
        }
        _ => {
            let grown = after.sum - before.sum;
            // The subtraction rounds once more, by no more than the two sums were.
            let slack = ulp(before.sum) + ulp(after.sum);
            let ok = grown >= least as f64 / 2.0 - slack && grown <= most as f64 / 2.0 + slack;
            (ok, false, grown)
        }
    };
    Check {
        name: "sum",
        ok,
        exact,
        finding: format!("{grown:+}, must be {owed}"),
    }
}

fn check_avg(after: &Stats) -> Check {
    let quotient = match after.total_requests {
        0 => 0.0,
        total => after.sum / total as f64,
    };
    let exact = as_halves(after.sum).is_some();
    let slack = if exact { 0.0 } else { 2.0 * ulp(quotient) };
    let ok = match after.avg {
        Some(avg) => (avg - quotient).abs() <= slack,
        None => after.total_requests == 0,
    };
    let found = after
        .avg
        .map_or("null".to_owned(), |avg| format!("{avg:?}"));
    Check {
        name: "avg",
        ok,
        exact,
        finding: format!("{found}, must be {quotient:?}"),
    }
}

/// Twice a sum that was certainly not rounded: a multiple of a half below 2^52.
fn as_halves(sum: f64) -> Option<i64> {
    const EXACT_BELOW: f64 = (1u64 << 52) as f64;
    let twice = sum * 2.0;
    (sum.abs() < EXACT_BELOW && twice.fract() == 0.0).then_some(twice as i64)
}

/// The distance to the next larger number.
fn ulp(number: f64) -> f64 {
    number.abs().next_up() - number.abs()
}

fn halves(twice: u64) -> String {
    format!("+{}{}", twice / 2, if twice % 2 == 1 { ".5" } else { "" })
}

fn range(least: &str, most: &str) -> String {
    if least == most {
        least.to_owned()
    } else {
        format!("{least} to {most}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Values;

    const EMPTY: Stats = Stats {
        total_requests: 0,
        unique_users: 0,
        sum: 0.0,
        avg: Some(0.0),
    };

    /// A million events, all acknowledged.
    fn million() -> Receipts {
        let mut receipts = Receipts::new(Values::Official);
        (0..1_000_000).for_each(|index| receipts.acknowledge(index));
        receipts
    }

    fn after_million(runs: u32) -> Stats {
        let total_requests = 1_000_000 * u64::from(runs);
        Stats {
            total_requests,
            unique_users: 75_000,
            sum: 5e8 * f64::from(runs),
            avg: Some(500.0),
        }
    }

    fn failed(before: &Stats, after: &Stats, receipts: &Receipts) -> Vec<&'static str> {
        let verification = Verification::of(before, after, receipts, None);
        verification.wrong().map(|check| check.name).collect()
    }

    #[test]
    fn the_published_answer_is_right_and_exact() {
        let verification = Verification::of(&EMPTY, &after_million(1), &million(), None);
        assert!(verification.is_ok());
        assert!(
            verification.checks.iter().all(|check| check.exact),
            "{verification:?}"
        );
        let no_avg_yet = Stats { avg: None, ..EMPTY };
        assert!(Verification::of(&no_avg_yet, &after_million(1), &million(), None).is_ok());
    }

    #[test]
    fn a_second_run_adds_no_users() {
        let (before, after) = (after_million(1), after_million(2));
        assert!(failed(&before, &after, &million()).is_empty());
        let forgot = Stats {
            unique_users: 74_999,
            ..after
        };
        assert_eq!(failed(&before, &forgot, &million()), ["uniqueUsers"]);
        let more_than_ours = Stats {
            unique_users: 150_001,
            ..after
        };
        assert_eq!(
            failed(&before, &more_than_ours, &million()),
            ["uniqueUsers"]
        );

        let doubled = Stats {
            unique_users: 75_001,
            ..after
        };
        assert!(Verification::of(&before, &doubled, &million(), None).is_ok());
        assert!(!Verification::of(&before, &doubled, &million(), Some(75_000)).is_ok());
        let exact = Verification::of(&before, &after, &million(), Some(75_000));
        assert!(exact.is_ok() && exact.checks.iter().all(|check| check.exact));
    }

    #[test]
    fn one_lost_or_doubled_event_is_found() {
        let receipts = million();
        for (total, sum) in [(999_999, 5e8 - 0.5), (1_000_001, 5e8 + 0.5)] {
            let after = Stats {
                total_requests: total,
                sum,
                avg: Some(sum / total as f64),
                ..after_million(1)
            };
            assert_eq!(failed(&EMPTY, &after, &receipts), ["totalRequests", "sum"]);
        }
        let lost_user = Stats {
            unique_users: 74_999,
            ..after_million(1)
        };
        assert_eq!(failed(&EMPTY, &lost_user, &receipts), ["uniqueUsers"]);
        let doubled_user = Stats {
            unique_users: 75_001,
            ..after_million(1)
        };
        assert_eq!(failed(&EMPTY, &doubled_user, &receipts), ["uniqueUsers"]);
        let wrong_avg = Stats {
            avg: Some(500.0f64.next_up()),
            ..after_million(1)
        };
        assert_eq!(failed(&EMPTY, &wrong_avg, &receipts), ["avg"]);
        let no_avg = Stats {
            avg: None,
            ..after_million(1)
        };
        assert_eq!(failed(&EMPTY, &no_avg, &receipts), ["avg"]);
    }

    #[test]
    fn sums_that_were_rounded_may_be_off_by_their_rounding_only() {
        let receipts = million();
        let before = Stats {
            total_requests: 10,
            unique_users: 1,
            sum: 1e18,
            avg: Some(1e17),
        };
        let after = |sum: f64| {
            let total_requests = 1_000_010;
            Stats {
                total_requests,
                unique_users: 75_001,
                sum,
                avg: Some(sum / total_requests as f64),
            }
        };
        assert!(failed(&before, &after(1e18 + 5e8), &receipts).is_empty());
        assert!(!Verification::of(&before, &after(1e18 + 5e8), &receipts, None).checks[2].exact);
        assert!(failed(&before, &after((1e18 + 5e8f64).next_up()), &receipts).is_empty());
        assert_eq!(
            failed(&before, &after(1e18 + 5e8 + 1e4), &receipts),
            ["sum"]
        );

        let third = Stats {
            sum: 1.0 / 3.0,
            avg: Some(1.0 / 30.0),
            ..before
        };
        assert!(failed(&third, &after(1.0 / 3.0 + 5e8), &receipts).is_empty());
        assert_eq!(
            failed(&third, &after(1.0 / 3.0 + 5e8 + 0.5), &receipts),
            ["sum"]
        );
    }

    #[test]
    fn events_without_a_reply_may_be_counted_or_not() {
        let mut receipts = Receipts::new(Values::Official);
        (0..10).for_each(|index| receipts.acknowledge(index));
        receipts.lose(10);
        let after = |total_requests: u64, sum: f64| Stats {
            total_requests,
            unique_users: total_requests,
            sum,
            avg: Some(sum / total_requests as f64),
        };
        assert!(failed(&EMPTY, &after(10, 50.0), &receipts).is_empty());
        assert!(failed(&EMPTY, &after(11, 60.5), &receipts).is_empty());
        assert_eq!(
            failed(&EMPTY, &after(9, 45.0), &receipts),
            ["totalRequests", "uniqueUsers", "sum"]
        );
        assert_eq!(
            failed(&EMPTY, &after(12, 70.5), &receipts),
            ["totalRequests", "uniqueUsers", "sum"]
        );
        assert!(!Verification::of(&EMPTY, &after(10, 50.0), &receipts, None).checks[0].exact);
    }

    #[test]
    fn stats_are_read_to_the_last_bit() {
        let text = r#"{"totalRequests":3,"uniqueUsers":2,"sum":0.30000000000000004,"avg":null,"more":[1]}"#;
        let stats: Stats = serde_json::from_str(text).unwrap();
        assert_eq!(
            stats,
            Stats {
                total_requests: 3,
                unique_users: 2,
                sum: 0.1 + 0.2,
                avg: None
            }
        );
        let hard = "9007199254740993.0000000000000000000001e-7";
        let text = format!(r#"{{"totalRequests":0,"uniqueUsers":0,"sum":{hard},"avg":0}}"#);
        let stats: Stats = serde_json::from_str(&text).unwrap();
        assert_eq!(stats.sum, hard.parse::<f64>().unwrap());
    }
}
