//! Proof of consent at the edge: asked for again by a person, or given later by the endpoint.

use actix_web::http::header;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};

use super::{find, path_id};
use crate::auth::Scope;
use crate::problem::Problem;
use crate::{HttpState, views};
use hookcast_core::model::subscription::Verify;
use hookcast_delivery::consent::ask::{ALLOWED_RATE, read_rate};
use hookcast_delivery::consent::callback;

/// Asks the endpoint now whether it wants deliveries and shows what came of it.
pub(super) async fn verify(state: Data<HttpState>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let (_, record) = find(&state, &request, Scope::Manage)?;
    if record.spec.verify == Verify::None {
        return Err(Problem::of_slug("verify", 422, "it asks for no proof; set `verify` to `challenge` or `cloudevents` first"));
    }
    let attempt = state.deliveries.verify(&record).await.ok_or_else(Problem::not_found)?;
    state.deliveries.caught_up(&record).await;
    Ok(HttpResponse::Ok().json(views::attempt(&attempt)))
}

/// Takes the consent of an endpoint that was asked with `WebHook-Request-Callback`. Its key stands for a token; whoever does
/// not know it learns not even whether there is such a subscription.
pub(super) async fn agree(state: Data<HttpState>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let record = path_id(&request).and_then(|id| state.registry.get(id.as_str())).ok_or_else(Problem::not_found)?;
    let key = request.match_info().get("key").unwrap_or_default();
    if record.spec.verify != Verify::Cloudevents || !callback::is_key(&record, key) {
        return Err(Problem::not_found());
    }
    let rate = request.headers().get(ALLOWED_RATE).map(|value| value.to_str().unwrap_or_default().trim());
    let per_minute = rate.map_or(Ok(None), read_rate);
    let per_minute = per_minute
        .map_err(|_| Problem::of_slug("allowed_rate", 422, "WebHook-Allowed-Rate: allowed: a whole number from 1, or *"))?;
    state.deliveries.agree(&record, per_minute).await?;
    Ok(HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).content_type("text/plain").body("agreed\n"))
}
