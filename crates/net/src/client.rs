//! The delivery client: one POST, its answer or the way it failed.
//!
//! Owns the attempt's deadline, the one free retry on a stale connection, and what is read of an answer. One instance a lane, not
//! `Send`; needs a `LocalSet` or an actix arbiter around it. Must not know subscriptions, signatures or retry policy: a 3xx is an
//! answer like any other and is never followed, cookies are never kept.
//! Spec: API "What the callback receives"; guarantees 4 and 5.

mod alarm;
mod answer;
mod framing;
mod link;
mod origin;
mod request;

pub use actix_http::header::{HeaderName, HeaderValue};
pub use answer::{WireAnswer, WireFailure};
pub use origin::AuthKey;
pub use request::{HeaderLines, PostRequest, is_value};

use super::dial::Gate;
use super::peers::{Broken, Peers, Posted};
use super::target::Target;
use super::tls::Tls;
use actix_http::Uri;
use alarm::Alarm;
use hookcast_supervise::deadline::within;
use link::{Exchange, Link};
use origin::{Origin, OriginKey, Origins};
use std::cell::RefCell;
use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Kept of an answer's body.
pub const BODY_HEAD_BYTES_MAX: usize = 4 * 1024;
/// Read of an answer's body; a longer one costs the connection.
pub const BODY_READ_BYTES_MAX: usize = 64 * 1024;
/// Spent on an answer's body after the status is known.
pub const BODY_READ_TIMEOUT: Duration = Duration::from_secs(2);
/// Timers kept for the next request.
const ALARMS_MAX: usize = 4096;
/// Kept of the buffer that requests are built in.
const SCRATCH_BYTES_MAX: usize = 64 * 1024;

/// A target made ready for many requests: the first lines of a request, the URI, certificates.
#[derive(Debug, Clone)]
pub struct PreparedTarget {
    target: Arc<Target>,
    tls: Tls,
    uri: Uri,
    /// Request line and `host`.
    start: Arc<[u8]>,
    key: OriginKey,
}

/// A URL that the HTTP library cannot carry; not known to happen for a parsed [`Target`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the URL cannot be put into a request")]
pub struct UnusableTarget;

impl PreparedTarget {
    /// Prepares `target`; `tls` is used for https only.
    ///
    /// # Errors
    /// If the HTTP library refuses the canonical URL.
    pub fn new(target: Target, tls: &Tls) -> Result<Self, UnusableTarget> {
        let authority = target.authority();
        HeaderValue::from_str(&authority).map_err(|_| UnusableTarget)?;
        let start = format!("POST {} HTTP/1.1\r\nhost: {authority}\r\n", target.path_and_query());
        let uri = Uri::builder()
            .scheme("http")
            .authority(authority)
            .path_and_query(target.path_and_query())
            .build()
            .map_err(|_| UnusableTarget)?;
        let key = OriginKey::new(&target, tls);
        Ok(Self { target: Arc::new(target), tls: tls.clone(), uri, start: start.into_bytes().into(), key })
    }

    /// The same with connections of its own, shared only with those of the same credentials.
    pub fn for_credentials(mut self, auth: AuthKey) -> Self {
        self.key.auth = Some(Box::new(auth));
        self
    }

    /// The URL this was made from.
    pub fn target(&self) -> &Target {
        &self.target
    }
}

/// The POST client of one lane.
pub struct WireClient {
    /// Who answers instead of the wire.
    peers: Option<Arc<dyn Peers>>,
    origins: RefCell<Origins>,
    alarms: RefCell<Vec<Alarm>>,
    scratch: RefCell<Vec<u8>>,
}

impl std::fmt::Debug for WireClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WireClient").field("origins", &self.origins.borrow().len()).finish_non_exhaustive()
    }
}

impl WireClient {
    /// A client without connections.
    pub fn new(gate: Gate) -> Self {
        let peers = gate.peers().cloned();
        Self { peers, origins: RefCell::new(Origins::new(gate)), alarms: RefCell::default(), scratch: RefCell::default() }
    }

    /// Sends one POST, begun at `began`; `limit` covers DNS, connecting, TLS, sending and the answer's head.
    ///
    /// The body is then read for at most [`BODY_READ_TIMEOUT`]. A request on a kept connection that dies before the first
    /// byte of an answer is sent once more on a new connection, inside the same limit. Also gives how long it all took.
    ///
    /// # Errors
    /// See [`WireFailure`].
    ///
    /// # Cancellation
    /// Dropping the future closes the connection in use.
    pub async fn post(
        &self,
        request: PostRequest<'_>,
        began: Instant,
        limit: Duration,
    ) -> (Result<WireAnswer, WireFailure>, Duration) {
        if let Some(peers) = &self.peers {
            return Box::pin(post_to(&**peers, request, began, limit)).await;
        }
        let mut alarm = self.alarm(began + limit);
        let mut origin = self.origins.borrow_mut().get(request.target);
        let mut outcome = self.exchange(&origin, &request, began, false, &mut alarm).await;
        if let Err(Failed { failure, is_stale }) = &outcome {
            let is_protocol = matches!(failure, WireFailure::Protocol(_));
            if *is_stale || is_protocol {
                self.origins.borrow_mut().forget(&request.target.key, &origin);
            }
            if *is_stale && !is_protocol {
                origin = self.origins.borrow_mut().get(request.target);
                outcome = self.exchange(&origin, &request, began, true, &mut alarm).await;
            }
        }
        self.keep_alarm(alarm);
        let ended = Instant::now();
        let answer = outcome.map_err(|failed| failed.failure).and_then(|exchange| {
            let (answer, link) = exchange.finish(ended);
            if let Some(link) = link {
                origin.keep(link);
            }
            answer.ok_or(WireFailure::Eof)
        });
        (answer, ended.saturating_duration_since(began))
    }

    /// Drops the connections of origins without a request since the last sweep; call it every few seconds.
    pub fn sweep(&self) {
        self.origins.borrow_mut().sweep();
    }

    /// The way out that it uses.
    pub fn gate(&self) -> Gate {
        self.origins.borrow().gate.clone()
    }

    /// How many origins are kept warm.
    pub fn origins(&self) -> usize {
        self.origins.borrow().len()
    }

    /// One try: a connection, the request, the answer.
    async fn exchange(
        &self,
        origin: &Origin,
        request: &PostRequest<'_>,
        began: Instant,
        anew: bool,
        alarm: &mut Alarm,
    ) -> Result<Exchange, Failed> {
        let _counted = InFlight::new(origin);
        let fresh = |failure| Failed { failure, is_stale: false };
        let idle = if anew { None } else { poll_fn(|cx| Poll::Ready(origin.take(cx, began))).await };
        let link: Link = if let Some(link) = idle {
            link
        } else {
            let mut dial = pin!(origin.dial());
            let dialled = poll_fn(|cx| before(alarm, cx, |cx| dial.as_mut().poll(cx))).await;
            dialled.ok_or_else(|| fresh(WireFailure::Timeout))?.map_err(fresh)?
        };
        let mut exchange = Exchange::new(link);
        let mut has_begun = false;
        let head = poll_fn(|cx| {
            if !has_begun {
                has_begun = true;
                self.begin(&mut exchange, request, cx);
            }
            before(alarm, cx, |cx| exchange.poll_head(cx))
        });
        match head.await {
            None => Err(fresh(WireFailure::Timeout)),
            Some(Err(failure)) => Err(Failed { failure, is_stale: exchange.is_stale() }),
            Some(Ok(())) => {
                // Nearly always the whole body came with the head: no timer is set up for that.
                if exchange.is_reading() {
                    // A slow body is no failure: the status has decided.
                    let _ = within(BODY_READ_TIMEOUT, poll_fn(|cx| exchange.poll_body(cx))).await;
                }
                Ok(exchange)
            }
        }
    }

    /// Builds the request and sends what the socket takes at once, which nearly always is all of it.
    fn begin(&self, exchange: &mut Exchange, request: &PostRequest<'_>, cx: &mut Context<'_>) {
        let mut scratch = self.scratch.borrow_mut();
        exchange.begin(cx, request, &mut scratch);
        if scratch.capacity() > SCRATCH_BYTES_MAX {
            *scratch = Vec::new();
        }
    }

    fn alarm(&self, until: Instant) -> Alarm {
        match self.alarms.borrow_mut().pop() {
            Some(mut alarm) => {
                alarm.set(until.into());
                alarm
            }
            None => Alarm::new(until.into()),
        }
    }

    fn keep_alarm(&self, alarm: Alarm) {
        let mut alarms = self.alarms.borrow_mut();
        if alarms.len() < ALARMS_MAX {
            alarms.push(alarm);
        }
    }
}

/// Gives a POST to who answers instead of the wire, under the same limit.
async fn post_to(
    peers: &dyn Peers,
    request: PostRequest<'_>,
    began: Instant,
    limit: Duration,
) -> (Result<WireAnswer, WireFailure>, Duration) {
    let answer = peers.post(Posted {
        url: request.target.target().as_str().to_owned(),
        lines: request.lines.iter().flat_map(|lines| lines.as_bytes()).copied().collect(),
        body: request.body.clone(),
    });
    let answer = match within(limit, answer).await {
        Some(Ok(mut answered)) => Ok(WireAnswer {
            status: answered.status,
            retry_after: answered.text("retry-after"),
            webhook_delivery: answered.text("webhook-delivery"),
            body_head: {
                answered.body.truncate(BODY_HEAD_BYTES_MAX);
                answered.body
            },
        }),
        Some(Err(Broken::Reset)) => Err(WireFailure::Reset),
        Some(Err(Broken::Eof)) => Err(WireFailure::Eof),
        None => Err(WireFailure::Timeout),
    };
    (answer, tokio::time::Instant::now().duration_since(began.into()))
}

/// A try that brought no answer.
struct Failed {
    failure: WireFailure,
    /// A kept connection died before it said anything.
    is_stale: bool,
}

/// What `poll` gives, or `None` once the deadline has passed and nothing was left to look at.
fn before<T>(alarm: &mut Alarm, cx: &mut Context<'_>, poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<Option<T>> {
    match poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => alarm.poll(cx).map(|()| None),
    }
}

/// Keeps an origin from being swept while a request is on its way.
struct InFlight<'a>(&'a Origin);

impl<'a> InFlight<'a> {
    fn new(origin: &'a Origin) -> Self {
        origin.in_flight.set(origin.in_flight.get() + 1);
        Self(origin)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}
