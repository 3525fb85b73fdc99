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
//! Integers are little-endian. The sum is exact, so it goes on as if nothing had happened between.
//! Users are known by their hashes alone, so these and their key are kept as they are. Who knows the
//! key can find users whose hashes collide: keep the bytes as secret as the memory they come from.

use std::io::{self, Write};

use crc32fast::Hasher;

use super::ledger::Totals;
use super::sum::{ExactSum, LIMBS};
use super::users::{UserHash, UserKey};

const MAGIC: &[u8; 8] = b"BWEVENTS";
const VERSION: u32 = 1;

/// What was counted, and who was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    pub(super) key: UserKey,
    pub(super) totals: Totals,
    pub(super) users: Vec<UserHash>,
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
    #[error("it is of version {0}, but only version {VERSION} can be read")]
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
        out.write_all(&VERSION.to_le_bytes())?;
        out.word(self.users.len() as u64)?;
        let [first, second] = self.key.words();
        out.word(first)?;
        out.word(second)?;
        out.word(self.totals.events)?;
        for limb in self.totals.sum.limbs() {
            out.write_all(&limb.to_le_bytes())?;
        }
        for user in &self.users {
            out.word(user.high)?;
            out.word(user.low)?;
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
        if version != VERSION {
            return Err(StateError::Version(version));
        }
        let count = rest.word()?;
        let key = UserKey::new([rest.word()?, rest.word()?]);
        let events = rest.word()?;
        let mut limbs = [0; LIMBS];
        for limb in &mut limbs {
            *limb = i64::from_le_bytes(rest.take()?);
        }
        let (pairs, &[]) = rest.0.as_chunks::<16>() else {
            return Err(StateError::Contradiction);
        };
        let users: Vec<UserHash> = pairs.iter().map(user).collect();

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
        Ok(State { key, totals, users })
    }
}

fn user(bytes: &[u8; 16]) -> UserHash {
    let both = u128::from_le_bytes(*bytes);
    UserHash {
        high: both as u64,
        low: (both >> 64) as u64,
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
