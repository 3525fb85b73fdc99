//! One thread: what is counted and what is not.

use std::sync::Arc;

use barewire_service::counters::Samples;

use crate::events::seen::SeenUsers;
use crate::events::users::{Offer, UserHash, UserKey, UserTable};
use crate::events::{EventShard, Events, EventsConfig, EventsError, Refusal, ResetError, Stats};

fn events(config: EventsConfig) -> (Arc<Events>, Vec<EventShard>) {
    let events = Events::new(config).unwrap();
    let shards = (0..config.cores).map(|core| events.shard(core)).collect();
    (events, shards)
}

fn record(shard: &mut EventShard, user: u64, value: f64) -> Result<(), Refusal> {
    shard.record(format!(r#"{{"userId":"user_{user}","value":{value:?}}}"#).as_bytes())
}

fn json(stats: Stats) -> String {
    serde_json::to_string(&stats).unwrap()
}

#[test]
fn counts_the_official_client_however_it_is_spread() {
    for cores in [1, 3] {
        let (events, mut shards) = events(EventsConfig::new(cores));
        for i in 0..1_000_000 {
            record(
                &mut shards[i as usize / 7 % cores],
                i % 75_000,
                (i % 1_000) as f64 + 0.5,
            )
            .unwrap();
        }
        assert_eq!(
            json(events.stats()),
            r#"{"totalRequests":1000000,"uniqueUsers":75000,"sum":500000000.0,"avg":500.0}"#
        );
        let counted = events.counters().iter().map(|core| core.counted.get());
        assert_eq!(counted.sum::<u64>(), 1_000_000);
    }
}

#[test]
fn shows_numbers_that_read_back_exactly() {
    let (events, mut shards) = events(EventsConfig::new(1));
    assert_eq!(
        json(events.stats()),
        r#"{"totalRequests":0,"uniqueUsers":0,"sum":0.0,"avg":0.0}"#
    );

    for value in [0.1, 0.2, -0.0] {
        record(&mut shards[0], 1, value).unwrap();
    }
    let stats = events.stats();
    assert_eq!(stats.sum.to_bits(), 0.3_f64.next_up().to_bits());
    let read: serde_json::Value = serde_json::from_str(&json(stats)).unwrap();
    assert_eq!(
        read["sum"].as_f64().map(f64::to_bits),
        Some(stats.sum.to_bits())
    );
    assert_eq!(
        read["avg"].as_f64().map(f64::to_bits),
        Some(stats.avg.to_bits())
    );
}

#[test]
fn shows_no_infinity() {
    let (events, mut shards) = events(EventsConfig::new(2));
    record(&mut shards[0], 1, f64::MAX).unwrap();
    record(&mut shards[1], 1, f64::MAX).unwrap();
    assert_eq!(
        json(events.stats()),
        r#"{"totalRequests":2,"uniqueUsers":1,"sum":1.7976931348623157e+308,"avg":1.7976931348623157e+308}"#
    );
    record(&mut shards[0], 1, f64::MIN).unwrap();
    record(&mut shards[1], 1, f64::MIN).unwrap();
    record(&mut shards[1], 1, 2.0).unwrap();
    assert_eq!(
        json(events.stats()),
        r#"{"totalRequests":5,"uniqueUsers":1,"sum":2.0,"avg":0.4}"#
    );
}

#[test]
fn counts_no_event_that_it_refuses() {
    let (events, mut shards) = events(EventsConfig::new(1));
    assert_eq!(shards[0].record(b"{"), Err(Refusal::Syntax));
    assert_eq!(
        shards[0].record(br#"{"userId":"a"}"#),
        Err(Refusal::ValueMissing)
    );
    assert_eq!(events.stats().total_requests, 0);
    assert_eq!(events.stats().unique_users, 0);

    let counters = shards[0].counters().samples();
    let counted = |name| {
        counters
            .iter()
            .find(|sample| sample.name == name)
            .unwrap()
            .value
    };
    assert_eq!(counted("counted"), 0);
    assert_eq!(counted("refused_syntax"), 1);
    assert_eq!(counted("refused_value_missing"), 1);
    assert_eq!(counters.iter().map(|sample| sample.value).sum::<u64>(), 2);
}

#[test]
fn the_same_user_however_it_is_spelled() {
    let (events, mut shards) = events(EventsConfig::new(1));
    shards[0]
        .record(br#"{"userId":"a\u0062c","value":1}"#)
        .unwrap();
    shards[0].record(br#"{"userId":"abc","value":1}"#).unwrap();
    shards[0].record(br#"{"userId":"Abc","value":1}"#).unwrap();
    assert_eq!(events.stats().unique_users, 2);
}

#[test]
fn refuses_new_users_past_the_bound_and_knows_the_others() {
    let config = EventsConfig {
        users_max: 3,
        ..EventsConfig::new(2)
    };
    let (events, mut shards) = events(config);
    for user in 0..3 {
        record(&mut shards[0], user, 1.0).unwrap();
    }
    assert_eq!(record(&mut shards[0], 3, 1.0), Err(Refusal::UsersFull));
    assert_eq!(record(&mut shards[1], 4, 1.0), Err(Refusal::UsersFull));
    for user in 0..3 {
        record(&mut shards[1], user, 1.0).unwrap();
        record(&mut shards[0], user, 1.0).unwrap();
    }
    assert_eq!(
        json(events.stats()),
        r#"{"totalRequests":9,"uniqueUsers":3,"sum":9.0,"avg":1.0}"#
    );
    assert_eq!(events.counters()[1].refused_users_full.get(), 1);
}

/// More users than a core's cache holds: it forgets, the shared table does not.
#[test]
fn forgotten_users_are_not_counted_again() {
    let config = EventsConfig {
        users_seen_max: 8,
        ..EventsConfig::new(1)
    };
    let (events, mut shards) = events(config);
    for i in 0..10_000 {
        record(&mut shards[0], i * 31 % 1_000, 1.0).unwrap();
    }
    assert_eq!(events.stats().unique_users, 1_000);
    assert_eq!(events.stats().total_requests, 10_000);
}

#[test]
fn begins_anew_on_all_cores() {
    let config = EventsConfig {
        users_max: 2,
        reset_allowed: true,
        ..EventsConfig::new(3)
    };
    let (events, mut shards) = events(config);
    for round in 0..5 {
        for shard in &mut shards[..2] {
            record(shard, round, 1e300).unwrap();
            record(shard, round + 1, 0.5).unwrap();
        }
        assert_eq!(record(&mut shards[1], 99, 1.0), Err(Refusal::UsersFull));
        assert_eq!(events.stats().total_requests, 4);
        assert_eq!(events.stats().unique_users, 2);

        shards[2].reset().unwrap();
        assert_eq!(
            json(shards[1].stats()),
            r#"{"totalRequests":0,"uniqueUsers":0,"sum":0.0,"avg":0.0}"#
        );
        // Core 0 alone notices; core 1 still holds what it counted before.
        record(&mut shards[0], round + 1, 2.0).unwrap();
        assert_eq!(
            json(shards[1].stats()),
            r#"{"totalRequests":1,"uniqueUsers":1,"sum":2.0,"avg":2.0}"#
        );
        shards[0].reset().unwrap();
    }
}

#[test]
fn resets_only_if_allowed() {
    let (events, mut shards) = events(EventsConfig::new(1));
    record(&mut shards[0], 1, 1.0).unwrap();
    assert_eq!(shards[0].reset(), Err(ResetError::NotAllowed));
    assert_eq!(events.stats().total_requests, 1);
}

#[test]
fn says_what_cannot_be_had() {
    let error = |config| Events::new(config).unwrap_err();
    assert!(matches!(error(EventsConfig::new(0)), EventsError::Cores(0)));
    assert!(matches!(
        error(EventsConfig::new(1_025)),
        EventsError::Cores(1_025)
    ));
    let config = EventsConfig {
        users_max: usize::MAX,
        ..EventsConfig::new(1)
    };
    assert!(matches!(error(config), EventsError::Users(usize::MAX)));
}

#[test]
fn memory_is_as_documented() {
    let config = EventsConfig::new(2);
    let bytes = Events::new(config).unwrap().memory_bytes();
    let per_core = 4 << 20;
    assert!(
        (24_000_000 + 2 * per_core..24_100_000 + 2 * per_core).contains(&bytes),
        "{bytes}"
    );

    let resettable = EventsConfig {
        reset_allowed: true,
        ..config
    };
    assert_eq!(
        Events::new(resettable).unwrap().memory_bytes(),
        bytes + 24_000_016
    );
}

#[test]
#[should_panic(expected = "core 0 has its event shard already")]
fn a_core_has_one_writer() {
    let events = Events::new(EventsConfig::new(1)).unwrap();
    let _first = events.shard(0);
    let _second = events.shard(0);
}

fn user(high: u64, low: u64) -> UserHash {
    UserHash { high, low }
}

#[test]
fn the_table_tells_apart_users_that_share_half_a_hash() {
    let table = UserTable::new(100).unwrap();
    for n in 1..=50 {
        assert!(!table.contains(user(u64::MAX, n)));
        assert_eq!(table.offer(user(u64::MAX, n)), Offer::New);
        assert_eq!(table.offer(user(n, u64::MAX)), Offer::New);
    }
    for n in 1..=50 {
        assert!(table.contains(user(u64::MAX, n)));
        assert_eq!(table.offer(user(n, u64::MAX)), Offer::Known);
        assert!(!table.contains(user(n, n)));
    }
    assert_eq!(table.offer(user(7, 7)), Offer::Full);
    table.clear();
    assert!(!table.contains(user(1, u64::MAX)));
    assert_eq!(table.offer(user(7, 7)), Offer::New);
}

#[test]
fn a_core_remembers_users_until_others_take_their_place() {
    let mut seen = SeenUsers::new(1).unwrap();
    assert!(!seen.contains(user(1, 1)));
    for n in 1..=4 {
        seen.insert(user(1, n));
    }
    assert!((1..=4).all(|n| seen.contains(user(1, n))));
    assert!(!seen.contains(user(2, 1)));

    seen.insert(user(1, 5));
    assert!(seen.contains(user(1, 5)));
    assert_eq!((1..=4).filter(|&n| seen.contains(user(1, n))).count(), 3);

    seen.clear();
    assert!(!(1..=5).any(|n| seen.contains(user(1, n))));
}

#[test]
fn hashes_depend_on_the_key() {
    let (one, other) = (UserKey::new([1, 2]), UserKey::new([1, 3]));
    assert_eq!(one.hash(b"user_1"), one.hash(b"user_1"));
    assert_ne!(one.hash(b"user_1"), one.hash(b"user_2"));
    assert_ne!(one.hash(b"user_1"), other.hash(b"user_1"));
    assert_eq!(format!("{one:?}"), "UserKey(secret)");
}
