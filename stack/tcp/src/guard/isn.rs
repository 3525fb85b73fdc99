//! Unpredictable initial sequence numbers (RFC 6528).
//!
//! `ISN = M + F(addresses, ports, secret)`: a clock `M` that ticks every 4 us keeps the numbers of one
//! flow apart in time, and the keyed hash `F` keeps those of different flows apart from each other.
//!
//! smoltcp draws its ISNs from a small generator seeded when its `Interface` is made. That generator is
//! a permuted LCG, so it runs backwards as well: [`interface_seed`] computes the seed which makes
//! the next draw come out as the number we want, and making an `Interface` per SYN is cheap.

use siphasher::sip::SipHasher24;

use crate::packet::FlowKey;
use barewire_service::time::Instant;

/// Chooses initial sequence numbers.
#[derive(Debug, Clone)]
pub struct IsnGenerator {
    hasher: SipHasher24,
}

impl IsnGenerator {
    /// A generator with the secret `key`.
    pub fn new(key: &[u8; 16]) -> Self {
        IsnGenerator {
            hasher: SipHasher24::new_with_key(key),
        }
    }

    /// The sequence number for a connection of `flow` that opens `now`.
    #[inline]
    pub fn choose(&self, flow: &FlowKey, now: Instant) -> u32 {
        let hash = self.hasher.hash(&flow.to_bytes());
        let clock = (now.total_micros() / 4) as u32;
        clock.wrapping_add(hash as u32)
    }
}

/// The seed for a smoltcp `Interface` that makes its next connection start at `isn`.
///
/// A new interface draws one value (for IPv4 identification, and again while that is zero), the SYN
/// draws the next.
pub(crate) fn interface_seed(isn: u32) -> u64 {
    // The state's top three bits choose how far its output is shifted; zero means 29 bits.
    let mut drawn = u64::from(isn) << OUTPUT_SHIFT;
    loop {
        let before = step_back(drawn);
        if draws_an_identification(before) {
            return step_back(before);
        }
        // The bits below the output are free to choose.
        drawn += 1;
    }
}

const MULTIPLIER: u64 = 0xbb2e_fcec_3c39_611d;
const INCREMENT: u64 = 0x7590_ef39;
const OUTPUT_SHIFT: u32 = 29;

fn step_back(state: u64) -> u64 {
    const INVERSE: u64 = {
        // Newton's iteration doubles the number of right bits; an odd number is its own inverse
        // in the lowest three.
        let mut inverse = MULTIPLIER;
        let mut bits = 3;
        while bits < 64 {
            inverse = inverse.wrapping_mul(2u64.wrapping_sub(MULTIPLIER.wrapping_mul(inverse)));
            bits *= 2;
        }
        inverse
    };
    state.wrapping_sub(INCREMENT).wrapping_mul(INVERSE)
}

fn draws_an_identification(state: u64) -> bool {
    let output = (state >> (29 - (state >> 61))) as u32;
    (output ^ output >> 16) as u16 != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use barewire_service::time::Duration;
    use proptest::prelude::*;

    fn flow(port: u16) -> FlowKey {
        FlowKey::new([192, 0, 2, 1].into(), port, 0, 80)
    }

    #[test]
    fn numbers_of_one_flow_advance_with_the_clock_and_those_of_two_are_unrelated() {
        let isn = IsnGenerator::new(&[7; 16]);
        let start = Instant::from_secs(5);
        let later = start + Duration::from_millis(4);
        let advance = isn
            .choose(&flow(1), later)
            .wrapping_sub(isn.choose(&flow(1), start));
        assert_eq!(advance, 1000);
        assert_ne!(isn.choose(&flow(1), start), isn.choose(&flow(2), start));
        let other_key = IsnGenerator::new(&[8; 16]);
        assert_ne!(
            isn.choose(&flow(1), start),
            other_key.choose(&flow(1), start)
        );
    }

    proptest! {
        #[test]
        fn a_seed_exists_for_every_number_and_is_found(isn: u32) {
            let advance = |state: u64| state.wrapping_mul(MULTIPLIER).wrapping_add(INCREMENT);
            let identified = advance(interface_seed(isn));
            prop_assert!(draws_an_identification(identified));
            let state = advance(identified);
            prop_assert_eq!((state >> (29 - (state >> 61))) as u32, isn);
        }
    }
}
