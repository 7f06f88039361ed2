//! What is in the log, event by event and topic by topic.

use actix_web::http::header;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use bytes::BytesMut;
use serde_json::json;

use super::HttpState;
use super::auth::Scope;
use super::problem::Problem;
use super::query::Query;
use hookcast_core::codec::cloudevents::{STRUCTURED_TYPE, write_event};
use hookcast_core::model::Seq;
use hookcast_log::follow;

/// `GET /v1/topics`: what is kept of each topic that the caller reaches.
pub(super) async fn topics(state: Data<HttpState>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let caller = state.auth.require(&request, Scope::Read)?;
    let query = Query::read(&request, &["limit", "after"])?;
    let (limit, after) = (query.limit()? as usize, query.get("after"));
    let mut found = follow::topics(&state.follow).await?;
    found.retain(|summary| caller.reaches(&summary.topic) && after.is_none_or(|after| summary.topic.as_str() > after));
    found.sort_by(|a, b| a.topic.cmp(&b.topic));
    let next = (found.len() > limit).then(|| found[limit - 1].topic.clone());
    let items = found.iter().take(limit).map(|summary| {
        json!({
            "topic": summary.topic, "events": summary.events, "bytes": summary.bytes,
            "first_seq": summary.first_seq, "last_seq": summary.last_seq,
        })
    });
    Ok(HttpResponse::Ok().json(json!({ "items": items.collect::<Vec<_>>(), "next": next })))
}

/// `GET /v1/events/{seq}`: one event in JSON form.
pub(super) async fn event(state: Data<HttpState>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let caller = state.auth.require(&request, Scope::Read)?;
    let seq = path_seq(&request)?;
    let event = state.follow.get(seq).await?.filter(|event| caller.reaches(event.topic().as_str()));
    let event = event.ok_or_else(Problem::not_found)?;
    let mut body = BytesMut::with_capacity(event.fields().data.len() + 512);
    write_event(&mut body, &event);
    Ok(HttpResponse::Ok().insert_header((header::CONTENT_TYPE, STRUCTURED_TYPE)).body(body.freeze()))
}

/// `DELETE /v1/events/{seq}`: takes the data of one event out of the log for good; also when it is gone already.
pub(super) async fn purge(state: Data<HttpState>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let caller = state.auth.require(&request, Scope::Manage)?;
    let seq = path_seq(&request)?;
    let event = state.follow.get(seq).await?.filter(|event| caller.reaches(event.topic().as_str()));
    let is_gone = event.is_none() && !caller.is_limited() && (1..=state.follow.head().0).contains(&seq.0);
    if !is_gone {
        event.ok_or_else(Problem::not_found)?;
        state.follow.purge(seq).await?;
    }
    Ok(HttpResponse::NoContent().finish())
}

/// The position in the path.
pub(super) fn path_seq(request: &HttpRequest) -> Result<Seq, Problem> {
    let text = request.match_info().get("seq").unwrap_or_default();
    let is_plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_plain.then(|| text.parse().ok().map(Seq)).flatten().ok_or_else(Problem::not_found)
}
