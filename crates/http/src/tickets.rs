//! `POST /v1/stream-tickets`, and who wants events: whoever shows a token in a header or a ticket in the URL.
//!
//! The rules of tickets are [`auth::tickets`](super::auth::tickets)'; the tickets themselves are never written anywhere.

use actix_web::http::header;
use actix_web::web::{self, Data, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use serde_json::{Value, json};
use url::form_urlencoded;

use super::auth::{Caller, Scope};
use super::definition::{random, read_json, refuse};
use super::problem::Problem;
use super::{HttpState, at, views};
use hookcast_core::model::PatternList;
use hookcast_core::model::fields::{Errors, FieldError, Fields};

/// The query parameter that carries a ticket.
pub(super) const PARAMETER: &str = "ticket";

/// Registers the route.
pub(super) fn configure(config: &mut ServiceConfig) {
    config.service(at("/v1/stream-tickets", "POST").route(web::post().to(create)));
}

/// Who wants events, by ticket or token; to be asked before anything else of the request is looked at. Whether the topics are
/// theirs is for [`Caller::follow`], and [`Caller::seat`] counts the stream.
///
/// # Errors
/// `unauthorized`, `scope`, `too_many_requests`.
pub(super) fn caller_of(state: &HttpState, request: &HttpRequest) -> Result<Caller, Problem> {
    let mut query = form_urlencoded::parse(request.query_string().as_bytes());
    let ticket = query.find(|(name, _)| name == PARAMETER).map(|(_, value)| value);
    state.auth.require_stream(request, ticket.as_deref())
}

async fn create(state: Data<HttpState>, request: HttpRequest, payload: Payload) -> Result<HttpResponse, Problem> {
    let caller = state.auth.require(&request, Scope::Stream)?;
    let body = read_json(&state, &request, payload).await?;
    let topics = wanted(&body).map_err(refuse)?;
    caller.follow(&topics)?;
    let mut bytes = [0; 32];
    random(&mut bytes);
    let (ticket, expires_at) = state.auth.make_ticket(&caller, topics, bytes)?;
    Ok(HttpResponse::Created()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(json!({ "ticket": ticket, "expires_at": views::time(expires_at) })))
}

fn wanted(body: &Value) -> Result<PatternList, Vec<FieldError>> {
    let errors = Errors::default();
    let topics = Fields::open(body, "", &["topics"], &errors).and_then(|fields| {
        fields.require("topics");
        let topics = fields.text("topics")?.parse::<PatternList>();
        topics.map_err(|error| fields.refuse("topics", "topics", error.to_string())).ok()
    });
    errors.finish(topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_asked_for_with_topics_and_nothing_else() {
        assert_eq!(wanted(&json!({"topics": "a.*,b"})).unwrap().to_string(), "a.*,b");
        let slug = |body: Value| wanted(&body).unwrap_err()[0].slug;
        assert_eq!(slug(json!({})), "missing_field");
        assert_eq!(slug(json!({"topics": ""})), "topics");
        assert_eq!(slug(json!({"topics": "a..b"})), "topics");
        assert_eq!(slug(json!({"topics": ["a"]})), "wrong_type");
        assert_eq!(slug(json!({"topics": "a", "scopes": ["manage"]})), "unknown_field");
        assert_eq!(slug(json!([])), "wrong_type");
    }
}
