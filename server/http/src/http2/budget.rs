//! Budgets for what a client does without making progress: control frames, resets.

/// A token bucket that fills within 30 seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    max: u32,
    left: u32,
    /// When the last token was added.
    refilled_ns: u64,
}

const PERIOD_NS: u64 = 30_000_000_000;

impl Budget {
    pub(super) fn new(max: u32) -> Self {
        Budget {
            max,
            left: max,
            refilled_ns: 0,
        }
    }

    /// Takes a token; false if there is none.
    #[must_use]
    pub(super) fn take(&mut self, now_ns: u64) -> bool {
        let each_ns = PERIOD_NS / u64::from(self.max.max(1));
        let passed = now_ns.saturating_sub(self.refilled_ns) / each_ns;
        if passed > 0 {
            self.left = self.max.min(
                self.left
                    .saturating_add(u32::try_from(passed).unwrap_or(u32::MAX)),
            );
            self.refilled_ns = now_ns;
        }
        let is_left = self.left > 0;
        self.left -= u32::from(is_left);
        is_left
    }

    /// Returns a token, when the client has made progress.
    #[inline]
    pub(super) fn put_back(&mut self) {
        self.left += u32::from(self.left < self.max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_comes_back_in_time() {
        let mut budget = Budget::new(3);
        let now_ns = 100 * PERIOD_NS;
        for expected in [true, true, true, false] {
            assert_eq!(budget.take(now_ns), expected);
        }
        assert!(budget.take(now_ns + PERIOD_NS / 3));
        assert!(!budget.take(now_ns + PERIOD_NS / 3));
        budget.put_back();
        assert!(budget.take(now_ns + PERIOD_NS / 3));
    }
}
