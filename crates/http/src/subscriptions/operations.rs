//! What is done with a subscription that runs: hold it, test it, move it, look at what it has not delivered.

use std::sync::Arc;

use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use serde_json::Value;

use super::{answer, find, is_failing, position};
use crate::auth::Scope;
use crate::definition::{read_json, refuse};
use crate::events::path_seq;
use crate::problem::{self, Problem};
use crate::query::Query;
use crate::{HttpState, views};
use hookcast_core::clock::Timestamp;
use hookcast_core::model::Seq;
use hookcast_core::model::subscription::SubscriptionRecord;
use hookcast_core::model::subscription::parse::form::Keys;
use hookcast_core::model::subscription::parse::parse_seek;
use hookcast_delivery::attempts::{AttemptsQuery, NEWEST, Place};
use hookcast_log::storage::PageRequest;
use hookcast_registry::Pausing;

/// Holds deliveries; the cursor stays.
pub(super) async fn pause(state: Data<HttpState>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    set_paused(&state, &request, true).await
}

/// Lets a paused one go on.
pub(super) async fn resume(state: Data<HttpState>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    set_paused(&state, &request, false).await
}

async fn set_paused(state: &HttpState, request: &HttpRequest, is_paused: bool) -> Result<HttpResponse, Problem> {
    let (_, record) = find(state, request, Scope::Manage)?;
    let record = match state.registry.set_paused(&record, is_paused, state.clock.now()).await? {
        Pausing::Done(record) => record,
        Pausing::Disabled => {
            return Err(Problem::new(
                problem::DISABLED,
                "PATCH with {\"enabled\": true} ends that; for the reason limit_group, the return of its group or PATCH with another one",
            ));
        }
        Pausing::Gone => return Err(Problem::not_found()),
    };
    state.deliveries.caught_up(&record).await;
    let is_failing = is_failing(state, &record).await;
    Ok(answer(HttpResponse::Ok(), &record, Keys::Hidden, is_failing))
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

pub(super) async fn answer_status(state: &HttpState, record: &Arc<SubscriptionRecord>) -> Result<HttpResponse, Problem> {
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
    // What retention took is not there to be delivered once more, nor to expire a second time.
    let after = position(&state, to, "/to").await?.max(state.follow.first_kept().prev());
    move_to(&state, &record, after).await?;
    answer_status(&state, &record).await
}

/// Moves the cursor, even when whoever asked for it goes away. Behind it the present definition judges, also what an earlier one
/// has judged before; nothing is looked at until that is stored.
async fn move_to(state: &Data<HttpState>, record: &Arc<SubscriptionRecord>, after: Seq) -> Result<(), Problem> {
    let (state, record) = (state.clone(), Arc::clone(record));
    let moving = tokio::spawn(async move {
        let crosses = record.moved_back_to(after).is_some();
        let still = if crosses { state.deliveries.freeze(&record).await } else { None };
        if !state.deliveries.seek(&record, after).await? {
            return Err(Problem::not_found());
        }
        if crosses {
            let moved = state.registry.change(&record, move |record| record.moved_back_to(after)).await;
            // The cursor has moved, whatever became of this.
            let moved = moved.map_err(|_| Problem::outcome_unknown())?;
            state.deliveries.caught_up(&moved.ok_or_else(Problem::not_found)?).await;
        }
        drop(still);
        Ok(())
    });
    moving.await.unwrap_or_else(|_| Err(Problem::new(problem::UNAVAILABLE, "the seek was cut off; repeat it").retry_after(1)))
}

/// Events that were given up.
pub(super) async fn dead_letters(state: Data<HttpState>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let (_, record) = find(&state, &request, Scope::Read)?;
    let page = page_request(&request)?;
    let found = state.deliveries.dead_letters(&record, one_more(page)).await?.ok_or_else(Problem::not_found)?;
    let items = found.iter().map(|exception| (exception.seq, views::dead_letter(exception)));
    Ok(HttpResponse::Ok().json(cut(items, page)))
}

/// Events that are not delivered: those that wait for their first attempt, waiting retries and dead letters together.
pub(super) async fn undelivered(state: Data<HttpState>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let (_, record) = find(&state, &request, Scope::Read)?;
    let page = page_request(&request)?;
    let found = state.deliveries.undelivered(&record, page).await?.ok_or_else(Problem::not_found)?;
    let items = found.items.iter().map(|(seq, exception)| views::undelivered(*seq, exception.as_ref())).collect();
    Ok(HttpResponse::Ok().json(views::page(items, found.next.map(|seq| Value::from(seq.0)))))
}

/// Attempts, newest first.
pub(super) async fn attempts(state: Data<HttpState>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let (_, record) = find(&state, &request, Scope::Read)?;
    let query = Query::read(&request, &["outcome", "since", "limit", "after"])?;
    let is_success = match query.get("outcome") {
        None => None,
        Some("success") => Some(true),
        Some("failure") => Some(false),
        Some(_) => return Err(Problem::of_slug("outcome", 422, "allowed: success, failure")),
    };
    let query = AttemptsQuery {
        is_success,
        since: query.since(state.clock.now())?.unwrap_or(Timestamp(i64::MIN)),
        before: query.get("after").map_or(Ok(NEWEST), read_place)?,
        limit: query.limit()? as usize,
    };
    let found = state.deliveries.attempts(&record, query).await?.ok_or_else(Problem::not_found)?;
    let next = found.next.map(|place| Value::from(written_place(place)));
    Ok(HttpResponse::Ok().json(views::page(found.items.iter().map(views::attempt).collect(), next)))
}

/// The `next` of a page of attempts.
fn written_place((at, seq, n, is_success): Place) -> String {
    format!("{}-{seq}-{n}-{}", at.0, u8::from(is_success))
}

/// Reads it.
fn read_place(text: &str) -> Result<Place, Problem> {
    let parts: Option<Vec<u64>> =
        text.splitn(5, '-').map(|part| part.parse().ok().filter(|_| part.bytes().all(|byte| byte.is_ascii_digit()))).collect();
    let place = match parts.as_deref() {
        Some(&[at, seq, n, is_success @ (0 | 1)]) => {
            let (at, n) = (i64::try_from(at).ok(), u32::try_from(n).ok());
            at.zip(n).map(|(at, n)| (Timestamp(at), Seq(seq), n, is_success == 1))
        }
        _ => None,
    };
    place.ok_or_else(|| Problem::of_slug("after", 422, "allowed: the `next` of the page before"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_the_list_of_attempts_comes_back_as_it_was_given() {
        for place in
            [(Timestamp(5), Seq(7), 2, true), (Timestamp(5), Seq(7), 2, false), (Timestamp(0), Seq::ZERO, 0, false), NEWEST]
        {
            assert_eq!(read_place(&written_place(place)).ok(), Some(place));
        }
    }
}
