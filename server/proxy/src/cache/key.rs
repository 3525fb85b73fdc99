//! What a request asks for, as bytes, and their hash.
//!
//! ```text
//!   pool's name   \0   s | -   \0   example.org   /path?query   [\0  X-Forwarded-Proto  \0  X-Forwarded-Host  \0 …]
//!                     https or http
//! ```
//!
//! The pool is in it, so that a reload that leads a path elsewhere finds nothing of before. What a trusted proxy says
//! about the request of its client is in it, because origins answer by it, with redirects to https for one.

use std::hash::{BuildHasher, Hash, Hasher};

use quick_cache::Equivalent;
use siphasher::sip::SipHasher13;

/// The key of a stored resource.
#[derive(Debug, PartialEq, Eq)]
pub struct Key {
    pub hash: u64,
    pub text: Box<[u8]>,
}

/// A key to look for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    pub hash: u64,
    pub text: &'a [u8],
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Hash for Wanted<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Equivalent<Key> for Wanted<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.hash == key.hash && *self.text == *key.text
    }
}

/// Hands a hash on as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct AsIs(u64);

impl BuildHasher for AsIs {
    type Hasher = AsIs;

    fn build_hasher(&self) -> AsIs {
        AsIs(0)
    }
}

impl Hasher for AsIs {
    fn write(&mut self, _: &[u8]) {
        unreachable!("keys write their hash only")
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What a key is made of.
#[derive(Debug)]
pub struct Parts<'a> {
    pub pool: &'a str,
    pub is_tls: bool,
    pub host: &'a [u8],
    pub path: &'a [u8],
    pub query: Option<&'a [u8]>,
}

impl Parts<'_> {
    /// Writes the key, without what a trusted proxy says.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(self.pool.as_bytes());
        out.extend_from_slice(match self.is_tls {
            true => b"\0s\0",
            false => b"\0-\0",
        });
        let from = out.len();
        out.extend_from_slice(self.host);
        out[from..].make_ascii_lowercase();
        out.extend_from_slice(self.path);
        if let Some(query) = self.query {
            out.push(b'?');
            out.extend_from_slice(query);
        }
    }
}

/// Appends what a trusted proxy says to a key.
pub fn put_trusted<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>, out: &mut Vec<u8>) {
    for (name, value) in fields {
        let is_proto = name.eq_ignore_ascii_case(b"x-forwarded-proto");
        if is_proto || name.eq_ignore_ascii_case(b"x-forwarded-host") {
            out.extend_from_slice(if is_proto { b"\0p" } else { b"\0h" });
            out.extend_from_slice(value);
        }
    }
}

/// The resource that a key is for: host, path and query.
pub fn resource(key: &[u8]) -> &[u8] {
    key.split(|byte| *byte == 0).nth(2).unwrap_or_default()
}

/// A hash that clients cannot foresee.
#[derive(Debug, Clone, Copy)]
pub struct Secret(pub u64, pub u64);

impl Secret {
    /// Of a key, and of what selects one of its variants.
    pub fn hash(self, key: &[u8], selecting: &[u8]) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.0, self.1);
        hasher.write(key);
        hasher.write(selecting);
        hasher.finish()
    }
}

/// What is to be removed from a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purge {
    /// Everything.
    All,
    /// This resource, in whatever pool and by whatever scheme: host in lower case, path and query.
    Resource(String),
    /// All resources that begin so.
    Prefix(String),
}

impl Purge {
    /// As an operator writes it: `example.org/path?query`, perhaps with a scheme; `*` at the end: whatever follows.
    ///
    /// Returns `None` if there is no path in it.
    pub fn parse(text: &str) -> Option<Purge> {
        if text == "*" {
            return Some(Purge::All);
        }
        let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
        let (host, path) = rest.split_at(rest.find('/')?);
        let host = host.to_ascii_lowercase();
        Some(match path.strip_suffix('*') {
            Some(path) => Purge::Prefix(host + path),
            None => Purge::Resource(host + path),
        })
    }

    /// Whether it means this key.
    pub(crate) fn means(&self, key: &[u8]) -> bool {
        match self {
            Purge::All => true,
            Purge::Resource(wanted) => resource(key) == wanted.as_bytes(),
            Purge::Prefix(prefix) => resource(key).starts_with(prefix.as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purge_means_a_resource_of_every_pool_and_scheme() {
        let key = |is_tls, path: &str| {
            let mut key = Vec::new();
            Parts {
                pool: "app",
                is_tls,
                host: b"Example.org:81",
                path: path.as_bytes(),
                query: Some(b"q"),
            }
            .put(&mut key);
            put_trusted(
                [(&b"X-Forwarded-Proto"[..], &b"https"[..])].into_iter(),
                &mut key,
            );
            key
        };
        let purge = |text: &str| Purge::parse(text).unwrap();
        for is_tls in [false, true] {
            let key = key(is_tls, "/a/b");
            assert!(purge("*").means(&key));
            assert!(purge("https://EXAMPLE.org:81/a/b?q").means(&key));
            assert!(purge("example.org:81/a/*").means(&key));
            assert!(!purge("example.org:81/a/b").means(&key));
            assert!(!purge("example.org/a/*").means(&key));
        }
        assert_eq!(Purge::parse("example.org"), None);
    }
}
