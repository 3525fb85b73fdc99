//! After start-up the kernel stacks allocate nothing: not per request, not per connection.

#![allow(clippy::unwrap_used)]
#![cfg(all(feature = "epoll", feature = "uring"))]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};

use barewire_kernel::KernelConfig;
use barewire_kernel::epoll::Epoll;
use barewire_kernel::uring::Uring;
use barewire_service::lifecycle::{Lifecycle, Phase};
use barewire_service::service::{Expect, Input, Next, Progress, Reply, Service};
use barewire_service::stack::{Running, Stack};

/// The system's allocator, counting.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const CONNECTIONS: usize = 500;
const ROUNDS: usize = 10;
/// Longer than a receive buffer, in pieces that are not messages.
const PIPELINED: &[u8] = &[b'\n'; 3000];

/// Answers each line feed with four.
struct Newlines;

impl Service for Newlines {
    type Connection = ();

    const REPLY_BYTES_MIN: usize = 4;

    fn on_input(&mut self, (): &mut (), input: Input<'_>, reply: &mut Reply<'_>) -> Progress {
        let count = input.bytes.len().min(reply.remaining() / 4);
        for _ in 0..count {
            assert!(reply.put(b"\n\n\n\n"));
        }
        let rest = input.bytes.len() - count;
        Progress {
            consumed: count,
            messages: count as u32,
            next: match rest {
                0 => Next::Receive(Expect::Message),
                _ => Next::Send,
            },
        }
    }
}

fn config() -> KernelConfig {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    KernelConfig {
        cores: vec![rustix::thread::sched_getcpu()],
        connections: CONNECTIONS,
        receive_buffer_bytes: 1024,
        send_buffer_bytes: 1024,
        ..KernelConfig::new(listen)
    }
}

/// Opens connections, has requests answered on all of them, and closes them, several times over.
fn exchange(running: &Running, clients: &mut Vec<TcpStream>, reply: &mut [u8]) {
    for _ in 0..ROUNDS {
        for _ in 0..CONNECTIONS {
            clients.push(TcpStream::connect(running.addresses[0]).unwrap());
        }
        for client in &mut *clients {
            client.write_all(PIPELINED).unwrap();
        }
        for client in &mut *clients {
            client.read_exact(reply).unwrap();
        }
        for mut client in clients.drain(..) {
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(client.read(reply).unwrap(), 0);
        }
    }
}

fn allocations_of(stack: impl Stack) -> u64 {
    let lifecycle = Lifecycle::new();
    let running = stack.start(|_core| Newlines, &lifecycle).unwrap();
    let mut clients = Vec::with_capacity(CONNECTIONS);
    let mut reply = vec![0; PIPELINED.len() * 4];
    exchange(&running, &mut clients, &mut reply);

    let before = ALLOCATIONS.load(Ordering::Relaxed);
    exchange(&running, &mut clients, &mut reply);
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;

    lifecycle.advance(Phase::Stop);
    for core in running.cores {
        core.join().unwrap().unwrap();
    }
    allocations
}

#[test]
fn serving_and_accepting_allocate_nothing() {
    assert_eq!(allocations_of(Epoll { config: config() }), 0, "epoll");
    assert_eq!(allocations_of(Uring::new(config())), 0, "io_uring");
}
