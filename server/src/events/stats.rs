//! What `GET /stats` says.

use serde::{Deserialize, Serialize};

use super::ledger::Totals;

/// The answer to `GET /stats`, as it is written in JSON.
///
/// `sum` and `avg` are the exact sum and the exact quotient, each rounded once to the nearest `f64`,
/// ties to even. They are always finite: an exact sum beyond the range of `f64` shows as `f64::MAX`
/// or `f64::MIN`, while `avg` is still that of the exact sum. A zero has no sign, and without events
/// `avg` is zero. serde_json writes the shortest digits that read back as the same number, always
/// with a fraction or an exponent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// Events counted.
    pub total_requests: u64,
    /// Different users among them.
    pub unique_users: u64,
    /// Sum of their values.
    pub sum: f64,
    /// `sum / total_requests`.
    pub avg: f64,
}

impl From<Totals> for Stats {
    fn from(totals: Totals) -> Self {
        Stats {
            total_requests: totals.events,
            unique_users: totals.users,
            sum: totals.sum.to_f64(),
            avg: totals.sum.divided_by(totals.events),
        }
    }
}
