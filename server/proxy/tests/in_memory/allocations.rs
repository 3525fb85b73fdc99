//! A hit allocates nothing, whatever its client sends.

use allocation_counter::measure;
use barewire_service::service::{Input, Next, Reply, Service};

use crate::world::{World, get, ok};

#[test]
fn hits_allocate_nothing() {
    let mut world = World::new("");
    let fields = ["Cache-Control: max-age=60", "ETag: \"a\"", "Vary: Accept"];
    for (path, len) in [("/small", 10), ("/large", 100_000)] {
        world.forward(&get(path, &["Accept: x"]), |_, _| {
            ok(&fields, &"x".repeat(len))
        });
    }
    let requests = [
        get("/small", &["Accept: x"]),
        get(
            "/small",
            &[
                "Accept: x",
                "If-None-Match: \"b\", \"a\"",
                "Cache-Control: max-age=50, max-stale",
            ],
        ),
        get("/large", &["Accept: x", "User-Agent: y"]),
        "HEAD /small HTTP/1.1\r\nHost: EXAMPLE.ORG\r\nAccept: x\r\n\r\n".to_owned(),
    ];
    let (mut connection, mut space) = (world.accept(), vec![0; 64 * 1024]);
    let proxy = world.proxy();
    let mut ask = |request: &str| {
        let mut rest = request.as_bytes();
        loop {
            let mut reply = Reply::new(&mut space);
            let input = Input {
                bytes: rest,
                full: false,
                ended: false,
            };
            let progress = proxy.on_input(&mut connection, input, &mut reply);
            rest = &rest[progress.consumed..];
            match progress.next {
                Next::Send => {}
                Next::Receive(_) if rest.is_empty() => return,
                next => panic!("{next:?}"),
            }
        }
    };
    requests.iter().for_each(|request| ask(request));
    let allocated = measure(|| {
        for _ in 0..10 {
            requests.iter().for_each(|request| ask(request));
        }
    });
    assert_eq!(allocated.count_total, 0);
    assert_eq!(world.count("hits"), 44);
}
