//! Reads query strings strictly: every parameter known, given once, inside its range.
//!
//! Knows the parameters that lists share. Must not know endpoints.

use std::borrow::Cow;

use actix_web::HttpRequest;
use url::form_urlencoded;

use super::problem::{self, Problem};
use hookcast_core::clock::Timestamp;
use hookcast_core::units::parse_duration;

/// Items of a list when `limit` is not given.
pub(super) const LIMIT_DEFAULT: u32 = 100;
/// Most items of a list.
pub(super) const LIMIT_MAX: u32 = 1000;

/// The parameters of one request.
pub(super) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Reads the query of a request whose parameters are all in `known`.
    pub(super) fn read(request: &'a HttpRequest, known: &[&str]) -> Result<Self, Problem> {
        let mut pairs: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::new();
        for (name, value) in form_urlencoded::parse(request.query_string().as_bytes()) {
            if !known.contains(&&*name) {
                // The name other APIs use for `after`; it deserves an answer that says so.
                let slug = if name == "cursor" { "cursor" } else { problem::UNKNOWN_PARAMETER.slug };
                let allowed = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(Problem::of_slug(
                    slug,
                    422,
                    format!("the query parameter {name:?} is not known; allowed: {allowed}"),
                ));
            }
            if pairs.iter().any(|(other, _)| *other == name) {
                let detail = format!("the query parameter {name:?} is given twice");
                return Err(Problem::new(problem::UNKNOWN_PARAMETER, detail));
            }
            pairs.push((name, value));
        }
        Ok(Self(pairs))
    }

    /// The value of a parameter.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| &**value)
    }

    /// A parameter that is `true` or `false`; absent = `false`.
    pub(super) fn flag(&self, name: &'static str) -> Result<bool, Problem> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Problem::of_slug(name, 422, format!("`{name}` is `true` or `false`"))),
        }
    }

    /// `limit`, 1 to [`LIMIT_MAX`].
    pub(super) fn limit(&self) -> Result<u32, Problem> {
        let Some(text) = self.get("limit") else { return Ok(LIMIT_DEFAULT) };
        let limit = text.parse::<u32>().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
        limit.ok_or_else(|| Problem::of_slug("limit", 422, format!("allowed: a whole number from 1 to {LIMIT_MAX}")))
    }

    /// `since` as a time: RFC 3339, or a duration before `now`.
    pub(super) fn since(&self, now: Timestamp) -> Result<Option<Timestamp>, Problem> {
        let Some(text) = self.get("since") else { return Ok(None) };
        let before = parse_duration(text).ok().map(|before| now.minus(before));
        let time = before.or_else(|| Timestamp::parse_rfc3339(text).ok());
        let refusal = || Problem::of_slug("since", 422, "allowed: a time as in RFC 3339, or a duration such as \"10m\"");
        time.map(Some).ok_or_else(refusal)
    }

    /// `after` as a position.
    pub(super) fn after_seq(&self) -> Result<u64, Problem> {
        let Some(text) = self.get("after") else { return Ok(0) };
        text.parse().map_err(|_| Problem::of_slug("after", 422, "allowed: the `next` of the page before"))
    }

    /// `after` as an id.
    pub(super) fn after_id(&self) -> Result<Option<&str>, Problem> {
        match self.get("after") {
            Some(text) if !hookcast_core::model::subscription::is_id(text) => {
                Err(Problem::of_slug("after", 422, "allowed: the `next` of the page before"))
            }
            text => Ok(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn limit(query: &str) -> Result<u32, &'static str> {
        let request = TestRequest::with_uri(&format!("/x?{query}")).to_http_request();
        Query::read(&request, &["limit", "after"]).and_then(|query| query.limit()).map_err(|problem| problem.slug())
    }

    #[test]
    fn limits_are_whole_numbers_in_range() {
        assert_eq!(limit(""), Ok(LIMIT_DEFAULT));
        assert_eq!(limit("limit=1000"), Ok(1000));
        for wrong in ["0", "-1", "1001", "abc", "", "1.0", "%00"] {
            assert_eq!(limit(&format!("limit={wrong}")), Err("limit"), "{wrong}");
        }
    }

    #[test]
    fn unknown_and_repeated_parameters_are_refused() {
        assert_eq!(limit("limits=1"), Err("unknown_parameter"));
        assert_eq!(limit("limit=1&limit=2"), Err("unknown_parameter"));
        assert_eq!(limit("cursor=AAAA"), Err("cursor"));
    }
}
