//! What a handler sees of a request.

use super::fields;
use super::method::Method;
use super::pattern;
use super::target::Target;

/// A request's head, borrowed from the bytes that arrived.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub(super) method: Method,
    pub(super) target: Target<'a>,
    /// The valid field lines and the empty line.
    pub(super) fields: &'a [u8],
    /// The path of the route that was found; empty if none was.
    pub(super) route: &'a str,
}

impl<'a> Request<'a> {
    /// The method; `HEAD` for the handler of a `GET` that is asked for it, too.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The path as it was sent, percent-encoded.
    pub fn path(&self) -> &'a [u8] {
        self.target.path
    }

    /// The part of the path that stands where the route has `{name}` or `{*name}`, as it was sent.
    ///
    /// ```text
    ///   route  /users/{id}/files/{*file}
    ///   path   /users/7/files/a/b%20c      id: 7   file: a/b%20c
    /// ```
    pub fn param(&self, name: &str) -> Option<&'a str> {
        pattern::param(self.route, self.target.path, name)
    }

    /// What follows the first `?`, as it was sent.
    pub fn query(&self) -> Option<&'a [u8]> {
        self.target.query
    }

    /// The value of the first `name=value` of the query, as it was sent.
    pub fn query_value(&self, name: &str) -> Option<&'a [u8]> {
        self.query()?
            .split(|byte| *byte == b'&')
            .find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
    }

    /// All header fields, in order: name and value, without white space around them.
    pub fn fields(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        fields::lines(self.fields)
    }

    /// The value of the first field with this name, in any case.
    pub fn field(&self, name: &str) -> Option<&'a [u8]> {
        self.fields()
            .find(|(each, _)| each.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }
}
