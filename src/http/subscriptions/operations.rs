//! What is done with a subscription that runs: hold it, test it, move it, look at what it has not delivered.

use std::sync::Arc;

use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use serde_json::{Value, json};

use super::{answer, find, position};
use crate::delivery::inspect::Redrive;
use crate::http::auth::Scope;
use crate::http::definition::{read_json, refuse};
use crate::http::events::path_seq;
use crate::http::problem::{self, Problem};
use crate::http::query::Query;
use crate::http::{HttpState, views};
use crate::model::fields::{Errors, Fields, child};
use crate::model::subscription::parse::form::Keys;
use crate::model::subscription::parse::parse_seek;
use crate::model::subscription::{Activity, SubscriptionRecord};
use crate::model::{ExceptionState, Seq};
use crate::storage::PageRequest;

/// Most events that one redrive may name.
const REDRIVE_SEQS_MAX: usize = 10_000;

/// Holds deliveries; the cursor stays.
pub(super) async fn pause(state: Data<HttpState>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    set_activity(&state, &request, Activity::Paused).await
}

/// Lets a paused one go on.
pub(super) async fn resume(state: Data<HttpState>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    set_activity(&state, &request, Activity::Active).await
}

async fn set_activity(state: &HttpState, request: &HttpRequest, activity: Activity) -> Result<HttpResponse, Problem> {
    let (_, record) = find(state, request, Scope::Manage)?;
    if let Activity::Disabled(_) = record.activity {
        return Err(Problem::new(problem::DISABLED, "only PATCH with {\"enabled\": true} ends that"));
    }
    let changed = state.registry.set_activity(&record.spec.id, activity, state.clock.now()).await?;
    let record = changed.ok_or_else(Problem::not_found)?;
    state.deliveries.caught_up(&record).await;
    Ok(answer(HttpResponse::Ok(), &record, Keys::Hidden, false))
}

/// Sends one test event now and shows what came of it.
pub(super) async fn ping(state: Data<HttpState>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let (_, record) = find(&state, &request, Scope::Manage)?;
    let attempt = state.deliveries.ping(&record).await.ok_or_else(Problem::not_found)?;
    Ok(HttpResponse::Ok().json(views::attempt(&attempt)))
}

/// How things stand.
pub(super) async fn status(state: Data<HttpState>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let (_, record) = find(&state, &request, Scope::Read)?;
    answer_status(&state, &record).await
}

async fn answer_status(state: &HttpState, record: &Arc<SubscriptionRecord>) -> Result<HttpResponse, Problem> {
    let (status, oldest) = state.deliveries.status(record).await?.ok_or_else(Problem::not_found)?;
    let age_s = oldest.map(|at| state.clock.now().since(at).as_secs());
    let asked = state.deliveries.verification(record);
    Ok(HttpResponse::Ok().json(views::status(record, &status, age_s, &asked)))
}

/// Moves the cursor; answers the new status.
pub(super) async fn seek(state: Data<HttpState>, request: HttpRequest, payload: Payload) -> Result<HttpResponse, Problem> {
    let (_, record) = find(&state, &request, Scope::Manage)?;
    let body = read_json(&state, &request, payload).await?;
    let to = parse_seek(&body).map_err(refuse)?;
    let after = position(&state, to, "/to").await?;
    if !state.deliveries.seek(&record, after).await {
        return Err(Problem::not_found());
    }
    answer_status(&state, &record).await
}

/// Makes dead letters due again.
pub(super) async fn redrive(state: Data<HttpState>, request: HttpRequest, payload: Payload) -> Result<HttpResponse, Problem> {
    let (_, record) = find(&state, &request, Scope::Manage)?;
    let body = read_json(&state, &request, payload).await?;
    let which = read_redrive(&body)?;
    let events = state.deliveries.redrive(&record, which).await?;
    Ok(HttpResponse::Accepted().json(json!({ "job": null, "events": events })))
}

fn read_redrive(body: &Value) -> Result<Redrive, Problem> {
    let errors = Errors::default();
    let which = Fields::open(body, "", &["all", "seqs"], &errors).and_then(|fields| {
        match (fields.flag("all"), fields.list("seqs", REDRIVE_SEQS_MAX)) {
            (Some(true), None) => Some(Redrive::All),
            (None | Some(false), Some(items)) => {
                let seqs = items.iter().enumerate().map(|(index, item)| {
                    let seq = item.as_u64().filter(|seq| *seq > 0);
                    if seq.is_none() {
                        errors.push(child("/seqs", &index.to_string()), "seq", "is no position; allowed: whole numbers from 1");
                    }
                    Seq(seq.unwrap_or_default())
                });
                Some(Redrive::Seqs(seqs.collect()))
            }
            _ if errors.count() > 0 => None,
            _ => {
                errors.push("", "redrive", "names no dead letters; allowed: {\"all\": true} or {\"seqs\": […]}");
                None
            }
        }
    });
    errors.finish(which).map_err(refuse)
}

/// Events that were given up.
pub(super) async fn dead_letters(state: Data<HttpState>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let (_, record) = find(&state, &request, Scope::Read)?;
    let page = page_request(&request)?;
    let found = state.deliveries.exceptions(&record, ExceptionState::Dead, one_more(page)).await?;
    let items = found.iter().map(|exception| (exception.seq, views::dead_letter(exception)));
    Ok(HttpResponse::Ok().json(cut(items, page)))
}

/// Events that failed and are not delivered: waiting retries and dead letters together. What was not tried yet lies behind
/// the cursor and is not listed.
pub(super) async fn undelivered(state: Data<HttpState>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let (_, record) = find(&state, &request, Scope::Read)?;
    let page = page_request(&request)?;
    let mut found = state.deliveries.exceptions(&record, ExceptionState::Retry, one_more(page)).await?;
    found.extend(state.deliveries.exceptions(&record, ExceptionState::Dead, one_more(page)).await?);
    found.sort_by_key(|exception| exception.seq);
    Ok(HttpResponse::Ok().json(cut(found.iter().map(|item| (item.seq, views::undelivered(item))), page)))
}

/// How things stand with one event.
pub(super) async fn delivery(state: Data<HttpState>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let (_, record) = find(&state, &request, Scope::Read)?;
    let seq = path_seq(&request)?;
    let view = state.deliveries.delivery(&record, seq).await?.ok_or_else(Problem::not_found)?;
    Ok(HttpResponse::Ok().json(views::delivery(&view)))
}

fn page_request(request: &HttpRequest) -> Result<PageRequest, Problem> {
    let query = Query::read(request, &["limit", "after"])?;
    Ok(PageRequest { after: Seq(query.after_seq()?), limit: query.limit()? })
}

/// One item more than asked for tells whether there is a next page.
fn one_more(page: PageRequest) -> PageRequest {
    PageRequest { limit: page.limit + 1, ..page }
}

fn cut(items: impl Iterator<Item = (Seq, Value)>, page: PageRequest) -> Value {
    let mut items: Vec<(Seq, Value)> = items.collect();
    let limit = page.limit as usize;
    let has_more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| has_more).map(|(seq, _)| Value::from(seq.0));
    views::page(items.into_iter().map(|(_, value)| value).collect(), next)
}
