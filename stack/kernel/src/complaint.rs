//! A complaint that may have to be made very often, in the log at most once a second.

use barewire_service::time::{Duration, Instant};

/// How long the next one of the same kind is only counted.
const SILENCE: Duration = Duration::from_secs(1);

/// Decides whether to say something again.
#[derive(Debug, Default)]
pub struct Complaint {
    next_at: Option<Instant>,
    suppressed: u64,
}

impl Complaint {
    /// There is reason to complain: returns how often there was without its being said, or `None` if
    /// it is too early to say it again.
    pub fn due(&mut self, now: Instant) -> Option<u64> {
        if self.next_at.is_some_and(|at| now < at) {
            self.suppressed += 1;
            return None;
        }
        self.next_at = Some(now + SILENCE);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_counted() {
        let mut complaint = Complaint::default();
        let at = |ms| Instant::from_millis(ms);
        assert_eq!(complaint.due(at(0)), Some(0));
        assert_eq!(complaint.due(at(10)), None);
        assert_eq!(complaint.due(at(999)), None);
        assert_eq!(complaint.due(at(1000)), Some(2));
        assert_eq!(complaint.due(at(5000)), Some(0));
    }
}
