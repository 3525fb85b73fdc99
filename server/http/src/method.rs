//! The methods that a route can have.

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
            /// Every method.
            pub const ALL: &[Method] = &[$( Method::$name, )+];

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
    Head = "HEAD",
    Post = "POST",
    Put = "PUT",
    Patch = "PATCH",
    Delete = "DELETE",
    Options = "OPTIONS",
}
