//! What a connection takes that waits for its next request, as the kernel sees it: in Rust, and in C behind it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "tls/harness.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod harness;

use harness::{ClientSetup, Files, Served, ask, client, identity};

/// Beyond what TCP takes.
const CONNECTION_BYTES_MAX: usize = 4096;

#[cfg(target_os = "linux")]
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[cfg(target_os = "linux")]
#[test]
fn a_connection_at_rest_takes_little() {
    const CONNECTIONS: usize = 2000;
    let files = Files::new("idle_memory");
    let pair = files.pair("a", &["localhost"]);
    let identity = identity(std::slice::from_ref(&pair));
    let config = ClientSetup::trusting(&pair.0).config();
    let mut served = Served::new(&identity);
    let mut begin = || {
        served.accept();
        let mut client = client(&config, "localhost");
        assert_eq!(ask(&mut client, &mut served, "hello\n"), "HELLO\n");
        std::mem::take(&mut served.connection)
    };
    // What is allocated once, and what the allocator keeps for itself.
    let mut warm: Vec<_> = (0..200).map(|_| begin()).collect();
    warm.clear();
    let before = resident_bytes();
    let kept: Vec<_> = (0..CONNECTIONS).map(|_| begin()).collect();
    let taken = (resident_bytes() - before) / CONNECTIONS;
    println!("a connection takes {taken} bytes");
    assert!(taken <= CONNECTION_BYTES_MAX, "{taken} bytes");
    drop(kept);
}
