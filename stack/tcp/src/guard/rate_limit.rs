//! Limits the answers per second to segments that a conforming peer does not send.
//!
//! A fixed limit shared by all connections is a counter that an attacker can read: it sends spoofed
//! segments, counts how many answers *it* still gets in the same second, and so learns which of its
//! guesses was answered (CVE-2016-5696). The budget of each second is therefore drawn at random
//! between half the limit and all of it.

use siphasher::sip::SipHasher13;

use barewire_service::time::Instant;

/// A limit of so many per second.
#[derive(Debug, Clone)]
pub struct RateLimit {
    per_second: u32,
    left: u32,
    second: i64,
    hasher: SipHasher13,
}

impl RateLimit {
    /// A limit of `per_second`, blurred with the secret `key`. Zero permits nothing.
    pub fn new(per_second: u32, key: &[u8; 16]) -> Self {
        RateLimit {
            per_second,
            left: 0,
            second: i64::MIN,
            hasher: SipHasher13::new_with_key(key),
        }
    }

    /// Whether one more is permitted `now`; if so it is counted.
    #[inline]
    pub fn permit(&mut self, now: Instant) -> bool {
        let second = now.secs();
        if second != self.second {
            self.second = second;
            self.left = self.budget(second);
        }
        let permitted = self.left > 0;
        self.left -= u32::from(permitted);
        permitted
    }

    fn budget(&self, second: i64) -> u32 {
        let blurred = self.per_second / 2;
        let random = self.hasher.hash(&second.to_le_bytes()) % (u64::from(blurred) + 1);
        self.per_second - blurred + random as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permitted(limit: &mut RateLimit, second: i64) -> u32 {
        let tries = std::iter::repeat_with(|| limit.permit(Instant::from_secs(second)));
        tries.take(10_000).filter(|&permitted| permitted).count() as u32
    }

    #[test]
    fn each_second_permits_between_half_the_limit_and_all_of_it() {
        let mut limit = RateLimit::new(1000, &[1; 16]);
        let counts: Vec<u32> = (1..50)
            .map(|second| permitted(&mut limit, second))
            .collect();
        assert!(
            counts.iter().all(|count| (500..=1000).contains(count)),
            "{counts:?}"
        );
        assert!(
            counts.iter().any(|&count| count != counts[0]),
            "a fixed budget can be counted"
        );
    }

    #[test]
    fn a_limit_of_zero_permits_nothing_and_of_one_permits_one() {
        assert_eq!(permitted(&mut RateLimit::new(0, &[1; 16]), 1), 0);
        assert_eq!(permitted(&mut RateLimit::new(1, &[1; 16]), 1), 1);
    }
}
