//! A double of the challenge's own client, which is written in Go.
//!
//! It closes the body of every answer unread. Go's `net/http` then keeps the connection only if the
//! answer has no content ([`http.Client.Do`]: "If the Body is not both read to EOF and closed, the
//! Client's underlying RoundTripper may not be able to re-use a persistent TCP connection"), and only if
//! fewer than `MaxIdleConnsPerHost` wait already. A request takes the connection that was used last; if
//! none waits, it opens one.
//!
//! [`http.Client.Do`]: https://pkg.go.dev/net/http#Client.Do

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::event::{Framing, event};
use crate::server::Server;

/// How the client behaves.
#[derive(Debug, Clone, Copy)]
pub struct GoClient {
    /// Requests in all.
    pub requests: u64,
    /// Requests at the same time.
    pub concurrency: usize,
    /// `MaxIdleConnsPerHost`.
    pub idle_max: usize,
    /// Events come from so many users in turn.
    pub unique_users: u64,
}

impl GoClient {
    /// Sends all requests, each of which must be answered with 200. Returns how many connections that took.
    pub fn run(self, server: &Server) -> u64 {
        let pool = Pool {
            server,
            idle: Mutex::default(),
            idle_max: self.idle_max,
            opened: AtomicU64::new(0),
        };
        let next = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..self.concurrency {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= self.requests {
                            return;
                        }
                        let user = format!("user_{}", number % self.unique_users);
                        pool.post(&Framing::Length.frame(&event(&user, 1.0)));
                    }
                });
            }
        });
        pool.opened.into_inner()
    }
}

struct Pool<'a> {
    server: &'a Server,
    idle: Mutex<Vec<BufReader<TcpStream>>>,
    idle_max: usize,
    opened: AtomicU64,
}

impl Pool<'_> {
    fn post(&self, request: &[u8]) {
        let mut connection = self.take();
        connection.get_mut().write_all(request).unwrap();
        let head = read_head(&mut connection);
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        // A connection whose content was not read ends here.
        if is_empty(&head) {
            self.put_back(connection);
        }
    }

    fn take(&self) -> BufReader<TcpStream> {
        let idle = self.idle().pop();
        idle.unwrap_or_else(|| {
            self.opened.fetch_add(1, Ordering::Relaxed);
            BufReader::new(self.server.connect())
        })
    }

    fn put_back(&self, connection: BufReader<TcpStream>) {
        let mut idle = self.idle();
        if idle.len() < self.idle_max {
            idle.push(connection);
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<BufReader<TcpStream>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read_head(connection: &mut BufReader<TcpStream>) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let bytes = connection.read_line(&mut head).unwrap();
        assert_ne!(bytes, 0, "the connection ended behind {head:?}");
    }
    head
}

fn is_empty(head: &str) -> bool {
    head.lines().any(|line| line == "Content-Length: 0")
}

/// What the double tells apart.
#[test]
fn only_an_answer_without_content_leaves_the_connection_usable() {
    assert!(is_empty("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
    for framing in [
        "Content-Length: 3",
        "Transfer-Encoding: chunked",
        "Content-Length: 01",
    ] {
        assert!(!is_empty(&format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n")));
    }
}
