//! Counts that outlive their process, and bytes that were tampered with.

use std::sync::Arc;

use proptest::prelude::*;

use crate::events::membership::Membership;
use crate::events::state::{State, StateError};
use crate::events::{EventShard, Events, EventsConfig, EventsError, Refusal};

fn counted(config: EventsConfig, events: &[(u64, f64)]) -> Arc<Events> {
    let all = Events::new(config).unwrap();
    record_all(&all, config.cores, events);
    all
}

fn record_all(all: &Arc<Events>, cores: usize, events: &[(u64, f64)]) {
    let mut shards: Vec<EventShard> = (0..cores).map(|core| all.shard(core)).collect();
    for (turn, &(user, value)) in events.iter().enumerate() {
        record(&mut shards[turn % cores], user, value).unwrap();
    }
}

fn record(shard: &mut EventShard, user: u64, value: f64) -> Result<(), Refusal> {
    shard.record(format!(r#"{{"userId":"user_{user}","value":{value:?}}}"#).as_bytes())
}

fn bytes(events: &Events) -> Vec<u8> {
    let mut bytes = Vec::new();
    events.save().unwrap().write_to(&mut bytes).unwrap();
    bytes
}

fn small() -> Vec<u8> {
    let events = [(1, 0.1), (2, -1e300), (1, 5e-324), (3, 7.5)];
    bytes(&counted(EventsConfig::new(2), &events))
}

#[test]
fn users_go_on_to_be_known_on_other_cores() {
    let config = EventsConfig {
        users_max: 3,
        ..EventsConfig::new(3)
    };
    let state = State::read(&small()).unwrap();
    assert_eq!(state.users(), 3);
    let events = Events::restore(config, state).unwrap();
    let mut shard = events.shard(2);
    for user in [3, 2, 1] {
        record(&mut shard, user, 1.0).unwrap();
    }
    assert_eq!(record(&mut shard, 4, 1.0), Err(Refusal::UsersFull));
    assert_eq!(events.stats().total_requests, 7);
    assert_eq!(events.stats().unique_users, 3);
}

#[test]
fn a_reset_forgets_what_was_restored() {
    let config = EventsConfig {
        reset_allowed: true,
        ..EventsConfig::new(1)
    };
    let events = Events::restore(config, State::read(&small()).unwrap()).unwrap();
    let mut shard = events.shard(0);
    shard.reset().unwrap();
    assert_eq!(events.stats().total_requests, 0);
    record(&mut shard, 1, 2.0).unwrap();
    let events = Events::restore(config, events.save().unwrap()).unwrap();
    assert_eq!(events.stats().total_requests, 1);
    assert_eq!(events.stats().unique_users, 1);
    assert_eq!(events.stats().sum, 2.0);
}

#[test]
fn fewer_users_than_there_are_already_is_an_error() {
    let config = EventsConfig {
        users_max: 2,
        ..EventsConfig::new(1)
    };
    let error = Events::restore(config, State::read(&small()).unwrap()).unwrap_err();
    assert!(matches!(
        error,
        EventsError::UsersSaved {
            saved: 3,
            users_max: 2
        }
    ));
}

#[test]
fn damage_is_found_at_every_byte() {
    let bytes = small();
    for at in 0..bytes.len() {
        for change in 1..=u8::MAX {
            let mut damaged = bytes.clone();
            damaged[at] ^= change;
            let expected = if at < 8 {
                StateError::Foreign
            } else {
                StateError::Damaged
            };
            assert_eq!(State::read(&damaged), Err(expected), "byte {at}");
        }
        assert!(State::read(&bytes[..at]).is_err(), "{at} bytes");
    }
    assert!(State::read(&[&bytes[..], b"x"].concat()).is_err());
}

/// `bytes` with a change that the checksum covers.
fn resealed(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = small();
    bytes.truncate(bytes.len() - 4);
    change(&mut bytes);
    let sum = crc32fast::hash(&bytes);
    bytes.extend(sum.to_le_bytes());
    bytes
}

#[test]
fn another_version_is_named() {
    let newer = resealed(|bytes| bytes[8] = 3);
    assert_eq!(State::read(&newer), Err(StateError::Version(3)));
}

#[test]
fn the_place_in_a_fleet_goes_on() {
    let mut state = State::read(&small()).unwrap();
    let membership = Membership {
        node: "a".into(),
        epoch: 1,
        incarnation: 2,
        version: 3,
        is_open: true,
        base_events: 4,
        base_sum: state.totals().sum.clone(),
        pending: Vec::new(),
    };
    state.membership = Some(membership);
    let mut bytes = Vec::new();
    state.write_to(&mut bytes).unwrap();
    assert_eq!(State::read(&bytes).unwrap(), state);
    // Also through a server that counts alone.
    let events = Events::restore(EventsConfig::new(1), state.clone()).unwrap();
    assert_eq!(events.save().unwrap().membership, state.membership);
}

#[test]
fn what_cannot_be_is_refused_whatever_the_checksum_says() {
    let last_user = 620 + 2 * 16;
    let contradictions: [fn(&mut Vec<u8>); 7] = [
        |bytes| bytes.truncate(9),
        |bytes| bytes.truncate(620),
        |bytes| bytes.push(0),
        |bytes| bytes[12] = 2,
        // Fewer events than users.
        |bytes| bytes[36] = 2,
        // A limb that was not carried.
        |bytes| bytes[44 + 7] = 1,
        |bytes| bytes[620..628].fill(0),
    ];
    for (index, change) in contradictions.into_iter().enumerate() {
        let found = State::read(&resealed(change));
        assert_eq!(found, Err(StateError::Contradiction), "{index}");
    }
    let twice = resealed(|bytes| bytes.copy_within(620..636, last_user));
    let state = State::read(&twice).unwrap();
    let error = Events::restore(EventsConfig::new(1), state).unwrap_err();
    assert!(matches!(
        error,
        EventsError::State(StateError::Contradiction)
    ));
}

proptest! {
    /// However often the process ends and on however many cores it goes on, nothing tells.
    #[test]
    fn to_stop_and_to_go_on_changes_nothing(
        runs in prop::collection::vec(
            (
                1..4_usize,
                prop::collection::vec(
                    (0..20_u64, any::<f64>().prop_filter("finite", |value| value.is_finite())),
                    0..30,
                ),
            ),
            1..5,
        ),
    ) {
        let mut kept: Option<Vec<u8>> = None;
        for (cores, events) in &runs {
            let config = EventsConfig { users_max: 50, ..EventsConfig::new(*cores) };
            let all = match &kept {
                Some(bytes) => Events::restore(config, State::read(bytes).unwrap()).unwrap(),
                None => Events::new(config).unwrap(),
            };
            record_all(&all, *cores, events);
            kept = Some(bytes(&all));
        }
        let state = State::read(&kept.unwrap()).unwrap();
        let last = Events::restore(EventsConfig::new(1), state).unwrap();

        let events: Vec<_> = runs.into_iter().flat_map(|(_, events)| events).collect();
        let whole = counted(EventsConfig::new(1), &events);
        prop_assert_eq!(last.stats(), whole.stats());
    }

    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..1_000)) {
        prop_assert!(State::read(&bytes).is_err());
        let begun = [b"BWEVENTS\x01\0\0\0", &bytes[..]].concat();
        prop_assert!(State::read(&begun).is_err());
    }
}
