//! How a server becomes a node: which key, which name, which incarnation.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use redis::{Cmd, Value};

use super::FleetConfig;
use super::engine::{Engine, EngineError};
use super::scripts::{Keys, NodeRecord, key_from_text, typed};
use crate::events::ledger::Totals;
use crate::events::membership::{Membership, PENDING_MAX, is_node_name};
use crate::events::state::State;
use crate::events::sum::ExactSum;
use crate::events::users::UserKey;

/// A node that runs publishes at least so often, whatever its interval is.
pub const HEARTBEAT: Duration = Duration::from_secs(1);

/// How long a node of the same name is watched for a sign of life.
const WATCH: Duration = Duration::from_millis(1_500);
const WATCH_INTERVAL: Duration = Duration::from_millis(50);

/// Why a server cannot take part in a fleet.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The engine does not answer as it should.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// It cannot be reached, and nobody else knows the key.
    #[error(
        "{0}; --counts-at-start serve needs a --state of a server that has reached it once: without it, nobody here \
         knows the key of the fleet's users"
    )]
    NoKey(EngineError),
    /// It cannot be reached.
    #[error("{0}; --counts-at-start serve starts all the same")]
    Unreachable(EngineError),
    /// Somebody else uses the name of a key.
    #[error(
        "the engine's key {key} is a {found} instead of a {wanted}: choose another --counts-prefix"
    )]
    Type {
        /// The key.
        key: String,
        /// What it is.
        found: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// A node of this name publishes.
    #[error(
        "another server publishes as node {0}: give this one another --node, or stop the other"
    )]
    NameTaken(String),
    /// The users of the state cannot be compared with those of the fleet.
    #[error(
        "the users of the state were hashed with another key than the fleet's, so nobody can say who is in both: start \
         without this --state, or with another --counts-prefix"
    )]
    OtherKey,
    /// The key in the engine is none.
    #[error(
        "the engine's key of users is not what barewire writes: choose another --counts-prefix"
    )]
    ForeignKey,
    /// Nobody took what earlier incarnations counted.
    #[error(
        "the state has the counts of {PENDING_MAX} servers that were killed before the engine took them: start with an engine that answers"
    )]
    Pending,
    /// The operating system gave no random numbers.
    #[error("no random numbers: {0}")]
    Random(#[from] getrandom::Error),
}

/// A server that may publish.
#[derive(Debug)]
pub struct Joined {
    pub(super) engine: Engine,
    pub(super) keys: Keys,
    pub(super) member: Membership,
    pub(super) key: UserKey,
    /// Different for each process.
    pub(super) process: String,
    /// What the server begins with.
    pub(super) totals: Totals,
}

impl Joined {
    /// The key that users have to be hashed with.
    pub fn key(&self) -> UserKey {
        self.key
    }

    /// Where the next process goes on if this one is killed.
    pub fn membership(&self) -> &Membership {
        &self.member
    }

    /// Whether the engine is behind a network.
    pub fn is_remote(&self) -> bool {
        self.engine.is_remote()
    }

    /// The engine and the name in it, for people.
    pub fn place(&self) -> String {
        format!("{} as node {}", self.engine, self.member.node)
    }
}

/// Asks the engine for what a node has to know, and says with which state the server begins: with `state`, unless the
/// fleet has begun anew since. Whoever `takes_over` does so from a node of the same name that runs.
///
/// # Errors
///
/// If the engine cannot be asked, or what it says does not go with `state`.
pub fn join(
    config: &FleetConfig,
    state: Option<State>,
    takes_over: bool,
) -> Result<(Joined, Option<State>), JoinError> {
    let mut engine = Engine::new(&config.url, &config.ca, config.timeout)?;
    let keys = Keys::new(&config.prefix);
    let known = state.as_ref().and_then(|state| state.membership.clone());
    let node = config.node.clone();
    let node = match node.or_else(|| known.as_ref().map(|known| known.node.clone())) {
        Some(node) => node,
        None => made_up_name()?,
    };
    let own_key = match &state {
        Some(state) => state.key(),
        None => UserKey::random()?,
    };
    let process = format!("{:016x}", getrandom::u64()?);

    let answer = ask(&mut engine, &keys, own_key, &node, takes_over);
    let (key, epoch) = match answer {
        Ok(answer) => (answer.key, answer.epoch),
        Err(JoinError::Engine(
            error @ (EngineError::Unreachable { .. } | EngineError::Timeout { .. }),
        )) => match (config.serve_without, &known) {
            (true, Some(_)) => {
                tracing::warn!("{error}; serving without it for now");
                (own_key, None)
            }
            (true, None) => return Err(JoinError::NoKey(error)),
            (false, _) => return Err(JoinError::Unreachable(error)),
        },
        Err(error) => return Err(error),
    };
    let mut state = state;
    if key != own_key {
        match &state {
            Some(state) if state.totals().events > 0 => return Err(JoinError::OtherKey),
            _ => state = None,
        }
    }

    let first = |epoch| -> Result<Membership, JoinError> {
        Ok(Membership {
            node: node.clone(),
            epoch,
            incarnation: random_u128()?,
            version: 0,
            is_open: false,
            base_events: 0,
            base_sum: ExactSum::ZERO,
            pending: Vec::new(),
        })
    };
    let mut member = match known {
        Some(known) => Membership {
            node: node.clone(),
            ..known
        },
        None => first(epoch.unwrap_or(0))?,
    };
    if let Some(epoch) = epoch.filter(|&epoch| epoch > member.epoch) {
        tracing::info!("the fleet has begun anew since the state was written: so does this server");
        state = state.map(State::without_counts);
        member = first(epoch)?;
    }
    if epoch.is_some() {
        let known = engine.call(&keys.version(member.epoch, member.incarnation))?;
        let known: Option<String> = typed(known)?;
        let version = known.and_then(|entry| entry.split(' ').next()?.parse::<u64>().ok());
        // The state is a copy of an older one: what was counted since has been published.
        member.is_open |= version.is_some_and(|version| version > member.version);
    }
    let totals = state
        .as_ref()
        .map_or(Totals::ZERO, |state| state.totals().clone());
    let member = member.go_on(&totals, random_u128()?);
    if member.pending.len() > PENDING_MAX {
        return Err(JoinError::Pending);
    }
    if let Some(state) = &mut state {
        state.membership = Some(member.clone());
    }
    let joined = Joined {
        engine,
        keys,
        member,
        key,
        process,
        totals,
    };
    Ok((joined, state))
}

struct Answer {
    key: UserKey,
    epoch: Option<u64>,
}

fn ask(
    engine: &mut Engine,
    keys: &Keys,
    key: UserKey,
    node: &str,
    takes_over: bool,
) -> Result<Answer, JoinError> {
    let epoch: Option<u64> = match typed_call(engine, redis::cmd("GET").arg(keys.epoch())) {
        Err(EngineError::Type(_)) => None,
        other => other?,
    };
    for (name, wanted) in keys.types(epoch.unwrap_or(0)) {
        let found: String = typed_call(engine, redis::cmd("TYPE").arg(&name))?;
        if found != "none" && found != wanted {
            return Err(JoinError::Type {
                key: name,
                found,
                wanted,
            });
        }
    }
    let command = keys.join(key, node);
    let mut look = || -> Result<_, JoinError> {
        let (key, epoch, record): (String, String, String) = typed_call(engine, &command)?;
        let key = key_from_text(&key).ok_or(JoinError::ForeignKey)?;
        let epoch = epoch.parse().ok();
        let (seconds, _): (u64, u64) = typed_call(engine, &redis::cmd("TIME"))?;
        let record = NodeRecord::from_text(&record);
        // One that has been silent for so long has ended.
        let alive_ms = seconds * 1_000;
        let oldest_ms = alive_ms.saturating_sub(3 * HEARTBEAT.as_millis() as u64);
        let record = record.filter(|record| record.is_up && record.at_ms > oldest_ms);
        Ok((Answer { key, epoch }, record))
    };
    let (answer, first) = look()?;
    let watched_until = Instant::now() + WATCH;
    while !takes_over
        && let Some(first) = &first
        && Instant::now() < watched_until
    {
        thread::sleep(WATCH_INTERVAL);
        match look()?.1 {
            Some(now) if now.at_ms != first.at_ms && now.is_up => {
                return Err(JoinError::NameTaken(node.to_owned()));
            }
            Some(_) => {}
            None => break,
        }
    }
    Ok(answer)
}

fn typed_call<T: redis::FromRedisValue>(
    engine: &mut Engine,
    command: &Cmd,
) -> Result<T, EngineError> {
    let answer: Value = engine.call(command)?;
    typed(answer)
}

/// The name of the machine and a few random digits.
fn made_up_name() -> Result<String, getrandom::Error> {
    let digits = getrandom::u32()?;
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim_end();
    let name = format!("{}-{digits:08x}", host.get(..40).unwrap_or(host));
    Ok(match is_node_name(&name) {
        true => name,
        false => format!("node-{digits:08x}"),
    })
}

pub fn random_u128() -> Result<u128, getrandom::Error> {
    Ok(u128::from(getrandom::u64()?) << 64 | u128::from(getrandom::u64()?))
}
