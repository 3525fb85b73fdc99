//! A proxy in front of the engine that repeats publications, late and out of order.
//!
//! What a node sends goes to the engine at once, and its answer back. Of each publication a copy is kept, and after each
//! some earlier ones, of whichever node, are sent again on another connection.

use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

/// Publications that are kept.
const KEPT_MAX: usize = 512;
/// Of those, so many are sent again after each.
const REPEATED: usize = 2;

pub struct Proxy {
    path: PathBuf,
    shared: Arc<Mutex<Kept>>,
}

struct Kept {
    publications: Vec<Vec<u8>>,
    random: u64,
    repeated: u64,
}

impl Proxy {
    /// Listens at `path` for the engine at `engine`.
    pub fn start(path: PathBuf, engine: PathBuf) -> Self {
        let listener = UnixListener::bind(&path).unwrap();
        let shared = Arc::new(Mutex::new(Kept {
            publications: Vec::new(),
            random: 1,
            repeated: 0,
        }));
        let of_connections = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (engine, kept) = (engine.clone(), Arc::clone(&of_connections));
                thread::spawn(move || forward(&stream, &engine, &kept));
            }
        });
        Proxy { path, shared }
    }

    pub fn url(&self) -> String {
        format!("unix://{}", self.path.display())
    }

    /// How many publications arrived once more.
    pub fn repeated(&self) -> u64 {
        self.shared.lock().unwrap().repeated
    }
}

fn forward(node: &UnixStream, engine: &Path, kept: &Mutex<Kept>) -> Option<()> {
    let (to_engine, again) = (UnixStream::connect(engine), UnixStream::connect(engine));
    let (Ok(to_engine), Ok(mut again)) = (to_engine, again) else {
        // As an engine that is away.
        let _ = node.shutdown(Shutdown::Both);
        return None;
    };
    let mut answers = to_engine.try_clone().ok()?;
    let mut to_node = node.try_clone().ok()?;
    thread::spawn(move || {
        let _ = std::io::copy(&mut answers, &mut to_node);
        let _ = to_node.shutdown(Shutdown::Both);
    });
    let mut answers = again.try_clone().ok()?;
    thread::spawn(move || std::io::copy(&mut answers, &mut std::io::sink()));

    let mut requests = BufReader::new(node);
    let mut to_engine = to_engine;
    while let Some(command) = command(&mut requests) {
        to_engine.write_all(&command).ok()?;
        let is_publication = command.windows(5).any(|word| word == b"HSET'");
        if is_publication {
            for copy in kept.lock().unwrap().next(command) {
                again.write_all(&copy).ok()?;
            }
        }
    }
    let _ = to_engine.shutdown(Shutdown::Both);
    None
}

impl Kept {
    /// Keeps one, and chooses which to repeat.
    fn next(&mut self, publication: Vec<u8>) -> Vec<Vec<u8>> {
        if self.publications.len() < KEPT_MAX {
            self.publications.push(publication);
        } else {
            let place = self.choose();
            self.publications[place] = publication;
        }
        self.repeated += REPEATED as u64;
        (0..REPEATED)
            .map(|_| {
                let place = self.choose();
                self.publications[place].clone()
            })
            .collect()
    }

    /// xorshift64.
    fn choose(&mut self) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % self.publications.len() as u64) as usize
    }
}

/// One command as it is on the wire; `None` at the end.
fn command(requests: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let count = number(requests, &mut bytes)?;
    for _ in 0..count {
        let length = number(requests, &mut bytes)?;
        let start = bytes.len();
        bytes.resize(start + length + 2, 0);
        requests.read_exact(&mut bytes[start..]).ok()?;
    }
    Some(bytes)
}

fn number(requests: &mut impl BufRead, bytes: &mut Vec<u8>) -> Option<usize> {
    let start = bytes.len();
    requests
        .read_until(b'\n', bytes)
        .ok()
        .filter(|&length| length > 0)?;
    std::str::from_utf8(&bytes[start + 1..])
        .ok()?
        .trim()
        .parse()
        .ok()
}
