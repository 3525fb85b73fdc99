//! Which handler answers which request: a table, and the search in it.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::method::Method;
use super::paths::Paths;
use super::pattern::{self, PatternError};
use super::piece::Piece;
use super::refusal::Refusal;
use super::relay::Relay;
use super::request::Request;
use super::response::{Answer, Response};
use super::target::Target;

/// One path and what can be done with it.
///
/// `S` is what the handlers of a core share: one value per core, without locks. HEAD is answered by the
/// handler of GET, and OPTIONS by the responder.
///
/// ```
/// # use barewire_http::{Answer, Handler, Method, Request, Response, Route};
/// const ROUTES: &[Route<Vec<String>>] = &[
///     Route::new("/names").get(list).post(add).on(Method::Delete, Handler::Head(clear)),
///     Route::new("/names/{number}").get(name),
/// ];
///
/// fn list(names: &mut Vec<String>, _: &Request<'_>, response: Response<'_, '_>) -> Answer {
///     response.json(names)
/// }
///
/// fn add(names: &mut Vec<String>, _: &Request<'_>, body: &[u8], response: Response<'_, '_>) -> Answer {
///     names.push(String::from_utf8_lossy(body).into_owned());
///     response.text("added")
/// }
/// # fn clear(_: &mut Vec<String>, _: &Request<'_>, response: Response<'_, '_>) -> Answer { response.text("") }
/// # fn name(_: &mut Vec<String>, _: &Request<'_>, response: Response<'_, '_>) -> Answer { response.text("") }
/// ```
#[derive(Debug)]
pub struct Route<S: 'static> {
    path: Cow<'static, str>,
    handlers: Handlers<S>,
}

/// One for each method, in the order of [`Method`].
type Handlers<S> = [Option<Handler<S>>; Method::ALL.len()];

/// Answers from the head of a request.
pub type HeadHandler<S> = fn(&mut S, &Request<'_>, Response<'_, '_>) -> Answer;

/// Answers from the head and the body of a request.
pub type BodyHandler<S> = fn(&mut S, &Request<'_>, &[u8], Response<'_, '_>) -> Answer;

impl<S> Route<S> {
    /// A route without any handler.
    ///
    /// `path` is the decoded one and consists of slashes and unreserved characters (RFC 3986). A segment
    /// `{name}` stands for any one, `{*name}` at the end for one or more; see [`Request::param`]. A
    /// path without parameters goes before one with them.
    pub const fn new(path: &'static str) -> Self {
        Route {
            path: Cow::Borrowed(path),
            handlers: [None; Method::ALL.len()],
        }
    }

    /// The same for a path that is not known before the program runs.
    pub const fn with_path(path: String) -> Self {
        Route {
            path: Cow::Owned(path),
            handlers: [None; Method::ALL.len()],
        }
    }

    /// Answers `method` with `handler`.
    #[must_use]
    pub const fn on(mut self, method: Method, handler: Handler<S>) -> Self {
        self.handlers[method as usize] = Some(handler);
        self
    }

    /// Answers GET, and HEAD, from the head.
    #[must_use]
    pub const fn get(self, handler: HeadHandler<S>) -> Self {
        self.on(Method::Get, Handler::Head(handler))
    }

    /// Answers POST from the body.
    #[must_use]
    pub const fn post(self, handler: BodyHandler<S>) -> Self {
        self.on(Method::Post, Handler::Body(handler))
    }

    /// Answers PUT from the body.
    #[must_use]
    pub const fn put(self, handler: BodyHandler<S>) -> Self {
        self.on(Method::Put, Handler::Body(handler))
    }

    /// Answers PATCH from the body.
    #[must_use]
    pub const fn patch(self, handler: BodyHandler<S>) -> Self {
        self.on(Method::Patch, Handler::Body(handler))
    }

    /// Answers DELETE from the head.
    #[must_use]
    pub const fn delete(self, handler: HeadHandler<S>) -> Self {
        self.on(Method::Delete, Handler::Head(handler))
    }

    /// Lets `relay` answer, later, whatever the method.
    #[must_use]
    pub const fn relay(mut self, relay: &'static dyn Relay<S>) -> Self {
        self.handlers = [Some(Handler::Relay(relay)); Method::ALL.len()];
        self
    }

    /// The decoded path.
    pub fn path(&self) -> &str {
        &self.path
    }
}

/// How a request is answered.
pub enum Handler<S: 'static> {
    /// From the head alone. A body is read and forgotten.
    Head(HeadHandler<S>),
    /// From the head and the whole body, at most `body_bytes_max` long and decoded if it was chunked. A body in a
    /// content coding is refused.
    Body(BodyHandler<S>),
    /// With the request's own body, of any length, as it arrives.
    Echo,
    /// By a relay, later. Both bodies may have any length, and are moved as they arrive.
    /// Over HTTP/2 such requests are refused with HTTP_1_1_REQUIRED. Middleware sees only the response.
    Relay(&'static dyn Relay<S>),
}

impl<S> Clone for Handler<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Handler<S> {}

impl<S> fmt::Debug for Handler<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Handler::Head(_) => "Head",
            Handler::Body(_) => "Body",
            Handler::Echo => "Echo",
            Handler::Relay(_) => "Relay",
        })
    }
}

/// A table of routes, ready to be searched. Its clones share it.
///
/// A path without parameters is found by its hash, one with them in a radix tree.
#[derive(Debug)]
pub struct Routes<S: 'static> {
    entries: Arc<[Entry<S>]>,
    /// The paths without parameters.
    literals: Arc<Paths>,
    tree: Arc<matchit::Router<u16>>,
    /// The `Allow` field of `OPTIONS *`.
    allow: Piece<64>,
}

/// Why routes cannot be combined to a table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// The path of a route is malformed.
    #[error("{path:?} is no path of a route: {source}")]
    Pattern {
        /// The path.
        path: String,
        /// What is wrong with it.
        source: PatternError,
    },
    /// The path of a route is, or cannot be told from, another one's.
    #[error("the route {path:?} cannot be told from {other:?}: give it another path")]
    Conflict {
        /// The path.
        path: String,
        /// The one that was there before.
        other: String,
    },
    /// There are more than 65,535.
    #[error("there are more than 65,535 routes")]
    TooMany,
}

#[derive(Debug)]
pub(super) struct Entry<S: 'static> {
    path: Box<str>,
    handlers: Handlers<S>,
    /// The `Allow` field of this path.
    pub(super) allow: Piece<64>,
}

impl<S> Routes<S> {
    /// A table of `routes`.
    ///
    /// # Errors
    ///
    /// If a path is malformed, or stands for the same paths as another.
    pub fn new<'a>(routes: impl IntoIterator<Item = &'a Route<S>>) -> Result<Self, RouteError> {
        let mut tree = matchit::Router::new();
        let mut literals = Vec::new();
        let mut entries = Vec::new();
        for route in routes {
            let path = &*route.path;
            pattern::check(path).map_err(|source| RouteError::Pattern {
                path: path.to_owned(),
                source,
            })?;
            let index = u16::try_from(entries.len()).map_err(|_| RouteError::TooMany)?;
            tree.insert(path, index)
                .map_err(|error| RouteError::Conflict {
                    path: path.to_owned(),
                    other: match error {
                        matchit::InsertError::Conflict { with } => with,
                        other => other.to_string(),
                    },
                })?;
            if !pattern::has_params(path) {
                literals.push((path.as_bytes(), index));
            }
            entries.push(Entry {
                path: path.into(),
                handlers: route.handlers,
                allow: allow(|method| route.handlers[method as usize].is_some()),
            });
        }
        let has = |method| {
            let mut entries = entries.iter();
            entries.any(|entry: &Entry<S>| entry.handlers[method as usize].is_some())
        };
        Ok(Routes {
            allow: allow(has),
            entries: entries.into(),
            literals: Arc::new(Paths::new(literals.into_iter())),
            tree: Arc::new(tree),
        })
    }

    /// The paths of all routes, in their order.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| &*entry.path)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The index of the route that `target` names. `scratch` is where a path is decoded; it needs as
    /// much capacity as the path has bytes.
    ///
    /// Fails if the path, which a parameter would stand for, is malformed.
    #[inline]
    pub(super) fn find(
        &self,
        target: &Target<'_>,
        scratch: &mut Vec<u8>,
    ) -> Result<Option<usize>, Refusal> {
        let path_of = |index| self.entries[usize::from(index)].path.as_bytes();
        match self.literals.find(target.path, path_of) {
            Some(index) => Ok(Some(index.into())),
            None => self.find_in_tree(target, scratch),
        }
    }

    #[inline(never)]
    fn find_in_tree(
        &self,
        target: &Target<'_>,
        scratch: &mut Vec<u8>,
    ) -> Result<Option<usize>, Refusal> {
        let mut path = target.path;
        if memchr::memchr(b'%', path).is_some() {
            target.normalise(scratch);
            path = scratch;
        }
        // A valid target is ASCII.
        let found = std::str::from_utf8(path)
            .ok()
            .and_then(|path| self.tree.at(path).ok());
        let Some(index) = found.map(|found| usize::from(*found.value)) else {
            return Ok(None);
        };
        if pattern::has_params(&self.entries[index].path) && !target.has_valid_path() {
            return Err(Refusal::Target);
        }
        Ok(Some(index))
    }

    #[inline]
    pub(super) fn entry(&self, index: usize) -> &Entry<S> {
        &self.entries[index]
    }

    /// The `Allow` field of the whole server.
    pub(super) fn allow(&self) -> &Piece<64> {
        &self.allow
    }
}

impl<S> Clone for Routes<S> {
    fn clone(&self) -> Self {
        Routes {
            entries: Arc::clone(&self.entries),
            literals: Arc::clone(&self.literals),
            tree: Arc::clone(&self.tree),
            allow: self.allow,
        }
    }
}

impl<S> Entry<S> {
    #[inline]
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The relay of a route that has calls, whatever the method.
    pub(super) fn relay(&self) -> &'static dyn Relay<S> {
        let mut handlers = self.handlers.iter().flatten();
        let relay = handlers.find_map(|handler| match handler {
            Handler::Relay(relay) => Some(*relay),
            _ => None,
        });
        relay.unwrap_or_else(|| unreachable!("only a relay's route has calls"))
    }

    /// The handler of `method`. HEAD is answered by GET's.
    #[inline]
    pub(super) fn handler(&self, method: Method) -> Option<Handler<S>> {
        match method {
            Method::Head => self.handlers[Method::Get as usize],
            _ => self.handlers[method as usize],
        }
    }
}

/// The `Allow` field for a resource with the methods that `has` says (RFC 9110, section 10.2.1).
fn allow(has: impl Fn(Method) -> bool) -> Piece<64> {
    let mut text = String::from("Allow: ");
    for &method in Method::ALL {
        let comes_by_itself = match method {
            Method::Head => has(Method::Get),
            Method::Options => true,
            _ => false,
        };
        if comes_by_itself || has(method) {
            if !text.ends_with(' ') {
                text += ", ";
            }
            text += method.as_str();
        }
    }
    text += "\r\n";
    Piece::new(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo(path: &'static str) -> Route<()> {
        Route::new(path).on(Method::Post, Handler::Echo)
    }

    fn found(paths: &[&'static str], path: &str) -> Result<Option<&'static str>, Refusal> {
        let routes: Vec<_> = paths.iter().map(|path| echo(path)).collect();
        let routes = Routes::new(&routes).unwrap();
        let target = Target {
            path: path.as_bytes(),
            query: None,
        };
        let found = routes.find(&target, &mut Vec::new())?;
        Ok(found.map(|index| paths[index]))
    }

    #[test]
    fn paths_match_in_any_encoding_of_unreserved_characters() {
        let more: Vec<&'static str> = (0..20).map(|n| &*format!("/more/{n}").leak()).collect();
        for more in [&[][..], &more] {
            let paths = [
                &[
                    "/plaintext",
                    "/users/{id}",
                    "/users/me",
                    "/files/{*path}",
                    "/{top}",
                ],
                more,
            ]
            .concat();
            let found = |path| found(&paths, path);
            assert_eq!(found("/plaintext"), Ok(Some("/plaintext")));
            assert_eq!(found("/%70laintext"), Ok(Some("/plaintext")));
            assert_eq!(
                found("/%70%6c%61%69%6E%74%65%78%74"),
                Ok(Some("/plaintext"))
            );
            assert_eq!(found("%2Fplaintext"), Ok(None));
            assert_eq!(found("/plaintext/"), Ok(None));
            assert_eq!(found("/plaintex"), Ok(Some("/{top}")));
            assert_eq!(found("/%70laintext%7"), Err(Refusal::Target));
            assert_eq!(found("/users/me"), Ok(Some("/users/me")));
            assert_eq!(found("/users/%6de"), Ok(Some("/users/me")));
            assert_eq!(found("/users/m"), Ok(Some("/users/{id}")));
            assert_eq!(found("/%75sers/a%2Fb"), Ok(Some("/users/{id}")));
            assert_eq!(found("/users/a{b"), Err(Refusal::Target));
            assert_eq!(found("/users/{id}"), Err(Refusal::Target));
            assert_eq!(found("/users/"), Ok(None));
            assert_eq!(found("/users/a/b"), Ok(None));
            assert_eq!(found("/files/a/b/"), Ok(Some("/files/{*path}")));
            assert_eq!(found("/files/"), Ok(None));
            assert_eq!(found("*"), Ok(None));
        }
    }

    #[test]
    fn tables_that_cannot_be_told_apart_are_refused() {
        let table = |paths: &[&'static str]| {
            let routes: Vec<_> = paths.iter().map(|path| echo(path)).collect();
            Routes::new(&routes).map(|routes| routes.len())
        };
        assert_eq!(table(&["/a", "/{a}", "/a/{*b}"]), Ok(3));
        for (paths, other) in [(["/a", "/a"], "/a"), (["/{a}", "/{b}"], "/{a}")] {
            assert_eq!(
                table(&paths),
                Err(RouteError::Conflict {
                    path: paths[1].to_owned(),
                    other: other.to_owned()
                })
            );
        }
        assert!(matches!(table(&["a"]), Err(RouteError::Pattern { .. })));
    }

    #[test]
    fn allow_names_what_there_is() {
        let routes = Routes::new(&[echo("/a")]).unwrap();
        assert_eq!(routes.allow().as_bytes(), b"Allow: POST, OPTIONS\r\n");
        let allow = allow(|_| true);
        assert_eq!(
            allow.as_bytes(),
            b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n"
        );
    }
}
