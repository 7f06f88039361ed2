//! What subscriptions and sources have in common at the edge: strict JSON bodies, `ETag`, `If-Match`.

use std::sync::Arc;

use actix_web::HttpRequest;
use actix_web::http::header::{self, HeaderMap};
use actix_web::web::Payload;
use serde_json::{Map, Value};

use super::body::{BodyLimits, read_body, refuse_encoding};
use super::problem::{self, Problem};
use super::{DEFINITION_BYTES_MAX, HttpState};
use hookcast_core::json::parse_strict;
use hookcast_core::model::fields::FieldError;
use hookcast_log::storage::{StorageError, StorageErrorKind};

/// How often a change is tried again when somebody else was faster and no `If-Match` was given.
pub(super) const CHANGE_TRIES: u32 = 4;

/// The JSON body of a request.
pub(super) async fn read_json(state: &HttpState, request: &HttpRequest, payload: Payload) -> Result<Value, Problem> {
    refuse_encoding(request)?;
    let limits = BodyLimits { bytes_max: DEFINITION_BYTES_MAX, timeout: state.limits.body_timeout };
    let body = read_body(request, payload, limits).await?;
    let body = parse_strict(&body).map_err(|error| Problem::of_slug(error.slug(), 400, error.to_string()))?;
    super::audit::given(request, &body);
    Ok(body)
}

/// The JSON body of a request that may have none, which means an empty object.
pub(super) async fn read_optional_json(state: &HttpState, request: &HttpRequest, payload: Payload) -> Result<Value, Problem> {
    let has_body = request.headers().get(header::CONTENT_LENGTH).is_some_and(|length| length != "0")
        || request.headers().contains_key(header::TRANSFER_ENCODING);
    if has_body { read_json(state, request, payload).await } else { Ok(Value::Object(Map::new())) }
}

/// Mistakes as one problem, whose kind is that of the worst: what cannot be read at all, then what is wrong, then what is
/// missing; among equals the first.
pub(super) fn refuse(errors: Vec<FieldError>) -> Problem {
    let rank = |error: &&FieldError| (error.status != 400, error.slug == "missing_field");
    let Some(first) = errors.iter().min_by_key(rank) else {
        return Problem::new(problem::INVALID_FIELDS, "the definition is not acceptable");
    };
    let name = if first.pointer.is_empty() { "the body" } else { &first.pointer };
    let more = if errors.len() > 1 { format!(" (and {} more, see `errors`)", errors.len() - 1) } else { String::new() };
    let problem = Problem::of_slug(first.slug, first.status, format!("{name} {}{more}", first.detail));
    errors.into_iter().fold(problem, |problem, error| problem.at(error.pointer, error.detail))
}

/// Removes what was judged; what changed meanwhile is judged anew.
pub(super) async fn remove<R>(
    judged: impl Fn() -> Result<Arc<R>, Problem>,
    delete: impl AsyncFn(&R) -> Result<Option<Arc<R>>, StorageError>,
) -> Result<Arc<R>, Problem> {
    for _ in 0..CHANGE_TRIES {
        match delete(&*judged()?).await {
            Ok(removed) => return removed.ok_or_else(Problem::not_found),
            Err(error) if error.kind == StorageErrorKind::Conflict => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(contended())
}

/// Others changed it each time.
pub(super) fn contended() -> Problem {
    Problem::new(problem::UNAVAILABLE, "others change it at the same time; repeat in a moment").retry_after(1)
}

/// It is declared in the configuration file, which is where it must be changed.
pub(super) fn declared() -> Problem {
    Problem::new(problem::DECLARED, "change it in the configuration file, then send SIGHUP to the relay or start it again")
}

/// What the caller expects to find before a change.
pub(super) struct Precondition<'a> {
    wanted: Option<&'a str>,
    must_be_new: bool,
}

impl<'a> Precondition<'a> {
    /// Out of `If-Match` and `If-None-Match: *`.
    pub(super) fn of(headers: &'a HeaderMap) -> Result<Self, Problem> {
        let text = |name| match headers.get(name) {
            None => Ok(None),
            Some(value) => value.to_str().map(Some).map_err(|_| failed()),
        };
        let must_be_new = text(header::IF_NONE_MATCH)?.is_some_and(|value| value.trim() == "*");
        Ok(Self { wanted: text(header::IF_MATCH)?, must_be_new })
    }

    /// Whether it speaks about one certain state, so that a change must not be tried again on another.
    pub(super) fn is_given(&self) -> bool {
        self.wanted.is_some() || self.must_be_new
    }

    /// Compares with what is there; weak tags never match (RFC 9110 §13.1.1).
    pub(super) fn check(&self, present: Option<&str>) -> Result<(), Problem> {
        let matches = match (self.wanted, present) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(wanted), Some(tag)) => wanted.split(',').map(str::trim).any(|one| one == "*" || one == tag),
        };
        if matches && !(self.must_be_new && present.is_some()) { Ok(()) } else { Err(failed()) }
    }
}

fn failed() -> Problem {
    Problem::new(problem::PRECONDITION_FAILED, "it is not in the state that If-Match or If-None-Match names; read it again")
}

/// Fills a buffer with random bytes.
pub(super) fn random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("invariant: the system has random bytes");
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use actix_web::http::header::HeaderValue;

    use super::*;

    fn verdict(if_match: Option<&'static str>, present: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        if let Some(value) = if_match {
            headers.insert(header::IF_MATCH, HeaderValue::from_static(value));
        }
        Precondition::of(&headers).and_then(|precondition| precondition.check(present)).is_ok()
    }

    #[test]
    fn a_change_needs_one_of_the_tags_it_names() {
        assert!(verdict(None, None) && verdict(None, Some("\"1-1\"")));
        assert!(verdict(Some("\"1-1\""), Some("\"1-1\"")) && verdict(Some("\"0\", \"1-1\""), Some("\"1-1\"")));
        assert!(!verdict(Some("\"1-2\""), Some("\"1-1\"")) && !verdict(Some("W/\"1-1\""), Some("\"1-1\"")));
        assert!(verdict(Some("*"), Some("\"1-1\"")) && !verdict(Some("*"), None) && !verdict(Some(""), Some("\"1-1\"")));
    }

    #[test]
    fn creation_only_refuses_what_is_there() {
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static("*"));
        let precondition = Precondition::of(&headers).unwrap();
        assert!(precondition.check(None).is_ok() && precondition.check(Some("\"1\"")).is_err());
    }

    async fn removed(tries: impl IntoIterator<Item = std::result::Result<Option<()>, StorageErrorKind>>) -> (Option<u16>, u32) {
        let (judged, tries) = (Cell::new(0), RefCell::new(tries.into_iter()));
        let judge = || {
            judged.set(judged.get() + 1);
            Ok(Arc::new(()))
        };
        let outcome = remove(judge, async |()| {
            let next = tries.borrow_mut().next().unwrap();
            next.map(|one| one.map(Arc::new)).map_err(|kind| StorageError::new(kind, "the test says so"))
        });
        (outcome.await.err().map(|problem| problem.status().as_u16()), judged.get())
    }

    #[tokio::test]
    async fn what_changed_before_it_was_removed_is_judged_anew_a_few_times() {
        let conflict = Err(StorageErrorKind::Conflict);
        assert_eq!(removed([conflict, conflict, Ok(Some(()))]).await, (None, 3));
        assert_eq!(removed([conflict, Ok(None)]).await, (Some(404), 2));
        assert_eq!(removed([Err(StorageErrorKind::Unavailable)]).await, (Some(503), 1));
        assert_eq!(removed([conflict; CHANGE_TRIES as usize]).await, (Some(503), CHANGE_TRIES));
    }

    #[test]
    fn all_mistakes_are_listed_and_the_worst_names_the_kind() {
        let errors = ["url", "timeout"].map(|slug| FieldError {
            pointer: format!("/{slug}"),
            slug,
            detail: "is bad".to_owned(),
            status: 422,
        });
        let problem = refuse(errors.to_vec());
        assert_eq!((problem.slug(), problem.status().as_u16()), ("url", 422));
        assert_eq!(problem.to_string(), "url: /url is bad (and 1 more, see `errors`)");
        let [mut missing, mut unreadable] = errors.clone();
        (missing.slug, unreadable.status) = ("missing_field", 400);
        assert_eq!(refuse(vec![missing.clone(), errors[1].clone()]).slug(), "timeout");
        assert_eq!(refuse(vec![missing, errors[0].clone(), unreadable]).status().as_u16(), 400);
    }
}
