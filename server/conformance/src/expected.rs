//! Responses as they must be, written independently of the server that is tested.

/// What stands for any date: responses are compared after their dates were replaced by it.
pub const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// One response, to the byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected(pub Vec<u8>);

/// `200 OK` with a body of `text/plain`.
pub fn text(body: &str) -> Builder {
    Builder::new("200 OK").body("text/plain", body)
}

/// `200 OK` with a body of `application/json`.
pub fn json(body: &str) -> Builder {
    Builder::new("200 OK").body("application/json", body)
}

/// `200 OK` with a body of `application/octet-stream`.
pub fn bytes(body: &str) -> Builder {
    Builder::new("200 OK").body("application/octet-stream", body)
}

/// An error that explains itself in one line and leaves the connection open.
pub fn error(status: &'static str, reason: &str) -> Builder {
    let content_type = "text/plain\r\nX-Content-Type-Options: nosniff";
    Builder::new(status).body(content_type, &format!("{reason}\n"))
}

/// An error after which the connection is closed.
pub fn fatal(status: &'static str, reason: &str) -> Builder {
    error(status, reason).connection("close")
}

/// An interim response.
pub fn r#continue() -> Expected {
    Expected(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec())
}

/// A response in the making.
#[derive(Debug, Clone)]
pub struct Builder {
    status: &'static str,
    connection: Option<&'static str>,
    allow: Option<&'static str>,
    accept_encoding: Option<&'static str>,
    content_type: Option<&'static str>,
    chunked: bool,
    body: String,
    head_only: bool,
}

impl Builder {
    /// A response without a body.
    pub fn new(status: &'static str) -> Self {
        Builder {
            status,
            connection: None,
            allow: None,
            accept_encoding: None,
            content_type: None,
            chunked: false,
            body: String::new(),
            head_only: false,
        }
    }

    /// With this body.
    pub fn body(mut self, content_type: &'static str, body: &str) -> Self {
        self.content_type = Some(content_type);
        self.body = body.into();
        self
    }

    /// With a `Connection` field.
    pub fn connection(mut self, option: &'static str) -> Self {
        self.connection = Some(option);
        self
    }

    /// With an `Allow` field.
    pub fn allow(mut self, methods: &'static str) -> Self {
        self.allow = Some(methods);
        self
    }

    /// With an `Accept-Encoding` field.
    pub fn accept_encoding(mut self, codings: &'static str) -> Self {
        self.accept_encoding = Some(codings);
        self
    }

    /// With a body in these chunks, each as one would be written.
    pub fn chunked(mut self, chunks: &str) -> Self {
        self.chunked = true;
        self.body = chunks.into();
        self
    }

    /// To a HEAD request: the same head, and no body.
    pub fn head_only(mut self) -> Self {
        self.head_only = true;
        self
    }

    /// The bytes.
    pub fn build(&self) -> Expected {
        let mut head = format!(
            "HTTP/1.1 {}\r\nServer: barewire\r\nDate: {DATE}\r\n",
            self.status
        );
        let mut field = |name: &str, value: Option<&str>| {
            if let Some(value) = value {
                head += &format!("{name}: {value}\r\n");
            }
        };
        let length = self.body.len().to_string();
        field("Connection", self.connection);
        field("Allow", self.allow);
        field("Accept-Encoding", self.accept_encoding);
        field("Content-Type", self.content_type);
        field("Transfer-Encoding", self.chunked.then_some("chunked"));
        field("Content-Length", (!self.chunked).then_some(&length));
        head += "\r\n";
        if !self.head_only {
            head += &self.body;
        }
        Expected(head.into_bytes())
    }
}

impl From<Builder> for Expected {
    fn from(builder: Builder) -> Self {
        builder.build()
    }
}

/// `answer` with the value of every `Date` field replaced by [`DATE`], if it is as long as a date is.
pub fn with_fixed_dates(mut answer: Vec<u8>) -> Vec<u8> {
    const NAME: &[u8] = b"\r\nDate: ";
    let mut at = 0;
    while let Some(found) = answer[at..]
        .windows(NAME.len())
        .position(|window| window == NAME)
    {
        at += found + NAME.len();
        if answer[at..].get(DATE.len()..DATE.len() + 2) == Some(b"\r\n") {
            answer[at..at + DATE.len()].copy_from_slice(DATE.as_bytes());
        }
    }
    answer
}
