//! What a handler sees of a request.

use super::fields;
use super::target::Target;

/// A request's head, borrowed from the bytes that arrived.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub(super) method: Method,
    pub(super) target: Target<'a>,
    /// The valid field lines and the empty line.
    pub(super) fields: &'a [u8],
}

impl<'a> Request<'a> {
    /// The method; `GET` for the handler of a `GET` that is asked for `HEAD`, too.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The path as it was sent, percent-encoded.
    pub fn path(&self) -> &'a [u8] {
        self.target.path
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
    pub fn fields(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        fields::lines(self.fields)
    }

    /// The value of the first field with this name, in any case.
    pub fn field(&self, name: &str) -> Option<&'a [u8]> {
        self.fields()
            .find(|(each, _)| each.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }
}

macro_rules! methods {
    ($( $name:ident = $text:literal, )+) => {
        /// A method that a route can have (RFC 9110, section 9).
        ///
        /// TRACE and CONNECT are not implemented: an origin server has no use for them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Method {
            $( #[doc = concat!("`", $text, "`")] $name, )+
        }

        impl Method {
            /// The method with this name; names are case-sensitive.
            #[inline]
            pub(super) fn from_token(token: &[u8]) -> Option<Method> {
                $( if token == $text.as_bytes() { return Some(Method::$name); } )+
                None
            }

            /// The method's name.
            pub const fn as_str(self) -> &'static str {
                match self { $( Method::$name => $text, )+ }
            }
        }
    };
}

methods! {
    Get = "GET",
    Post = "POST",
    Head = "HEAD",
    Put = "PUT",
    Patch = "PATCH",
    Delete = "DELETE",
    Options = "OPTIONS",
}
