//! A core allocates nothing for its requests while a thread publishes what it counts, whether the engine answers or not.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use allocation_counter::measure;
use barewire::events::{Events, EventsConfig};
use barewire::fleet::{self, Fleet, FleetConfig, NEWCOMERS_MAX};
use barewire::site::{self, Site, SiteResponder};
use barewire_http::{HttpCounters, Limits};
use barewire_service::service::{Input, Reply, Service};
use rustix::process::Signal;

use crate::engine::Engine;

const TIMEOUT: Duration = Duration::from_millis(100);

#[test]
fn requests_allocate_nothing_with_the_engine_and_while_it_is_stopped() {
    let engine = Engine::start(&[]);
    let config = FleetConfig {
        url: engine.url(),
        ca: PathBuf::new(),
        prefix: "allocations".to_owned(),
        node: None,
        interval: Duration::from_millis(5),
        read_interval: Duration::from_millis(5),
        timeout: TIMEOUT,
        silent: Duration::from_secs(10),
        serve_without: false,
    };
    let (joined, _) = fleet::join(&config, None, false).unwrap();
    let of_core = EventsConfig {
        newcomers_max: NEWCOMERS_MAX,
        ..EventsConfig::new(1)
    };
    let events = Arc::new(Events::with_key(of_core, joined.key()).unwrap());
    let fleet = Fleet::start(joined, &config, Arc::clone(&events), None, || {}).unwrap();
    let (handle, counters) = (fleet.handle(), fleet.handle().counters());

    let routes = site::routes(false).unwrap();
    let mut site = Site::new(events.shard(0));
    site.fleet = Some(fleet.handle());
    let http = Arc::new(HttpCounters::new(&routes));
    let mut client = Client {
        responder: site::responder(&routes, site, Limits::default(), http),
        space: vec![0; 16 * 1024],
        users: 0,
    };

    client.ask_until(|| handle.view().is_some());
    let published = counters.users_published.get();
    let with_engine = measure(|| {
        client.ask_until(|| counters.users_published.get() > published + 1_000);
    });
    assert_eq!(with_engine.count_total, 0, "{with_engine:?}");

    engine.signal(Signal::STOP);
    let failed = counters.failed_timeout.get();
    let without = measure(|| {
        client.ask_until(|| counters.failed_timeout.get() > failed + 1);
    });
    assert_eq!(without.count_total, 0, "{without:?}");
    engine.signal(Signal::CONT);

    client.ask_until(|| counters.engine_answers.get() == 1);
    drop(client);
    let counted = events.stats();
    crate::server::wait_until("the fleet has all of them", || {
        counters.fleet_events.get() == counted.total_requests
            && counters.fleet_users.get() == counted.unique_users
    });
    fleet.end();
}

/// A connection that sends events of new users, and asks for the counts of the fleet after each.
struct Client {
    responder: SiteResponder,
    space: Vec<u8>,
    users: u64,
}

impl Client {
    fn ask_until(&mut self, is_enough: impl Fn() -> bool) {
        let begun = Instant::now();
        let mut connection = Default::default();
        while !is_enough() {
            assert!(begun.elapsed() < Duration::from_secs(60), "nothing happens");
            self.users += 1;
            let mut request = *b"POST /event HTTP/1.1\r\nHost: a\r\nContent-Length: 40\r\n\r\n\
                {\"userId\":\"user_0000000000\",\"value\":1.5}\
                GET /stats?scope=fleet HTTP/1.1\r\nHost: a\r\n\r\n";
            let digits = request
                .windows(5)
                .position(|part| part == b"user_")
                .unwrap()
                + 5;
            let mut rest = self.users;
            for digit in request[digits..digits + 10].iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
            let input = Input {
                bytes: &request,
                full: false,
                ended: false,
            };
            let mut reply = Reply::new(&mut self.space);
            let progress = self.responder.on_input(&mut connection, input, &mut reply);
            assert_eq!(progress.messages, 2);
            let is_answered = |bytes: &[u8]| bytes.starts_with(b"HTTP/1.1 200 OK\r\n");
            assert!(
                is_answered(reply.written()),
                "{}",
                reply.written().escape_ascii()
            );
            // So that the table has room for all.
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}
