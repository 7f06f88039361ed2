//! Who changed what: every act of administration is remembered, whoever serves the request.
//!
//! The gate hands in each request that may be an act once it is answered; an act it is when somebody with a name asked for the
//! scope `manage`. Names of members are kept, values never. What nobody with a name asked for is not kept: guessing at the
//! door must not fill the disk.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::RequestHead;
use actix_web::http::header::{self, HeaderMap};
use actix_web::http::{Method, StatusCode};
use actix_web::web::{Data, ServiceConfig};
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse};
use serde_json::{Value, json};

use super::auth::{Actor, Scope};
use super::problem::Problem;
use super::query::Query;
use super::{HttpState, at, get, views};
use hookcast_core::clock::{Clock, Timestamp};
use hookcast_core::model::administration::Act;
use hookcast_core::model::subscription::is_id;
use hookcast_log::storage::Administration;

/// Acts older than this are forgotten.
pub const ACT_AGE_MAX: Duration = Duration::from_hours(365 * 24);
/// Names of members that are kept of one act.
const NAMES_MAX: usize = 64;

/// The memory of acts.
pub struct Audit {
    store: Arc<dyn Administration>,
    clock: Arc<dyn Clock>,
}

/// Names of the members of a body; left with the request by whoever reads it.
struct Given(Vec<String>);

impl Audit {
    /// Remembers in `store`.
    #[must_use]
    pub fn new(store: Arc<dyn Administration>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock }
    }

    /// Remembers an act; one that cannot be stored is told in the log, because it is done already.
    pub async fn note(&self, acts: Vec<Act>) {
        for act in &acts {
            tracing::info!(target: "audit", actor = act.actor, method = act.method, resource = act.resource,
                target_id = act.target, action = act.action, outcome = act.outcome, fields = act.fields.join(","), "act");
        }
        let oldest = self.clock.now().minus(ACT_AGE_MAX);
        if let Err(error) = self.store.note(acts, oldest).await {
            tracing::error!(target: "audit", %error, "an act could not be stored");
        }
    }

    /// Remembers an answered request, if it was an act.
    pub(super) async fn answered(&self, request: &HttpRequest, status: StatusCode, answer: &HeaderMap) {
        if let Some(act) = act_of(request, status, answer, self.clock.now()) {
            self.note(vec![act]).await;
        }
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Audit")
    }
}

/// Whether a request may be an act: it changes something, or shows secrets. Events and webhooks that come in are none, and
/// neither are streams.
pub(super) fn may_be_act(head: &RequestHead) -> bool {
    let is_data = |path: &str| ["/events", "/stream", "/webhook"].iter().any(|end| path.ends_with(end));
    match head.method {
        Method::GET | Method::HEAD => head.uri.query().is_some_and(|query| query.contains("secrets=")),
        Method::POST => !is_data(head.uri.path()),
        Method::PUT | Method::PATCH | Method::DELETE => true,
        _ => false,
    }
}

/// Leaves the names of the members of a body with its request.
pub(super) fn given(request: &HttpRequest, body: &Value) {
    let Some(members) = body.as_object() else { return };
    let is_name = |name: &&String| name.len() <= 64 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let names = members.keys().filter(is_name).take(NAMES_MAX).cloned().collect();
    request.extensions_mut().insert(Given(names));
}

fn act_of(request: &HttpRequest, status: StatusCode, answer: &HeaderMap, now: Timestamp) -> Option<Act> {
    let extensions = request.extensions();
    let actor = extensions.get::<Actor>()?.0.clone();
    let mut path = request.path().strip_prefix("/v1/")?.split('/');
    let resource = path.next().filter(|resource| resource.len() <= 64)?.to_owned();
    // A new one has its id in the answer.
    let location = answer.get(header::LOCATION).and_then(|value| value.to_str().ok()).and_then(|to| to.rsplit('/').next());
    let target = path.next().or(location).filter(|id| is_id(id)).map(str::to_owned);
    let action: Vec<&str> = path.collect();
    let action = (!action.is_empty()).then(|| action.join("/")).filter(|action| action.len() <= 128);
    // What was refused may hold anything, also as a name.
    let names = extensions.get::<Given>().filter(|_| status.is_success()).map(|given| given.0.clone());
    let action = if request.method() == Method::GET { Some("secrets".to_owned()) } else { action };
    Some(Act {
        id: 0,
        at: now,
        actor,
        peer: request.peer_addr().map(|address| address.ip().to_canonical().to_string()),
        method: request.method().to_string(),
        resource,
        target,
        action,
        outcome: status.as_u16(),
        fields: names.unwrap_or_default(),
    })
}

/// Registers the route.
pub(super) fn configure(config: &mut ServiceConfig) {
    config.service(at("/v1/audit", "GET, HEAD").route(get().to(list)));
}

/// `GET /v1/audit`: acts by id, the oldest first.
async fn list(state: Data<HttpState>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    state.auth.require(&request, Scope::Manage)?.unlimited()?;
    let query = Query::read(&request, &["limit", "after"])?;
    let (limit, after) = (query.limit()?, query.after_seq()?);
    let mut acts = state.audit.store.acts(after, limit + 1).await?;
    let has_more = acts.len() > limit as usize;
    acts.truncate(limit as usize);
    let next = acts.last().filter(|_| has_more).map(|act| Value::from(act.id));
    let item = |act: &Act| {
        json!({
            "id": act.id, "at": views::time(act.at), "actor": act.actor, "peer": act.peer, "method": act.method,
            "resource": act.resource, "target": act.target, "action": act.action, "outcome": act.outcome, "fields": act.fields,
        })
    };
    Ok(HttpResponse::Ok().json(views::page(acts.iter().map(item).collect(), next)))
}
