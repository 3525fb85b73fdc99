//! Limits a log line that could be written very often to one per second.

use barewire_service::time::{Duration, Instant};

/// How long the next one of the same kind is only counted.
const SILENCE: Duration = Duration::from_secs(1);

/// Decides whether to log again.
#[derive(Debug, Default)]
pub struct Complaint {
    next_at: Option<Instant>,
    suppressed: u64,
}

impl Complaint {
    /// Counts an occurrence. Returns how many there were since the last line, or `None` if it is too early for the
    /// next one.
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
