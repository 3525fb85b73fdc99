//! What the engine is asked: scripts, so that each question is answered at one moment.

use redis::{Cmd, Value, from_redis_value};

use super::engine::EngineError;
use crate::events::membership::Entry;
use crate::events::sum::{ExactSum, LIMBS};
use crate::events::users::{UserHash, UserKey};

/// Users that one publication brings at most: the engine does nothing else meanwhile.
pub const USERS_MAX: usize = 1_000;

/// Takes an entry unless it has a newer one, and users. Does nothing if the fleet has begun anew since.
const PUBLISH: &str = "
local epoch = tonumber(redis.call('GET', KEYS[1]) or -1)
local time = redis.call('TIME')
local now = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000))
if epoch > tonumber(ARGV[1]) then return {epoch, -1, '', '', '', ''} end
if epoch < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], ARGV[1]) end
redis.call('SETNX', KEYS[2], ARGV[2])
redis.call('SETNX', KEYS[6], time[1] .. '.' .. time[2])
local old = redis.call('HGET', KEYS[4], ARGV[3])
local version, process = string.match(old or '-1 ', '^(%-?%d+) (%x*)')
version = tonumber(version)
local before = redis.call('HGET', KEYS[3], ARGV[6]) or ''
if version < tonumber(ARGV[4]) then
    redis.call('HSET', KEYS[4], ARGV[3], ARGV[4] .. ' ' .. ARGV[7] .. ' ' .. ARGV[5])
    redis.call('HSET', KEYS[3], ARGV[6], ARGV[7] .. ' ' .. now .. ' ' .. ARGV[1] .. ' ' .. ARGV[8])
end
if #ARGV > 8 then redis.call('SADD', KEYS[5], unpack(ARGV, 9)) end
return {tonumber(ARGV[1]), version, process, before, redis.call('GET', KEYS[2]), redis.call('GET', KEYS[6])}";

/// Everything that is known of the fleet.
const READ: &str = "
local time = redis.call('TIME')
return {time[1] * 1000 + math.floor(time[2] / 1000), redis.call('GET', KEYS[1]) or '',
    redis.call('HGETALL', KEYS[2]), redis.call('HVALS', KEYS[3]), redis.call('SCARD', KEYS[4])}";

/// Begins the next epoch, unless that has happened.
const RESET: &str = "
local epoch = redis.call('GET', KEYS[1]) or ARGV[1]
if epoch == ARGV[1] then
    epoch = tonumber(epoch) + 1
    redis.call('SET', KEYS[1], epoch)
    redis.call('UNLINK', KEYS[2], KEYS[3])
end
return tonumber(epoch)";

/// The fleet's key, or this one if it has none.
const JOIN: &str = "
redis.call('SETNX', KEYS[1], ARGV[1])
return {redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2]) or '', redis.call('HGET', KEYS[3], ARGV[2]) or ''}";

/// The names of all keys.
#[derive(Debug, Clone)]
pub struct Keys {
    prefix: String,
}

/// What a node publishes.
pub struct Publication<'a> {
    pub epoch: u64,
    pub key: UserKey,
    pub entry: &'a Entry,
    pub node: &'a str,
    pub process: &'a str,
    pub is_leaving: bool,
    pub users: &'a [UserHash],
}

/// What the engine says to a publication.
#[derive(Debug)]
pub struct Receipt {
    /// The fleet's epoch; if it is another than the publication's, nothing was taken.
    pub epoch: u64,
    /// The version that the incarnation had before; `None`: it was unknown.
    pub version: Option<u64>,
    /// Which process wrote that version.
    pub process: String,
    /// What was there of a node of this name.
    pub before: Option<NodeRecord>,
    /// The fleet's key.
    pub key: Option<UserKey>,
    /// Another one once the engine has lost what it had.
    pub life: String,
}

/// What a node last said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    pub process: String,
    pub at_ms: u64,
    pub epoch: u64,
    pub is_up: bool,
}

/// Everything that is known of the fleet.
#[derive(Debug)]
pub struct Reading {
    pub now_ms: u64,
    pub epoch: Option<u64>,
    pub nodes: Vec<(String, NodeRecord)>,
    pub events: u64,
    pub sum: ExactSum,
    pub users: u64,
}

impl Keys {
    /// The keys behind `prefix`. Its braces keep them together in a cluster.
    pub fn new(prefix: &str) -> Self {
        Keys {
            prefix: format!("{{{prefix}}}"),
        }
    }

    pub fn publish(&self, publication: &Publication<'_>) -> Cmd {
        let Publication {
            epoch,
            key,
            entry,
            node,
            process,
            is_leaving,
            users,
        } = *publication;
        let names = [
            self.epoch(),
            self.key(),
            self.nodes(),
            self.counts(epoch),
            self.users(epoch),
            self.life(),
        ];
        let mut command = eval(PUBLISH, &names);
        command
            .arg(epoch)
            .arg(key_to_text(key))
            .arg(format!("{:032x}", entry.incarnation))
            .arg(entry.version)
            .arg(entry_to_text(entry))
            .arg(node)
            .arg(process)
            .arg(if is_leaving { "left" } else { "up" });
        for user in users {
            command.arg(&user.to_bytes()[..]);
        }
        command
    }

    pub fn read(&self, epoch: u64) -> Cmd {
        let names = [
            self.epoch(),
            self.nodes(),
            self.counts(epoch),
            self.users(epoch),
        ];
        eval(READ, &names)
    }

    pub fn reset(&self, epoch: u64) -> Cmd {
        let names = [self.epoch(), self.counts(epoch), self.users(epoch)];
        let mut command = eval(RESET, &names);
        command.arg(epoch);
        command
    }

    pub fn join(&self, key: UserKey, node: &str) -> Cmd {
        let names = [self.key(), self.epoch(), self.nodes()];
        let mut command = eval(JOIN, &names);
        command.arg(key_to_text(key)).arg(node);
        command
    }

    /// The version that the engine has of an incarnation.
    pub fn version(&self, epoch: u64, incarnation: u128) -> Cmd {
        let mut command = redis::cmd("HGET");
        command
            .arg(self.counts(epoch))
            .arg(format!("{incarnation:032x}"));
        command
    }

    /// Each key, and the type that it has to have.
    pub fn types(&self, epoch: u64) -> [(String, &'static str); 6] {
        [
            (self.key(), "string"),
            (self.epoch(), "string"),
            (self.life(), "string"),
            (self.nodes(), "hash"),
            (self.counts(epoch), "hash"),
            (self.users(epoch), "set"),
        ]
    }

    fn key(&self) -> String {
        format!("{}:key", self.prefix)
    }

    pub fn epoch(&self) -> String {
        format!("{}:epoch", self.prefix)
    }

    fn life(&self) -> String {
        format!("{}:life", self.prefix)
    }

    fn nodes(&self) -> String {
        format!("{}:nodes", self.prefix)
    }

    fn counts(&self, epoch: u64) -> String {
        format!("{}:counts:{epoch}", self.prefix)
    }

    fn users(&self, epoch: u64) -> String {
        format!("{}:users:{epoch}", self.prefix)
    }
}

impl Receipt {
    pub fn read(answer: Value) -> Result<Self, EngineError> {
        type Raw = (u64, i64, String, String, String, String);
        let (epoch, version, process, before, key, life): Raw = typed(answer)?;
        Ok(Receipt {
            epoch,
            version: u64::try_from(version).ok(),
            process,
            before: NodeRecord::from_text(&before),
            key: key_from_text(&key),
            life,
        })
    }
}

impl Reading {
    pub fn read(answer: Value) -> Result<Self, EngineError> {
        type Raw = (u64, String, Vec<(String, String)>, Vec<String>, u64);
        let (now_ms, epoch, nodes, counts, users): Raw = typed(answer)?;
        let mut reading = Reading {
            now_ms,
            epoch: epoch.parse().ok(),
            nodes: Vec::with_capacity(nodes.len()),
            events: 0,
            sum: ExactSum::ZERO,
            users,
        };
        for (name, record) in nodes {
            let record = NodeRecord::from_text(&record).ok_or_else(|| foreign(&record))?;
            reading.nodes.push((name, record));
        }
        for entry in counts {
            let (events, sum) = entry_from_text(&entry).ok_or_else(|| foreign(&entry))?;
            reading.events += events;
            reading.sum.merge(0, sum.limbs());
            reading.sum.carry();
        }
        Ok(reading)
    }
}

impl NodeRecord {
    pub fn from_text(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        Some(NodeRecord {
            process: words.next().filter(|word| !word.is_empty())?.to_owned(),
            at_ms: words.next()?.parse().ok()?,
            epoch: words.next()?.parse().ok()?,
            is_up: words.next()? == "up",
        })
    }
}

fn eval(script: &str, keys: &[String]) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(script).arg(keys.len()).arg(keys);
    command
}

/// The answer as what it should be.
pub fn typed<T: redis::FromRedisValue>(answer: Value) -> Result<T, EngineError> {
    from_redis_value(answer).map_err(|error| EngineError::Refused(error.to_string()))
}

fn foreign(text: &str) -> EngineError {
    EngineError::Refused(format!("{text:?}, which no barewire of this version wrote"))
}

pub fn key_to_text(key: UserKey) -> String {
    let [first, second] = key.words();
    format!("{first:016x}{second:016x}")
}

pub fn key_from_text(text: &str) -> Option<UserKey> {
    let (first, second) = text.split_at_checked(16)?;
    let word = |text| u64::from_str_radix(text, 16).ok();
    (text.len() == 32).then_some(())?;
    Some(UserKey::new([word(first)?, word(second)?]))
}

/// Events, and the limbs of the sum that are not zero. Version and process are in front of it in the engine.
fn entry_to_text(entry: &Entry) -> String {
    let limbs = entry.sum.limbs().iter().enumerate();
    let limbs = limbs.filter(|(_, limb)| **limb != 0);
    let mut text = entry.events.to_string();
    for (index, limb) in limbs {
        text.push_str(&format!(" {index}:{limb}"));
    }
    text
}

fn entry_from_text(text: &str) -> Option<(u64, ExactSum)> {
    let mut words = text.split(' ').skip(2);
    let events = words.next()?.parse().ok()?;
    let mut limbs = [0; LIMBS];
    for word in words {
        let (index, limb) = word.split_once(':')?;
        let limb: i32 = limb.parse().ok()?;
        *limbs.get_mut(index.parse::<usize>().ok()?)? = limb.into();
    }
    Some((events, ExactSum::from_limbs(limbs)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let mut sum = ExactSum::ZERO;
        for value in [1e300, 0.1, -5e-324, f64::MAX] {
            sum.add(value);
        }
        sum.carry();
        let entry = Entry {
            incarnation: 1,
            version: 9,
            events: u64::MAX,
            sum,
        };
        let text = format!("9 f00 {}", entry_to_text(&entry));
        assert_eq!(entry_from_text(&text), Some((u64::MAX, entry.sum)));
        for wrong in [
            "",
            "9",
            "9 f x",
            "9 f 1 72:1",
            "9 f 1 3",
            "9 f 1 3:5000000000",
        ] {
            assert_eq!(entry_from_text(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_key_is_read_as_it_was_written() {
        let key = UserKey::new([1, u64::MAX]);
        assert!(key_from_text(&key_to_text(key)) == Some(key));
        for wrong in ["", "0", "é", &"g".repeat(32), &"0".repeat(33)] {
            assert!(key_from_text(wrong).is_none(), "{wrong}");
        }
    }
}
