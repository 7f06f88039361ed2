//! Whether the relay lives, whether it can take events, and its metrics.

use std::time::Duration;

use actix_web::http::header;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};

use super::HttpState;
use super::auth::Scope;
use super::problem::{self, Problem};
use hookcast_log::storage::StorageErrorKind;
use hookcast_supervise::readiness::Trouble;

/// Time that storage has to say whether it can be written.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(3);

/// `GET /healthz`: the process answers, and says which version it is.
pub(super) async fn alive() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header(("hookcast-version", env!("CARGO_PKG_VERSION")))
        .json(serde_json::json!({ "status": "ok" }))
}

/// `GET /readyz`: a write to storage would go through, and nobody reports that it cannot go on.
pub(super) async fn ready(state: Data<HttpState>) -> Result<HttpResponse, Problem> {
    // First, because it finds out whether what was wrong is well again.
    let wrong = match tokio::time::timeout(ANSWER_TIME_MAX, state.log.writable()).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) if error.kind == StorageErrorKind::Full => return Err(error.into()),
        Ok(Err(error)) => {
            tracing::debug!(%error, cause = ?error.source, "storage cannot be written");
            Some("storage does not take a write")
        }
        Err(_) => Some("storage does not answer"),
    };
    let mut troubles = state.readiness.troubles();
    if let Some(detail) = wrong.filter(|_| troubles.is_empty()) {
        troubles.push(Trouble { pointer: "/storage".to_owned(), detail: detail.to_owned() });
    }
    if !troubles.is_empty() {
        let problem = Problem::new(problem::NOT_READY, "`errors` says what is wrong; the relay's log says more");
        return Err(troubles.into_iter().fold(problem, |problem, trouble| problem.at(trouble.pointer, trouble.detail)));
    }
    let body = serde_json::json!({ "status": "ready", "head": state.follow.head() });
    Ok(HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(body))
}

/// `GET /metrics`: Prometheus text; shows all topics together, so a token that is limited to some may not see it.
pub(super) async fn metrics(state: Data<HttpState>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    state.auth.require(&request, Scope::Read)?.unlimited()?;
    let render = state.metrics.as_ref().ok_or_else(Problem::not_found)?;
    Ok(HttpResponse::Ok().insert_header((header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")).body(render()))
}
