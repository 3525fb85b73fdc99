use super::*;

fn events(cores: usize) -> Arc<Events> {
    Events::new(EventsConfig::new(cores)).unwrap()
}

#[test]
fn counts_the_official_client() {
    let events = events(2);
    let mut shards = [events.shard(0), events.shard(1)];
    for i in 0..1_000_000 {
        let body = format!(
            r#"{{"userId":"user_{}","value":{}.5}}"#,
            i % 75_000,
            i % 1_000
        );
        shards[i / 7 % 2].record(body.as_bytes()).unwrap();
    }
    let stats = serde_json::to_string(&shards[0].stats()).unwrap();
    assert_eq!(
        stats,
        r#"{"totalRequests":1000000,"uniqueUsers":75000,"sum":500000000.0,"avg":500.0}"#
    );
}

#[test]
fn answers_before_the_first_event() {
    let stats = serde_json::to_string(&events(1).stats()).unwrap();
    assert_eq!(
        stats,
        r#"{"totalRequests":0,"uniqueUsers":0,"sum":0.0,"avg":0.0}"#
    );
}
