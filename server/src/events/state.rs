//! The counts as bytes, for a later process to go on with.
//!
//! ```text
//!      0   8  "BWEVENTS"
//!      8   4  version of what follows
//!     12   8  users
//!     20  16  the key of the users' hashes
//!     36   8  events
//!     44 576  the limbs of the sum (see `super::sum`), carried
//!    620  16  of each user the hash, in no particular order
//!   last   4  CRC-32 of everything before, in every version
//! ```
//!
//! Version 2, of servers that count together with others, has 4 bytes more before the users: how long what then follows
//! is, the server's [`Membership`].
//!
//! Integers are little-endian. The sum is exact, so it goes on as if nothing had happened between.
//! Users are known by their hashes alone, so these and their key are kept as they are. Who knows the
//! key can find users whose hashes collide: keep the bytes as secret as the memory they come from.

use std::io::{self, Write};

use crc32fast::Hasher;

use super::ledger::Totals;
use super::membership::Membership;
use super::sum::{ExactSum, LIMBS};
use super::users::{UserHash, UserKey};

const MAGIC: &[u8; 8] = b"BWEVENTS";
const VERSION: u32 = 1;
const VERSION_OF_MEMBERS: u32 = 2;

/// What was counted, and who was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    pub(super) key: UserKey,
    pub(super) totals: Totals,
    pub(super) users: Vec<UserHash>,
    /// The place in a fleet, if the server has one.
    pub membership: Option<Membership>,
}

/// Why bytes are no [`State`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// They begin differently.
    #[error("it is no state of event counts")]
    Foreign,
    /// The checksum is not that of the rest.
    #[error("it is damaged or cut off: its checksum does not match")]
    Damaged,
    /// They are of another version of this format.
    #[error("it is of version {0}, but only versions up to {VERSION_OF_MEMBERS} can be read")]
    Version(u32),
    /// They say what cannot be, although the checksum is right.
    #[error("it contradicts itself")]
    Contradiction,
}

impl State {
    /// Users that were seen.
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// The key of the users' hashes.
    pub fn key(&self) -> UserKey {
        self.key
    }

    /// What was counted.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// The same key and place in a fleet, and nothing counted.
    pub fn without_counts(self) -> Self {
        State {
            totals: Totals::ZERO,
            users: Vec::new(),
            ..self
        }
    }

    /// Lets a server count that publishes nothing.
    ///
    /// # Errors
    ///
    /// If the operating system gives no random numbers.
    pub fn go_on_alone(&mut self) -> Result<(), getrandom::Error> {
        if let Some(membership) = self.membership.take() {
            let incarnation = u128::from(getrandom::u64()?) << 64 | u128::from(getrandom::u64()?);
            self.membership = Some(membership.go_on(&self.totals, incarnation));
        }
        Ok(())
    }

    /// Writes the bytes, in small pieces.
    ///
    /// # Errors
    ///
    /// Those of `writer`.
    pub fn write_to(&self, writer: impl Write) -> io::Result<()> {
        let mut out = Summed {
            writer,
            sum: Hasher::new(),
        };
        out.write_all(MAGIC)?;
        let version = self
            .membership
            .as_ref()
            .map_or(VERSION, |_| VERSION_OF_MEMBERS);
        out.write_all(&version.to_le_bytes())?;
        out.word(self.users.len() as u64)?;
        let [first, second] = self.key.words();
        out.word(first)?;
        out.word(second)?;
        out.word(self.totals.events)?;
        for limb in self.totals.sum.limbs() {
            out.write_all(&limb.to_le_bytes())?;
        }
        if let Some(membership) = &self.membership {
            let bytes = membership.to_bytes();
            out.write_all(&(bytes.len() as u32).to_le_bytes())?;
            out.write_all(&bytes)?;
        }
        for user in &self.users {
            out.write_all(&user.to_bytes())?;
        }
        let sum = out.sum.clone().finalize();
        out.write_all(&sum.to_le_bytes())?;
        out.flush()
    }

    /// Reads what [`State::write_to`] wrote.
    ///
    /// # Errors
    ///
    /// If anything of it was changed.
    pub fn read(bytes: &[u8]) -> Result<Self, StateError> {
        if !bytes.starts_with(MAGIC) {
            return Err(StateError::Foreign);
        }
        let (content, sum) = bytes.split_last_chunk().ok_or(StateError::Damaged)?;
        if crc32fast::hash(content) != u32::from_le_bytes(*sum) {
            return Err(StateError::Damaged);
        }
        let mut rest = Bytes(&content[MAGIC.len()..]);
        let version = u32::from_le_bytes(rest.take()?);
        if !(VERSION..=VERSION_OF_MEMBERS).contains(&version) {
            return Err(StateError::Version(version));
        }
        let count = rest.word()?;
        let key = UserKey::new([rest.word()?, rest.word()?]);
        let events = rest.word()?;
        let mut limbs = [0; LIMBS];
        for limb in &mut limbs {
            *limb = i64::from_le_bytes(rest.take()?);
        }
        let membership = match version {
            VERSION => None,
            _ => {
                let length = u32::from_le_bytes(rest.take()?) as usize;
                let (bytes, users) = rest
                    .0
                    .split_at_checked(length)
                    .ok_or(StateError::Contradiction)?;
                rest.0 = users;
                Some(Membership::from_bytes(bytes).ok_or(StateError::Contradiction)?)
            }
        };
        let (pairs, &[]) = rest.0.as_chunks::<16>() else {
            return Err(StateError::Contradiction);
        };
        let users: Vec<UserHash> = pairs
            .iter()
            .map(|&pair| UserHash::from_bytes(pair))
            .collect();

        let is_carried = |limb: &i64| i32::try_from(*limb).is_ok();
        let is_hash = |user: &UserHash| user.high != 0 && user.low != 0;
        let is_sound = users.len() as u64 == count
            && count <= events
            && limbs.iter().all(is_carried)
            && users.iter().all(is_hash);
        if !is_sound {
            return Err(StateError::Contradiction);
        }
        let totals = Totals {
            events,
            users: count,
            sum: ExactSum::from_limbs(limbs),
        };
        Ok(State {
            key,
            totals,
            users,
            membership,
        })
    }
}

/// Sums up what it writes.
struct Summed<W> {
    writer: W,
    sum: Hasher,
}

impl<W: Write> Summed<W> {
    fn word(&mut self, word: u64) -> io::Result<()> {
        self.write_all(&word.to_le_bytes())
    }
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.writer.write(bytes)?;
        self.sum.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// What was not read yet.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], StateError> {
        let (first, rest) = self
            .0
            .split_first_chunk()
            .ok_or(StateError::Contradiction)?;
        self.0 = rest;
        Ok(*first)
    }

    fn word(&mut self) -> Result<u64, StateError> {
        self.take().map(u64::from_le_bytes)
    }
}
