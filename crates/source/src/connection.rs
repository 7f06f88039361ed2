//! One HTTP exchange with an upstream: the small interface to whatever opens connections, and what an answer without a stream
//! means. Redirects are never followed; the content is not looked at.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use hyper::{Method, StatusCode};

use super::credentials::TokenRequest;
use super::reconnect::{Ending, EndingClass};
use hookcast_core::clock::{self, Timestamp};
use hookcast_net::token::{Token, TokenError};

/// What is asked of an upstream.
#[derive(Clone, Debug)]
pub struct UpstreamRequest {
    /// `GET` or `POST`.
    pub method: Method,
    /// Canonical URL; judged anew at every dial.
    pub url: String,
    /// All headers but those of the connection and `Host`.
    pub headers: HeaderMap,
    /// The request body.
    pub body: Option<Bytes>,
}

/// What an upstream answered.
pub struct UpstreamResponse {
    /// The status; never 1xx.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, not yet read, content codings untouched.
    pub body: Box<dyn UpstreamBody>,
}

impl std::fmt::Debug for UpstreamResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpstreamResponse").field("status", &self.status).finish_non_exhaustive()
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct ConnectFault {
    /// The word for it, such as `connect`, `dns`, `tls`, `blocked_address`.
    pub slug: &'static str,
    /// A sentence for a person.
    pub detail: String,
    /// The relay's own rules forbid the target: only a person can mend that.
    pub forbidden: bool,
}

/// Why a body ended early.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct BodyFault {
    /// The word for it: `truncated`, `reset`, `protocol`.
    pub slug: &'static str,
    /// A sentence for a person.
    pub detail: String,
}

/// A response body.
#[async_trait]
pub trait UpstreamBody: Send {
    /// The next bytes, never empty; `None` at the end the other side meant, after that always.
    ///
    /// # Cancellation
    /// Dropping the future loses nothing.
    async fn next_chunk(&mut self) -> Option<Result<Bytes, BodyFault>>;
}

/// A connection that has left HTTP behind.
#[async_trait]
pub trait UpstreamPipe: UpstreamBody {
    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// [`BodyFault`] when the connection broke.
    ///
    /// # Cancellation
    /// The connection is of no use after that.
    async fn write(&mut self, bytes: &[u8]) -> Result<(), BodyFault>;
}

/// What an upstream answered to a request for another protocol.
pub struct UpstreamUpgrade {
    /// 101, or the status that refuses.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The connection; `None` = refused.
    pub pipe: Option<Box<dyn UpstreamPipe>>,
}

impl std::fmt::Debug for UpstreamUpgrade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpstreamUpgrade").field("status", &self.status).finish_non_exhaustive()
    }
}

/// Opens connections to upstreams.
#[async_trait]
pub trait UpstreamClient: Send + Sync {
    /// Sends a request and waits for the head of the answer.
    ///
    /// # Errors
    /// [`ConnectFault`] when there is no answer.
    async fn fetch(&self, request: UpstreamRequest) -> Result<UpstreamResponse, ConnectFault>;

    /// Sends a request that asks for another protocol and waits for the head of the answer.
    ///
    /// # Errors
    /// [`ConnectFault`] when there is no answer, and from clients that cannot do this.
    async fn upgrade(&self, _request: UpstreamRequest) -> Result<UpstreamUpgrade, ConnectFault> {
        let detail = "this client speaks HTTP only".to_owned();
        Err(ConnectFault { slug: "handshake", detail, forbidden: false })
    }

    /// The same with trust (PEM, instead of the machine's) and identity (chain and key) of its own.
    ///
    /// # Errors
    /// When they cannot be used.
    fn with(&self, _ca_pem: Option<&str>, _identity: Option<(&str, &str)>) -> Result<Arc<dyn UpstreamClient>, ConnectFault> {
        let detail = "these connections have no trust or identity of their own".to_owned();
        Err(ConnectFault { slug: "certificate", detail, forbidden: true })
    }

    /// Asks for a token.
    ///
    /// # Errors
    /// Why there is none.
    async fn token(&self, _request: TokenRequest<'_>) -> Result<Token, TokenError> {
        Err(TokenError::Unusable("cannot be asked over these connections"))
    }
}

/// What an answer means that is neither 200 nor 204; `None` for those two.
pub(super) fn refusal(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Option<Ending> {
    let (class, slug, detail) = match status.as_u16() {
        200 | 204 => return None,
        401 | 403 => (EndingClass::Denied, "auth", "the upstream refuses the credentials"),
        300..=399 => (EndingClass::Denied, "redirect", "the upstream answers with a redirect, which is not followed"),
        // 420 is what Twitter's streams said before there was a 429.
        420 | 429 => (EndingClass::Failed, "rate_limited", "the upstream asks for fewer requests"),
        _ => (EndingClass::Failed, "status", "the upstream answers with an unusable status"),
    };
    let ending = Ending::new(class, slug, format!("{detail} ({})", status.as_u16()));
    Some(ending.with_retry_after(retry_after(headers, now)))
}

/// How long the `Retry-After` of an answer asks to wait; the first one counts, should it be there twice.
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    clock::retry_after(headers.get(RETRY_AFTER)?.to_str().ok()?, now)
}

/// The media type of an answer without parameters, in lower case; `None` when it names none.
pub(super) fn media_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
        headers
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = Timestamp::parse_rfc3339("2026-01-02T03:04:05Z").unwrap();
        let read = |text: &str| retry_after(&headers("retry-after", text), now);
        assert_eq!(read("120"), Some(Duration::from_mins(2)));
        assert_eq!(read("Fri, 02 Jan 2026 03:05:05 GMT"), Some(Duration::from_mins(1)));
        assert_eq!(read("Fri, 02 Jan 2026 03:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(read("Friday, 02-Jan-26 03:05:05 GMT"), Some(Duration::from_mins(1)));
        assert_eq!(read("Fri Jan  2 03:05:05 2026"), Some(Duration::from_mins(1)));
        assert_eq!(read("99999999999999999999999"), Some(Duration::from_hours(24)));
        let mut twice = headers("retry-after", "60");
        twice.append("retry-after", HeaderValue::from_static("5"));
        assert_eq!(retry_after(&twice, now), Some(Duration::from_mins(1)));
        assert_eq!(read("soon"), None);
        assert_eq!(read("-1"), None);
    }

    #[test]
    fn statuses_fall_into_classes() {
        let class = |status: u16| {
            let ending = refusal(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), Timestamp(0));
            ending.map(|ending| (ending.class, ending.slug))
        };
        assert_eq!(class(200), None);
        assert_eq!(class(204), None);
        assert_eq!(class(401), Some((EndingClass::Denied, "auth")));
        assert_eq!(class(303), Some((EndingClass::Denied, "redirect")));
        assert_eq!(class(429), Some((EndingClass::Failed, "rate_limited")));
        assert_eq!(class(503), Some((EndingClass::Failed, "status")));
        assert_eq!(class(210), Some((EndingClass::Failed, "status")));
    }

    #[test]
    fn media_types_lose_their_parameters() {
        assert_eq!(media_type(&headers("content-type", "Text/Event-Stream;charset=x")).as_deref(), Some("text/event-stream"));
        assert_eq!(media_type(&headers("content-type", "text/event-stream;")).as_deref(), Some("text/event-stream"));
        assert_eq!(media_type(&HeaderMap::new()), None);
    }
}
