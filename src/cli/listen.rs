//! `hookcast listen`: a receiver that verifies signatures, prints one line a delivery, marks repeats, and hands on if asked to.

use std::collections::{HashSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use clap::Args;

use super::client::{Place, failed};
use super::upstream::serve_http;
use super::{Exit, output};
use crate::telemetry::Foreign;
use hookcast_core::clock::{Clock as _, SystemClock};
use hookcast_core::signature::verify::{Verifier, VerifyError};

/// Largest delivery, in bytes.
const DELIVERY_BYTES_MAX: usize = 64 << 20;
/// How many ids are remembered to mark repeats.
const IDS_MAX: usize = 100_000;
/// How much of the data a line shows, in characters.
const SHOWN_CHARS_MAX: usize = 160;
/// Headers that belong to one connection and are not handed on.
const NOT_HANDED_ON: &[&str] = &["host", "content-length", "connection", "transfer-encoding", "accept-encoding"];

#[derive(Debug, Args)]
pub(super) struct ListenArgs {
    /// Port on 127.0.0.1; 0 takes any free port.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Secret of the subscription (whsec_…, whsk_…, whpk_… or the text of `hub` and `stripe`), several during a rotation; without
    /// it nothing is verified.
    #[arg(long)]
    secret: Vec<String>,
    /// Hand each good delivery on to this URL and answer with its status.
    #[arg(long)]
    forward: Option<String>,
}

/// What all deliveries share.
#[derive(Debug)]
struct Receiver {
    keys: Verifier,
    forward: Option<Place>,
    seen: Mutex<Seen>,
}

/// The newest ids.
#[derive(Debug, Default)]
struct Seen {
    ids: HashSet<Arc<str>>,
    order: VecDeque<Arc<str>>,
}

impl Seen {
    /// Remembers an id; true when it was there before.
    fn note(&mut self, id: &str) -> bool {
        if self.ids.contains(id) {
            return true;
        }
        if self.order.len() == IDS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        let id: Arc<str> = id.into();
        self.ids.insert(Arc::clone(&id));
        self.order.push_back(id);
        false
    }
}

pub(super) async fn run(args: ListenArgs) -> Result<(), Exit> {
    let mut keys = Verifier::default();
    for secret in &args.secret {
        keys.add(secret).map_err(|error| failed(format!("--secret: {error}")))?;
    }
    let forward = args.forward.as_deref().map(Place::new).transpose()?;
    let receiver = Arc::new(Receiver { keys, forward, seen: Mutex::default() });
    serve_http(SocketAddr::from((Ipv4Addr::LOCALHOST, args.port)), "listening on", move |config| {
        config
            .app_data(web::Data::from(Arc::clone(&receiver)))
            .app_data(web::PayloadConfig::new(DELIVERY_BYTES_MAX))
            .default_service(web::to(receive));
    })
    .await
}

async fn receive(request: HttpRequest, body: Bytes, receiver: web::Data<Receiver>) -> HttpResponse {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (status, ending) = match receiver.judge(&header, &body) {
        Err(error) => (StatusCode::UNAUTHORIZED, error.to_string()),
        Ok(()) => receiver.accept(&request, &body).await,
    };
    let mut parts = vec![SystemClock.now().to_string(), receiver.word(status, header("webhook-id")).to_owned()];
    for (label, name) in [("id", "webhook-id"), ("attempt", "hookcast-attempt"), ("topic", "ce-topic"), ("type", "ce-type")] {
        let value = header(name);
        if !value.is_empty() {
            parts.push(format!("{label}={}", Foreign(value)));
        }
    }
    parts.push(format!("{}B", body.len()));
    parts.push(ending);
    let line = parts.join(" ");
    if output::say(&line).is_err() {
        output::complain(&line);
    }
    HttpResponse::new(status)
}

impl Receiver {
    fn judge<'h>(&self, header: &impl Fn(&str) -> &'h str, body: &[u8]) -> Result<(), VerifyError> {
        if self.keys.is_empty() {
            return Ok(());
        }
        self.keys.verify(header, body, SystemClock.now())
    }

    /// The first word of a line; remembers the id of an accepted delivery.
    fn word(&self, status: StatusCode, id: &str) -> &'static str {
        if !status.is_success() {
            return "REFUSED";
        }
        // Only accepted ids are remembered: the next attempt after a refusal is no repeat.
        let is_repeat = !id.is_empty() && self.seen.lock().unwrap_or_else(PoisonError::into_inner).note(id);
        match (is_repeat, self.keys.is_empty()) {
            (true, _) => "repeat",
            (false, true) => "unverified",
            (false, false) => "ok",
        }
    }

    /// Hands the delivery on with its headers, if asked to: the status to answer, and what the line ends with.
    async fn accept(&self, request: &HttpRequest, body: &Bytes) -> (StatusCode, String) {
        let shown: String = String::from_utf8_lossy(body).chars().take(SHOWN_CHARS_MAX).collect();
        let shown = Foreign(&shown).to_string();
        let Some(place) = &self.forward else { return (StatusCode::NO_CONTENT, shown) };
        let headers: Vec<(&str, &str)> = request
            .headers()
            .iter()
            .filter(|(name, _)| !NOT_HANDED_ON.contains(&name.as_str()))
            .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
            .collect();
        match place.post(place.url(), &headers, body.clone()).await {
            Ok(answer) => {
                let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
                (status, format!("{shown} -> {}", answer.status))
            }
            Err(error) => (StatusCode::BAD_GATEWAY, format!("{shown} -> {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_ids_are_remembered() {
        let mut seen = Seen::default();
        assert!(!seen.note("a"));
        assert!(seen.note("a"));
        for n in 0..IDS_MAX {
            assert!(!seen.note(&n.to_string()));
        }
        assert!(!seen.note("a"));
        assert_eq!((seen.ids.len(), seen.order.len()), (IDS_MAX, IDS_MAX));
    }
}
