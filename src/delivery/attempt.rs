//! One attempt: address, sign, post, classify. Gives an [`Outcome`], never an error.
//!
//! What does not change between attempts of a subscription is prepared once. It does not decide what follows.

use std::time::{Duration, Instant};

use actix_http::header::{HeaderName, HeaderValue, USER_AGENT};

use super::parcel::Content;
use crate::clock::Timestamp;
use crate::model::subscription::{PayloadForm, SubscriptionSpec};
use crate::model::{ErrorKind, Outcome};
use crate::net::client::{HeaderLines, PostRequest, PreparedTarget, WireAnswer, WireClient, WireFailure};
use crate::net::target::Target;
use crate::net::tls::Tls;
use crate::signature::{Message, Signer, hub};

/// The `user-agent` of every delivery.
pub const AGENT: &str = concat!("hookcast/", env!("CARGO_PKG_VERSION"));

const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const HOOKCAST_ATTEMPT: HeaderName = HeaderName::from_static("hookcast-attempt");
const HOOKCAST_SUBSCRIPTION: HeaderName = HeaderName::from_static("hookcast-subscription");
/// Room for the lines of one attempt with one signature.
const STAMP_BYTES: usize = 160;

/// What all attempts of one subscription share.
#[derive(Debug)]
pub struct Address {
    target: PreparedTarget,
    headers: HeaderLines,
    signers: Vec<(HeaderName, Signer)>,
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
        let mut headers = HeaderLines::default();
        headers.push(&USER_AGENT, AGENT);
        headers.push(&HOOKCAST_SUBSCRIPTION, HeaderValue::from_str(spec.id.as_str())?);
        for (name, value) in &spec.headers {
            headers.push(&HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_str(value)?);
        }
        let mut signers = Vec::with_capacity(spec.signatures.len());
        for signature in &spec.signatures {
            let signer = Signer::prepare(signature)?;
            if let Some(name) = signer.header() {
                signers.push((HeaderName::from_static(name), signer));
            }
        }
        Ok(Self { target, headers, signers, timeout: spec.timeout, payload: spec.payload })
    }

    /// Puts the `hub` signature also under the name that `WebSub` gives it.
    pub fn sign_for_websub(&mut self) {
        let hub = self.signers.iter().find(|(name, _)| *name == hub::HEADER).map(|(_, signer)| signer.clone());
        self.signers.extend(hub.map(|signer| (HeaderName::from_static(hub::WEBSUB_HEADER), signer)));
    }

    /// The lines that are new each attempt: time, signature, number.
    fn stamp(&self, content: &Content, attempt: u32, now: Timestamp) -> HeaderLines {
        let mut stamp = HeaderLines::with_capacity(STAMP_BYTES);
        stamp.push_number(&WEBHOOK_TIMESTAMP, now.as_secs());
        for (name, signer) in &self.signers {
            let message = Message { id: &content.webhook_id, at: now, body: &content.body };
            stamp.push_written(name, |line| {
                signer.sign(&message, line);
            });
        }
        stamp.push_number(&HOOKCAST_ATTEMPT, attempt);
        stamp
    }
}

/// Posts `content` once. `attempt` is 1 for the first.
pub async fn post(client: &WireClient, address: &Address, content: &Content, attempt: u32, now: Timestamp) -> Outcome {
    let stamp = address.stamp(content, attempt, now);
    let lines = [&address.headers, &content.headers, &stamp];
    let request = PostRequest { target: &address.target, lines: &lines, body: &content.body };
    let (answer, took) = client.post(request, Instant::now(), address.timeout).await;
    let latency_ms = u32::try_from(took.as_millis()).unwrap_or(u32::MAX);
    match answer {
        Ok(answer) => outcome_of(answer, latency_ms),
        Err(failure) => failed(kind_of(&failure), latency_ms),
    }
}

fn outcome_of(answer: WireAnswer, latency_ms: u32) -> Outcome {
    let error = match answer.status {
        200..300 => None,
        300..400 if answer.status != 304 => Some(ErrorKind::RedirectNotFollowed),
        _ => Some(ErrorKind::Status),
    };
    let outcome =
        Outcome { status: Some(answer.status), error, latency_ms, retry_after: None, word: None, body_head: Vec::new() };
    if error.is_none() {
        return outcome;
    }
    let word = answer.webhook_delivery.map(|word| word.trim().to_ascii_lowercase());
    Outcome { retry_after: answer.retry_after, word, body_head: answer.body_head, ..outcome }
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
