//! Typed JSON in the body of a request.

use serde::Deserialize;

use super::refusal::Refusal;
use super::request::Request;

/// Why a body is not the JSON that a handler wants.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// The request does not say that its body is JSON.
    #[error("The body must be application/json.")]
    MediaType,
    /// It is not JSON, or not of the type.
    #[error("The body is not the JSON that is expected here: {0}.")]
    Malformed(#[from] serde_json::Error),
}

impl JsonError {
    /// The reason to refuse the request with.
    pub fn refusal(&self) -> Refusal {
        match self {
            JsonError::MediaType => Refusal::MediaType,
            JsonError::Malformed(_) => Refusal::Json,
        }
    }
}

impl Request<'_> {
    /// Reads `body`, the request's, as JSON. `T` may borrow from it.
    ///
    /// The request has to declare JSON as its content type. Requests that a page can make a browser send to another origin
    /// without a preflight (a form, say) declare another type.
    ///
    /// # Errors
    ///
    /// An error that [`Response::refuse`](super::Response::refuse) answers with 415 or 400.
    pub fn json<'b, T: Deserialize<'b>>(&self, body: &'b [u8]) -> Result<T, JsonError> {
        if !self.field("Content-Type").is_some_and(is_json) {
            return Err(JsonError::MediaType);
        }
        Ok(serde_json::from_slice(body)?)
    }
}

/// `application/json`, or a type made of it as `application/problem+json`, with any parameters.
fn is_json(media_type: &[u8]) -> bool {
    let essence = media_type.split(|byte| *byte == b';').next();
    let essence = essence.unwrap_or_default().trim_ascii();
    let ends_with = |suffix: &[u8]| {
        let tail = essence.len().checked_sub(suffix.len());
        tail.is_some_and(|at| at > 0 && essence[at..].eq_ignore_ascii_case(suffix))
    };
    essence.eq_ignore_ascii_case(b"application/json") || ends_with(b"+json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types() {
        for json in [
            "application/json",
            "Application/JSON;charset=utf-8",
            "application/json ; a=b",
            "application/merge-patch+json",
        ] {
            assert!(is_json(json.as_bytes()), "{json}");
        }
        for other in [
            "",
            "text/json",
            "application/jsonl",
            "+json",
            "text/plain; a=application/json",
        ] {
            assert!(!is_json(other.as_bytes()), "{other}");
        }
    }
}
