//! What brings deliveries back: redrive and replay as jobs, their progress and end, and skipping.

use std::sync::Arc;

use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use serde_json::{Value, json};

use super::operations::answer_status;
use super::{find, position};
use crate::auth::Scope;
use crate::definition::{read_json, refuse};
use crate::problem::{self, Problem};
use crate::query::Query;
use crate::{HttpState, views};
use hookcast_core::model::fields::{Errors, Fields, child};
use hookcast_core::model::job::{JobKind, Selection};
use hookcast_core::model::subscription::parse::read_position;
use hookcast_core::model::subscription::{StartFrom, SubscriptionRecord};
use hookcast_core::model::{JobId, Seq};
use hookcast_delivery::recovery::{Recovering, Recovery};
use hookcast_delivery::replays::JOBS_RUNNING_MAX;

/// Most events that one redrive may name.
const REDRIVE_SEQS_MAX: usize = 10_000;

/// What a replay is asked for.
struct ReplayBody {
    from: StartFrom,
    to: StartFrom,
    selection: Selection,
    is_dry: bool,
}

/// Posts dead letters once more.
pub(super) async fn redrive(state: Data<HttpState>, request: HttpRequest, payload: Payload) -> Result<HttpResponse, Problem> {
    let (_, record) = find(&state, &request, Scope::Manage)?;
    let body = read_json(&state, &request, payload).await?;
    let selection = read_redrive(&body)?;
    let (from, to) = match &selection {
        Selection::Seqs(seqs) => (seqs.first().copied(), seqs.last().copied()),
        _ => (None, None),
    };
    let (from, to) = (from.unwrap_or(Seq(1)), to.unwrap_or(state.follow.head()));
    start(&state, &record, Recovery { kind: JobKind::Redrive, selection, from, to }).await
}

fn read_redrive(body: &Value) -> Result<Selection, Problem> {
    let errors = Errors::default();
    let which = Fields::open(body, "", &["all", "seqs"], &errors).and_then(|fields| {
        match (fields.flag("all"), fields.list("seqs", REDRIVE_SEQS_MAX)) {
            (Some(true), None) => Some(Selection::Failed),
            (None | Some(false), Some(items)) => Some(Selection::Seqs(read_seqs(items, &errors).into())),
            _ if errors.count() > 0 => None,
            _ => {
                errors.push("", "redrive", "names no dead letters; allowed: {\"all\": true} or {\"seqs\": […]}");
                None
            }
        }
    });
    errors.finish(which).map_err(refuse)
}

/// Positions, rising, each once.
fn read_seqs(items: &[Value], errors: &Errors) -> Vec<Seq> {
    let seqs = items.iter().enumerate().map(|(index, item)| {
        let seq = item.as_u64().filter(|seq| *seq > 0);
        if seq.is_none() {
            errors.push(child("/seqs", &index.to_string()), "seq", "is no position; allowed: whole numbers from 1");
        }
        Seq(seq.unwrap_or_default())
    });
    let mut seqs: Vec<Seq> = seqs.collect();
    seqs.sort_unstable();
    seqs.dedup();
    seqs
}

/// Posts a range once more, or counts it.
pub(super) async fn replay(state: Data<HttpState>, request: HttpRequest, payload: Payload) -> Result<HttpResponse, Problem> {
    let (_, record) = find(&state, &request, Scope::Manage)?;
    let body = read_json(&state, &request, payload).await?;
    let asked = read_replay(&body)?;
    let from = position(&state, asked.from, "/from").await?.next();
    let to = last_position(&state, asked.to).await?;
    if from > to.next() {
        let detail = format!("the range ends at {to}, before it begins at {from}");
        return Err(Problem::of_slug("to", 422, detail.clone()).at("/to", detail));
    }
    let what = Recovery { kind: JobKind::Replay, selection: asked.selection, from, to };
    if asked.is_dry {
        let count = state.deliveries.count(&record, &what).await?;
        return Ok(HttpResponse::Ok().json(json!({ "events": count.events, "exact": count.is_exact })));
    }
    start(&state, &record, what).await
}

fn read_replay(body: &Value) -> Result<ReplayBody, Problem> {
    let errors = Errors::default();
    let asked = Fields::open(body, "", &["from", "to", "only", "dry_run"], &errors).and_then(|fields| {
        fields.require("from");
        let selection = match fields.choice("only", &["failed", "all"], "only") {
            Some("failed") => Selection::Failed,
            _ => Selection::All,
        };
        let to = if fields.get("to").is_some() { read_position(&fields, "to") } else { Some(StartFrom::Latest) };
        let is_dry = fields.flag("dry_run").unwrap_or(false);
        Some(ReplayBody { from: read_position(&fields, "from")?, to: to?, selection, is_dry })
    });
    errors.finish(asked).map_err(refuse)
}

/// The last position of a range that ends here; no further than the head.
async fn last_position(state: &HttpState, to: StartFrom) -> Result<Seq, Problem> {
    let head = state.follow.head();
    Ok(match to {
        StartFrom::Latest => head,
        StartFrom::Earliest => state.follow.first_kept(),
        StartFrom::Seq(seq) => seq.min(head),
        StartFrom::Time(time) => state.follow.before_time(time.plus(std::time::Duration::from_millis(1))).await?,
    })
}

async fn start(state: &HttpState, record: &Arc<SubscriptionRecord>, what: Recovery) -> Result<HttpResponse, Problem> {
    match state.deliveries.recover(record, what).await? {
        Recovering::Job(job) => Ok(HttpResponse::Accepted().json(json!({ "job": job.id.to_string(), "events": job.events }))),
        Recovering::TooMany => {
            let detail = format!("{JOBS_RUNNING_MAX} jobs of this subscription run already; wait for one, or DELETE one");
            Err(Problem::new(problem::TOO_MANY_JOBS, detail).retry_after(10))
        }
        Recovering::Gone => Err(Problem::not_found()),
    }
}

/// Jobs that run, and those that ended lately, newest first.
pub(super) async fn jobs(state: Data<HttpState>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let (_, record) = find(&state, &request, Scope::Read)?;
    Query::read(&request, &[])?;
    let jobs = state.deliveries.jobs(&record).await?.ok_or_else(Problem::not_found)?;
    Ok(HttpResponse::Ok().json(views::page(jobs.iter().map(views::job).collect(), None)))
}

/// How far a job has come.
pub(super) async fn job(state: Data<HttpState>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let (_, record) = find(&state, &request, Scope::Read)?;
    let id = path_job(&request)?;
    let jobs = state.deliveries.jobs(&record).await?.ok_or_else(Problem::not_found)?;
    let job = jobs.iter().find(|job| job.id == id).ok_or_else(Problem::not_found)?;
    Ok(HttpResponse::Ok().json(views::job(job)))
}

/// Ends a job; one that has ended stays as it is.
pub(super) async fn cancel(state: Data<HttpState>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let (_, record) = find(&state, &request, Scope::Manage)?;
    let id = path_job(&request)?;
    if let Some(job) = state.deliveries.cancel(&record, id).await? {
        return Ok(HttpResponse::Ok().json(views::job(&job)));
    }
    let jobs = state.deliveries.jobs(&record).await?.ok_or_else(Problem::not_found)?;
    let job = jobs.iter().find(|job| job.id == id).ok_or_else(Problem::not_found)?;
    Ok(HttpResponse::Ok().json(views::job(job)))
}

fn path_job(request: &HttpRequest) -> Result<JobId, Problem> {
    JobId::parse(request.match_info().get("job").unwrap_or_default()).ok_or_else(Problem::not_found)
}

/// Settles everything up to a position; answers the new status.
pub(super) async fn skip(state: Data<HttpState>, request: HttpRequest, payload: Payload) -> Result<HttpResponse, Problem> {
    let (_, record) = find(&state, &request, Scope::Manage)?;
    let body = read_json(&state, &request, payload).await?;
    let head = state.follow.head();
    let errors = Errors::default();
    let to = Fields::open(&body, "", &["to"], &errors).and_then(|fields| {
        fields.require("to");
        let to = fields.integer("to", 1..=u64::MAX).map(Seq)?;
        if to > head {
            fields.refuse("to", "to", format!("{to} is beyond the head of the log; allowed: 1 to {head}"));
        }
        Some(to)
    });
    let to = errors.finish(to).map_err(refuse)?;
    if !state.deliveries.skip(&record, to).await? {
        return Err(Problem::not_found());
    }
    answer_status(&state, &record).await
}
