//! What goes wrong at the edge, as RFC 9457 `application/problem+json`.
//!
//! Owns the table of kinds and the one way to write them. Must not carry internals: what broke inside goes to the log, the
//! client gets `internal`. Every refusal of a handler, an extractor or the gate ends here.

use std::borrow::Cow;
use std::fmt;

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use serde::Serialize;
use serde_json::{Map, Value};

use hookcast_log::storage::{Room, StorageError, StorageErrorKind};

/// Media type of a problem.
pub const PROBLEM_TYPE: &str = "application/problem+json";

/// A kind of problem that the edge itself makes; kinds of single fields come with the field.
#[derive(Debug)]
pub struct Kind {
    /// Last part of the problem's `type`.
    pub slug: &'static str,
    /// The status it is sent with.
    pub status: u16,
    /// One line that is the same for every occurrence.
    pub title: &'static str,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $slug:literal, $status:literal, $title:literal;)*) => {
        $($(#[$doc])* #[doc = $title] pub const $name: &Kind = &Kind { slug: $slug, status: $status, title: $title };)*
        /// Every kind, in the order of the table.
        pub const KINDS: &[&Kind] = &[$($name),*];
    };
}

kinds! {
    INVALID_JSON = "invalid_json", 400, "The body is not valid JSON.";
    INVALID_BODY = "invalid_body", 400, "The body could not be read.";
    INVALID_TARGET = "request_target", 400, "The request target is not a path.";
    INVALID_CLOUDEVENT = "invalid_cloudevent", 422, "An event does not follow CloudEvents 1.0.";
    UNAUTHORIZED = "unauthorized", 401, "A valid bearer token is needed.";
    BAD_SIGNATURE = "bad_signature", 401, "The signature of a webhook is not acceptable.";
    SCOPE = "scope", 403, "The token does not have the scope for this.";
    TOPIC_NOT_ALLOWED = "topic_not_allowed", 403, "The token does not reach these topics.";
    OWN_TOPIC = "own_topic", 403, "Topics that begin with `hookcast` are the relay's own.";
    HOST_NOT_ALLOWED = "host_not_allowed", 403, "The Host of the request is not this relay.";
    CROSS_SITE = "cross_site", 403, "A page of another site may not use this relay.";
    NOT_FOUND = "not_found", 404, "There is nothing here.";
    METHOD_NOT_ALLOWED = "method_not_allowed", 405, "This path does not know the method.";
    NOT_ACCEPTABLE = "not_acceptable", 406, "None of the formats asked for exists.";
    BODY_TIMEOUT = "body_timeout", 408, "The body did not arrive in time.";
    DECLARED = "declared", 409, "It is declared in the configuration file.";
    ALREADY_EXISTS = "already_exists", 409, "There is one of this name already.";
    IDEMPOTENCY_MISMATCH = "idempotency_mismatch", 409, "The same id came before with other bytes.";
    DISABLED = "disabled", 409, "The subscription is disabled.";
    LENGTH_REQUIRED = "length_required", 411, "The length of the body is needed.";
    PRECONDITION_FAILED = "precondition_failed", 412, "It was changed in the meantime.";
    PAYLOAD_TOO_LARGE = "payload_too_large", 413, "The body is too large.";
    TARGET_TOO_LONG = "target_too_long", 414, "The request target is too long.";
    CONTENT_ENCODING = "content_encoding", 415, "Encoded bodies are not taken.";
    MEDIA_TYPE = "media_type", 415, "The media type is not taken here.";
    INVALID_FIELDS = "invalid_fields", 422, "Some fields are not acceptable.";
    EMPTY_BATCH = "empty_batch", 422, "The batch holds no event.";
    BATCH_TOO_LARGE = "batch_too_large", 413, "The batch holds too many events.";
    INVALID_LINE = "invalid_line", 422, "A line is not valid JSON.";
    INVALID_EVENT = "invalid_event", 422, "An attribute of an event is not acceptable.";
    IDEMPOTENCY_KEY = "idempotency_key", 422, "The idempotency key is not acceptable.";
    LOOP_DETECTED = "loop_detected", 422, "The event went through too many relays.";
    UNKNOWN_PARAMETER = "unknown_parameter", 422, "A query parameter is not known.";
    UPGRADE_REQUIRED = "upgrade_required", 426, "This needs a WebSocket of version 13.";
    TOO_MANY_REQUESTS = "too_many_requests", 429, "Too many requests.";
    TOO_MANY_SUBSCRIPTIONS = "too_many_subscriptions", 429, "There are as many subscriptions as allowed.";
    TOKEN_LIMIT = "token_limit", 429, "The token has as much as it may have.";
    TOO_MANY_KEYS = "too_many_keys", 429, "As many signing keys as allowed are in use.";
    TOO_MANY_JOBS = "too_many_jobs", 429, "As many recovery jobs as allowed are under way.";
    HEADERS_TOO_LARGE = "headers_too_large", 431, "The request headers are too large.";
    INTERNAL = "internal", 500, "Something broke inside the relay.";
    UNAVAILABLE = "unavailable", 503, "The relay cannot do this right now.";
    NOT_READY = "not_ready", 503, "The relay is not ready.";
    STORAGE_UNAVAILABLE = "storage_unavailable", 503, "Storage does not take it right now; nothing was stored.";
    OUTCOME_UNKNOWN = "outcome_unknown", 503, "Whether it was stored is not known.";
    BUSY = "busy", 503, "More comes in than can be stored right now.";
    STORAGE_FULL = "storage_full", 507, "The disk reserve is reached.";
}

/// One field and what is wrong with it.
#[derive(Clone, Debug, Serialize)]
pub struct FieldProblem {
    /// JSON pointer into the body, empty for the whole.
    pub pointer: String,
    /// What is wrong and what is allowed.
    pub detail: String,
}

/// A refusal; cheap to hand up.
pub struct Problem(Box<Parts>);

struct Parts {
    slug: &'static str,
    status: u16,
    detail: Cow<'static, str>,
    errors: Vec<FieldProblem>,
    members: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
    ends_connection: bool,
}

impl Problem {
    /// A problem of a known kind; `detail` says what a person can do about this occurrence.
    pub fn new(kind: &Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::of_slug(kind.slug, kind.status, detail)
    }

    /// A problem whose kind is named after a field or a rule outside the table.
    pub fn of_slug(slug: &'static str, status: u16, detail: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Parts {
            slug,
            status,
            detail: detail.into(),
            errors: Vec::new(),
            members: Map::new(),
            headers: Vec::new(),
            ends_connection: false,
        }))
    }

    /// The disk reserve is reached; says how much is free and how much must be.
    pub fn storage_full(room: Option<Room>) -> Self {
        let what_to_do = "nothing was stored; free some disk space, lower `retention` or `storage.reserve`, then repeat";
        let problem = match &room {
            Some(room) => Self::new(STORAGE_FULL, format!("{room}; {what_to_do}")),
            None => Self::new(STORAGE_FULL, what_to_do),
        };
        let problem = problem.retry_after(10);
        match room {
            Some(Room { free_bytes, reserve_bytes }) => {
                problem.with("free_bytes", free_bytes).with("reserve_bytes", reserve_bytes)
            }
            None => problem,
        }
    }

    /// There is nothing here, or nothing that this caller may see.
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(NOT_FOUND, "nothing is known under this path; look at the list above it")
    }

    /// Storage refused a change: nothing of it is in force.
    #[must_use]
    pub fn storage_unavailable() -> Self {
        let detail = "storage takes nothing at the moment and nothing was stored; repeat it in a moment";
        Self::new(STORAGE_UNAVAILABLE, detail).with("stored", "no").retry_after(1)
    }

    /// Storage does not know what became of a change.
    #[must_use]
    pub fn outcome_unknown() -> Self {
        let detail = "it may be stored or not; repeat it, events with the same ids, and it is there once";
        Self::new(OUTCOME_UNKNOWN, detail).with("stored", "unknown").retry_after(1)
    }

    /// Adds a field that is wrong.
    #[must_use]
    pub fn at(mut self, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        self.0.errors.push(FieldProblem { pointer: pointer.into(), detail: detail.into() });
        self
    }

    /// Adds a member of its own.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.0.members.insert(name.to_owned(), value.into());
        self
    }

    /// Adds `Retry-After` in seconds.
    #[must_use]
    pub fn retry_after(self, seconds: u32) -> Self {
        self.header(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// Adds a response header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// Says that nothing is read behind the request, because it cannot be told where the next one begins.
    #[must_use]
    pub fn ending_connection(mut self) -> Self {
        self.0.ends_connection = true;
        self
    }

    /// Its kind.
    #[must_use]
    pub fn slug(&self) -> &'static str {
        self.0.slug
    }

    /// What a person can do about it.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// As a response.
    #[must_use]
    pub fn response(&self) -> HttpResponse {
        let body = Written {
            kind: format!("/problems/{}", self.0.slug),
            title: title(self.0.slug, self.status()),
            status: self.0.status,
            detail: &self.0.detail,
            errors: &self.0.errors,
            members: &self.0.members,
        };
        let mut response = HttpResponse::build(self.status());
        response.insert_header((header::CONTENT_TYPE, PROBLEM_TYPE)).insert_header((header::CACHE_CONTROL, "no-store"));
        for (name, value) in &self.0.headers {
            response.insert_header((name.clone(), value.clone()));
        }
        if self.0.ends_connection {
            response.force_close();
        }
        response.body(serde_json::to_vec(&body).unwrap_or_default())
    }
}

fn title(slug: &str, status: StatusCode) -> &'static str {
    match KINDS.iter().find(|kind| kind.slug == slug) {
        Some(kind) => kind.title,
        None if status == StatusCode::BAD_REQUEST => "The request cannot be read.",
        None => INVALID_FIELDS.title,
    }
}

#[derive(Serialize)]
struct Written<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "<[FieldProblem]>::is_empty")]
    errors: &'a [FieldProblem],
    #[serde(flatten)]
    members: &'a Map<String, Value>,
}

impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Problem").field("slug", &self.0.slug).field("detail", &self.0.detail).finish_non_exhaustive()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.slug, self.0.detail)
    }
}

impl std::error::Error for Problem {}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status()
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        self.response()
    }
}

impl From<StorageError> for Problem {
    fn from(error: StorageError) -> Self {
        match error.kind {
            StorageErrorKind::Conflict => {
                Self::new(PRECONDITION_FAILED, "somebody else changed it at the same time; read it again and repeat the change")
            }
            StorageErrorKind::Full => Self::storage_full(error.room()),
            StorageErrorKind::Unknown => Self::outcome_unknown(),
            StorageErrorKind::Unavailable | StorageErrorKind::Fenced => {
                tracing::debug!(error = %error, cause = ?error.source, "storage did not answer a request");
                Self::storage_unavailable()
            }
            _ => {
                tracing::error!(error = %error, cause = ?error.source, "storage failed a request");
                Self::new(INTERNAL, "the relay's log says what broke")
            }
        }
    }
}

/// Answers every path that nobody owns.
pub(super) async fn nothing_here() -> Result<HttpResponse, Problem> {
    Err(Problem::not_found())
}

/// Answers every method that a path does not know.
pub(super) fn wrong_method(allowed: &'static str) -> Problem {
    Problem::new(METHOD_NOT_ALLOWED, format!("allowed: {allowed}")).header(header::ALLOW, HeaderValue::from_static(allowed))
}

/// `GET /problems/{slug}`: what a kind of problem means.
pub(super) async fn explain(request: HttpRequest) -> Result<HttpResponse, Problem> {
    let slug = request.match_info().get("slug").unwrap_or_default();
    let kind = KINDS.iter().find(|kind| kind.slug == slug).ok_or_else(Problem::not_found)?;
    Ok(HttpResponse::build(StatusCode::OK)
        .insert_header((header::CONTENT_TYPE, "text/plain; charset=utf-8"))
        .body(format!("{} ({})\n{}\n", kind.slug, kind.status, kind.title)))
}

#[cfg(test)]
mod tests {
    use actix_web::body::MessageBody as _;

    use super::*;

    #[test]
    fn a_problem_is_written_as_rfc_9457_wants_it() {
        let problem = Problem::new(PAYLOAD_TOO_LARGE, "at most 5 bytes").at("/data", "has 6").retry_after(3);
        let response = problem.response();
        assert_eq!(response.status(), 413);
        assert_eq!(response.headers().get("content-type").unwrap(), PROBLEM_TYPE);
        assert_eq!(response.headers().get("retry-after").unwrap(), "3");
        let body: serde_json::Value = serde_json::from_slice(&response.into_body().try_into_bytes().unwrap()).unwrap();
        let expected = serde_json::json!({
            "type": "/problems/payload_too_large", "title": "The body is too large.", "status": 413,
            "detail": "at most 5 bytes", "errors": [{"pointer": "/data", "detail": "has 6"}],
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn every_kind_has_its_own_slug_and_an_error_status() {
        for (index, kind) in KINDS.iter().enumerate() {
            assert!(KINDS[..index].iter().all(|other| other.slug != kind.slug), "{} twice", kind.slug);
            assert!((400..600).contains(&kind.status), "{}", kind.slug);
        }
    }

    #[test]
    fn what_broke_inside_is_not_told() {
        let error = StorageError::new(StorageErrorKind::Corrupt, "page 7 at /var/lib/secret");
        let body = Problem::from(error).response().into_body().try_into_bytes().unwrap();
        assert!(!String::from_utf8_lossy(&body).contains("secret"));
    }
}
