//! Whether the relay lives, whether it can take events, and its metrics.

use actix_web::http::header;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};

use super::HttpState;
use super::auth::Scope;
use super::problem::Problem;

/// `GET /healthz`: the process answers, and says which version it is.
pub(super) async fn alive() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header(("hookcast-version", env!("CARGO_PKG_VERSION")))
        .json(serde_json::json!({ "status": "ok" }))
}

/// `GET /readyz`: a write to storage would go through.
pub(super) async fn ready(state: Data<HttpState>) -> Result<HttpResponse, Problem> {
    state.readiness.writable().await?;
    let body = serde_json::json!({ "status": "ready", "head": state.follow.head() });
    Ok(HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(body))
}

/// `GET /metrics`: Prometheus text; shows all topics together, so a token that is limited to some may not see it.
pub(super) async fn metrics(state: Data<HttpState>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    state.auth.require(&request, Scope::Read)?.unlimited()?;
    let render = state.metrics.as_ref().ok_or_else(Problem::not_found)?;
    Ok(HttpResponse::Ok().insert_header((header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")).body(render()))
}
