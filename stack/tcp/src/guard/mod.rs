//! Checks in front of an unmodified smoltcp, for what it leaves open.
//!
//! smoltcp is a careful TCP for friendly networks. Facing hostile ones, version 0.14 has gaps, each
//! found by running it: any RST inside the window kills a connection, a SYN on a live one gets no
//! answer, ACKs of data that was never sent are believed, initial sequence numbers come from a weak
//! generator, half-open connections stay for ever, TIME-WAIT holds a whole socket. The modules here
//! implement TCP's rules and have no sockets; the shard calls them before smoltcp sees a segment.
//!
//! | module | rule |
//! |---|---|
//! | `segment` | which segments reach smoltcp: RFC 9293 3.10.7.4, RFC 5961 |
//! | `isn` | unpredictable initial sequence numbers: RFC 6528 |
//! | `cookie` | a SYN costs no memory: RFC 4987 |
//! | `timestamps` | wrapped sequence numbers: RFC 7323 5 |
//! | `rate_limit` | how many answers unsolicited segments get: RFC 5961 7 |
//! | `time_wait` | TIME-WAIT in 56 bytes: RFC 9293 3.6.1, RFC 6191 |

pub(crate) mod cookie;
pub(crate) mod isn;
pub(crate) mod rate_limit;
pub(crate) mod segment;
pub(crate) mod time_wait;
pub(crate) mod timestamps;

use siphasher::sip::SipHasher24;

/// Keys that an attacker must not know. All shards of one server share them, so that a SYN cookie
/// sent by one core is recognised by another.
#[derive(Clone)]
pub struct Secrets {
    /// Keys initial sequence numbers (RFC 6528, section 3).
    pub isn: [u8; 16],
    /// Keys SYN cookies (RFC 4987, section 3.6).
    pub cookie: [u8; 16],
    /// Keys the flow table, against hash flooding.
    pub flow: [u8; 16],
    /// Randomizes the rate limits, so that their answers cannot be counted.
    pub rate_limit: [u8; 16],
}

impl Secrets {
    /// Keys from the system's random source.
    ///
    /// # Errors
    ///
    /// If the system has no random source; there is no safe way to serve without one.
    pub fn random() -> Result<Secrets, getrandom::Error> {
        let mut bytes = [0; Secrets::BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Secrets::from_bytes(&bytes))
    }

    /// Keys that another process has told, in whose place this one goes on.
    pub fn from_bytes(bytes: &[u8; Secrets::BYTES]) -> Secrets {
        let mut keys = [[0; 16]; 4];
        for (key, chunk) in keys.iter_mut().zip(bytes.chunks_exact(16)) {
            key.copy_from_slice(chunk);
        }
        Secrets::from_keys(keys)
    }

    /// The keys, for the process that goes on in the place of this one.
    pub fn to_bytes(&self) -> [u8; Secrets::BYTES] {
        let keys = [self.isn, self.cookie, self.flow, self.rate_limit];
        let mut bytes = [0; Secrets::BYTES];
        for (chunk, key) in bytes.chunks_exact_mut(16).zip(keys) {
            chunk.copy_from_slice(&key);
        }
        bytes
    }

    /// Bytes of all keys together.
    pub const BYTES: usize = 64;

    /// The same keys, but initial sequence numbers follow from the system's boot, as the kernel's do.
    ///
    /// For shards that open connections. A peer in TIME-WAIT takes a new connection of the same ports only if its
    /// sequence numbers lie behind the old one's (RFC 1122, section 4.2.2.13). The clock in them sees to
    /// that for as long as the key is the same, so the key has to outlive the process. The boot's
    /// identifier is as random as a key, and no secret from other processes of this machine only.
    pub fn for_calling(self) -> Secrets {
        let Ok(boot_id) = std::fs::read("/proc/sys/kernel/random/boot_id") else {
            return self;
        };
        let half = |index| {
            SipHasher24::new_with_keys(0, index)
                .hash(&boot_id)
                .to_le_bytes()
        };
        let mut isn = [0; 16];
        isn[..8].copy_from_slice(&half(0));
        isn[8..].copy_from_slice(&half(1));
        Secrets { isn, ..self }
    }

    /// Keys that follow from `seed`, for tests and simulations that must run the same way again.
    pub fn from_seed(seed: u64) -> Secrets {
        let mut keys = [[0; 16]; 4];
        for (index, key) in keys.iter_mut().enumerate() {
            let index = index as u64;
            key[..8].copy_from_slice(
                &SipHasher24::new_with_keys(seed, index)
                    .hash(b"low")
                    .to_le_bytes(),
            );
            key[8..].copy_from_slice(
                &SipHasher24::new_with_keys(seed, index)
                    .hash(b"high")
                    .to_le_bytes(),
            );
        }
        Secrets::from_keys(keys)
    }

    fn from_keys([isn, cookie, flow, rate_limit]: [[u8; 16]; 4]) -> Secrets {
        Secrets {
            isn,
            cookie,
            flow,
            rate_limit,
        }
    }
}

/// Hides the keys.
impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(..)")
    }
}

/// Whether sequence number `a` comes before `b` (RFC 9293, section 3.4).
#[inline]
pub(crate) fn is_before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_calls_numbers_alike_until_the_next_boot() {
        let [one, two] = [1, 2].map(|seed| Secrets::from_seed(seed).for_calling());
        assert_eq!(one.isn, two.isn);
        assert_ne!(one.flow, two.flow);
        assert_ne!(one.isn, Secrets::from_seed(1).isn);
    }
}
