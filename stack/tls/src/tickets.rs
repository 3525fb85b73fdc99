//! Keys of tickets that a server can give to the one that goes on in its place (RFC 8446, section 4.6.1; RFC 5077).
//!
//! A ticket is what a client needs to resume, sealed for nobody but the server: a random nonce, then AES-256-GCM. The key is
//! replaced every six hours, and tickets of the one before are taken for as long again. The tickets of rustls are as good,
//! but their keys cannot be had.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use rustls::server::ProducesTickets;
use zeroize::Zeroizing;

const KEY_BYTES: usize = 32;
const ROTATION: Duration = Duration::from_secs(6 * 3600);

/// The keys of a server.
pub(crate) struct Tickets(Mutex<Keys>);

struct Keys {
    current: Zeroizing<[u8; KEY_BYTES]>,
    previous: Zeroizing<[u8; KEY_BYTES]>,
    since: Instant,
}

impl Tickets {
    /// New keys; `None` if the operating system gives no random numbers.
    pub fn new() -> Option<Self> {
        Some(Tickets(Mutex::new(Keys {
            current: random_key()?,
            previous: random_key()?,
            since: Instant::now(),
        })))
    }

    /// The keys, for another process.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let keys = self.keys();
        Zeroizing::new([*keys.current, *keys.previous].concat())
    }

    /// Goes on with the keys of another process; false if these are none.
    pub fn replace(&self, bytes: &[u8]) -> bool {
        let Some((current, rest)) = bytes.split_first_chunk() else {
            return false;
        };
        let Ok(previous) = rest.try_into() else {
            return false;
        };
        *self.keys() = Keys {
            current: Zeroizing::new(*current),
            previous: Zeroizing::new(previous),
            since: Instant::now(),
        };
        true
    }

    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rotated(&self) -> MutexGuard<'_, Keys> {
        let mut keys = self.keys();
        if keys.since.elapsed() >= ROTATION
            && let Some(next) = random_key()
        {
            keys.previous = std::mem::replace(&mut keys.current, next);
            keys.since = Instant::now();
        }
        keys
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        2 * ROTATION.as_secs() as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let key = sealing(&self.rotated().current)?;
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut sealed = plain.to_vec();
        let unique = Nonce::assume_unique_for_key(nonce);
        key.seal_in_place_append_tag(unique, Aad::empty(), &mut sealed)
            .ok()?;
        Some([&nonce, &*sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = ticket.split_first_chunk::<NONCE_LEN>()?;
        let keys = self.rotated();
        [&keys.current, &keys.previous].into_iter().find_map(|key| {
            let mut plain = sealed.to_vec();
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let opened = sealing(key)?.open_in_place(nonce, Aad::empty(), &mut plain);
            let length = opened.ok()?.len();
            plain.truncate(length);
            Some(plain)
        })
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets")
    }
}

fn random_key() -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    rand::fill(&mut *key).ok()?;
    Some(key)
}

fn sealing(key: &[u8; KEY_BYTES]) -> Option<LessSafeKey> {
    let key = UnboundKey::new(&AES_256_GCM, key).ok()?;
    Some(LessSafeKey::new(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_good_where_its_key_went_and_nowhere_else() {
        let [first, second, stranger] = [0; 3].map(|_| Tickets::new().unwrap());
        let ticket = first.encrypt(b"secrets").unwrap();
        assert!(!ticket.windows(7).any(|part| part == b"secrets"));
        assert_eq!(second.decrypt(&ticket), None);
        assert!(second.replace(&first.to_bytes()));
        assert_eq!(second.decrypt(&ticket).as_deref(), Some(&b"secrets"[..]));
        assert_eq!(stranger.decrypt(&ticket), None);
        assert!(!stranger.replace(&first.to_bytes()[1..]));

        let mut forged = ticket;
        *forged.last_mut().unwrap() ^= 1;
        assert_eq!(second.decrypt(&forged), None);
        assert_eq!(second.decrypt(b"short"), None);
    }

    #[test]
    fn a_ticket_outlives_one_rotation() {
        let tickets = Tickets::new().unwrap();
        let ticket = tickets.encrypt(b"secrets").unwrap();
        for is_good in [true, false] {
            let long_ago = Instant::now().checked_sub(ROTATION);
            let Some(long_ago) = long_ago else {
                eprintln!("SKIPPED: the machine has not run for so long");
                return;
            };
            tickets.keys().since = long_ago;
            assert_eq!(tickets.decrypt(&ticket).is_some(), is_good);
        }
    }
}
