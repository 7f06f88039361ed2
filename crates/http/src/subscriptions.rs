//! Subscriptions: made, shown, deleted; how they change is in [`changes`].
//!
//! Owns what a request means for a record: who may see it, what a change keeps, when it conflicts. How definitions read is the
//! model's part, what runs them is behind the ports. Operations on the running side are in [`operations`] and
//! [`recovery`], secrets in [`secrets`].

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::web::{self, Data, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use serde_json::Value;

use super::auth::{Caller, Scope};
use super::definition::{Precondition, contended, declared, random, read_json, refuse, remove};
use super::problem::{self, Problem};
use super::query::Query;
use super::tokens::maker;
use super::{DefinitionDefaults, HttpState, at, get, quota, views};
use hookcast_core::model::Seq;
use hookcast_core::model::subscription::parse::form::Keys;
use hookcast_core::model::subscription::parse::keys::generate_id;
use hookcast_core::model::subscription::parse::{Definition, Rules, parse_definition};
use hookcast_core::model::subscription::{StartFrom, SubscriptionId, SubscriptionRecord, change};
use hookcast_log::storage::StorageErrorKind;

mod changes;
mod consent;
mod operations;
mod recovery;
mod secrets;

const LIST: &str = "/v1/subscriptions";

/// Registers the routes.
pub(super) fn configure(config: &mut ServiceConfig) {
    let post = |path: &str| at(&format!("{LIST}/{{id}}/{path}"), "POST");
    let show = |path: &str| at(&format!("{LIST}/{{id}}/{path}"), "GET, HEAD");
    config
        .service(at(LIST, "GET, HEAD, POST").route(get().to(list)).route(web::post().to(create)))
        .service(
            at(&format!("{LIST}/{{id}}"), "GET, HEAD, PUT, PATCH, DELETE")
                .route(get().to(show_one))
                .route(web::put().to(changes::replace))
                .route(web::patch().to(changes::patch))
                .route(web::delete().to(delete)),
        )
        .service(post("pause").route(web::post().to(operations::pause)))
        .service(post("resume").route(web::post().to(operations::resume)))
        .service(post("ping").route(web::post().to(operations::ping)))
        .service(post("verify").route(web::post().to(consent::verify)))
        .service(
            at(&format!("{LIST}/{{id}}/consent/{{key}}"), "GET, POST")
                .route(web::get().to(consent::agree))
                .route(web::post().to(consent::agree)),
        )
        .service(post("seek").route(web::post().to(operations::seek)))
        .service(post("secret/rotate").route(web::post().to(secrets::rotate)))
        .service(post("dead-letters/redrive").route(web::post().to(recovery::redrive)))
        .service(post("replay").route(web::post().to(recovery::replay)))
        .service(post("skip").route(web::post().to(recovery::skip)))
        .service(show("jobs").route(get().to(recovery::jobs)))
        .service(
            at(&format!("{LIST}/{{id}}/jobs/{{job}}"), "GET, HEAD, DELETE")
                .route(get().to(recovery::job))
                .route(web::delete().to(recovery::cancel)),
        )
        .service(show("status").route(get().to(operations::status)))
        .service(show("dead-letters").route(get().to(operations::dead_letters)))
        .service(show("attempts").route(get().to(operations::attempts)))
        .service(show("undelivered").route(get().to(operations::undelivered)))
        .service(show("deliveries/{seq}").route(get().to(operations::delivery)));
}

/// `GET /v1/subscriptions`; whether they fail is one question to each lane.
async fn list(state: Data<HttpState>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let caller = state.auth.require(&request, Scope::Read)?;
    let query = Query::read(&request, &["limit", "after", "made_by"])?;
    let (limit, mut after, made_by) = (query.limit()? as usize, query.after_id()?.map(str::to_owned), query.get("made_by"));
    let is_wanted = |record: &Arc<SubscriptionRecord>| {
        caller.covers(&record.spec.topics) && made_by.is_none_or(|maker| record.made_by.as_deref() == Some(maker))
    };
    let mut shown: Vec<Arc<SubscriptionRecord>> = Vec::new();
    // One more than asked for tells whether there is a next page; a limited caller skips what is not theirs.
    while shown.len() <= limit {
        let some = state.registry.list(after.as_deref(), limit + 1);
        let Some(last) = some.last() else { break };
        after = Some(last.spec.id.as_str().to_owned());
        shown.extend(some.into_iter().filter(is_wanted));
    }
    let has_more = shown.len() > limit;
    shown.truncate(limit);
    let next = shown.last().filter(|_| has_more).map(|record| Value::from(record.spec.id.as_str()));
    let failing = state.deliveries.failing(&shown).await.ok_or_else(contended)?;
    let items = shown.iter().map(|record| views::subscription(record, Keys::Hidden, failing.contains(&record.ordinal))).collect();
    Ok(HttpResponse::Ok().json(views::page(items, next)))
}

async fn show_one(state: Data<HttpState>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let shows_secrets = Query::read(&request, &["secrets"])?.flag("secrets")?;
    let (_, record) = find(&state, &request, if shows_secrets { Scope::Manage } else { Scope::Read })?;
    if shows_secrets {
        let mut response = HttpResponse::Ok();
        response.insert_header((header::CACHE_CONTROL, HeaderValue::from_static("no-store")));
        let is_failing = is_failing(&state, &record).await;
        return Ok(response.insert_header((header::ETAG, tag(&record))).json(views::with_secrets(&record, is_failing)));
    }
    let is_failing = is_failing(&state, &record).await;
    Ok(answer(HttpResponse::Ok(), &record, Keys::Hidden, is_failing))
}

async fn is_failing(state: &HttpState, record: &Arc<SubscriptionRecord>) -> bool {
    let failing = state.deliveries.failing(std::slice::from_ref(record)).await;
    failing.is_some_and(|failing| failing.contains(&record.ordinal))
}

async fn create(state: Data<HttpState>, request: HttpRequest, payload: Payload) -> Result<HttpResponse, Problem> {
    let caller = state.auth.require(&request, Scope::Manage)?;
    let body = read_json(&state, &request, payload).await?;
    // Before anything else is judged, as for PUT: an id of somebody else answers the same whatever the rest says.
    if let Some(id) = body["id"].as_str().and_then(SubscriptionId::parse) {
        visible(&state, &caller, &id)?;
    }
    let definition = read_definition(&state, &caller, &body, None)?;
    let id = definition.id.clone().unwrap_or_else(|| generate_id(&mut random));
    let exists = || match visible(&state, &caller, &id) {
        Err(foreign) => foreign,
        Ok(_) => Problem::new(problem::ALREADY_EXISTS, format!("use PUT {LIST}/{id} to replace it")),
    };
    if state.registry.get(id.as_str()).is_some() {
        return Err(exists());
    }
    let turn = quota::subscription(&state, &caller, id.as_str()).await?;
    let (record, keys) = new_record(&state, &caller, definition, id.clone()).await?;
    let registry = state.registry.clone();
    match quota::kept(turn, async move { registry.put(record, 0).await }).await {
        Ok(record) => Ok(created(&record, keys)),
        Err(error) if error.kind == StorageErrorKind::Conflict => Err(exists()),
        Err(error) => Err(error.into()),
    }
}

async fn delete(state: Data<HttpState>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let (caller, found) = find(&state, &request, Scope::Manage)?;
    let precondition = Precondition::of(request.headers())?;
    let judged = || {
        let record = still_there(&state, &caller, &found)?;
        precondition.check(Some(&tag(&record)))?;
        if record.declared { Err(declared()) } else { Ok(record) }
    };
    let removed = remove(judged, async |record| state.registry.delete(record).await).await?;
    state.deliveries.caught_up(&removed).await;
    Ok(HttpResponse::NoContent().finish())
}

/// The subscription that was found, as it is now; one that was made anew under its id is another one.
fn still_there(state: &HttpState, caller: &Caller, found: &SubscriptionRecord) -> Result<Arc<SubscriptionRecord>, Problem> {
    let present = visible(state, caller, &found.spec.id)?.filter(|present| present.ordinal == found.ordinal);
    present.ok_or_else(Problem::not_found)
}

/// The subscription of the path, when the caller has the scope and may see it.
fn find(state: &HttpState, request: &HttpRequest, scope: Scope) -> Result<(Caller, Arc<SubscriptionRecord>), Problem> {
    let caller = state.auth.require(request, scope)?;
    let id = path_id(request).ok_or_else(Problem::not_found)?;
    let record = visible(state, &caller, &id)?.ok_or_else(Problem::not_found)?;
    Ok((caller, record))
}

/// The subscription of this id, if there is one; 404 when it is not the caller's.
fn visible(state: &HttpState, caller: &Caller, id: &SubscriptionId) -> Result<Option<Arc<SubscriptionRecord>>, Problem> {
    let record = state.registry.get(id.as_str());
    match &record {
        Some(foreign) if !caller.covers(&foreign.spec.topics) => Err(Problem::not_found()),
        _ => Ok(record),
    }
}

fn path_id(request: &HttpRequest) -> Option<SubscriptionId> {
    SubscriptionId::parse(request.match_info().get("id").unwrap_or_default())
}

fn bad_path_id() -> Problem {
    Problem::of_slug("id", 422, "an id is 1 to 64 letters, digits, '_' and '-'")
}

fn rules(state: &HttpState) -> Rules<'_> {
    let DefinitionDefaults { timeout, max_in_flight, .. } = state.defaults;
    Rules { timeout, max_in_flight, texts: &*state.texts, ..Rules::new(&*state.urls) }
}

fn read_definition(state: &HttpState, caller: &Caller, body: &Value, id: Option<&str>) -> Result<Definition, Problem> {
    let definition = parse_definition(body, id, &rules(state)).map_err(refuse)?;
    caller.follow(&definition.topics)?;
    Ok(definition)
}

/// A record that did not exist, and whether its key must be shown.
async fn new_record(
    state: &HttpState,
    caller: &Caller,
    definition: Definition,
    id: SubscriptionId,
) -> Result<(SubscriptionRecord, Keys), Problem> {
    let most = state.limits.subscriptions;
    // One that is there by now is no more than there were; whoever stores it meets a conflict.
    if state.registry.len() >= most && state.registry.get(id.as_str()).is_none() {
        let detail = format!("there are {most} already (`limits.subscriptions`); delete some or raise the limit");
        return Err(Problem::new(problem::TOO_MANY_SUBSCRIPTIONS, detail));
    }
    let starts_after = position(state, definition.from, "/from").await?;
    let mut record = change::new_record(definition, id, starts_after, state.clock.now(), &mut random);
    record.made_by = Some(maker(caller).as_str().into());
    // A key that was given is shown too: the answer to a creation is the one place where it can be compared.
    Ok((record, Keys::Shown))
}

/// The position before which a reader that starts there has nothing to do.
async fn position(state: &HttpState, from: StartFrom, pointer: &str) -> Result<Seq, Problem> {
    let head = state.follow.head();
    Ok(match from {
        StartFrom::Latest => head,
        StartFrom::Earliest => state.follow.first_kept().prev(),
        StartFrom::Time(time) => state.follow.before_time(time).await?,
        StartFrom::Seq(seq) if seq > head.next() => {
            let detail = format!("{seq} is beyond the head of the log; allowed: 1 to {}", head.next());
            return Err(Problem::of_slug("from", 422, detail.clone()).at(format!("{pointer}/seq"), detail));
        }
        StartFrom::Seq(seq) => seq.prev(),
    })
}

fn tag(record: &SubscriptionRecord) -> String {
    format!("\"{}-{}\"", record.ordinal.0, record.revision)
}

fn created(record: &SubscriptionRecord, keys: Keys) -> HttpResponse {
    let mut response = HttpResponse::build(StatusCode::CREATED);
    response.insert_header((header::LOCATION, format!("{LIST}/{}", record.spec.id)));
    answer(response, record, keys, false)
}

fn answer(response: HttpResponseBuilder, record: &SubscriptionRecord, keys: Keys, is_failing: bool) -> HttpResponse {
    answer_shown(response, record, keys, &views::subscription(record, keys, is_failing))
}

fn answer_shown(mut response: HttpResponseBuilder, record: &SubscriptionRecord, keys: Keys, shown: &Value) -> HttpResponse {
    if keys == Keys::Shown {
        response.insert_header((header::CACHE_CONTROL, HeaderValue::from_static("no-store")));
    }
    response.insert_header((header::ETAG, tag(record))).json(shown)
}
