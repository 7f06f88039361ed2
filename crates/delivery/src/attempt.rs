//! One attempt: address, sign, post, classify. Gives an [`Outcome`], never an error.
//!
//! What does not change between attempts of a subscription is prepared once. It does not decide what follows.

use std::rc::Rc;
use std::time::{Duration, Instant};

use actix_http::header::{AUTHORIZATION, HeaderName, HeaderValue, USER_AGENT};

use super::filled::Filled;
use super::job::Job;
use super::parcel::Content;
use super::tokens::{TokenSource, Tokens};
use hookcast_core::clock::Timestamp;
use hookcast_core::model::outcome::{Answer, Directive, Ending};
use hookcast_core::model::subscription::{Auth, PayloadForm, SubscriptionSpec};
use hookcast_core::model::{ErrorKind, JobId, Outcome};
use hookcast_core::signature::{Message, Signer, hub};
use hookcast_net::client::{AuthKey, HeaderLines, PostRequest, PreparedTarget, WireAnswer, WireClient, WireFailure};
use hookcast_net::dial::DialError;
use hookcast_net::resolve::DnsError;
use hookcast_net::target::Target;
use hookcast_net::tls::Tls;
use hookcast_net::token::{TokenEndpoint, TokenError, basic, bearer};

/// The `user-agent` of every delivery.
pub const AGENT: &str = concat!("hookcast/", env!("CARGO_PKG_VERSION"));

const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const HOOKCAST_ATTEMPT: HeaderName = HeaderName::from_static("hookcast-attempt");
const HOOKCAST_REPLAY: HeaderName = HeaderName::from_static("hookcast-replay");
/// What `WebSub` calls the header of the scheme `hub`.
const X_HUB_SIGNATURE: HeaderName = HeaderName::from_static("x-hub-signature");
const HOOKCAST_SUBSCRIPTION: HeaderName = HeaderName::from_static("hookcast-subscription");
/// Room for the lines of one attempt besides the values of signatures.
const STAMP_BYTES: usize = 112;

/// What all attempts of one subscription share.
#[derive(Debug)]
pub struct Address {
    target: PreparedTarget,
    headers: HeaderLines,
    /// Those that share a header stand side by side.
    signers: Vec<(HeaderName, Signer)>,
    stamp_bytes: usize,
    /// Where the token comes from that is shown, if one is.
    tokens: Option<Rc<TokenSource>>,
    /// Longest whole attempt.
    pub timeout: Duration,
    /// What the body is.
    pub payload: PayloadForm,
    /// The body's template, in that form.
    pub filled: Option<Box<Filled>>,
}

impl Address {
    /// Prepares a checked definition; `tokens` are those of the lane.
    ///
    /// # Errors
    /// When the stored URL, a key or a certificate is no longer one; the attempt then fails as `protocol`.
    pub fn of(spec: &SubscriptionSpec, tls: &Tls, tokens: &mut Tokens) -> Result<Self, Box<dyn std::error::Error>> {
        let mut signers = Vec::with_capacity(spec.signatures.len());
        for signature in &spec.signatures {
            let signer = Signer::prepare(signature)?;
            if let Some(name) = signer.header() {
                signers.push((HeaderName::from_static(name), signer));
            }
        }
        signers.sort_by(|a, b| a.0.as_str().cmp(b.0.as_str()));
        let mut headers = HeaderLines::default();
        headers.push(&USER_AGENT, AGENT);
        headers.push(&HOOKCAST_SUBSCRIPTION, HeaderValue::from_str(spec.id.as_str())?);
        for (name, value) in &spec.headers {
            let name = HeaderName::from_bytes(name.as_bytes())?;
            // No name may stand there twice: the signature comes instead of a header that only looks like one.
            if !signers.iter().any(|(signed, _)| *signed == name) {
                headers.push(&name, HeaderValue::from_str(value)?);
            }
        }
        let own_tls = own_tls(spec, tls)?;
        let mut target = PreparedTarget::new(Target::parse(&spec.url)?, own_tls.as_ref().unwrap_or(tls))?;
        let mut source = None;
        match spec.auth.as_deref() {
            None | Some(Auth::Mtls { .. }) => {}
            Some(Auth::Bearer { token }) => {
                headers.push(&AUTHORIZATION, bearer(token.expose()));
                target = target.for_credentials(AuthKey::of(&["bearer", token.expose()]));
            }
            Some(Auth::Basic { username, password }) => {
                headers.push(&AUTHORIZATION, basic(username, password.expose()));
                target = target.for_credentials(AuthKey::of(&["basic", username, password.expose()]));
            }
            Some(Auth::Oauth2 { token_url, client_id, client_secret, scopes }) => {
                // The secret is part of the key: who knows a client's name only is not shown its token.
                let ca = spec.ca_pem.as_deref();
                let client = (client_id.as_str(), client_secret.expose());
                let key = AuthKey::of(&["oauth2", token_url, client.0, client.1, &scopes.join(" "), ca.unwrap_or_default()]);
                let make = || -> Result<TokenEndpoint, Box<dyn std::error::Error>> {
                    // Often it is somebody else's than the endpoint, with a certificate that everybody trusts.
                    let tls = ca.map_or_else(|| Ok(tls.clone()), |ca| tls.also(ca))?;
                    Ok(TokenEndpoint::new(token_url, tls, client, scopes)?)
                };
                source = Some(tokens.source(&key, make)?);
                target = target.for_credentials(key);
            }
        }
        let stamp_bytes = STAMP_BYTES + signers.iter().map(|(_, signer)| signer.value_bytes()).sum::<usize>();
        let filled = spec.template.as_deref().map(|template| Box::new(Filled::of(template)));
        let (timeout, payload) = (spec.timeout, spec.payload);
        Ok(Self { target, headers, signers, stamp_bytes, tokens: source, timeout, payload, filled })
    }

    /// Puts the `hub` signature also under the name that `WebSub` gives it.
    pub fn sign_for_websub(&mut self) {
        let signer = self.signers.iter().find(|(name, _)| *name == hub::HEADER).map(|(_, signer)| signer.clone());
        self.stamp_bytes += signer.as_ref().map_or(0, Signer::value_bytes);
        self.signers.extend(signer.map(|signer| (X_HUB_SIGNATURE, signer)));
    }

    /// The lines that are new each attempt: time, signatures, number.
    fn stamp(&self, content: &Content, attempt: u32, now: Timestamp) -> HeaderLines {
        let mut stamp = HeaderLines::with_capacity(self.stamp_bytes);
        stamp.push_number(&WEBHOOK_TIMESTAMP, now.as_secs());
        let message = Message { id: &content.webhook_id, at: now, body: &content.body };
        for line in self.signers.chunk_by(|a, b| a.0 == b.0) {
            stamp.push_written(&line[0].0, |value| {
                for (index, (_, signer)) in line.iter().enumerate() {
                    if index > 0 {
                        value.push(b' ');
                    }
                    signer.sign(&message, value);
                }
            });
        }
        stamp.push_number(&HOOKCAST_ATTEMPT, attempt);
        stamp
    }
}

/// Which attempt it is.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// 1 for the first.
    pub attempt: u32,
    /// The recovery job that wants it.
    pub replay: Option<JobId>,
}

impl Mark {
    /// As a job says.
    #[must_use]
    pub fn of(job: &Job) -> Self {
        Self { attempt: job.attempt, replay: job.replay() }
    }
}

/// Trust and identity of the subscription's own, if it has any.
pub(super) fn own_tls(spec: &SubscriptionSpec, tls: &Tls) -> Result<Option<Tls>, Box<dyn std::error::Error>> {
    let identity = match spec.auth.as_deref() {
        Some(Auth::Mtls { cert_pem, key_pem }) => Some((cert_pem.as_str(), key_pem.expose())),
        _ => None,
    };
    if spec.ca_pem.is_none() && identity.is_none() {
        return Ok(None);
    }
    Ok(Some(tls.with(spec.ca_pem.as_deref(), identity)?))
}

/// Posts `content` once.
pub async fn post(client: &WireClient, address: &Address, content: &Content, mark: Mark, now: Timestamp) -> Outcome {
    let began = tokio::time::Instant::now().into_std();
    let mut stamp = address.stamp(content, mark.attempt, now);
    if let Some(job) = mark.replay {
        stamp.push(&HOOKCAST_REPLAY, job.to_string());
    }
    match &address.tokens {
        None => send(client, address, content, &stamp, began).await,
        // In a box, so that those without a token need no room for it.
        Some(tokens) => Box::pin(post_with_token(client, address, tokens, content, stamp, (began, now))).await,
    }
}

/// Posts with a token; once more with a new one if the endpoint says 401, inside the same timeout.
async fn post_with_token(
    client: &WireClient,
    address: &Address,
    tokens: &TokenSource,
    content: &Content,
    stamp: HeaderLines,
    (began, now): (Instant, Timestamp),
) -> Outcome {
    let gate = client.gate();
    let mut is_again = false;
    loop {
        let token = match tokens.token(&gate, now, address.timeout.saturating_sub(began.elapsed())).await {
            Ok(token) => token,
            Err(error) => return without_token(&error, began),
        };
        let mut stamp = stamp.clone();
        stamp.push_written(&AUTHORIZATION, |value| {
            value.extend_from_slice(b"Bearer ");
            value.extend_from_slice(token.as_bytes());
        });
        let outcome = send(client, address, content, &stamp, began).await;
        if outcome.status() != Some(401) || is_again {
            return outcome;
        }
        tokens.refuse(&token);
        is_again = true;
    }
}

fn without_token(error: &TokenError, began: Instant) -> Outcome {
    let latency_ms = u32::try_from(began.elapsed().as_millis()).unwrap_or(u32::MAX);
    let kind = if matches!(error, TokenError::Own(_)) { ErrorKind::OwnFault } else { ErrorKind::Auth };
    Outcome { latency_ms, ending: Ending::Failed { kind, detail: error.to_string() } }
}

async fn send(client: &WireClient, address: &Address, content: &Content, stamp: &HeaderLines, began: Instant) -> Outcome {
    let lines = [&address.headers, &content.headers, stamp];
    let request = PostRequest { target: &address.target, lines: &lines, body: &content.body };
    let (answer, took) = client.post(request, began, address.timeout).await;
    let latency_ms = u32::try_from(took.as_millis()).unwrap_or(u32::MAX);
    match answer {
        Ok(answer) => outcome_of(answer, latency_ms),
        Err(failure) => Outcome::failed(failed_by(&failure), latency_ms),
    }
}

fn outcome_of(answer: WireAnswer, latency_ms: u32) -> Outcome {
    let WireAnswer { status, retry_after, webhook_delivery, body_head } = answer;
    let directive = webhook_delivery.as_deref().and_then(Directive::parse);
    let answer = Answer { directive, ..Answer::of(status) };
    // Of what was taken, nothing more is looked at.
    let answer = if answer.error().is_none() { answer } else { Answer { retry_after, body_head, ..answer } };
    Outcome::answered(answer, latency_ms)
}

/// What a failure of the wire is called in the list of attempts.
fn failed_by(failure: &WireFailure) -> ErrorKind {
    match failure {
        WireFailure::Dial(error) => not_dialled_by(error),
        WireFailure::Reset => ErrorKind::Reset,
        WireFailure::Eof => ErrorKind::Eof,
        WireFailure::Timeout => ErrorKind::Timeout,
        WireFailure::Protocol(_) => ErrorKind::Protocol,
    }
}

fn not_dialled_by(error: &DialError) -> ErrorKind {
    match error {
        DialError::Dns(DnsError::Nxdomain) => ErrorKind::DnsNxdomain,
        DialError::Dns(DnsError::Servfail(_)) => ErrorKind::DnsServfail,
        DialError::Dns(DnsError::Timeout) => ErrorKind::DnsTimeout,
        DialError::Dns(DnsError::Empty) => ErrorKind::DnsEmpty,
        DialError::Dns(DnsError::Broken(_)) => ErrorKind::DnsError,
        // Whatever it is that the rules refuse: the address, its name, the port, plain http.
        DialError::Refused(_) => ErrorKind::BlockedAddress,
        DialError::Own(_) | DialError::Dns(DnsError::Own(_)) => ErrorKind::OwnFault,
        DialError::Connect { .. } => ErrorKind::Connect,
        DialError::ConnectTimeout => ErrorKind::ConnectTimeout,
        DialError::Reset(_) => ErrorKind::Reset,
        DialError::Tls(_) => ErrorKind::Tls,
        DialError::TlsTimeout => ErrorKind::TlsTimeout,
    }
}
