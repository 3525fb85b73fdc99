//! Keys of tickets that a server can give to the one that goes on in its place (RFC 8446, section 4.6.1; RFC 5077).
//!
//! A ticket is what a client needs to resume, sealed for nobody but the server: a random nonce, then AES-256-GCM. The key is
//! replaced every six hours, and tickets of the one before are taken for as long again. The tickets of rustls are as good,
//! but their keys cannot be had.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use rustls::server::ProducesTickets;
use zeroize::Zeroizing;

const KEY_BYTES: usize = 32;
const ROTATION: Duration = Duration::from_secs(6 * 3600);

/// The keys of a server.
pub(crate) struct Tickets(Mutex<Keys>);

struct Keys {
    current: Arc<Key>,
    previous: Arc<Key>,
    since: Instant,
}

impl Tickets {
    /// New keys; `None` if the operating system gives no random numbers.
    pub fn new() -> Option<Self> {
        Some(Tickets(Mutex::new(Keys {
            current: Key::random()?,
            previous: Key::random()?,
            since: Instant::now(),
        })))
    }

    /// The keys, for another process.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let keys = self.keys();
        Zeroizing::new([*keys.current.bytes, *keys.previous.bytes].concat())
    }

    /// Goes on with the keys of another process; false if these are none.
    pub fn replace(&self, bytes: &[u8]) -> bool {
        let Some((current, rest)) = bytes.split_first_chunk() else {
            return false;
        };
        let Ok(previous) = rest.try_into() else {
            return false;
        };
        let (current, previous) = (Zeroizing::new(*current), Zeroizing::new(previous));
        let (Some(current), Some(previous)) = (Key::new(current), Key::new(previous)) else {
            return false;
        };
        *self.keys() = Keys {
            current,
            previous,
            since: Instant::now(),
        };
        true
    }

    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key that seals, and the one before it. The lock is not held while they are used.
    fn rotated(&self) -> [Arc<Key>; 2] {
        let mut keys = self.keys();
        if keys.since.elapsed() >= ROTATION
            && let Some(next) = Key::random()
        {
            keys.previous = std::mem::replace(&mut keys.current, next);
            keys.since = Instant::now();
        }
        [Arc::clone(&keys.current), Arc::clone(&keys.previous)]
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
        let [key, _] = self.rotated();
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut ticket = Vec::with_capacity(NONCE_LEN + plain.len() + MAX_TAG_LEN);
        ticket.extend(nonce);
        ticket.extend(plain);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = key
            .prepared
            .seal_in_place_separate_tag(nonce, Aad::empty(), &mut ticket[NONCE_LEN..])
            .ok()?;
        ticket.extend(tag.as_ref());
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = ticket.split_first_chunk::<NONCE_LEN>()?;
        self.rotated().iter().find_map(|key| {
            let mut plain = sealed.to_vec();
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let opened = key
                .prepared
                .open_in_place(nonce, Aad::empty(), &mut plain)
                .ok()?;
            let length = opened.len();
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

/// A key, and what AES derives from it, which is not done again for each ticket.
struct Key {
    bytes: Zeroizing<[u8; KEY_BYTES]>,
    prepared: LessSafeKey,
}

impl Key {
    fn new(bytes: Zeroizing<[u8; KEY_BYTES]>) -> Option<Arc<Self>> {
        let prepared = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &*bytes).ok()?);
        Some(Arc::new(Key { bytes, prepared }))
    }

    fn random() -> Option<Arc<Self>> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        rand::fill(&mut *bytes).ok()?;
        Key::new(bytes)
    }
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
