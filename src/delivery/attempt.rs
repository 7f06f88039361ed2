//! One attempt: address, sign, post, classify. Gives an [`Outcome`], never an error.
//!
//! What does not change between attempts of a subscription is prepared once. It does not decide what follows.

use std::rc::Rc;
use std::time::Duration;

use actix_http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use bytes::BytesMut;

use super::parcel::Content;
use crate::clock::Timestamp;
use crate::model::subscription::{PayloadForm, SubscriptionSpec};
use crate::model::{ErrorKind, Outcome};
use crate::net::client::{PostRequest, PreparedTarget, WireAnswer, WireClient, WireFailure};
use crate::net::target::Target;
use crate::net::tls::Tls;
use crate::signature::{Message, Signer};

/// The `user-agent` of every delivery.
pub const AGENT: &str = concat!("hookcast/", env!("CARGO_PKG_VERSION"));

const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const HOOKCAST_ATTEMPT: HeaderName = HeaderName::from_static("hookcast-attempt");
const HOOKCAST_SUBSCRIPTION: HeaderName = HeaderName::from_static("hookcast-subscription");

/// What all attempts of one subscription share.
#[derive(Debug)]
pub struct Address {
    target: PreparedTarget,
    headers: HeaderMap,
    signer: Signer,
    /// Longest whole attempt.
    pub timeout: Duration,
    /// What the body is.
    pub payload: PayloadForm,
}

impl Address {
    /// Prepares a checked definition.
    ///
    /// # Errors
    /// When the stored URL or a key is no longer one; the attempt then fails as `protocol`.
    pub fn of(spec: &SubscriptionSpec, tls: &Tls) -> Result<Self, Box<dyn std::error::Error>> {
        let target = PreparedTarget::new(Target::parse(&spec.url)?, tls)?;
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(HOOKCAST_SUBSCRIPTION, HeaderValue::from_str(spec.id.as_str())?);
        for (name, value) in &spec.headers {
            let mut value = HeaderValue::from_str(value)?;
            value.set_sensitive(name == AUTHORIZATION.as_str());
            headers.insert(HeaderName::from_bytes(name.as_bytes())?, value);
        }
        let signer = Signer::prepare(&spec.signature)?;
        Ok(Self { target, headers, signer, timeout: spec.timeout, payload: spec.payload })
    }

    /// The header that signs `body` at `now`; `None` for an unsigned subscription.
    fn sign(&self, webhook_id: &str, now: Timestamp, body: &[u8]) -> Option<(HeaderName, HeaderValue)> {
        let mut text = BytesMut::with_capacity(64);
        let name = self.signer.sign(&Message { id: webhook_id, at: now, body }, &mut text)?;
        Some((HeaderName::from_static(name), HeaderValue::from_maybe_shared(text.freeze()).ok()?))
    }
}

/// Posts `content` once. `attempt` is 1 for the first.
pub async fn post(client: &WireClient, address: &Rc<Address>, content: &Content, attempt: u32, now: Timestamp) -> Outcome {
    let mut extra = Vec::with_capacity(content.headers.len() + 3);
    extra.extend_from_slice(&content.headers);
    extra.push((WEBHOOK_TIMESTAMP, HeaderValue::from(now.as_secs())));
    extra.extend(address.sign(&content.webhook_id, now, &content.body));
    extra.push((HOOKCAST_ATTEMPT, HeaderValue::from(attempt)));
    let request = PostRequest { target: &address.target, headers: &address.headers, extra: &extra, body: content.body.clone() };
    let began = std::time::Instant::now();
    let answer = client.post(request, address.timeout).await;
    let latency_ms = u32::try_from(began.elapsed().as_millis()).unwrap_or(u32::MAX);
    match answer {
        Ok(answer) => outcome_of(&answer, latency_ms),
        Err(failure) => failed(kind_of(&failure), latency_ms),
    }
}

fn outcome_of(answer: &WireAnswer, latency_ms: u32) -> Outcome {
    let error = match answer.status {
        200..300 => None,
        300..400 if answer.status != 304 => Some(ErrorKind::RedirectNotFollowed),
        _ => Some(ErrorKind::Status),
    };
    let failed = error.is_some();
    Outcome {
        status: Some(answer.status),
        error,
        latency_ms,
        retry_after: if failed { answer.retry_after().map(str::to_owned) } else { None },
        word: if failed { answer.webhook_delivery().map(|word| word.trim().to_ascii_lowercase()) } else { None },
        body_head: if failed { answer.body_head.to_vec() } else { Vec::new() },
    }
}

/// An outcome without an answer.
#[must_use]
pub fn failed(kind: ErrorKind, latency_ms: u32) -> Outcome {
    Outcome { status: None, error: Some(kind), latency_ms, retry_after: None, word: None, body_head: Vec::new() }
}

fn kind_of(failure: &WireFailure) -> ErrorKind {
    match failure.slug() {
        "dns_nxdomain" => ErrorKind::DnsNxdomain,
        "dns_servfail" => ErrorKind::DnsServfail,
        "dns_timeout" => ErrorKind::DnsTimeout,
        "dns_empty" => ErrorKind::DnsEmpty,
        "dns_error" => ErrorKind::DnsError,
        "blocked_address" => ErrorKind::BlockedAddress,
        "connect" => ErrorKind::Connect,
        "connect_timeout" => ErrorKind::ConnectTimeout,
        "tls" => ErrorKind::Tls,
        "tls_timeout" => ErrorKind::TlsTimeout,
        "reset" => ErrorKind::Reset,
        "eof" => ErrorKind::Eof,
        "timeout" => ErrorKind::Timeout,
        _ => ErrorKind::Protocol,
    }
}
