//! Which handler answers which request: a table, and the search in it.

use super::request::{Method, Request};
use super::response::{Answer, ContentType, Piece, Response};
use super::target::Target;

/// One path and what can be done with it.
///
/// `S` is what the handlers of a core share: one value per core, without locks.
#[derive(Debug)]
pub struct Route<S: 'static> {
    pub(super) path: &'static str,
    pub(super) methods: &'static [(Method, Handler<S>)],
}

impl<S> Route<S> {
    /// A route with what answers each of its methods. HEAD comes with GET, OPTIONS with any.
    ///
    /// `path` is the decoded one and consists of slashes and unreserved characters (RFC 3986).
    pub const fn new(path: &'static str, methods: &'static [(Method, Handler<S>)]) -> Self {
        Route { path, methods }
    }

    /// The decoded path.
    pub const fn path(&self) -> &'static str {
        self.path
    }
}

/// How a request is answered.
#[derive(Debug)]
pub enum Handler<S: 'static> {
    /// From the head alone. A body is read and forgotten.
    Head(fn(&mut S, &Request<'_>, Response<'_, '_>) -> Answer),
    /// From the whole body, at most `body_bytes_max` long and decoded if it was chunked.
    Body(fn(&mut S, &[u8], Response<'_, '_>) -> Answer),
    /// With a body of any length, generated as fast as the peer takes it.
    Stream(fn(&mut S, &Request<'_>) -> Stream),
    /// With the request's own body, of any length, as it arrives.
    Echo,
}

/// A body that is a pure function of its offset, so that a connection keeps no bytes of it.
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    /// Its media type.
    pub content_type: ContentType,
    /// Its length in bytes.
    pub length: u64,
    /// Handed to `fill`, to tell one body from another.
    pub seed: u64,
    /// Fills all of a space with the bytes from an offset on: `fill(seed, offset, space)`.
    pub fill: fn(u64, u64, &mut [u8]),
}

/// A table of routes, ready to be searched.
#[derive(Debug)]
pub(super) struct Routes<S: 'static> {
    entries: Box<[Entry<S>]>,
}

#[derive(Debug)]
pub(super) struct Entry<S: 'static> {
    path: &'static [u8],
    methods: &'static [(Method, Handler<S>)],
    /// The `Allow` field of this path.
    pub(super) allow: Piece<64>,
}

impl<S> Routes<S> {
    pub(super) fn new(routes: &[&'static Route<S>]) -> Self {
        let entries = routes.iter().map(|route| Entry {
            path: route.path.as_bytes(),
            methods: route.methods,
            allow: allow(route.methods.iter().map(|(method, _)| *method)),
        });
        Routes {
            entries: entries.collect(),
        }
    }

    /// The index of the route that `target` names.
    #[inline]
    pub(super) fn find(&self, target: &Target<'_>) -> Option<usize> {
        let exact = self
            .entries
            .iter()
            .position(|entry| entry.path == target.path);
        exact.or_else(|| self.find_encoded(target))
    }

    #[cold]
    fn find_encoded(&self, target: &Target<'_>) -> Option<usize> {
        memchr::memchr(b'%', target.path)?;
        self.entries
            .iter()
            .position(|entry| target.names(entry.path))
    }

    #[inline]
    pub(super) fn entry(&self, index: usize) -> &Entry<S> {
        &self.entries[index]
    }
}

impl<S> Entry<S> {
    /// The handler of `method` and its index in this entry. HEAD is answered by GET's.
    #[inline]
    pub(super) fn find(&self, method: Method) -> Option<(usize, &'static Handler<S>)> {
        let method = if method == Method::Head {
            Method::Get
        } else {
            method
        };
        let index = self
            .methods
            .iter()
            .position(|(candidate, _)| *candidate == method)?;
        Some((index, &self.methods[index].1))
    }

    pub(super) fn handler(&self, index: usize) -> &'static Handler<S> {
        &self.methods[index].1
    }
}

/// The `Allow` field for a resource with these methods (RFC 9110, section 10.2.1).
pub(super) fn allow(methods: impl Iterator<Item = Method>) -> Piece<64> {
    let mut text = String::from("Allow: ");
    for method in methods {
        text += method.as_str();
        text += if method == Method::Get {
            ", HEAD, "
        } else {
            ", "
        };
    }
    text += "OPTIONS\r\n";
    Piece::new(&text)
}
