//! What it costs to look at a received frame once.

#![allow(clippy::unwrap_used, reason = "a bench may panic")]

use std::hint::black_box;
use std::net::SocketAddr;

use barewire_tcp::packet::{ChecksumPolicy, Flags, Local, parse};
use barewire_tcp_testing::frame::TcpFrame;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn parse_frames(c: &mut Criterion) {
    let servers = ["10.77.0.2:8080", "[fd77::2]:8080"].map(|text| text.parse().unwrap());
    let clients = ["10.77.0.1:40000", "[fd77::1]:40000"].map(|text| text.parse().unwrap());
    let local = Local::new(&servers.map(|server: SocketAddr| server.ip()), &[8080]).unwrap();
    let payload = [0x55; 1440];

    let mut group = c.benchmark_group("packet/parse");
    for (version, client, server) in [
        ("ipv4", clients[0], servers[0]),
        ("ipv6", clients[1], servers[1]),
    ] {
        for payload_bytes in [0, 40, 640, 1440] {
            let frame = TcpFrame {
                flags: Flags::ACK | Flags::PSH,
                payload: &payload[..payload_bytes],
                ..TcpFrame::new(client, server)
            }
            .to_vec();
            group.throughput(Throughput::Bytes(frame.len() as u64));
            for (name, policy) in [
                ("verify", ChecksumPolicy::Verify),
                ("trust", ChecksumPolicy::Trust),
            ] {
                let id = BenchmarkId::new(format!("{version}/{name}"), payload_bytes);
                group.bench_function(id, |b| {
                    b.iter(|| parse(black_box(&frame), black_box(&local), policy));
                });
            }
        }
    }
    group.finish();
}

criterion_group!(benches, parse_frames);
criterion_main!(benches);
