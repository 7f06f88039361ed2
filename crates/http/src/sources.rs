//! Sources: made, replaced, shown, patched, deleted, restarted.
//!
//! A caller that is limited to some topics sees the sources that feed them. Which protocols exist comes in with the state.

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::web::{self, Data, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use serde_json::Value;

use super::auth::{Caller, Scope};
use super::definition::{CHANGE_TRIES, Precondition, contended, declared, random, read_json, refuse, remove};
use super::problem::{self, Problem};
use super::query::Query;
use super::tokens::maker;
use super::{HttpState, at, get, quota, views};
use hookcast_core::model::SourceSpec;
use hookcast_core::model::source::SourceRecord;
use hookcast_core::model::source::parse::{SourceRules, merge_source, parse_source};
use hookcast_core::model::subscription::is_id;
use hookcast_log::storage::StorageErrorKind;

const LIST: &str = "/v1/sources";
/// Gaps shown with a source.
const GAPS_SHOWN: u32 = 10;

/// Registers the routes.
pub(super) fn configure(config: &mut ServiceConfig) {
    config
        .service(at(LIST, "GET, HEAD, POST").route(get().to(list)).route(web::post().to(create)))
        .service(
            at(&format!("{LIST}/{{name}}"), "GET, HEAD, PUT, PATCH, DELETE")
                .route(get().to(show_one))
                .route(web::put().to(replace))
                .route(web::patch().to(patch))
                .route(web::delete().to(delete)),
        )
        .service(at(&format!("{LIST}/{{name}}/restart"), "POST").route(web::post().to(restart)));
}

async fn list(state: Data<HttpState>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let caller = state.auth.require(&request, Scope::Read)?;
    let query = Query::read(&request, &["limit", "after", "made_by"])?;
    let (limit, after, made_by) = (query.limit()? as usize, query.after_id()?, query.get("made_by"));
    // Sources are few: a connection each.
    let mut shown = state.sources.list(after, usize::MAX);
    shown.retain(|record| caller.reaches(record.spec.topic.as_str()));
    shown.retain(|record| made_by.is_none_or(|maker| record.made_by.as_deref() == Some(maker)));
    let has_more = shown.len() > limit;
    shown.truncate(limit);
    let next = shown.last().filter(|_| has_more).map(|record| Value::from(record.spec.name.as_str()));
    let mut items = Vec::with_capacity(shown.len());
    for record in shown {
        items.push(views::source(&record, state.source_control.status(&record.spec.name).await.as_ref(), &[]));
    }
    Ok(HttpResponse::Ok().json(views::page(items, next)))
}

async fn show_one(state: Data<HttpState>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let (_, record) = find(&state, &request, Scope::Read)?;
    answer(&state, StatusCode::OK, &record).await
}

async fn create(state: Data<HttpState>, request: HttpRequest, payload: Payload) -> Result<HttpResponse, Problem> {
    let caller = state.auth.require(&request, Scope::Manage)?;
    let body = read_json(&state, &request, payload).await?;
    // Before anything else is judged, as for PUT: a name of somebody else answers the same whatever the rest says.
    visible(&state, &caller, body["name"].as_str().unwrap_or_default())?;
    let spec = parse_source(&body, None, &rules(&state), &mut random).map_err(refuse)?;
    caller.touch(&spec.topic)?;
    let name = spec.name.clone();
    let exists = || match visible(&state, &caller, &name) {
        Err(foreign) => foreign,
        Ok(_) => Problem::new(problem::ALREADY_EXISTS, format!("use PUT {LIST}/{name} to replace it")),
    };
    if state.sources.get(&name).is_some() {
        return Err(exists());
    }
    let turn = quota::source(&state, &caller, &name).await?;
    let (sources, record) = (state.sources.clone(), new_record(&state, &caller, spec));
    match quota::kept(turn, async move { sources.put(record, 0).await }).await {
        Ok(record) => answer(&state, StatusCode::CREATED, &record).await,
        Err(error) if error.kind == StorageErrorKind::Conflict => Err(exists()),
        Err(error) => Err(error.into()),
    }
}

async fn replace(state: Data<HttpState>, request: HttpRequest, payload: Payload) -> Result<HttpResponse, Problem> {
    let caller = state.auth.require(&request, Scope::Manage)?;
    let name = request.match_info().get("name").filter(|name| is_id(name));
    let name = name.ok_or_else(|| Problem::of_slug("id", 422, "a name is 1 to 64 letters, digits, '_' and '-'"))?;
    let precondition = Precondition::of(request.headers())?;
    visible(&state, &caller, name)?;
    let body = read_json(&state, &request, payload).await?;
    let spec = parse_source(&body, Some(name), &rules(&state), &mut random).map_err(refuse)?;
    caller.touch(&spec.topic)?;
    let mut turn = None;
    for _ in 0..CHANGE_TRIES {
        let present = visible(&state, &caller, name)?;
        precondition.check(present.as_deref().map(tag).as_deref())?;
        let (record, expected, status) = match &present {
            None => {
                if turn.is_none() {
                    turn = quota::source(&state, &caller, name).await?;
                }
                (new_record(&state, &caller, spec.clone()), 0, StatusCode::CREATED)
            }
            Some(present) if present.declared => return Err(declared()),
            Some(present) => (changed_record(&state, present, spec.clone()), present.revision, StatusCode::OK),
        };
        let sources = state.sources.clone();
        match quota::kept(turn.take(), async move { sources.put(record, expected).await }).await {
            Ok(record) => return answer(&state, status, &record).await,
            Err(error) if error.kind == StorageErrorKind::Conflict && !precondition.is_given() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(contended())
}

async fn patch(state: Data<HttpState>, request: HttpRequest, payload: Payload) -> Result<HttpResponse, Problem> {
    let (caller, found) = find(&state, &request, Scope::Manage)?;
    let precondition = Precondition::of(request.headers())?;
    let body = read_json(&state, &request, payload).await?;
    for _ in 0..CHANGE_TRIES {
        let present = still_there(&state, &caller, &found)?;
        precondition.check(Some(&tag(&present)))?;
        if present.declared {
            return Err(declared());
        }
        let spec = merge_source(&present, &body, &rules(&state)).map_err(refuse)?;
        caller.touch(&spec.topic)?;
        match state.sources.put(changed_record(&state, &present, spec), present.revision).await {
            Ok(record) => return answer(&state, StatusCode::OK, &record).await,
            Err(error) if error.kind == StorageErrorKind::Conflict && !precondition.is_given() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(contended())
}

async fn delete(state: Data<HttpState>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let (caller, found) = find(&state, &request, Scope::Manage)?;
    let precondition = Precondition::of(request.headers())?;
    let judged = || {
        let record = still_there(&state, &caller, &found)?;
        precondition.check(Some(&tag(&record)))?;
        if record.declared { Err(declared()) } else { Ok(record) }
    };
    remove(judged, async |record| state.sources.delete(record).await).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Connects anew at once.
async fn restart(state: Data<HttpState>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let (_, record) = find(&state, &request, Scope::Manage)?;
    state.source_control.restart(&record.spec.name).await;
    answer(&state, StatusCode::ACCEPTED, &record).await
}

/// The source of the path, when the caller has the scope and may see it.
fn find(state: &HttpState, request: &HttpRequest, scope: Scope) -> Result<(Caller, Arc<SourceRecord>), Problem> {
    let caller = state.auth.require(request, scope)?;
    let name = request.match_info().get("name").unwrap_or_default();
    let record = visible(state, &caller, name)?.ok_or_else(Problem::not_found)?;
    Ok((caller, record))
}

/// The source that was found, as it is now; one that was made anew under its name is another one.
fn still_there(state: &HttpState, caller: &Caller, found: &SourceRecord) -> Result<Arc<SourceRecord>, Problem> {
    let present = visible(state, caller, &found.spec.name)?.filter(|present| present.created_at == found.created_at);
    present.ok_or_else(Problem::not_found)
}

/// The source of this name, if there is one; 404 when its topic is not the caller's.
fn visible(state: &HttpState, caller: &Caller, name: &str) -> Result<Option<Arc<SourceRecord>>, Problem> {
    let record = state.sources.get(name);
    match &record {
        Some(foreign) if !caller.reaches(foreign.spec.topic.as_str()) => Err(Problem::not_found()),
        _ => Ok(record),
    }
}

fn rules(state: &HttpState) -> SourceRules<'_> {
    SourceRules { urls: &*state.urls, protocols: state.protocols, texts: &*state.texts }
}

fn new_record(state: &HttpState, caller: &Caller, spec: SourceSpec) -> SourceRecord {
    let (now, made_by) = (state.clock.now(), Some(maker(caller).as_str().into()));
    SourceRecord { made_by, ..SourceRecord::new(spec, now) }
}

fn changed_record(state: &HttpState, present: &SourceRecord, spec: SourceSpec) -> SourceRecord {
    present.with_spec(spec, state.follow.head(), state.clock.now())
}

/// A name made again begins at revision 1 again, but not at the same time.
fn tag(record: &SourceRecord) -> String {
    format!("\"{}-{}\"", record.created_at.0, record.revision)
}

async fn answer(state: &HttpState, status: StatusCode, record: &SourceRecord) -> Result<HttpResponse, Problem> {
    let name = &record.spec.name;
    let running = state.source_control.status(name).await;
    let gaps = state.source_control.gaps(name, GAPS_SHOWN).await?;
    let mut response = HttpResponse::build(status);
    if status == StatusCode::CREATED {
        response.insert_header((header::LOCATION, format!("{LIST}/{name}")));
    }
    Ok(response.insert_header((header::ETAG, tag(record))).json(views::source(record, running.as_ref(), &gaps)))
}
