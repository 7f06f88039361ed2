//! One question to one endpoint: does it want deliveries? Sends what `verify` says, judges the answer, decides nothing more.
//!
//! `challenge`: a signed GET with a random challenge in its query, to be echoed; who does not know GET gets a signed POST.
//! `cloudevents`: OPTIONS as in CloudEvents "HTTP 1.1 Web Hooks for Event Delivery" 1.0, section 4. Everything goes through the
//! one gate out, inside the subscription's `timeout`; redirects are never followed.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use subtle::ConstantTimeEq as _;
use tokio::time::Instant;

use super::callback;
use crate::attempt::{AGENT, own_tls};
use hookcast_core::clock::Timestamp;
use hookcast_core::model::subscription::{SubscriptionRecord, SubscriptionSpec, Verify};
use hookcast_core::model::{Attempt, ErrorKind, Seq};
use hookcast_core::signature::{Message, Signer};
use hookcast_net::dial::Gate;
use hookcast_net::fetch::{FetchError, FetchRequest, Fetcher, HeaderMap, HeaderName, HeaderValue, Method};
use hookcast_net::peers::Answered;
use hookcast_net::shortage::Shortage;
use hookcast_net::target::Target;
use hookcast_net::tls::Tls;
use hookcast_supervise::deadline::within;

mod shown;

pub use self::shown::HeldToken;
use self::shown::Missing;

/// Read of an answer; a longer one is no echo.
pub const ANSWER_BYTES_MAX: usize = 4 * 1024;
/// Random bytes of a challenge.
const CHALLENGE_BYTES: usize = 32;

const REQUEST_ORIGIN: &str = "webhook-request-origin";
const REQUEST_RATE: &str = "webhook-request-rate";
const REQUEST_CALLBACK: &str = "webhook-request-callback";
const ALLOWED_ORIGIN: &str = "webhook-allowed-origin";
/// The header of answers, and of a later consent.
pub const ALLOWED_RATE: &str = "webhook-allowed-rate";

/// What questions are asked with.
#[derive(Clone, Debug)]
pub struct Asker {
    /// The way out.
    pub gate: Gate,
    /// Trust for https endpoints.
    pub tls: Tls,
    /// Under which name.
    pub identity: Identity,
}

/// How the relay calls itself.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The name under which it asks.
    pub origin: Arc<str>,
    /// Where it is reached from outside, without a slash at its end, if that is known.
    pub public_url: Option<Arc<str>>,
}

/// Why there is no consent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No answer; the word of the failure.
    Wire(&'static str),
    /// Nothing was asked: the relay lacked what it takes.
    Own(Shortage),
    /// A status other than 2xx.
    Status(u16),
    /// The challenge did not come back.
    WrongEcho,
    /// No `WebHook-Allowed-Origin`, or another one.
    OriginNotAllowed,
    /// A `WebHook-Allowed-Rate` that allows nothing, or is no number.
    NoRate,
    /// The definition cannot be put into a request.
    Unusable,
}

impl Refusal {
    /// The same when something went out before: a shortage now does not make that unsaid, and asking is bounded.
    fn once_asked(self) -> Self {
        match self {
            Self::Own(_) => Self::Wire(ErrorKind::OwnFault.word()),
            other => other,
        }
    }

    /// The word of attempts and of `status`.
    #[must_use]
    pub fn word(&self) -> String {
        match self {
            Self::Wire(word) => (*word).to_owned(),
            Self::Own(_) => ErrorKind::OwnFault.word().to_owned(),
            Self::Status(status @ (300..=303 | 305..=399)) => format!("redirect_not_followed ({status})"),
            Self::Status(status) => format!("status_{status}"),
            Self::WrongEcho => "wrong_echo".to_owned(),
            Self::OriginNotAllowed => "origin_not_allowed".to_owned(),
            Self::NoRate => "rate_not_allowed".to_owned(),
            Self::Unusable => "protocol".to_owned(),
        }
    }
}

impl From<Missing> for Refusal {
    fn from(missing: Missing) -> Self {
        match missing {
            Missing::Own(shortage) => Self::Own(shortage),
            Missing::Token => Self::Wire("auth"),
            Missing::Unusable => Self::Unusable,
        }
    }
}

/// What came of a question.
#[derive(Debug)]
pub struct Asked {
    /// Deliveries a minute that are allowed (`None` = any number), or why none is.
    pub verdict: Result<Option<u32>, Refusal>,
    /// The attempt as it is shown.
    pub attempt: Attempt,
    /// The token of a question that was not asked after all, so that who gave it is not asked again each time that it is tried.
    pub token: Option<HeldToken>,
}

impl Asked {
    /// Whether nothing was asked, for a shortage of the relay's own.
    #[must_use]
    pub fn is_own_fault(&self) -> bool {
        matches!(self.verdict, Err(Refusal::Own(_)))
    }

    /// A question over which the relay itself broke.
    #[must_use]
    pub fn broken(at: Timestamp) -> Self {
        let refusal = Refusal::Wire(ErrorKind::Internal.word());
        let error = Some(refusal.word());
        let outcome = "failure".to_owned();
        let attempt = Attempt { seq: Seq::ZERO, n: 1, at, outcome, status: None, latency_ms: 0, response: None, error };
        Self { verdict: Err(refusal), attempt, token: None }
    }
}

/// A random text that only its receiver can know.
///
/// # Panics
/// When the system has no random bytes.
#[must_use]
pub fn challenge() -> String {
    let mut bytes = [0; CHALLENGE_BYTES];
    getrandom::fill(&mut bytes).expect("invariant: the system has random bytes");
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Whether two texts are the same, in a time that does not tell where they differ.
#[must_use]
pub fn is_same(given: &[u8], wanted: &str) -> bool {
    given.ct_eq(wanted.as_bytes()).into()
}

impl Asker {
    /// Asks once, inside the subscription's `timeout`. `token` is what is left of a question that was not asked.
    ///
    /// # Cancellation
    /// Dropping the future closes the connection in use.
    pub async fn ask(&self, record: &SubscriptionRecord, token: Option<HeldToken>, now: Timestamp) -> Asked {
        let spec = &record.spec;
        let mut token = token.filter(|token| token.is_good(now));
        let began = Instant::now();
        let mut answer = Answer::default();
        let asking = async {
            match spec.verify {
                Verify::Challenge => self.challenge(spec, now, &mut token, &mut answer).await.map(|()| None),
                Verify::Cloudevents => self.cloudevents(record, now, &mut token, &mut answer).await,
                Verify::None => Ok(None),
            }
        };
        let verdict = within(spec.timeout, asking).await.unwrap_or(Err(Refusal::Wire("timeout")));
        let error = verdict.as_ref().err().map(Refusal::word);
        let attempt = Attempt {
            seq: Seq::ZERO,
            n: 1,
            at: now,
            outcome: if error.is_some() { "failure" } else { "success" }.to_owned(),
            status: answer.status,
            latency_ms: u32::try_from(began.elapsed().as_millis()).unwrap_or(u32::MAX),
            response: (error.is_some() && !answer.body.is_empty()).then(|| String::from_utf8_lossy(&answer.body).into_owned()),
            error,
        };
        let token = token.filter(|_| matches!(verdict, Err(Refusal::Own(_))));
        Asked { verdict, attempt, token }
    }

    async fn challenge(
        &self,
        spec: &SubscriptionSpec,
        now: Timestamp,
        token: &mut Option<HeldToken>,
        answer: &mut Answer,
    ) -> Result<(), Refusal> {
        let target = Target::parse(&spec.url).map_err(|_| Refusal::Unusable)?;
        let wanted = challenge();
        let with_challenge = target.with_query(&[("challenge", &wanted)]);
        let mut headers = headers(spec, &[], now)?;
        shown::authorize((&self.gate, &self.tls), spec, now, token, &mut headers).await?;
        let authorization = headers.get("authorization").cloned();
        let request = request(Method::GET, &with_challenge, headers, Bytes::new(), spec);
        self.send(spec, request, answer).await?;
        if !matches!(answer.status, Some(404 | 405 | 501)) {
            return answer.echoes(&wanted);
        }
        let wanted = challenge();
        let body = serde_json::json!({ "type": "hookcast.verification", "challenge": wanted }).to_string();
        let mut headers = self::headers(spec, body.as_bytes(), now)?;
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        headers.extend(authorization.map(|value| (HeaderName::from_static("authorization"), value)));
        let request = self::request(Method::POST, &target, headers, Bytes::from(body), spec);
        *answer = Answer::default();
        self.send(spec, request, answer).await.map_err(Refusal::once_asked)?;
        answer.echoes(&wanted)
    }

    async fn cloudevents(
        &self,
        record: &SubscriptionRecord,
        now: Timestamp,
        token: &mut Option<HeldToken>,
        answer: &mut Answer,
    ) -> Result<Option<u32>, Refusal> {
        let (spec, Identity { origin, public_url }) = (&record.spec, &self.identity);
        let target = Target::parse(&spec.url).map_err(|_| Refusal::Unusable)?;
        let mut headers = headers(spec, &[], now)?;
        shown::authorize((&self.gate, &self.tls), spec, now, token, &mut headers).await?;
        headers.insert(REQUEST_ORIGIN, HeaderValue::from_str(origin).map_err(|_| Refusal::Unusable)?);
        if let Some((base, path)) = public_url.as_deref().zip(callback::path(record)) {
            put(&mut headers, REQUEST_CALLBACK, &format!("{base}{path}"))?;
        }
        if let Some(limit) = spec.rate_limit {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive and at most a million a second")]
            let per_minute = (limit.per_second * 60.0).max(1.0) as u32;
            headers.insert(REQUEST_RATE, HeaderValue::from(per_minute));
        }
        self.send(spec, request(Method::OPTIONS, &target, headers, Bytes::new(), spec), answer).await?;
        answer.succeeded()?;
        allowed(&answer.headers, origin)
    }

    /// Sends one request and reads the head of its answer's body.
    async fn send(&self, spec: &SubscriptionSpec, request: FetchRequest<'_>, answer: &mut Answer) -> Result<(), Refusal> {
        if let Some(peers) = self.gate.peers() {
            let Answered { status, headers, body } = peers.ask(&request.method, request.target).await;
            *answer = Answer { status: Some(status), headers, body, is_whole: true };
            return Ok(());
        }
        let own = own_tls(spec, &self.tls).map_err(|_| Refusal::Unusable)?;
        let fetcher = Fetcher::new(self.gate.clone(), own.unwrap_or_else(|| self.tls.clone()));
        let unasked = |error: FetchError| error.own().map_or(Refusal::Wire(error.slug()), Refusal::Own);
        let mut response = fetcher.fetch(request).await.map_err(unasked)?;
        answer.status = Some(response.status);
        answer.headers = std::mem::take(&mut response.headers);
        let gathered = response.body.gather(ANSWER_BYTES_MAX, &mut answer.body).await;
        answer.is_whole = matches!(gathered, Ok(true));
        Ok(())
    }
}

/// An answer as far as it came.
#[derive(Debug, Default)]
struct Answer {
    status: Option<u16>,
    headers: HeaderMap,
    body: Vec<u8>,
    is_whole: bool,
}

impl Answer {
    fn succeeded(&self) -> Result<(), Refusal> {
        match self.status {
            Some(200..300) => Ok(()),
            Some(status) => Err(Refusal::Status(status)),
            None => Err(Refusal::Wire("eof")),
        }
    }

    /// 2xx with the challenge as the body, or as the member `challenge` of a JSON object.
    fn echoes(&self, wanted: &str) -> Result<(), Refusal> {
        self.succeeded()?;
        let body = self.body.trim_ascii();
        let inside = serde_json::from_slice::<serde_json::Value>(body).ok();
        let inside = inside.as_ref().and_then(|value| value.get("challenge")?.as_str());
        let is_echo = is_same(body, wanted) || inside.is_some_and(|given| is_same(given.as_bytes(), wanted));
        if self.is_whole && is_echo { Ok(()) } else { Err(Refusal::WrongEcho) }
    }
}

/// What a 2xx answer to OPTIONS allows.
fn allowed(headers: &HeaderMap, origin: &str) -> Result<Option<u32>, Refusal> {
    let texts = |name| headers.get_all(name).iter().filter_map(|value: &HeaderValue| value.to_str().ok()).map(str::trim);
    if !texts(ALLOWED_ORIGIN).any(|given| given == "*" || given.eq_ignore_ascii_case(origin)) {
        return Err(Refusal::OriginNotAllowed);
    }
    texts(ALLOWED_RATE).next().map_or(Ok(None), read_rate)
}

/// Reads `WebHook-Allowed-Rate`: deliveries a minute; `None` for `*`, any number.
///
/// # Errors
/// [`Refusal::NoRate`] when it allows none, or is no number.
pub fn read_rate(text: &str) -> Result<Option<u32>, Refusal> {
    if text == "*" {
        return Ok(None);
    }
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    // More than fits is no limit that anybody feels.
    let rate = digits.then(|| text.parse().unwrap_or(u32::MAX)).filter(|rate| *rate > 0);
    rate.map(Some).ok_or(Refusal::NoRate)
}

fn request<'a>(method: Method, target: &'a Target, headers: HeaderMap, body: Bytes, spec: &SubscriptionSpec) -> FetchRequest<'a> {
    FetchRequest { method, target, headers, body, head_timeout: spec.timeout }
}

/// The headers of a question: the operator's own, who asks, and the signatures over its body.
fn headers(spec: &SubscriptionSpec, body: &[u8], now: Timestamp) -> Result<HeaderMap, Refusal> {
    let mut headers = HeaderMap::new();
    for (name, value) in &spec.headers {
        put(&mut headers, name, value)?;
    }
    put(&mut headers, "user-agent", AGENT)?;
    put(&mut headers, "hookcast-subscription", spec.id.as_str())?;
    let id = format!("verify_{}", uuid::Uuid::now_v7().simple());
    put(&mut headers, "webhook-id", &id)?;
    put(&mut headers, "webhook-timestamp", &now.as_secs().to_string())?;
    let mut lines: Vec<(&'static str, Vec<u8>)> = Vec::new();
    for signature in &spec.signatures {
        let signer = Signer::prepare(signature).map_err(|_| Refusal::Unusable)?;
        let Some(name) = signer.header() else { continue };
        // Values of schemes with one header stand in one line.
        let mut line = match lines.iter().position(|(other, _)| *other == name) {
            Some(place) => lines.swap_remove(place).1,
            None => Vec::new(),
        };
        if !line.is_empty() {
            line.push(b' ');
        }
        signer.sign(&Message { id: &id, at: now, body }, &mut line);
        lines.push((name, line));
    }
    for (name, line) in lines {
        headers.insert(name, HeaderValue::from_bytes(&line).map_err(|_| Refusal::Unusable)?);
    }
    Ok(headers)
}

fn put(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), Refusal> {
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| Refusal::Unusable)?;
    headers.insert(name, HeaderValue::from_str(value).map_err(|_| Refusal::Unusable)?);
    Ok(())
}

#[cfg(test)]
mod tests;
